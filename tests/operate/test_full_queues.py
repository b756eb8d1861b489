"""Who holds up whom: one line, and one when it is over."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from sampler_proxy.operate.full_queues import FullQueues

SECOND = 10**9


class Bench:
    def __init__(self, *names: str) -> None:
        self.now_ns = 0
        self.exporters: list[Any] = [
            SimpleNamespace(
                name=name,
                queue=SimpleNamespace(full=False),
                tell_dropped=lambda: None,
            )
            for name in names
        ]
        self.full_queues = FullQueues(self.exporters, lambda: self.now_ns)

    def run(self, seconds: int) -> None:
        for _ in range(seconds * 4):
            self.now_ns += SECOND // 4
            self.full_queues.look()


@pytest.mark.parametrize(
    ("names", "who"),
    [
        (["a"], "the senders"),
        (["a", "b"], "b and the senders"),
        (["a", "b", "c"], "b, c and the senders"),
    ],
)
def test_who_holds_up_whom(names: list[str], who: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sampler_proxy")
    bench = Bench(*names)
    bench.run(10)
    assert caplog.messages == []
    bench.exporters[0].queue.full = True
    bench.run(10)
    line = f"export a: its queue is full: kept traces wait in the buffer, and hold up {who} once that is full"
    assert caplog.messages == [line]
    bench.exporters[0].queue.full = False  # for a moment
    bench.run(2)
    bench.exporters[0].queue.full = True
    bench.run(50)
    assert caplog.messages == [line, line]  # a minute later
    bench.exporters[0].queue.full = False
    bench.run(10)
    assert caplog.messages == [line, line, "export a: its queue has room again"]
