"""Reads what a partial success of any signal says."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse


def rejected_items(response: bytes) -> int:
    """Return how many spans, log records, data points or profiles a partial success rejects: the responses of all
    signals have the same numbers of fields and differ in names only. 0 for a response that cannot be read, since its
    status was OK. The message of a partial success stays unread: it may quote attribute values."""
    try:
        return ExportTraceServiceResponse.FromString(response).partial_success.rejected_spans
    except DecodeError:
        return 0
