"""What one trace may cost: shared headers are gone about once, and what is beyond a bound is masked and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.redacting import Redacting, pairs, plain, request_of
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
    out = attributes_of(redacting.run([trace(0, {f"key{i}": f"value{i}" for i in range(60_000)})]))
    assert out["key0"] == "value0"
    assert len(out) < 50_000
    assert out["****"] == "****"


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
