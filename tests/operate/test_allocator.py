"""When free memory is given back, and that it is."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from sampler_proxy.operate import allocator
from sampler_proxy.operate.allocator import TRIM_EVERY_NS, Trimmer

SECOND = 10**9
MIB = 1 << 20


def times(levels: list[int]) -> list[int]:
    """The seconds at which memory is given back where so many MiB are in use, second by second."""
    now = [0]
    trimmer = Trimmer(lambda: levels[now[0] // SECOND] * MIB, lambda: now[0])
    found = []
    for second in range(len(levels)):
        now[0] = second * SECOND
        if trimmer.due():
            found.append(second)
    return found


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0] * 30, []),
        ([300] * 30, []),
        ([300] * 5 + [20] * 30, [8]),
        ([300] * 5 + [160] * 30, []),  # half of it is in use
        ([30] * 5 + [0] * 30, []),  # not worth it
        ([300] * 5 + [100] * 10 + [20] * 20, [8, 18]),
        ([300] * 5 + [64] * 10 + [0] * 20, [8, 18]),  # the queue of a destination is the last that empties
        ([300, 20] * 30, []),  # needed again at once
        ([300, 20, 20, 300] * 10, []),
        ([300, 250, 200, 140, 120, 100, 80, 60, 40, 20] + [0] * 20, [13]),  # still falling
        ([300] * 3 + [20, 22, 19, 25, 18] * 5, [6]),  # a little traffic goes on
    ],
)
def test_when_memory_is_given_back(levels: list[int], expected: list[int]) -> None:
    assert TRIM_EVERY_NS == 3 * SECOND
    assert times(levels) == expected


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on musl and macOS."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert allocator.trim() is False
    assert allocator.tune() is False


def test_glibc_takes_it() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("not glibc")
    assert allocator.trim() is True
