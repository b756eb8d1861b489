"""Which rule decides each trace of a file, and why: what the service would do if these were all of its spans.

A trace file is OTLP as protobuf (one `ExportTraceServiceRequest` or `TracesData`) or as JSON (any number of them, one a
line or printed over several). Which of the two is found out by trying. TraceFileError says where a file is neither, and
never what it holds.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.config.check import Loaded
from sampler_proxy.config.model import Adaptive
from sampler_proxy.errors import MalformedRequest, TraceFileError
from sampler_proxy.otlp.sampling import probability_of, shown_threshold
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.scanner import Scanner
from sampler_proxy.rules.plan import Plan
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.traceql.ast import Field
from sampler_proxy.traceql.compiler import compile_selection
from sampler_proxy.traceql.conditions_as_written import conditions


class Matched(NamedTuple):
    condition: str  # as written in the rule
    spans: list[bytes]


class Explanation(NamedTuple):
    trace_id: bytes
    rule: str
    keep: bool | None  # None, as the two below: the rule has a target, and what it keeps depends on the traffic
    probability: float | None
    threshold: int | None
    target: str | None
    randomness: int
    matched: list[Matched]
    """The conditions in the match of the rule that hold for spans. For a rule without match there are none."""
    spans: int

    def as_json(self) -> dict[str, object]:
        return {
            "trace_id": self.trace_id.hex(),
            "rule": self.rule,
            "keep": self.keep,
            "probability": self.probability,
            "threshold": None if self.threshold is None else shown_threshold(self.threshold),
            **({"target": self.target} if self.target else {}),
            "randomness": f"{self.randomness:014x}",
            "matched": [
                {"condition": matched.condition, "spans": [span.hex() for span in matched.spans]}
                for matched in self.matched
            ],
        }


class Traces(NamedTuple):
    """A file that has been read."""

    requests: list[bytes]
    names: dict[tuple[bytes, bytes], str]
    """Service and name by trace and span id; of protobuf that only the service itself can read there are none."""
    invalid: Counter[str]
    """Spans that cannot be told apart and are left out, by what is wrong with them."""

    def renamed(self, redacted: bytes) -> Traces:
        """With the names as they stand in a redacted request of the same traces."""
        try:
            messages = [ExportTraceServiceRequest.FromString(redacted)]
        except DecodeError:  # as in `read`
            messages = []
        return self._replace(names=_names(messages))

    def remarks(self) -> Iterator[str]:
        for what, count in self.invalid.items():
            if count:
                yield f"{count} span{'s' * (count > 1)} left out: the {what} is not valid"


def explain(loaded: Loaded, requests: Sequence[bytes]) -> Iterator[Explanation]:
    """In the order in which the traces first appear."""
    config = loaded.config
    targets = [str(rule.keep.target) if isinstance(rule.keep, Adaptive) else None for rule in config.rules]
    keeps = [
        Keep(Target(per_second=rule.keep.target.per_second, keyed=False, seed=0))
        if isinstance(rule.keep, Adaptive)
        else rule.keep
        for rule in config.rules
    ]
    judged = replay.decide([rule.name for rule in config.rules], keeps, loaded.compiled, requests)
    written = {
        index: conditions(match) for index in {one.rule for one in judged} if (match := config.rules[index].match)
    }
    first: dict[int, int] = {}  # of each deciding rule's conditions, in the one selection for all of them
    fields: list[Field] = []
    for index, parts in written.items():
        first[index] = len(fields)
        fields += [part.field for part in parts]
    selected = replay.select(compile_selection(fields), requests) if fields else {}
    for one in judged:
        parts = written.get(one.rule, [])
        at = first.get(one.rule, 0)
        spans = selected[one.trace_id][at : at + len(parts)] if parts else []
        yield Explanation(
            one.trace_id,
            config.rules[one.rule].name,
            one.keep,
            None if one.threshold is None else probability_of(one.threshold),
            one.threshold,
            targets[one.rule],
            one.randomness,
            [Matched(part.text, ids) for part, ids in zip(parts, spans, strict=True) if ids],
            one.spans,
        )


def as_text(explanation: Explanation, traces: Traces) -> str:
    trace_id = explanation.trace_id
    trace = f"trace {trace_id.hex()} ({explanation.spans} span{'s' * (explanation.spans != 1)})"
    if explanation.probability is None:
        lines = [f"{trace}: decided by rule {explanation.rule}, which keeps up to {explanation.target}"]
    else:
        lines = [
            f"{trace}: {'kept' if explanation.keep else 'dropped'} by rule {explanation.rule}, "
            f"which keeps {100 * explanation.probability:.4g}% of the traces"
        ]
    for matched in explanation.matched:
        lines.append(f"  {matched.condition}")
        for span in matched.spans:
            lines.append(f"    {span.hex()}  {traces.names.get((trace_id, span), '')}".rstrip())
    return "\n".join(lines)


def read(path: str) -> Traces:
    """Raises TraceFileError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise TraceFileError(f"{path}: cannot be read: {error.strerror}") from None
    invalid = _scan([data])
    # Tried first, and JSON only if it is not protobuf: that text is a whole number of protobuf fields does not happen.
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
    """The invalid spans, or None if the service would refuse a request."""
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


_SPACE = re.compile(r"[ \t\r\n]*")
_REFUSED_FIELDS = re.compile(r"(?:Failed to parse (\w+) field: )+")
_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


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
        where = f"{path}:{line}"
        try:
            document, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TraceFileError(
                f"{path}:{error.lineno}:{error.colno}: not JSON, nor is the file OTLP protobuf"
            ) from None
        except (RecursionError, ValueError):
            raise TraceFileError(f"{where}: JSON that is nested too deeply, or a number that is too long") from None
        yield _request(where, document)
        at = _after_space(text, end)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _request(where: str, document: Any) -> ExportTraceServiceRequest:
    """`where` is the line on which the document begins."""
    if not isinstance(document, dict) or not ({"resourceSpans", "resource_spans"} & document.keys() or not document):
        raise TraceFileError(f"{where}: not OTLP: an object with resourceSpans is wanted here")
    try:
        for span in _spans(document):
            for holder in (span, *_objects(span, "links")):
                _to_base64(where, holder)
        return ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except ParseError as error:
        refused = _REFUSED_FIELDS.match(str(error))  # of the message the names of fields only: the rest quotes values
        field = ".".join(_FIELD.findall(refused[0])) if refused else ""
        raise TraceFileError(f"{where}: not OTLP: {field or 'a field'} holds what it cannot hold") from None
    except (RecursionError, ValueError):
        raise TraceFileError(f"{where}: not OTLP") from None


def _spans(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource_spans in _objects(document, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            yield from _objects(scope_spans, "spans")


def _objects(holder: dict[str, Any], *keys: str) -> Iterator[dict[str, Any]]:
    for key in keys:
        if isinstance(found := holder.get(key), list):
            yield from (item for item in found if isinstance(item, dict))


def _to_base64(where: str, holder: dict[str, Any]) -> None:
    """OTLP writes ids as hexadecimal digits, where JSON otherwise has base64 for bytes."""
    for key in _IDS:
        if isinstance(text := holder.get(key), str):
            try:
                holder[key] = base64.b64encode(bytes.fromhex(text)).decode()
            except ValueError:
                raise TraceFileError(f"{where}: a {key} that is not made of hexadecimal digits") from None
