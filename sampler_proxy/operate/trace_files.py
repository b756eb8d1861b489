"""Reads trace files: OTLP as protobuf or as JSON, and which of the two is found out by trying.

Protobuf is one `ExportTraceServiceRequest` or `TracesData`; JSON is any number of them, one a line or printed over
several. A file is read whole into memory, without a bound. What is no such document (the last line of a file whose
writer crashed, a line of logs) is left out up to the next line that begins with a brace, and told; TraceFileError says
where a file has nothing else. Neither shows what the file holds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.config.file import STDIN
from sampler_proxy.errors import MalformedRequest, TraceFileError, printable
from sampler_proxy.otlp.json import request_of
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.rules.plan import Plan

MAX_LEFT_OUT = 10
"""Places of one file that are told one by one; of the rest the number is."""

_NOT_JSON = "not JSON"
_CUT_OFF = "not JSON, since the file ends within it"
_NOT_UTF8 = "neither OTLP protobuf nor JSON in UTF-8"
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # as `surrogateescape` decodes a byte
_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT = re.compile(r"\n[ \t\r\n]*(?=\n\{)|\n(?=\{)")  # before a line on which a document may begin


class LeftOut(NamedTuple):
    """A part of a trace file that is no document."""

    where: str  # FILE:LINE or FILE:LINE:COLUMN
    reason: str
    nbytes: int
    lines: int

    def __str__(self) -> str:
        amount = f"{_counted(self.nbytes, 'byte')} left out ({_counted(self.lines, 'line')})"
        return f"{self.where}: {self.reason}: {amount}"


class _NotADocumentError(Exception):
    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason


class Traces(NamedTuple):
    """One or more trace files as read."""

    requests: list[bytes]
    names: dict[tuple[bytes, bytes], str]
    """Service and span name by trace id and span id; empty for protobuf that the official parser refuses."""
    invalid: Counter[str]
    """Spans left out, by the field that is invalid: without valid ids a span belongs to no trace."""
    left_out: tuple[LeftOut, ...] = ()

    def joined(self, other: Traces) -> Traces:
        """Take the traces of another file as well: a trace may lie in both."""
        return Traces(
            self.requests + other.requests,
            {**other.names, **self.names},
            self.invalid + other.invalid,
            self.left_out + other.left_out,
        )

    def renamed(self, redacted: bytes) -> Traces:
        """Take the names from a redacted request of the same traces."""
        try:
            messages = [ExportTraceServiceRequest.FromString(redacted)]
        except DecodeError:  # as in `read`
            messages = []
        return self._replace(names=_names(messages))

    def remarks(self, path: str) -> Iterator[str]:
        """Say what is left out: damaged parts, with their positions, and how many spans, for each reason."""
        yield from map(str, self.left_out[:MAX_LEFT_OUT])
        if len(self.left_out) > MAX_LEFT_OUT:
            more = self.left_out[MAX_LEFT_OUT:]
            nbytes, lines = (sum(part) for part in zip(*((one.nbytes, one.lines) for one in more), strict=True))
            yield (
                f"{path}: {_counted(len(more), 'more place')} like these: {_counted(nbytes, 'byte')} left out "
                f"({_counted(lines, 'line')})"
            )
        for what, count in self.invalid.items():
            if count:
                yield f"{path}: {_counted(count, 'span')} left out: the {what} is not valid"


def read(path: str) -> Traces:
    """Read a trace file, or standard input. Raises TraceFileError."""
    try:
        with open(0 if path == STDIN else path, "rb", closefd=path != STDIN) as file:
            data = file.read()
    except OSError as error:
        raise TraceFileError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    path = printable(path)  # for messages, from here on
    invalid = _scan([data])
    # Protobuf is tried first: no JSON text happens to be a whole number of protobuf fields.
    if invalid is not None:
        try:
            messages = [ExportTraceServiceRequest.FromString(data)]
        except DecodeError:  # strings that are not UTF-8, or deep nesting: the service takes them
            messages = []
        return Traces([data], _names(messages), invalid)
    messages = []
    left_out: list[LeftOut] = []
    for found in _from_json(path, data):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            messages.append(found)
    requests = [message.SerializeToString() for message in messages]
    if left_out and not any(requests):
        first = left_out[0]
        also = ", nor is the file OTLP protobuf" if first.reason in (_NOT_JSON, _CUT_OFF) else ""
        raise TraceFileError(f"{first.where}: {first.reason}{also}")
    invalid = _scan(requests)
    if invalid is None:
        raise TraceFileError(f"{path}: nested too deeply")
    return Traces(requests, _names(messages), invalid, tuple(left_out))


def read_all(paths: Sequence[str]) -> Traces:
    """Read several trace files as one. Raises TraceFileError."""
    return reduce(Traces.joined, map(read, paths))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _scan(requests: Sequence[bytes]) -> Counter[str] | None:
    """Count the invalid spans; None if the service would refuse one of the requests."""
    scanner = Scanner(Plan((), ()))
    invalid: Counter[str] = Counter()
    try:
        for request in requests:
            scanned = scanner.scan(request)
            invalid["trace id"] += scanned.invalid_trace_ids
            invalid["span id"] += scanned.invalid_span_ids
    except MalformedRequest:
        return None
    return invalid


def _names(messages: Sequence[ExportTraceServiceRequest]) -> dict[tuple[bytes, bytes], str]:
    names: dict[tuple[bytes, bytes], str] = {}
    for message in messages:
        for resource_spans in message.resource_spans:
            services = [a.value.string_value for a in resource_spans.resource.attributes if a.key == "service.name"]
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    names.setdefault((span.trace_id, span.span_id), " ".join([*services[-1:], span.name]))
    return names


def _from_json(path: str, data: bytes) -> Iterator[ExportTraceServiceRequest | LeftOut]:
    """Yield the documents of a file, and what is none between them."""
    text = data.decode("utf-8-sig", "surrogateescape")
    at, line, counted = _after_space(text, 0), 1, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at  # the line on which the document begins
        try:
            message, end = _document(path, text, at, line)
        except _NotADocumentError as error:
            following = _NEXT.search(text, at)
            end = following.end() if following else len(text)
            part = text[at:end].rstrip(" \t\r\n")
            nbytes, lines = len(part.encode("utf-8", "surrogateescape")), part.count("\n") + 1
            where, reason = error.where, error.reason
            if undecodable := _UNDECODABLE.search(part):
                where, reason = f"{path}:{line + part.count(chr(10), 0, undecodable.start())}", _NOT_UTF8
            elif reason == _NOT_JSON and following is None and not text.endswith("\n") and part.startswith("{"):
                reason = _CUT_OFF
            yield LeftOut(where, reason, nbytes, lines)
        else:
            yield message
        at = _after_space(text, end)


def _document(path: str, text: str, at: int, line: int) -> tuple[ExportTraceServiceRequest, int]:
    """Read the document that begins on a line, and say where it ends. Raises _NotADocumentError."""
    where = f"{path}:{line}"
    try:
        document, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _NotADocumentError(f"{path}:{error.lineno}:{error.colno}", _NOT_JSON) from None
    except (RecursionError, ValueError):
        raise _NotADocumentError(where, "JSON that is nested too deeply, or a number that is too long") from None
    try:
        return request_of(document), end
    except ValueError as error:
        raise _NotADocumentError(where, str(error)) from None


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
