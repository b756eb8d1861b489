"""Generated expressions over generated traces: reference and product agree, however the trace arrives."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.rules.conformance.traces import cut, parse, product_rule, product_selects, reference_selects
from tests.support import strategies, traceql_reference, wire
from tests.support.reference import Seen
from tests.support.traceql_strategies import expressions, traces


@given(texts=expressions(20), spans=traces(), random=strategies.seeds, noise=strategies.noises)
def test_product_agrees_with_reference(texts: list[str], spans: list[Seen], random: Random, noise: wire.Noise) -> None:
    pieces = cut(spans, random)
    encoded = [wire.encode(piece, random, noise) for piece in pieces]
    for text in texts:
        assert product_selects(text, encoded) == reference_selects(text, pieces), text


@given(texts=expressions(6), spans=traces(), random=strategies.seeds)
def test_first_rule_that_matches_decides(texts: list[str], spans: list[Seen], random: Random) -> None:
    """Rules share conditions, filters and the span table; an answer for one rule must not leak into another."""
    pieces = cut(spans, random)
    pairs = [(texts[0], texts[1]), (texts[2], texts[3]), (texts[4], None), (texts[5], texts[0])]
    applies = [
        reference_selects(match, pieces) and not (unless is not None and reference_selects(unless, pieces))
        for match, unless in pairs
    ]
    assert product_rule(pairs, [piece.SerializeToString() for piece in pieces]) == [*applies, True].index(True)


@given(texts=expressions(4), spans=traces(), order=st.randoms())
def test_reference_selects_spans_of_the_trace(texts: list[str], spans: list[Seen], order: Random) -> None:
    """And, aggregates apart (doubles add up in order of arrival), the same ones in whatever order they arrive."""
    shuffled = order.sample(spans, len(spans))
    for text in texts:
        selected = {one.span.span_id for one in traceql_reference.selected_spans(parse(text), spans)}
        assert selected <= {one.span.span_id for one in spans}
        if not any(function in text for function in ("sum(", "avg(", "min(", "max(")):
            again = traceql_reference.selected_spans(parse(text), shuffled)
            assert {one.span.span_id for one in again} == selected
