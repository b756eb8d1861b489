"""Names the members of JSON and of forms under which a key rule changes something, by the attribute that holds them:
the section `redact` knows a member by that name. Values are read, and never kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from sampler_proxy.redact.detectors.secret_values import looks_like_key
from sampler_proxy.redact.lanes import ANY_TYPE, DELETED, KEY, MASK_TEXT, MASKED, Lane, Look
from sampler_proxy.redact.policy import Policy
from sampler_proxy.redact.texts import announced, brackets, embedded

MAX_NESTED = 4
"""Strings of JSON in strings of JSON, and lists and maps in one another, that are read."""
_NONE = (b"", b"null", b"true", b"false")


def members_by_key(redact: Policy, requests: Iterable[bytes]) -> Mapping[str, set[str]]:
    """Return the names of members that fall under a key rule, by the key of the attribute that they stand in. A name
    that would itself be redacted is left out, as is what the official parser refuses."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for request in requests:
        try:
            message = ExportTraceServiceRequest.FromString(request)
        except DecodeError:
            continue
        for attribute in _attributes(message):
            for text in _texts(attribute.value, 0):
                for name in _in_text(redact, text, 0):
                    if redact.strict.apply(KEY, name.encode("utf-8", "replace")) is None:
                        found[attribute.key].add(name)
    return found


def _attributes(message: ExportTraceServiceRequest) -> Iterator[KeyValue]:
    for resource_spans in message.resource_spans:
        yield from resource_spans.resource.attributes
        for scope_spans in resource_spans.scope_spans:
            yield from scope_spans.scope.attributes
            for span in scope_spans.spans:
                yield from span.attributes
                for event in span.events:
                    yield from event.attributes
                for link in span.links:
                    yield from link.attributes


def _texts(value: AnyValue, depth: int) -> Iterator[bytes]:
    """Yield the texts in the value of an attribute, those in lists and maps, too."""
    if depth > MAX_NESTED:
        return
    if value.string_value:
        yield value.string_value.encode("utf-8", "replace")
    for element in value.array_value.values:
        yield from _texts(element, depth + 1)
    for pair in value.kvlist_value.values:
        yield from _texts(pair.value, depth + 1)


def _in_text(redact: Policy, text: bytes, depth: int) -> Iterator[str]:
    if depth > MAX_NESTED:
        return
    members = embedded.read(text).members or brackets.members(text)
    named = {index: (name, offset) for index, name, offset in announced.announced(text, members)}
    for index, member in enumerate(members):
        for name, offset in ((member.key, 0), *([named[index]] if index in named else ())):
            if _falls_under_rule(redact.strict.key_rules.member_lane(name), member.text[offset:]):
                yield name
        if member.is_string and embedded.like_json(member.text):
            yield from _in_text(redact, member.text, depth + 1)


def _falls_under_rule(lane: Lane, value: bytes) -> bool:
    """Tell whether a value leaves changed for its key."""
    if value in _NONE or value == MASK_TEXT:
        return False
    if lane.treatment in (Look.KEY_LIKE, Look.MIXED_KEY):
        return looks_like_key(value.strip(), mixed=lane.treatment is Look.MIXED_KEY)
    return lane.kind in (DELETED, MASKED, ANY_TYPE)
