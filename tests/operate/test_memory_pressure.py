"""The lines about a full buffer: one when it begins, one when it is over, and no flapping in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sampler_proxy.operate.memory_pressure import OVER_AFTER_NS, MemoryPressure, Signs

SECOND = 10**9
WAIT_NS = 30 * SECOND
BEGUN = "memory: the buffer is full: "
ADVICE = "Raise buffer.max_bytes, shorten the waits, or see whether a destination takes too little"


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as found:
        yield found


class Bench:
    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND
        self.signs = Signs(7, 3, 12.5)
        self.pressure = MemoryPressure(lambda: self.signs, lambda: self.now_ns, WAIT_NS)
        self.pressure._last = self.signs  # as if it had looked before

    def after(self, seconds: float, early: int = 0, refused: int = 0, oldest_s: float = 12.5) -> None:
        self.now_ns += int(seconds * SECOND)
        self.signs = Signs(self.signs.decided_early + early, self.signs.refused + refused, oldest_s)
        self.pressure.look()


def said(logs: list[Any]) -> list[tuple[str, str]]:
    return [(line["log_level"], line["event"]) for line in logs]


def held(seconds: float) -> str:
    return f"traces are held for {seconds:.1f} s now instead of up to 30s"


def test_nothing_is_said_where_nothing_happens(logs: list[Any]) -> None:
    bench = Bench()
    for _ in range(100):
        bench.after(1)
    bench.pressure.end()
    assert logs == []


def test_traces_that_are_decided_early(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, early=5, oldest_s=3.21)
    for _ in range(60):
        bench.after(1, early=100)
    for _ in range(30):
        bench.after(1)
    assert said(logs) == [
        ("warning", f"{BEGUN}traces are decided early; {held(3.21)}. {ADVICE}"),
        ("info", "memory: the buffer has room again, after 60 s: 6005 traces decided early, 0 requests refused"),
    ]


def test_senders_that_are_refused(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, early=1, refused=1, oldest_s=0.2)
    bench.after(11)
    assert said(logs) == [
        ("warning", f"{BEGUN}senders are refused, to send again; {held(0.2)}. {ADVICE}"),
        ("info", "memory: the buffer has room again, after 0 s: 1 trace decided early, 1 request refused"),
    ]


def test_a_buffer_of_decided_traces_is_full_because_of_a_destination(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, refused=1, oldest_s=0)
    waits = "all that it holds is decided, and waits to be sent"
    remedy = "See which destination takes too little, or raise buffer.max_bytes"
    assert said(logs) == [("warning", f"{BEGUN}senders are refused, to send again; {waits}. {remedy}")]


def test_refusals_that_come_later_are_said_once(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, early=1)
    for _ in range(5):
        bench.after(1, early=1, refused=2, oldest_s=0.4)
    assert said(logs)[1:] == [
        (
            "warning",
            f"memory: deciding early makes too little room: senders are refused, to send again; {held(0.4)}",
        )
    ]


def test_a_buffer_that_is_full_now_and_then_does_not_flap(logs: list[Any]) -> None:
    bench = Bench()
    for _ in range(20):
        bench.after(OVER_AFTER_NS / SECOND - 0.1, early=1)
        bench.after(0.05)
    assert len(logs) == 1
    bench.after(OVER_AFTER_NS / SECOND)
    assert len(logs) == 2
    assert "20 traces decided early" in logs[1]["event"]
    bench.after(1, refused=1)  # and again
    assert len(logs) == 3
    bench.pressure.end()
    assert "0 traces decided early, 1 request refused" in logs[3]["event"]


def test_the_stop_ends_it(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, early=3)
    bench.pressure.end()
    bench.pressure.end()
    assert said(logs)[1:] == [
        ("info", "memory: the buffer was full until the stop, for 0 s: 3 traces decided early, 0 requests refused")
    ]


def test_what_is_over_does_not_last_until_the_stop(logs: list[Any]) -> None:
    bench = Bench()
    bench.after(1, early=3)
    bench.after(60)
    bench.pressure.end()
    assert ["has room again" in event for _, event in said(logs)] == [False, True]
