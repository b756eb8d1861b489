"""Splits a finished ExportTraceServiceRequest between its spans: pure functions over bytes.

Requests come from `stamp.assemble`, so their structure is sound, and every field that is not on the way to a span
belongs to the header of its resource or scope, which each part repeats. Only requests larger than a destination's limit
come here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_LEN = 2
_RESOURCE_SPANS, _SCOPE_SPANS, _SPAN = 0x0A, 0x12, 0x12  # tags: field 1, 2 and 2
_FRAME = 1 + 5  # the most that the tag and the length of a message below 2 GiB take


class Split(NamedTuple):
    """One request, and how many spans it holds."""

    request: bytes
    spans: int


class _Span(NamedTuple):
    resource: bytes  # the headers above it
    scope: bytes
    field: memoryview  # with tag and length


def split(request: bytes, limit: int) -> Iterator[Split]:
    """Split `request` into requests of at most `limit` bytes, each span under the resource and scope that it had, in
    the same order. A span that is larger than that makes a request alone. Spans whose headers alone are as large stay
    together in one request: it would be too large with any one of them. Nothing is split where there is only one span,
    or where everything fits."""
    spans: list[_Span] = []
    size = 0
    resource = scope = None  # of the last span in `spans`; compared by identity
    for span in _spans(memoryview(request)):
        more = len(span.field)
        alike = span.scope is scope and span.resource is resource
        headers = 2 * _FRAME + len(span.scope) + len(span.resource)
        if not alike:
            more += _FRAME + len(span.scope)
        if span.resource is not resource:
            more += _FRAME + len(span.resource)
        if spans and size + more > limit and not (alike and headers >= limit):
            yield _joined(spans)
            spans, size = [], 0
            more = len(span.field) + headers
        spans.append(span)
        size += more
        resource, scope = span.resource, span.scope
    yield _joined(spans)


def _spans(request: memoryview) -> Iterator[_Span]:
    for _, resource_spans in _messages(request, _RESOURCE_SPANS, []):
        header: list[memoryview] = []
        scopes = [content for _, content in _messages(resource_spans, _SCOPE_SPANS, header)]
        resource = b"".join(header)
        for scope_spans in scopes:
            header = []
            fields = [field for field, _ in _messages(scope_spans, _SPAN, header)]
            scope = b"".join(header)
            for field in fields:
                yield _Span(resource, scope, field)


def _messages(data: memoryview, tag: int, rest: list[memoryview]) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield every field with this tag, whole and its content; append all others to `rest`."""
    at = 0
    while at < len(data):
        start = at
        found, at = _varint(data, at)
        wire = found & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == _LEN:
            length, at = _varint(data, at)
            content = data[at : at + length]
            at += length
        else:
            at += 8 if wire == 1 else 4
        if found == tag:
            yield data[start:at], content
        else:
            rest.append(data[start:at])


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _joined(spans: list[_Span]) -> Split:
    """Make one request of spans that follow one another."""
    resources: list[bytes] = []
    scopes: list[bytes] = []
    fields: list[bytes | memoryview] = []
    for number, span in enumerate(spans):
        fields.append(span.field)
        after = spans[number + 1] if number + 1 < len(spans) else None
        if after is None or after.scope is not span.scope or after.resource is not span.resource:
            scopes.append(_message(_SCOPE_SPANS, [span.scope, *fields]))
            fields = []
            if after is None or after.resource is not span.resource:
                resources.append(_message(_RESOURCE_SPANS, [span.resource, *scopes]))
                scopes = []
    return Split(b"".join(resources), len(spans))


def _message(tag: int, parts: list[bytes | memoryview]) -> bytes:
    length = sum(map(len, parts))
    prefix = bytearray([tag])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join([prefix, *parts])
