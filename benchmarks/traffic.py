"""Simulated traffic for rate controllers: Poisson arrivals from keys of skewed size, whose rates change in steps.

A `Phase` is a stretch of time with constant rates; a scenario is a list of phases. Time is simulated, chance is seeded,
so a run is a pure function of its arguments. """

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

SECOND_NS = 1_000_000_000
BINS_PER_S = 10


class Phase(NamedTuple):
    seconds: float
    rates: Mapping[bytes, float]  # traces/s of each key


class Arrival(NamedTuple):
    at_s: float
    key: bytes


def zipf(keys: int, per_second: float, *, prefix: str = "key", exponent: float = 1.0) -> dict[bytes, float]:
    """Rates that add up to `per_second`; the n-th key's is as 1 / n ** exponent."""
    shares = [1 / rank**exponent for rank in range(1, keys + 1)]
    scale = per_second / sum(shares)
    return {f"{prefix} {rank}".encode(): share * scale for rank, share in enumerate(shares, 1)}


def scaled(rates: Mapping[bytes, float], factor: float) -> dict[bytes, float]:
    return {key: rate * factor for key, rate in rates.items()}


def arrivals(phases: Sequence[Phase], random: Random) -> Iterator[tuple[float, bytes]]:
    """(second, key) of each trace, in order."""
    begin = 0.0
    for phase in phases:
        end = begin + phase.seconds
        keys = list(phase.rates)
        cumulative = list(itertools.accumulate(phase.rates.values()))
        total = cumulative[-1] if keys else 0.0
        at = begin
        while total > 0.0:
            # A thousand at a time: choosing them one by one would take most of the time.
            for key in random.choices(keys, cum_weights=cumulative, k=1000):
                at += random.expovariate(total)
                if at >= end:
                    break
                yield at, key
            else:
                continue
            break
        begin = end
