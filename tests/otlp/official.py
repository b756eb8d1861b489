"""The official parser's verdict on an ExportTraceServiceRequest, with and without its opinion on UTF-8.

`Structure` is the same message in which every `string` is declared as `bytes`, so that the very same parser looks at
structure alone: what it accepts is exactly what the scan has to accept.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


def _without_text(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type == field.TYPE_STRING:
            field.type = field.TYPE_BYTES
    for nested in message.nested_type:
        _without_text(nested)


def _structure() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, trace_service_pb2):
        file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for message in file.message_type:
            _without_text(message)
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(ExportTraceServiceRequest.DESCRIPTOR.full_name))


Structure = _structure()


def structure(raw: bytes) -> Any:
    """The message, its strings as bytes; None where it is damaged."""
    try:
        return Structure.FromString(raw)
    except DecodeError:
        return None


def accepts(raw: bytes) -> bool:
    """With UTF-8 and all."""
    try:
        ExportTraceServiceRequest.FromString(raw)
    except DecodeError:
        return False
    return True
