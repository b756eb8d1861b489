"""Reads trace files: OTLP as protobuf or as JSON, and which of the two is found out by trying.

Protobuf is one `ExportTraceServiceRequest` or `TracesData`; JSON is any number of them, one a line or printed over
several. A file is read whole into memory, without a bound. TraceFileError says where a file is neither, and never what
it holds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.errors import MalformedRequest, TraceFileError
from sampler_proxy.otlp.json import request_of
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.rules.plan import Plan

_SPACE = re.compile(r"[ \t\r\n]*")


class Traces(NamedTuple):
    """A trace file as read."""

    requests: list[bytes]
    names: dict[tuple[bytes, bytes], str]
    """Service and span name by trace id and span id; empty for protobuf that the official parser refuses."""
    invalid: Counter[str]
    """Spans left out, by the field that is invalid: without valid ids a span belongs to no trace."""

    def renamed(self, redacted: bytes) -> Traces:
        """Take the names from a redacted request of the same traces."""
        try:
            messages = [ExportTraceServiceRequest.FromString(redacted)]
        except DecodeError:  # as in `read`
            messages = []
        return self._replace(names=_names(messages))

    def remarks(self) -> Iterator[str]:
        """Say how many spans are left out, one line for each reason."""
        for what, count in self.invalid.items():
            if count:
                yield f"{count} span{'s' * (count > 1)} left out: the {what} is not valid"


def read(path: str) -> Traces:
    """Read a trace file. Raises TraceFileError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise TraceFileError(f"{path}: cannot be read: {error.strerror}") from None
    invalid = _scan([data])
    # Protobuf is tried first: no JSON text happens to be a whole number of protobuf fields.
    if invalid is not None:
        try:
            messages = [ExportTraceServiceRequest.FromString(data)]
        except DecodeError:  # strings that are not UTF-8, or deep nesting: the service takes them
            messages = []
        return Traces([data], _names(messages), invalid)
    messages = list(_from_json(path, data))
    requests = [message.SerializeToString() for message in messages]
    invalid = _scan(requests)
    if invalid is None:
        raise TraceFileError(f"{path}: nested too deeply")
    return Traces(requests, _names(messages), invalid)


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


def _from_json(path: str, data: bytes) -> Iterator[ExportTraceServiceRequest]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TraceFileError(f"{path}:{line}: neither OTLP protobuf nor JSON in UTF-8") from None
    decoder = json.JSONDecoder()
    at, line, counted = _after_space(text, 0), 1, 0
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        where = f"{path}:{line}"  # the line on which the document begins
        try:
            document, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TraceFileError(
                f"{path}:{error.lineno}:{error.colno}: not JSON, nor is the file OTLP protobuf"
            ) from None
        except (RecursionError, ValueError):
            raise TraceFileError(f"{where}: JSON that is nested too deeply, or a number that is too long") from None
        try:
            message = request_of(document)
        except ValueError as error:
            raise TraceFileError(f"{where}: {error}") from None
        yield message
        at = _after_space(text, end)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
