"""Every place in a request for traces where a text can stand, found by walking the descriptors of the protocol.

A position is the way to a string or bytes field. Messages that contain themselves (AnyValue) are entered twice. The
exempt fields are named here; whatever else there is, or will be, is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

EXEMPT = {"trace_id", "span_id", "parent_span_id", "trace_state"}
DEPTH = 3  # of AnyValue in AnyValue

Position = tuple[FieldDescriptor, ...]


def positions() -> list[Position]:
    return list(_walk(ExportTraceServiceRequest.DESCRIPTOR, ()))


def _walk(descriptor: Descriptor, path: Position) -> Iterator[Position]:
    for field in descriptor.fields:
        here = (*path, field)
        if field.message_type is not None:
            if sum(step.message_type is field.message_type for step in path) < DEPTH:
                yield from _walk(field.message_type, here)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) and field.name not in EXEMPT:
            yield here


def name(position: Position) -> str:
    return ".".join(field.name for field in position)


def plant(position: Position, text: str, trace_id: bytes, noise: bool = False) -> ExportTraceServiceRequest:
    """A request with one valid span, and the text in the one place. `noise`: in bytes, between others."""
    request = ExportTraceServiceRequest()
    message: Any = request
    for field in position[:-1]:
        message = _enter(message, field)
    field = position[-1]
    value: Any = text
    if field.type == FieldDescriptor.TYPE_BYTES:
        value = b"\xff\x00" + text.encode() + b"\xfe" if noise else text.encode()
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
    _complete(request, trace_id)
    return request


def _enter(message: Message, field: FieldDescriptor) -> Message:
    if field.is_repeated:
        return getattr(message, field.name).add()  # type: ignore[no-any-return]
    found: Message = getattr(message, field.name)
    found.SetInParent()
    return found


def _complete(request: ExportTraceServiceRequest, trace_id: bytes) -> None:
    resource_spans: ResourceSpans = (
        request.resource_spans[0] if request.resource_spans else request.resource_spans.add()
    )
    scope_spans: ScopeSpans = (
        resource_spans.scope_spans[0] if resource_spans.scope_spans else resource_spans.scope_spans.add()
    )
    span: Span = scope_spans.spans[0] if scope_spans.spans else scope_spans.spans.add()
    span.trace_id = trace_id
    span.span_id = trace_id[8:]
