"""A header is redacted once for all traces under it, and what it has become is held no longer than it or the policy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from tests.redact.test_properties import ALL, secrets
from tests.support.redacting import Redacting, pairs, plain, policy, request_of
from tests.support.secrets import SECRETS

MAIL = SECRETS["email"].text
COMMON = {"preset": "common"}
LAYERED = {
    "keys": [
        {"match": f"k{i}", "action": action, "only": f"{{ span.bit{i} = true }}"}
        for i, action in enumerate(("delete", "mask", {"keep_last": 4}, "hash"))
    ],
    "hash_key": "0123456789abcdef",
}


def request(header: dict[str, Any], *traces: dict[str, Any]) -> ExportTraceServiceRequest:
    """One span for each trace, all under one resource and scope, which have the same attributes."""
    made = request_of(Span(), header)
    scope_spans = made.resource_spans[0].scope_spans[0]
    scope_spans.scope.attributes.extend(pairs(header))
    del scope_spans.spans[:]
    for number, attributes in enumerate(traces, 1):
        ids = {"trace_id": number.to_bytes(16), "span_id": number.to_bytes(8)}
        scope_spans.spans.add(**ids, attributes=pairs(attributes))
    return made


def efforts(settings: dict[str, Any], made: ExportTraceServiceRequest) -> list[int]:
    return [one.effort for one in replay.redact([made.SerializeToString()], policy(settings))]


LARGE: dict[str, dict[str, Any]] = {
    "known values": {"k": ["harmless words", "and others"] * 20_000},
    "new values": {"k": [f"harmless words {i}" for i in range(40_000)]},
    "keys": {f"key{i}": MAIL for i in range(20_000)},
    "more than a trace may cost": {"k": [f"user{i}@example.org" for i in range(30_000)]},
    "more than may change": {"k": list(range(70_000)), "mail": MAIL},
}


@pytest.mark.parametrize("header", LARGE)
def test_only_the_first_trace_under_a_header_pays_for_it(header: str) -> None:
    """Or the first two, where the resource leaves no budget for the scope."""
    first, second, *others = efforts(COMMON, request(LARGE[header], *[{}] * 5))
    assert first > 1000
    assert second <= (first if first > 1 << 17 else 1)
    assert max(others) <= 1


def by_trace(settings: Any, raw: bytes, *, anew: bool) -> list[tuple[bytes, dict[Any, int]]]:
    """What leaves of each trace, and its redactions. `anew`: headers are redacted for each."""
    observer = (lambda *_: None) if anew else None
    redacted = replay.redact([raw], settings, observer)
    return [(assemble([trace]), redactions) for trace, redactions, _ in redacted]


@given(secrets())
def test_a_remembered_header_is_the_one_redacted_anew(pair: tuple[ExportTraceServiceRequest, bytes]) -> None:
    """In its bytes, and in what is counted for each trace under it."""
    assert by_trace(ALL, pair[1], anew=False) == by_trace(ALL, pair[1], anew=True)


def test_each_trace_counts_the_redactions_of_its_headers() -> None:
    raw = request({"mail": MAIL, "password": "x"}, {}, {"mail": MAIL}, {}).SerializeToString()
    found = [redactions for _, redactions in by_trace(policy(COMMON), raw, anew=False)]
    assert found == [{("key", "mask"): 2, ("email", "mask"): number} for number in (2, 3, 2)]


def test_an_observer_is_told_of_the_headers_of_each_trace() -> None:
    told: Counter[tuple[int, bytes | None]] = Counter()
    raw = request({"mail": MAIL}, {}, {}, {}).SerializeToString()
    list(replay.redact([raw], policy(COMMON), lambda message, _, key, __, n: told.update({(message, key): n})))
    assert sum(told.values()) == 6


def test_each_view_of_a_header_is_redacted_by_itself() -> None:
    """Also where there are more of them than are remembered, and they come by turns."""
    traces = [{f"bit{bit}": bool(number >> bit & 1) for bit in range(4)} for number in range(16)]
    header = {f"k{i}": "a value of some length" for i in range(4)}
    raw = request(header, *traces, *traces, *reversed(traces)).SerializeToString()
    found = by_trace(policy(LAYERED), raw, anew=False)
    assert found == by_trace(policy(LAYERED), raw, anew=True)
    assert len({tuple(redactions.items()) for _, redactions in found}) > 8


def test_a_scope_is_redacted_for_each_of_its_resource_s_forms() -> None:
    """A scope lies in what its resource has become, which spans of the trace under another scope decide, too."""
    made = request({"k0": "value"}, {}, {}, {})
    other = made.resource_spans[0].scope_spans.add()
    other.scope.name = "other"
    other.spans.add(trace_id=(2).to_bytes(16), span_id=b"12345678", attributes=pairs({"bit0": True}))
    raw = made.SerializeToString()
    assert by_trace(policy(LAYERED), raw, anew=False) == by_trace(policy(LAYERED), raw, anew=True)


def test_a_header_that_others_left_no_budget_for_is_not_masked_for_longer() -> None:
    """One that takes the budget itself is, as each trace under it would take as much."""
    made = request({"k": [f"user{i}@example.org" for i in range(30_000)]}, {})
    small = request({"name": "harmless, but new"}, {}, {})
    made.resource_spans.extend(small.resource_spans)
    first, second = by_trace(policy(COMMON), made.SerializeToString(), anew=False)
    headers = ExportTraceServiceRequest.FromString(first[0]).resource_spans
    assert plain(headers[-1].resource.attributes) != {"name": "harmless, but new"}
    (resource_spans,) = ExportTraceServiceRequest.FromString(second[0]).resource_spans
    assert plain(resource_spans.resource.attributes) == {"name": "harmless, but new"}


# Who holds what.


def held(redacting: Redacting) -> tuple[int, int]:
    return len(redacting.pipeline.envelopes), redacting.pipeline.envelopes.cost


def holding(header: dict[str, Any]) -> tuple[Redacting, list[Any], tuple[int, int]]:
    """A pipeline that does not redact, kept traces that hold a header as it came, and what is held for them."""
    redacting = Redacting(COMMON)
    redacting.pipeline.replace_redaction(None)
    redacting.run([request(header, {})])
    kept = list(redacting.kept)
    redacting.kept.clear()
    return redacting, kept, held(redacting)


def test_nothing_is_held_when_the_traces_are_gone() -> None:
    redacting = Redacting(COMMON)
    empty = held(redacting)
    for number in range(20):
        redacting.run([request({"mail": f"{number}{MAIL}"}, {}, {"mail": MAIL}, {})])
        assert len(redacting.pipeline.envelopes) == 2
    redacting.kept.clear()
    assert held(redacting) == empty


def test_what_a_header_has_become_is_held_with_it_and_goes_with_the_policy() -> None:
    redacting, kept, before = holding({"mail": MAIL})
    redacting.pipeline.replace_redaction(policy(COMMON))
    redacting.run([request({"mail": MAIL}, {}, {})])
    redacting.kept.clear()
    count, cost = held(redacting)
    assert count == before[0] + 2
    assert cost > before[1]
    redacting.pipeline.replace_redaction(None)
    assert held(redacting) == before
    kept.clear()
    assert redacting.pipeline.envelopes.cost < before[1]
    assert len(redacting.pipeline.envelopes) == 0


def test_what_a_header_has_become_goes_with_it() -> None:
    redacting, kept, _ = holding({"mail": MAIL})
    redacting.pipeline.replace_redaction(policy(COMMON))
    redacting.run([request({"mail": MAIL}, {}, {})])
    redacting.kept.clear()
    kept.clear()
    assert len(redacting.pipeline.envelopes) == 0


def test_a_header_that_stays_as_it_is_does_not_hold_itself() -> None:
    redacting = Redacting(COMMON)
    empty = held(redacting)
    redacting.run([request({"plain": "words"}, {}, {})])
    assert len(redacting.pipeline.envelopes) == 2
    redacting.kept.clear()
    assert held(redacting) == empty


def test_forms_that_point_to_each_other_under_two_policies_go_with_the_policies() -> None:
    """One policy masks what another one hashes to."""
    hashing = {"keys": [{"match": "k", "action": "hash"}], "hash_key": "0123456789abcdef"}
    masking = {"keys": [{"match": "k", "action": "mask"}]}
    redacting, kept, before = holding({"k": "****"})
    redacting.pipeline.replace_redaction(policy(hashing))
    hashed = ExportTraceServiceRequest.FromString(redacting.run([request({"k": "****"}, {})]))
    redacting.pipeline.replace_redaction(policy(masking))
    value = plain(hashed.resource_spans[0].resource.attributes)["k"]
    assert value.startswith("hash:")
    redacting.run([request({"k": value}, {})])
    redacting.kept.clear()
    redacting.pipeline.replace_redaction(None)
    assert held(redacting) == before
    kept.clear()
    assert len(redacting.pipeline.envelopes) == 0


def test_another_policy_does_not_take_what_the_last_one_has_made() -> None:
    redacting, _, _ = holding({"mail": MAIL})
    header = request({"mail": MAIL}, {}, {})
    for settings in (COMMON, {"keys": [{"match": "mail", "action": "delete"}]}, COMMON, {"sql": "keep"}):
        made = policy(settings)
        redacting.pipeline.replace_redaction(made)
        assert redacting.run([header]) == assemble(
            [one.trace for one in replay.redact([header.SerializeToString()], made)]
        )


def test_a_header_at_the_address_of_one_that_is_gone_inherits_nothing() -> None:
    redacting = Redacting(COMMON)
    for number in range(200):
        value = MAIL if number % 2 else "m" * len(MAIL)
        out = ExportTraceServiceRequest.FromString(redacting.run([request({"k": value}, {}, {})]))
        assert {plain(r.resource.attributes)["k"] for r in out.resource_spans} == {"****" if number % 2 else value}


def test_more_views_than_are_remembered_are_held_no_longer() -> None:
    header = {f"k{i}": "a value of some length" for i in range(4)}
    redacting, kept, before = holding(header)
    traces = [{f"bit{bit}": bool(number >> bit & 1) for bit in range(4)} for number in range(16)]
    redacting.pipeline.replace_redaction(policy(LAYERED))
    redacting.run([request(header, *traces)])
    redacting.kept.clear()
    assert before[0] < len(redacting.pipeline.envelopes) <= before[0] + 2 * 8
    redacting.pipeline.replace_redaction(None)
    assert held(redacting) == before
    kept.clear()
    assert len(redacting.pipeline.envelopes) == 0


def test_damaged_requests_leave_nothing_behind() -> None:
    redacting = Redacting(COMMON)
    with pytest.raises(MalformedRequest):
        redacting.run([request({"mail": MAIL}, {}).SerializeToString()[:-1]])
    assert len(redacting.pipeline.envelopes) == 0
