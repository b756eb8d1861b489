"""Encodes the metadata that a request came with, so that its spans stay with it, and decodes it for the way out.

Metadata are the request headers that `receive.metadata` names (of gRPC, the request's metadata). Encoded they are what
rules read attributes from: a ResourceSpans (opentelemetry/proto/trace/v1/trace.proto) with nothing but a resource,
whose attributes have PREFIX before the name. The pipeline lays it above the resources of a request: it takes no part in
redaction, and goes out in headers, never in a body.
"""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

PREFIX = "metadata."

Metadata = tuple[tuple[str, str], ...]
"""Names, in lower case, and values, of visible ASCII characters and spaces, in the order of the configuration."""


def encode(metadata: Iterable[tuple[str, str]]) -> bytes:
    """Encode pairs of name and value. b"": there are none."""
    message = ResourceSpans()
    for name, value in metadata:
        attribute = message.resource.attributes.add()
        attribute.key = PREFIX + name
        attribute.value.string_value = value
    return message.SerializeToString(deterministic=True)


def decode(encoded: bytes) -> Metadata:
    """Decode what `encode` has encoded."""
    attributes = ResourceSpans.FromString(encoded).resource.attributes
    return tuple((each.key.removeprefix(PREFIX), each.value.string_value) for each in attributes)
