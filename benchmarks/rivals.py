"""What else is used to hold a rate, for comparison in the same simulated traffic. Each is told of one trace after the
other: decide(key, now_ns) says what becomes of it.

They are as good as their kind gets: windows as short as they can be used, shares recomputed exactly, counts stated
wherever there is a probability to state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

from benchmarks.traffic import SECOND_NS, Outcome


def drawn(p: float, random: Random) -> Outcome:
    """Kept with a probability, which is stated."""
    return Outcome(1.0, p, 1 / p if random.random() < p else 0.0)


class FixedShare:
    """1 % of everything."""

    def __init__(self, target: float, random: Random) -> None:  # noqa: ARG002 (as all others)
        self.random = random

    def decide(self, key: bytes, now_ns: int) -> Outcome:  # noqa: ARG002
        return drawn(0.01, self.random)


class TokenBucket:
    """First come, first kept, with a burst of a second. Whether a trace is kept depends on the traces before it and not
    on a draw, so there is no probability, and the count that it leaves with is 1."""

    def __init__(self, target: float, random: Random) -> None:  # noqa: ARG002
        self.target = self.tokens = target
        self.now_ns = 0

    def decide(self, key: bytes, now_ns: int) -> Outcome:  # noqa: ARG002
        self.tokens = min(self.tokens + (now_ns - self.now_ns) / SECOND_NS * self.target, self.target)
        self.now_ns = now_ns
        if self.tokens < 1:
            return Outcome(1.0, 0.0, 0.0)
        self.tokens -= 1
        return Outcome(1.0, 1.0, 1.0)


class Windows:
    """Probabilities by key that are fixed for a window, from what came in those before it."""

    seconds: float

    def __init__(self, target: float, random: Random) -> None:
        self.target = target
        self.random = random
        self.counts: Counter[bytes] = Counter()
        self.probabilities: dict[bytes, float] = {}
        self.other = 1.0  # of keys that are not in it
        self.end_ns = int(self.seconds * SECOND_NS)

    def decide(self, key: bytes, now_ns: int) -> Outcome:
        while now_ns >= self.end_ns:
            self.next_window()
            self.end_ns += int(self.seconds * SECOND_NS)
            self.counts.clear()
        self.counts[key] += 1
        return drawn(self.probabilities.get(key, self.other), self.random)

    def next_window(self) -> None:
        raise NotImplementedError


class Ema(Windows):
    """Shares by water-filling, from an exponential moving average of windows of 5 s, the last of which has half of the
    weight. Keys that are not in it are kept whole."""

    seconds = 5.0

    def __init__(self, target: float, random: Random) -> None:
        super().__init__(target, random)
        self.averages: dict[bytes, float] = {}

    def next_window(self) -> None:
        for key in {**self.averages, **self.counts}:
            # The first window of all counts in full.
            before = self.averages.get(key, 0.0) if self.averages else self.counts[key]
            self.averages[key] = (before + self.counts[key]) / 2
        self.averages = {key: count for key, count in self.averages.items() if count > 0.05}
        level = water_level(self.averages, self.target * self.seconds)
        self.probabilities = {key: min(1.0, level / count) for key, count in self.averages.items()}


class EqualShares(Windows):
    """Every key of the last second has the same share of the target; what it does not need is nobody's. Keys that are
    not in it have the lowest probability."""

    seconds = 1.0

    def next_window(self) -> None:
        share = self.target * self.seconds / max(len(self.counts), 1)
        self.probabilities = {key: min(1.0, share / count) for key, count in self.counts.items()}
        self.other = min(self.probabilities.values(), default=1.0)


def water_level(demands: Mapping[bytes, float], target: float) -> float:
    """The level L at which the sum of min(demand, L) is the target; infinite if there is less."""
    left, keys = target, len(demands)
    for demand in sorted(demands.values()):
        if demand * keys > left:
            return left / keys
        left -= demand
        keys -= 1
    return float("inf")
