"""Generated expressions over generated traces: reference and product agree, however the trace arrives."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sampler_proxy.traceql.parse import parse
from tests.support import strategies, traceql_reference, traceql_strategies, wire
from tests.support.reference import Seen
from tests.traceql_conformance.traces import cut, product_rule, product_selects, reference_selects

expressions = traceql_strategies.expressions


@given(
    texts=st.lists(expressions, min_size=4, max_size=8),
    spans=traceql_strategies.traces(),
    random=strategies.seeds,
    noise=strategies.noises,
)
def test_product_agrees_with_reference(texts: list[str], spans: list[Seen], random: Random, noise: wire.Noise) -> None:
    pieces = cut(spans, random)
    encoded = [wire.encode(piece, random, noise) for piece in pieces]
    for text in texts:
        assert product_selects(text, encoded) == reference_selects(text, pieces), text


@given(
    pairs=st.lists(st.tuples(expressions, st.none() | expressions), min_size=2, max_size=4),
    spans=traceql_strategies.traces(),
    random=strategies.seeds,
)
@settings(max_examples=settings().max_examples // 2)
def test_first_rule_that_matches_decides(
    pairs: list[tuple[str, str | None]], spans: list[Seen], random: Random
) -> None:
    """Rules share conditions, filters and the rows of the trace; what one asks must not answer another."""
    pieces = cut(spans, random)
    applies = [
        reference_selects(match, pieces) and not (unless is not None and reference_selects(unless, pieces))
        for match, unless in pairs
    ]
    assert product_rule(pairs, [piece.SerializeToString() for piece in pieces]) == [*applies, True].index(True)


@given(expression=expressions, spans=traceql_strategies.traces(), random=strategies.seeds)
@settings(max_examples=settings().max_examples // 2)
def test_reference_selects_spans_of_the_trace(expression: str, spans: list[Seen], random: Random) -> None:
    """And, aggregates apart (doubles add up in order of arrival), the same ones in whatever order they arrive."""
    parsed = parse(expression)
    selected = {one.span.span_id for one in traceql_reference.selected_spans(parsed, spans)}
    assert selected <= {one.span.span_id for one in spans}
    if not any(function in expression for function in ("sum(", "avg(", "min(", "max(")):
        again = traceql_reference.selected_spans(parsed, random.sample(spans, len(spans)))
        assert {one.span.span_id for one in again} == selected
