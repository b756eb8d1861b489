"""Names the signals of OTLP, where each is sent, and what a partial success of each says.

Source: OTLP specification 1.9, "OTLP/gRPC" and "OTLP/HTTP Request"; the services of opentelemetry-proto.
"""

from __future__ import annotations

from enum import Enum

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_COLLECTOR = "/opentelemetry.proto.collector"


class Signal(Enum):
    """A signal, by its gRPC method and the path behind an endpoint's base URL."""

    TRACES = (f"{_COLLECTOR}.trace.v1.TraceService/Export", "v1/traces")
    LOGS = (f"{_COLLECTOR}.logs.v1.LogsService/Export", "v1/logs")
    METRICS = (f"{_COLLECTOR}.metrics.v1.MetricsService/Export", "v1/metrics")
    PROFILES = (f"{_COLLECTOR}.profiles.v1development.ProfilesService/Export", "v1development/profiles")

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path


def rejected_items(response: bytes) -> int:
    """Return how many spans, log records, data points or profiles a partial success rejects: the responses of all
    signals have the same numbers of fields and differ in names only. 0 for a response that cannot be read, since its
    status was OK. The message of a partial success stays unread: it may quote attribute values."""
    try:
        return ExportTraceServiceResponse.FromString(response).partial_success.rejected_spans
    except DecodeError:
        return 0
