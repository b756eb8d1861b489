"""Bounds what looking at one text may take, counted in steps: what Python does in about a microsecond.

What native code does to a whole text costs little. What costs is each place in it that Python must judge: a name, a
member, a value. Who comes to such a place spends some steps first, so that a text that is made of nothing else is given
up, and masked, instead of being judged place by place. Counted, and not timed, so that the answer is always the same.
"""

from __future__ import annotations

import math
import threading

FEW_STEPS = 4000
"""Steps for any text."""
BYTES = 5
STEPS = 3
"""Steps for every so many bytes."""


class SpentError(Exception):
    """Says that a text has more places to look at than its budget is for."""


class _Left(threading.local):
    steps: float = math.inf


_left = _Left()


def begin(size: int) -> None:
    """Give a text of so many bytes its budget, on this thread; nothing is counted before."""
    _left.steps = FEW_STEPS + size * STEPS // BYTES


def end() -> float:
    """Count no more on this thread, and return the steps that were left."""
    left, _left.steps = _left.steps, math.inf
    return left


def spend(steps: int) -> None:
    """Spend steps. Raises SpentError where there are not so many left."""
    _left.steps -= steps
    if _left.steps < 0:
        raise SpentError
