"""What one trace may cost: shared headers are redacted once, and what is beyond a bound is masked and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config, Rule
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from tests.support import wire
from tests.support.redacting import Redacting, pairs, plain, policy, redacted, request_of
from tests.support.secrets import SECRETS

MAIL = SECRETS["email"].text


def test_a_resource_counts_once_however_many_scopes_are_under_it() -> None:
    request = request_of(Span(), {"owner": MAIL})
    (resource_spans,) = request.resource_spans
    for number in range(200):
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = f"scope {number % 100}"
        scope_spans.scope.version = MAIL
        scope_spans.spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8))
    del resource_spans.scope_spans[0]
    redacting = Redacting({"preset": "common"})
    out = ExportTraceServiceRequest.FromString(redacting.run([request]))
    assert redacting.counts() == {("email", "mask"): 101}
    (resource_spans,) = out.resource_spans
    assert plain(resource_spans.resource.attributes) == {"owner": "****"}
    assert {scope_spans.scope.version for scope_spans in resource_spans.scope_spans} == {"****"}


def attributes_of(out: bytes) -> dict[str, Any]:
    """Of the last span."""
    request = ExportTraceServiceRequest.FromString(out)
    return plain(request.resource_spans[0].scope_spans[0].spans[-1].attributes)


def trace(number: int, *spans: dict[str, Any]) -> ExportTraceServiceRequest:
    request = request_of(Span(trace_id=b"t" * 16, span_id=b"s" * 8))
    (scope_spans,) = request.resource_spans[0].scope_spans
    del scope_spans.spans[:]
    for index, attributes in enumerate(spans):
        ids = {"trace_id": (number + 1).to_bytes(16), "span_id": (index + 1).to_bytes(8)}
        scope_spans.spans.add(**ids, attributes=pairs(attributes))
    return request


@pytest.mark.parametrize("size", [100, 60_000])
@pytest.mark.parametrize("part", ["DE11 ", "&pw=a", "select 1,1 from t where "])
def test_what_a_trace_may_cost_is_bounded(part: str, size: int) -> None:
    """Then what is new is masked, be it harmless, and counted. What is known from before is not, nor is the next trace
    the worse for it."""
    before = {"before": MAIL, "plain before": "harmless"}
    hostile = {f"k{i}": f"{i} " + (part * size)[:size] for i in range(600_000 // size)}
    after = {"mail": f"new.{MAIL}", "plain": "new", "number": 4111_1111_1111_1111, "a new key": True}
    redacting = Redacting({"preset": "common"})
    redacting.run([trace(0, before, before)])
    out = attributes_of(redacting.run([trace(1, hostile, {**before, **after})]))
    assert redacting.counts()["oversize", "mask"] > len(hostile) / 4
    assert MAIL not in str(out)
    assert {key: out[key] for key in ("before", "plain before")} == {"before": "****", "plain before": "harmless"}
    assert set(out.values()) == {"****", "harmless"}
    assert "a new key" not in out
    assert attributes_of(redacting.run([trace(2, after)])) == {
        "mail": "****",
        "plain": "new",
        "number": "****",
        "a new key": True,
    }


def test_what_new_keys_may_cost_is_bounded() -> None:
    redacting = Redacting({"preset": "common"})
    spans = [{f"{i:x}": "" for i in range(first, first + 1000)} for first in range(0, 60_000, 1000)]
    out = ExportTraceServiceRequest.FromString(redacting.run([trace(0, *spans)]))
    left = [plain(span.attributes) for span in out.resource_spans[0].scope_spans[0].spans]
    assert left[:5] == spans[:5]
    assert left[-1] == {"****": "****"}


def test_a_large_trace_in_which_nothing_is_found_leaves_as_it_came() -> None:
    """Though all its values are new, and there is a body and an address here and there."""
    redacting, untouched = Redacting({"preset": "common"}), Redacting({"preset": "common"})
    untouched.pipeline.replace_redaction(None)
    request = request_of(Span())
    spans = request.resource_spans[0].scope_spans[0].spans
    del spans[:]
    for number in range(20_000):
        attributes = {f"attribute.{i}": f"value/{number:x}/{i}.html" for i in range(10)}
        if number % 20 == 0:
            attributes["body"] = json.dumps({f"field{i}": f"{number} words in a row" for i in range(30)})
        spans.append(Span(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8), attributes=pairs(attributes)))
    sent = request.SerializeToString()
    assert len(sent) > 8 << 20
    assert redacting.run([sent]) == untouched.run([sent])
    assert redacting.counts() == {}


def large_span() -> Span:
    span = Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        parent_span_id=b"p" * 8,
        trace_state="a=b",
        name=MAIL,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1,
        end_time_unix_nano=2,
        flags=0x101,
        dropped_attributes_count=3,
        dropped_links_count=4,
    )
    span.attributes.extend(pairs({"k": list(range(70_000)), "mail": MAIL}))
    span.events.add(name=MAIL)
    span.links.add(trace_id=b"l" * 16, span_id=b"i" * 8, attributes=pairs({"mail": MAIL}))
    span.status.code = span.status.STATUS_CODE_ERROR
    span.status.message = MAIL
    return span


def reduced_span() -> Span:
    span = large_span()
    for field in ("attributes", "events", "links"):
        span.ClearField(field)  # type: ignore[arg-type]
    span.name = "****"
    span.status.ClearField("message")
    span.dropped_attributes_count += 2
    span.dropped_events_count += 1
    span.dropped_links_count += 1
    return span


@pytest.mark.parametrize("marker", [False, True])
def test_a_span_of_too_many_parts_leaves_without_its_texts(marker: bool) -> None:
    redacting = Redacting({"preset": "common", "marker": marker})
    request = request_of(large_span())
    small = request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"t" * 16, span_id=b"a" * 8, name="small")
    out = ExportTraceServiceRequest.FromString(redacting.run([request]))
    expected = reduced_span()
    if marker:
        expected.attributes.extend(pairs({"sampler_proxy.redacted": 1}))
    assert list(out.resource_spans[0].scope_spans[0].spans) == [expected, small]
    assert redacting.counts() == {("oversize", "mask"): 1}


def test_fields_that_stand_many_times() -> None:
    """Of ids and counts the last counts, of a status all of its parts."""
    unknown = wire.field(99, wire.LEN, b"")
    span = large_span()
    del span.attributes[:]
    raw = (
        wire.field(1, wire.LEN, b"u" * 16)
        + wire.field(3, wire.LEN, b"c=d")
        + wire.field(10, wire.VARINT, wire.varint(9))
    )
    raw += wire.field(15, wire.LEN, wire.field(2, wire.LEN, MAIL.encode())) + span.SerializeToString()
    raw += (wire.field(12, wire.VARINT, wire.varint(7)) + unknown) * 70_000
    out = redacted({"preset": "common"}, wire.field(1, wire.LEN, wire.field(2, wire.LEN, wire.field(2, wire.LEN, raw))))
    expected = reduced_span()
    expected.dropped_attributes_count = 3
    expected.dropped_events_count = 7 + 1
    assert list(out.resource_spans[0].scope_spans[0].spans) == [expected]


def test_a_resource_and_a_scope_of_too_many_parts() -> None:
    many = pairs({"k": list(range(70_000)), "mail": MAIL})
    request = request_of(Span(name="small"))
    (resource_spans,) = request.resource_spans
    resource_spans.schema_url = MAIL
    resource_spans.resource.attributes.extend(many)
    resource_spans.resource.dropped_attributes_count = 3
    scope = resource_spans.scope_spans[0].scope
    scope.name = MAIL
    scope.attributes.extend(many)
    out = redacted({"preset": "common"}, request)
    expected = request_of(Span(name="small"))
    expected.resource_spans[0].resource.dropped_attributes_count = 5
    expected.resource_spans[0].scope_spans[0].scope.dropped_attributes_count = 2
    assert out == expected


def test_what_entities_name_stays_however_many_keys_that_are() -> None:
    """Where there are too many to be kept, none of a resource's keys goes."""
    settings = {"keys": [{"match": "id*", "action": "delete"}, {"match": "other", "action": "delete"}]}
    for number, other in ((10, None), (5000, "****")):
        request = request_of(Span(name="x"), {f"id{number - 1}": "1", "other": "2"})
        keys = [f"id{i}" for i in range(number)]
        request.resource_spans[0].resource.entity_refs.add(id_keys=keys)
        resource = redacted(settings, request).resource_spans[0].resource
        left = plain(resource.attributes)
        assert (left[f"id{number - 1}"], left.get("other")) == ("****", other)
        assert resource.dropped_attributes_count == (other is None)
        assert list(resource.entity_refs[0].id_keys) == keys


def test_each_trace_of_a_request_has_a_bound_of_its_own() -> None:
    """One that is beyond it takes nothing from the others."""
    hostile = {f"k{i}": f"{i} &pw=a" + "&x=a" * 12_000 for i in range(4)}
    request = ExportTraceServiceRequest()
    for number in range(40):
        request.MergeFrom(trace(number, {f"{number}.{key}": value for key, value in hostile.items()}))
    redacting = Redacting({"preset": "common"})
    redacting.run([request])
    counts = redacting.counts()
    assert 40 <= counts["oversize", "mask"] <= 80  # of 4 values in each of 40 traces
    assert attributes_of(redacting.run([trace(99, {"plain": "new"})])) == {"plain": "new"}
    assert redacting.counts() == counts


def test_a_slice_of_decisions_ends_where_redaction_was_dear() -> None:
    redacting = Redacting({"preset": "common"})
    waiting = Config(rules=(Rule(name="all", unless='{ name = "never" }', keep=1.0), Rule(name="rest", keep=0.0)))
    redacting.pipeline.replace_rules((["all", "rest"], [1.0, 0.0], load_config(waiting).compiled))
    accept = redacting.pipeline.intake("grpc").accept
    for number in range(8):
        accept(trace(number, {f"{number}.{i}": f"{i} " + "&pw=a" * 12_000 for i in range(4)}).SerializeToString(), 1)
    assert redacting.kept == []
    assert redacting.pipeline.tick(1 << 40)
    assert 1 <= len(redacting.kept) < 8


def test_values_and_keys_that_are_evicted_while_their_span_is_walked() -> None:
    """A cache has no room for all that a span may hold; what is to be changed is still there when it is written."""
    full = trace(0, *({"k": [f"{i} {j} words" for j in range(1000)]} for i in range(60)))
    mails = [f"user{i}@example.org" for i in range(3000)]
    words = [f"{i:x} words" for i in range(20_000)]
    values = [text for i, mail in enumerate(mails) for text in (mail, *words[6 * i : 6 * i + 6])]
    full.MergeFrom(trace(1, {f"{MAIL} key": values[:10_000], "other": values[10_000:]}))
    told: set[bytes | None] = set()
    _, one = replay.redact(
        [full.SerializeToString()], policy({"preset": "common"}), lambda _, __, key, *___: told.add(key)
    )
    assert attributes_of(assemble([one.trace])) == {
        "**** key": ["****" if "@" in text else text for text in values[:10_000]],
        "other": ["****" if "@" in text else text for text in values[10_000:]],
    }
    assert told == {b"**** key", b"other"}
