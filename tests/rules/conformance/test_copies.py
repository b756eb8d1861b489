"""A span id that arrives twice, in an order that matters: aggregates take the last, structure the first parent."""

from __future__ import annotations

import itertools

import pytest

from tests.rules.conformance.traces import ERROR, OK, product_selects, reference_selects, request, span
from tests.support.reference import Seen

SHORT = span("a", "job", ms=(0, 10), status=OK, attrs={"n": 1})
LONG = span("a", "job", ms=(0, 5000), status=ERROR, attrs={"n": 7})
BARE = span("a", "job", ms=(0, 10))
OTHER = span("b", "other", ms=(0, 100), parent="a", attrs={"n": 2})
MOVED = span("b", "other", ms=(0, 100), parent="c", attrs={"n": 2})


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("spans", "expression", "selected"),
    [
        ([SHORT, LONG], "{ status = error } | count() = 1", True),
        ([LONG, SHORT], "{ status = error } | count() = 1", True),
        ([SHORT, LONG], "{ status = ok } | count() = 1", True),
        ([SHORT, LONG], "{} | max(duration) > 1s", True),
        ([LONG, SHORT], "{} | max(duration) > 1s", False),
        ([LONG, SHORT], "{ duration > 1s } | max(duration) = 10ms", True),  # selected by one, measured by the other
        ([SHORT, LONG, OTHER], "{} | sum(span.n) = 9", True),
        ([LONG, OTHER, SHORT], "{} | sum(span.n) = 3", True),
        ([LONG, OTHER, SHORT], "{} | avg(span.n) = 1.5", True),
        ([LONG, OTHER, SHORT], "{} | min(span.n) = 1", True),
        ([LONG, BARE], "{} | sum(span.n) > 0", False),  # the last has no such number
        ([BARE, LONG], "{} | sum(span.n) = 7", True),
        ([SHORT, OTHER, LONG], "{ status = error } > { name = `other` }", True),
        ([SHORT, OTHER, LONG], "{ status = error } !> { name = `other` }", False),
        ([SHORT, OTHER, MOVED], "{ name = `job` } > { name = `other` }", True),
        ([SHORT, MOVED, OTHER], "{ name = `job` } > { name = `other` }", False),
        ([SHORT, LONG], "{ status = error } ~ { status = ok }", False),  # nobody is its own sibling
    ],
)  # fmt: skip
def test_copies_of_a_span(spans: list[Seen], expression: str, selected: bool, pieces: int) -> None:
    requests = [request(spans)] if pieces == 1 else [request([one]) for one in spans]
    assert reference_selects(expression, requests) == selected
    assert product_selects(expression, [piece.SerializeToString() for piece in requests]) == selected


@pytest.mark.parametrize("order", list(itertools.permutations([SHORT, LONG, OTHER])))
def test_no_order_hides_an_error(order: tuple[Seen, ...]) -> None:
    for expression in (
        "{ status = error } | count() > 0",
        "{ status = error } >> { name = `other` }",
        "{ status = error }",
    ):
        assert product_selects(expression, [request([one]).SerializeToString() for one in order])
