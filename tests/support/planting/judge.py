"""Sends samples through redaction as spans, and looks in what leaves for what must not, read in every usual way."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from sampler_proxy.redact.policy import Policy
from tests.support.planting.samples import Sample
from tests.support.redacting import Redacting, any_value, pairs

_SPANS_PER_REQUEST = 200
_LONG = 12  # characters: of a secret so long half of it is too much
_DECODED = 4  # times
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrtbf])|([\"'\\/]))")
_WORD = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z]{3,12}(?![A-Za-z0-9+/-])")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def request(samples: Sequence[Sample]) -> ExportTraceServiceRequest:
    """Put each sample into a span of a trace and resource of its own."""
    found = ExportTraceServiceRequest()
    for number, sample in enumerate(samples):
        resource_spans = found.resource_spans.add()
        span = resource_spans.scope_spans.add().spans.add()
        span.trace_id = (number + 1).to_bytes(16)
        span.span_id = (number + 1).to_bytes(8)
        span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
        span.name = "GET /orders"
        span.attributes.extend(pairs(dict(sample.beside)))
        _place(sample, span, resource_spans)
    return found


def _place(sample: Sample, span: Span, resource_spans: ResourceSpans) -> None:
    value = sample.value
    match sample.place:
        case "attribute":
            span.attributes.add(key=sample.key, value=any_value(value))
        case "span name":
            span.name = value
        case "status message":
            span.status.message = value
        case "event name":
            span.events.add(name=value)
        case "event attribute":
            span.events.add(name="exception").attributes.add(key=sample.key, value=any_value(value))
        case "link":
            span.links.add(trace_id=bytes(15) + b"\x07", span_id=bytes(7) + b"\x07").attributes.extend(
                pairs({sample.key: value})
            )
        case "list":
            span.attributes.add(key=sample.key, value=any_value(["first", value]))
        case "map":
            span.attributes.add(key="app.payload", value=any_value({"user": "bob", sample.key: value}))
        case "resource":
            resource_spans.resource.attributes.extend(pairs({"service.name": "shop", sample.key: value}))
        case "scope":
            resource_spans.scope_spans[0].scope.attributes.extend(pairs({sample.key: value}))
        case "bytes":
            span.attributes.add(key=sample.key, value=any_value(value.encode()))
        case _:
            raise ValueError(sample.place)


def redacted(policy: Policy | None, samples: Sequence[Sample]) -> list[list[str]]:
    """What leaves of each sample: all texts of its span and resource. Without a policy, as it came."""
    found: list[list[str]] = []
    for first in range(0, len(samples), _SPANS_PER_REQUEST):
        found += texts_after(None if policy is None else Redacting(policy), samples[first : first + _SPANS_PER_REQUEST])
    return found


def texts_after(redacting: Redacting | None, samples: Sequence[Sample]) -> list[list[str]]:
    """The same, in one request, by a pipeline that is there."""
    left = request(samples)
    if redacting is not None:
        left = ExportTraceServiceRequest.FromString(redacting.run([left]))
    found: list[list[str]] = [[] for _ in samples]
    for resource_spans in left.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                texts = found[int.from_bytes(span.trace_id) - 1]
                texts += _texts(span)
                texts += _texts(scope_spans.scope)
                texts += _texts(resource_spans.resource)
    return found


def _texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            if isinstance(each, Message):
                yield from _texts(each)
            elif isinstance(each, str):
                yield each
            elif isinstance(each, bytes) and field.name not in ("trace_id", "span_id"):
                yield each.decode("utf-8", "replace")
            elif field.name == "int_value":
                yield str(each)


def leaks(sample: Sample, texts: Iterable[str]) -> bool:
    """Tell whether a part that must not leave, or over half of a long one, is in texts, decoded as may be."""
    return any(_held(part, text) for text in texts for part in sample.parts)


def _held(part: str, text: str) -> bool:
    readings = [*readings_of(text)]
    if any(part in reading for reading in readings):
        return True
    if len(part) < _LONG:
        return False
    size = len(part) // 2 + 1
    pieces = {part[at : at + size] for at in range(len(part) - size + 1)}
    return any(piece in reading for reading in readings for piece in pieces)


def readings_of(text: str) -> Iterator[str]:
    """The text; without escapes, several times over; and what is base64 in it."""
    for _ in range(_DECODED):
        yield text
        for word in _BASE64.findall(text) if len(text) > 15 else ():
            try:
                yield base64.b64decode(
                    word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4), b"-_" if "-" in word else None
                ).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                continue
        plainer = html.unescape(unquote(_ESCAPE.sub(_unescaped, text)))
        if plainer == text:
            return
        text = plainer
    yield text


def _unescaped(match: re.Match[str]) -> str:
    if code := match[1] or match[2]:
        return chr(int(code, 16))
    return _CONTROL[match[3]] if match[3] else match[4]


class Outcome(NamedTuple):
    """A sample, and what left of it."""

    sample: Sample
    left: list[str]
    leaked: bool
    """A secret's part is still there; of an innocent, that it was changed."""
    blotted: bool
    """More is gone than the secret: over half of the words beside it."""


def judge_secrets(policy: Policy, samples: Sequence[Sample]) -> list[Outcome]:
    found = []
    for sample, left in zip(samples, redacted(policy, samples), strict=True):
        whole = str(sample.value) in sample.parts or sample.place == "bytes" or sample.carrier == "by key"
        found.append(Outcome(sample, left, leaks(sample, left), not whole and _is_blotted(sample, left)))
    return found


def _is_blotted(sample: Sample, left: Sequence[str]) -> bool:
    """Tell whether more than half of the words beside the secret are gone."""
    beside = str(sample.value)
    for part in sample.parts:
        beside = beside.replace(part, " ")
    words = {*_WORD.findall(beside)}
    return bool(words) and 2 * sum(any(word in text for text in left) for word in words) < len(words)


def judge_innocents(policy: Policy, samples: Sequence[Sample]) -> list[Outcome]:
    pairs_of_texts = zip(samples, redacted(None, samples), redacted(policy, samples), strict=True)
    return [Outcome(sample, left, came != left, False) for sample, came, left in pairs_of_texts]


def counts(judged: Iterable[Outcome], by: str) -> dict[str, tuple[int, int]]:
    """How many leaked (or were hit), and of how many, by a field of the samples."""
    bad: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for one in judged:
        all_of[getattr(one.sample, by)] += 1
        bad[getattr(one.sample, by)] += one.leaked
    return {name: (bad[name], number) for name, number in all_of.items()}
