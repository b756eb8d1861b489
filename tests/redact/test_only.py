"""Rules that are for some spans only: by TraceQL, asked of each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.config.check import check
from sampler_proxy.errors import ConfigError
from sampler_proxy.redact import policy as redact
from sampler_proxy.redact.lanes import Place
from sampler_proxy.redact.policy import MAX_VIEWS
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
    """Then the strictest is done that any of them asks for."""
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


WEAKER = {
    "preset": "common",
    "values": [{"detect": "email", "action": "keep", "only": "{ span.internal = true }"}],
    "keys": [
        {"match": "note", "action": {"keep_last": 2}, "only": "{ span.internal = true }"},
        {"match": "note", "action": "hash", "only": "{ span.n0 = true }"},
        {"match": "note", "action": "delete"},
        {"match": "last", "action": {"keep_last": 64}, "only": "{ span.internal = true }"},
        *({"match": f"k{i}", "action": "mask", "only": f"{{ span.n{i} = true }}"} for i in range(6)),
    ],
    "hash_key": "0123456789abcdef",
}
"""Where the filter holds, less is done."""


def test_more_combinations_never_mean_less() -> None:
    redacting = Redacting(WEAKER)
    for number in range(2 * MAX_VIEWS):
        attributes = {f"n{i}": bool(number >> i & 1) for i in range(6)}
        long = "x" * 64 + MAIL
        sent = request("shop", span(1, "a", note="joe", last=long, **attributes), trace_id=(number + 1).to_bytes(16))
        out = ExportTraceServiceRequest.FromString(redacting.run([sent]))
        left = plain(out.resource_spans[0].scope_spans[0].spans[0].attributes)
        assert left["mail"] == "****"
        assert left["last"] in ("x" * 64 + "****", "****")
        assert "note" not in left or (attributes["n0"] and left["note"].startswith("hash:"))


def test_what_spans_share_is_as_the_strictest_of_them_has_it() -> None:
    settings = {**WEAKER, "keys": [{"match": "id", "action": {"keep_last": 2}, "only": "{ span.internal = true }"}]}
    settings["keys"].append({"match": "id", "action": "delete"})
    inside, outside = span(1, "a", internal=True), span(2, "b")
    for spans, owner, left in (
        ([inside, outside], "****", None),
        ([outside, inside], "****", None),
        ([inside], MAIL, "****56"),
        ([outside], "****", None),
    ):
        sent = request("shop", *spans)
        sent.resource_spans[0].resource.attributes.extend(pairs({"id": "123456"}))
        (resource_spans,) = redacted(settings, sent).resource_spans
        attributes = plain(resource_spans.resource.attributes)
        assert (attributes["owner"], attributes.get("id")) == (owner, left)
        assert resource_spans.scope_spans[0].scope.name == owner
        assert {s.name: plain(s.attributes)["mail"] for s in resource_spans.scope_spans[0].spans} == {
            s.name: MAIL if s is inside else "****" for s in spans
        }


def test_what_is_shown_is_as_the_strictest_span_has_it() -> None:
    found = policy(WEAKER)
    assert found is not None
    assert found.text(MAIL.encode()) == b"****"
    assert found.value(Place.SPAN, b"mail", MAIL.encode()) == b"****"
    assert found.value(Place.SPAN, b"note", b"joe") == b"****"


def test_many_combinations_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders make them."""
    settings = {"keys": [{"match": f"k{i}", "action": "mask", "only": f"{{ span.n{i} = true }}"} for i in range(8)]}
    found = policy(settings)
    assert found is not None
    asked: list[int] = []
    view = found.view

    def asking(some: int, every: int) -> redact.View:
        asked.append(some)
        return view(some, every)

    monkeypatch.setattr(found, "view", asking)
    redacting = Redacting(found)
    for number in [*range(50)] * 2:
        redacting.run([request("shop", span(1, "a", **{f"n{i}": bool(number >> i & 1) for i in range(8)}))])
    assert [asked.count(number) for number in range(50)] == [1] * MAX_VIEWS + [2 * 3] * (50 - MAX_VIEWS)  # with headers
    found = policy(settings)
    assert found is not None
    views = {id(found.view(some, every)) for some in range(256) for every in range(256) if not every & ~some}
    assert len(views) == MAX_VIEWS + 1
    assert len(found._views) == MAX_VIEWS


# Enough of them that a set of all is refused; filters keep them out of most views.
LARGE = [{"name": f"p{i}", "pattern": f"{i}[a-zäöü]{{900}}"} for i in range(300)]
KEPT_BEFORE = [{**rule, "action": "keep", "only": "{ span.internal = true }"} for rule in LARGE]


@pytest.mark.parametrize("before", [[], KEPT_BEFORE])
def test_patterns_that_are_too_large_together_are_refused_whatever_filters_hold(before: list[Any]) -> None:
    with pytest.raises(ValueError, match="too large together"):
        policy({"values": [*before, *({**rule, "action": "mask"} for rule in LARGE)]})


def test_a_view_that_cannot_be_made_masks_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    found = policy(values("{ span.paid = true }"))
    assert found is not None
    redacting = Redacting(found)

    class View(redact.View):
        def __init__(self, *_: Any) -> None:
            raise ValueError("too large together")

    monkeypatch.setattr(redact, "View", View)
    for _ in range(2):
        out = redacting.run([request("shop", span(1, "plain"))])
        assert MAIL.encode() not in out
        (resource_spans,) = ExportTraceServiceRequest.FromString(out).resource_spans
        (left,) = resource_spans.scope_spans[0].spans
        assert left.name == "****"
        assert {(a.key, a.value.string_value) for a in left.attributes} == {("****", "****")}
        assert {a.value.string_value for a in resource_spans.resource.attributes} == {"****"}
    assert set(redacting.counts()) == {("failure", "mask")}


def test_texts_that_are_shown_are_redacted_for_everybody() -> None:
    found = policy({"values": [{"detect": "email", "action": "mask", "only": '{ name = "a" }'}]})
    assert found is not None
    assert found.text(f"mail to {MAIL}".encode()) == b"mail to ****"
    assert found.text(b"nothing") == b"nothing"
