"""Rules that are for some spans only: by TraceQL, asked of each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.check import check
from sampler_proxy.errors import ConfigError
from sampler_proxy.redact import MAX_VIEWS
from tests.support.redacting import Redacting, pairs, plain, policy, redacted
from tests.support.secrets import SECRETS

MAIL = SECRETS["email"].text
TRACE = b"t" * 16


def request(service: str, *spans: Span, trace_id: bytes = TRACE) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs({"service.name": service, "owner": MAIL}))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = MAIL
    for span in spans:
        span.trace_id = trace_id
        scope_spans.spans.append(span)
    return made


def span(number: int, name: str, **attributes: Any) -> Span:
    return Span(span_id=number.to_bytes(8), name=name, attributes=pairs({"mail": MAIL, **attributes}))


def mails(out: ExportTraceServiceRequest) -> dict[str, str]:
    return {
        span.name: plain(span.attributes)["mail"]
        for resource_spans in out.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }


def owners(out: ExportTraceServiceRequest) -> list[tuple[str, str]]:
    return [(plain(r.resource.attributes)["owner"], r.scope_spans[0].scope.name) for r in out.resource_spans]


def values(only: str) -> dict[str, Any]:
    return {"values": [{"detect": "email", "action": "mask", "only": only}]}


def test_by_service() -> None:
    settings = values('{ resource.service.name = "shop" }')
    out = redacted(settings, request("shop", span(1, "a")), request("other", span(2, "b")))
    assert mails(out) == {"a": "****", "b": MAIL}
    assert owners(out) == [("****", "****"), (MAIL, MAIL)]


def test_by_span_and_what_spans_share() -> None:
    """The resource and scope of a span that is meant are meant."""
    settings = values("{ span.paid = true }")
    spans = [span(1, "a", paid=True), span(2, "b", paid=False), span(3, "c")]
    parts = request("shop", *spans), request("other", span(4, "d")), request("shop", span(5, "e"))
    together = b"".join(part.SerializeToString() for part in parts)
    out = redacted(settings, together)
    assert mails(out) == {"a": "****", "b": MAIL, "c": MAIL, "d": MAIL, "e": MAIL}
    assert owners(out) == [("****", "****"), (MAIL, MAIL)]
    # In another trace nobody is.
    assert owners(redacted(settings, request("shop", span(1, "a")))) == [(MAIL, MAIL)]


@pytest.mark.parametrize("field", ['rootName = "a"', 'rootServiceName = "a"', "traceDuration > 1s", 'trace:id = "a"'])
def test_what_is_not_the_spans_own_is_refused(field: str, tmp_path: Path) -> None:
    """A span that comes late is redacted by itself: what it says of the trace is not known then."""
    file = tmp_path / "c.yaml"
    file.write_text(f"redact:\n  keys:\n    - {{match: k, action: mask, only: '{{ name = `x` || {field} }}'}}\n")
    with pytest.raises(ConfigError) as refused:
        check(str(file), {})
    (fault,) = refused.value.faults
    assert (fault.line, fault.column) == (3, 38)
    assert "of each span by itself" in fault.message


def test_several_filters_and_the_preset() -> None:
    settings = {
        "preset": "common",
        "keys": [
            {"match": "k", "action": "delete", "only": '{ name = "a" }'},
            {"match": "k", "action": "mask", "only": "{ kind = server }"},
            {"match": "l", "action": "mask"},
        ],
        "values": [{"detect": "email", "action": {"keep_last": 4}, "only": '{ name = "a" }'}],
    }
    a, b, c = span(1, "a", k="1", l="2"), span(2, "b", k="1", l="2"), span(3, "c", k="1", l="2")
    a.kind = b.kind = Span.SPAN_KIND_SERVER
    out = redacted(settings, request("shop", a, b, c))
    found = {s.name: plain(s.attributes) for s in out.resource_spans[0].scope_spans[0].spans}
    assert found == {
        "a": {"mail": "****.com", "l": "****"},
        "b": {"mail": "****", "k": "****", "l": "****"},
        "c": {"mail": "****", "k": "1", "l": "****"},
    }
    assert out.resource_spans[0].scope_spans[0].spans[0].dropped_attributes_count == 1


def test_a_span_id_that_comes_twice() -> None:
    """Each is asked for itself, other than by rules."""
    settings = values('{ name = "a" }')
    out = redacted(settings, request("shop", span(1, "a"), span(1, "b")))
    assert mails(out) == {"a": "****", "b": MAIL}


def test_more_combinations_than_are_kept() -> None:
    """Then all filters are taken to hold."""
    settings = {"keys": [{"match": f"k{i}", "action": "mask", "only": f"{{ span.n{i} = true }}"} for i in range(7)]}
    found = policy(settings)
    assert found is not None
    redacting = Redacting(found)
    for number in range(100):
        attributes = {f"n{i}": bool(number >> i & 1) for i in range(7)}
        sent = request(
            "shop", span(1, "a", **attributes, **{f"k{i}": "x" for i in range(7)}), trace_id=(number + 1).to_bytes(16)
        )
        out = ExportTraceServiceRequest.FromString(redacting.run([sent]))
        left = plain(out.resource_spans[0].scope_spans[0].spans[0].attributes)
        for i in range(7):
            assert left[f"k{i}"] == "****" or not attributes[f"n{i}"]
            if number < MAX_VIEWS - 2:
                assert left[f"k{i}"] == ("****" if attributes[f"n{i}"] else "x")


def test_texts_that_are_shown_are_redacted_for_everybody() -> None:
    found = policy({"values": [{"detect": "email", "action": "mask", "only": '{ name = "a" }'}]})
    assert found is not None
    assert found.text(f"mail to {MAIL}".encode()) == b"mail to ****"
    assert found.text(b"nothing") == b"nothing"
