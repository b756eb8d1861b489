"""Parcels that are cut to a size, by traces without bytes."""

from __future__ import annotations

import pytest

from sampler_proxy.export.parcel import Parcel
from tests.export.support import Kept, request_bytes

LIMIT = 300


@pytest.mark.parametrize(
    ("headers", "sizes"),
    [
        ([{}] * 40, [30, 10]),
        ([{1: 100}] * 40, [20, 20]),  # a header counts once a request
        ([{1: 100}, {2: 100}, {3: 100}], [2, 1]),
        ([{1: 100}, {2: 100}, {1: 100}, {3: 100}, {1: 100}], [3, 2]),
        ([{1: 500}, {}, {1: 500}], [1, 1, 1]),
        ([{1: 500}, {1: 500}], [1, 1]),
        ([{}] * 4, [2, 2]),  # they fit, so it seems: they are halved
    ],
)
def test_a_parcel_is_cut_by_the_bytes_that_requests_will_have(headers, sizes):
    traces = [Kept(10, headers=each) for each in headers]
    pieces = Parcel.of(traces).cut_to(LIMIT, lambda _traces: b"")
    assert [len(piece.traces) for piece in pieces] == sizes
    assert {trace for piece in pieces for trace in piece.traces} == set(traces)
    assert all(request_bytes(piece.traces) <= LIMIT for piece in pieces if len(piece.traces) > 1)
