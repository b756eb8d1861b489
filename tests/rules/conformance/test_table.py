"""Every row of the table, on the reference and on the product, also for traces that arrive in pieces, in any order."""

from __future__ import annotations

from random import Random

import pytest

from tests.rules.conformance.table import Row, rows
from tests.rules.conformance.traces import cut, product_selects, reference_selects, request

ROWS = list(rows())
every_row = pytest.mark.parametrize("row", ROWS, ids=[f"{row.group}: {row.expression}" for row in ROWS])


def test_table_is_no_smaller_than_it_was_and_says_nothing_twice() -> None:
    assert len(ROWS) >= 600
    assert len({(row.group, row.expression) for row in ROWS}) == len(ROWS)


@every_row
def test_reference(row: Row) -> None:
    assert reference_selects(row.expression, [request(row.trace)]) == row.selected


@every_row
def test_product(row: Row) -> None:
    assert product_selects(row.expression, [request(row.trace).SerializeToString()]) == row.selected


@every_row
def test_order_and_pieces_do_not_matter(row: Row) -> None:
    random = Random(row.expression)
    for _ in range(3):
        pieces = cut(row.trace, random)
        assert reference_selects(row.expression, pieces) == row.selected
        assert product_selects(row.expression, [piece.SerializeToString() for piece in pieces]) == row.selected
