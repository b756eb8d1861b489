"""Splits a finished ExportTraceServiceRequest between its spans: pure functions over bytes.

Requests come from `stamp.assemble`, so their structure is sound, and every field that is not on the way to a span
belongs to the header of its resource or scope, which each part repeats. Only requests larger than a destination's limit
come here. A part is made when it is to be sent: headers just below the limit make a small request into many large ones.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

_LEN = 2
_RESOURCE_SPANS, _SCOPE_SPANS, _SPAN = 0x0A, 0x12, 0x12  # tags: field 1, 2 and 2
_FRAME = 1 + 5  # the most that the tag and the length of a message below 2 GiB take


class _Scope(NamedTuple):
    resource: bytes  # the headers; those of scopes under one resource are one object
    header: bytes
    first: int  # spans, by their numbers
    end: int
    unbroken: bool  # they follow one another without anything between them, so that they can be copied as one


class Layout:
    """The places of all spans in a request, numbered from 0, with the headers above them."""

    def __init__(self, request: bytes) -> None:
        """Read the structure of `request`, which is kept: no span is copied. Takes about 2 µs for each span."""
        self._request = memoryview(request)
        self._starts, self._ends = array("Q"), array("Q")  # of each span, with tag and length
        self._scopes: list[_Scope] = []
        for tag, _, content, end in _fields(request, 0, len(request)):
            if tag == _RESOURCE_SPANS:
                self._read_resource(request, content, end)
        self._firsts = [scope.first for scope in self._scopes]

    def __len__(self) -> int:
        return len(self._starts)

    def parts(self, first: int, end: int, limit: int) -> list[range]:
        """Divide the spans from `first` up to `end` into ranges whose requests have at most `limit` bytes. A span that
        is larger than that makes a request alone. Spans whose headers alone are as large stay together: their request
        would be too large with any one of them."""
        parts: list[range] = []
        begin, size = first, 0
        resource = None  # of the last span; compared by identity
        for scope in self._scopes_of(first, end):
            headers = 2 * _FRAME + len(scope.header) + len(scope.resource)
            more = _FRAME + len(scope.header) + (0 if scope.resource is resource else _FRAME + len(scope.resource))
            resource = scope.resource
            alike = False  # the span before has the same headers
            for span in range(max(first, scope.first), min(end, scope.end)):
                more += self._ends[span] - self._starts[span]
                if span > begin and size + more > limit and not (alike and headers >= limit):
                    parts.append(range(begin, span))
                    begin, size = span, 0
                    more = headers + self._ends[span] - self._starts[span]
                size += more
                more, alike = 0, True
        return [*parts, range(begin, end)]

    def request(self, spans: range) -> bytes:
        """Make the request of some spans that follow one another, each under the resource and scope that it had."""
        resources: list[bytes] = []
        scopes: list[bytes | memoryview] = []
        found = self._scopes_of(spans.start, spans.stop)
        for scope, after in zip(found, [*found[1:], None], strict=True):
            first, end = max(spans.start, scope.first), min(spans.stop, scope.end)
            if scope.unbroken:
                fields = [self._request[self._starts[first] : self._ends[end - 1]]]
            else:
                places = zip(self._starts[first:end], self._ends[first:end], strict=True)
                fields = [self._request[start:stop] for start, stop in places]
            scopes.append(_message(_SCOPE_SPANS, [scope.header, *fields]))
            if after is None or after.resource is not scope.resource:
                resources.append(_message(_RESOURCE_SPANS, [scope.resource, *scopes]))
                scopes = []
        return b"".join(resources)

    def _scopes_of(self, first: int, end: int) -> list[_Scope]:
        """Return the scopes with any of these spans, of which there is one at least."""
        return self._scopes[bisect_right(self._firsts, first) - 1 : bisect_right(self._firsts, end - 1)]

    def _read_resource(self, request: bytes, at: int, end: int) -> None:
        scopes, rest = [], []
        for tag, start, content, after in _fields(request, at, end):
            if tag == _SCOPE_SPANS:
                scopes.append((content, after))
            else:
                rest.append(request[start:after])
        resource = b"".join(rest)
        for begin, stop in scopes:
            first, rest = len(self._starts), []
            for tag, start, _, after in _fields(request, begin, stop):
                if tag == _SPAN:
                    self._starts.append(start)
                    self._ends.append(after)
                else:
                    rest.append(request[start:after])
            count = len(self._starts)
            if count > first:
                length = sum(self._ends[first:count]) - sum(self._starts[first:count])
                unbroken = self._ends[-1] - self._starts[first] == length
                self._scopes.append(_Scope(resource, b"".join(rest), first, count, unbroken))


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field between two places: its tag, and where the field, its content and what follows begin."""
    while at < end:
        start = at
        tag, at = _varint(data, at)
        wire = tag & 7
        content = at
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == _LEN:
            length, content = _varint(data, at)
            at = content + length
        else:
            at += 8 if wire == 1 else 4
        yield tag, start, content, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _message(tag: int, parts: list[bytes | memoryview]) -> bytes:
    length = sum(map(len, parts))
    prefix = bytearray([tag])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join([prefix, *parts])
