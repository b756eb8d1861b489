"""What tests of engines wait for: a condition, and a handler that goes on when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.processes import until


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    until(condition, seconds)


class Held:
    """A handler that has begun, `entered`, and answers `answer` once it is released."""

    def __init__(self, answer: bytes = b"done") -> None:
        self.entered, self.release = threading.Event(), threading.Event()
        self._answer = answer

    def __call__(self, _: bytes) -> bytes:
        self.entered.set()
        assert self.release.wait(20)
        return self._answer
