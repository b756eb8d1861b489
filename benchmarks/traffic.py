"""Simulated traffic for rate controllers: Poisson arrivals from keys of skewed size, whose rates change in steps, and
what a controller keeps of it.

Time is simulated and chance is seeded, so a run is a pure function of its arguments. The tests judge the same scenarios
by the same numbers as `benchmarks.rates` shows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

from sampler_proxy.otlp.sampling import NEVER
from sampler_proxy.rules import rate

SECOND_NS = 1_000_000_000
BINS_PER_S = 10
TARGET = 100.0  # traces/s

SETTLED_S = 10  # after a change the target has to be met from then on,
WINDOW_S = 5  # over any so many seconds
PEAK_S = 2


class Phase(NamedTuple):
    seconds: int
    rates: Mapping[bytes, float]  # traces/s of each key


class Scenario(NamedTuple):
    name: str
    phases: Sequence[Phase]


class Outcome(NamedTuple):
    """Of one trace."""

    weight: float
    kept: float  # weight times the probability of being kept
    counted: float  # weight times the adjusted count that it leaves with; 0 where it is dropped


# Key and time -> what becomes of the trace.
Decide = Callable[[bytes, int], Outcome]


class Curve(NamedTuple):
    """Weight in each tenth of a second."""

    came: list[float]
    kept: list[float]
    counted: list[float]


def zipf(keys: int, per_second: float, *, name: str = "key", exponent: float = 1.0) -> dict[bytes, float]:
    """Rates that add up to `per_second`; that of the n-th key is as 1 / n ** exponent."""
    shares = [1 / rank**exponent for rank in range(1, keys + 1)]
    scale = per_second / sum(shares)
    return {f"{name} {rank}".encode(): share * scale for rank, share in enumerate(shares, 1)}


def scenarios(keys: int) -> list[Scenario]:
    """Steps, a crowd and a silence, around a target of 100 traces/s."""
    usual = zipf(keys, 500)
    crowd = zipf(10_000, 2000, name="new", exponent=0.5)
    largest = next(iter(usual))
    rest = {key: rate for key, rate in usual.items() if key != largest}
    return [
        Scenario("x 10", [Phase(20, usual), Phase(20, zipf(keys, 5000))]),
        Scenario("x 10, from below", [Phase(20, zipf(keys, 50)), Phase(20, usual)]),
        Scenario("/ 10", [Phase(20, zipf(keys, 5000)), Phase(20, usual)]),
        Scenario("/ 10, to below", [Phase(20, usual), Phase(20, zipf(keys, 50))]),
        Scenario("10 000 new keys", [Phase(20, usual), Phase(25, usual | crowd), Phase(20, usual)]),
        Scenario("quiet key returns", [Phase(20, usual), Phase(40, rest), Phase(20, usual)]),
    ]


def arrivals(phases: Sequence[Phase], random: Random) -> Iterator[tuple[float, bytes]]:
    """(second, key) of each trace, in order."""
    begin = 0
    for phase in phases:
        end = begin + phase.seconds
        keys = list(phase.rates)
        sums = list(itertools.accumulate(phase.rates.values()))
        at = float(begin)
        while sums and at < end:
            # Many at a time: chosen one by one they would take most of the run.
            for key in random.choices(keys, cum_weights=sums, k=500):
                at += random.expovariate(sums[-1])
                if at >= end:
                    break
                yield at, key
        begin = end


def simulate(scenario: Scenario, random: Random, decide: Decide) -> Curve:
    bins = sum(phase.seconds for phase in scenario.phases) * BINS_PER_S
    curve = Curve([0.0] * bins, [0.0] * bins, [0.0] * bins)
    came, kept, counted = curve
    for at, key in arrivals(scenario.phases, random):
        trace = decide(key, int(at * SECOND_NS))
        now = int(at * BINS_PER_S)
        came[now] += trace.weight
        kept[now] += trace.kept
        counted[now] += trace.counted
    return curve


def controlled(controller: rate.Controller, random: Random, weigh: Callable[[], float] | None = None) -> Decide:
    """What a controller of this project makes of a trace, none of which was sampled before."""
    decide = controller.decide

    def outcome(key: bytes, now_ns: int) -> Outcome:
        weight = weigh() if weigh else 1.0
        threshold = decide(key, weight, now_ns=now_ns)
        width = NEVER - threshold
        return Outcome(
            weight, weight * width / NEVER, weight * NEVER / width if random.getrandbits(56) >= threshold else 0.0
        )

    return outcome


def rates(bins: Sequence[float], seconds: int) -> list[float]:
    """Per second, over every window of so many seconds."""
    width = seconds * BINS_PER_S
    sums = [0.0, *itertools.accumulate(bins)]
    return [(high - low) / seconds for low, high in zip(sums, sums[width:], strict=False)]


def settled(scenario: Scenario, curve: Curve, target: float = TARGET) -> tuple[float, float]:
    """The lowest and the highest rate over 5 s, from 10 s after a change to the next, as a share of the target, or of
    all that came where that is less. The start is a change."""
    kept, came = rates(curve.kept, WINDOW_S), rates(curve.came, WINDOW_S)
    low, high = math.inf, 0.0
    begin = 0
    for phase in scenario.phases:
        end = begin + phase.seconds
        for now in range((begin + SETTLED_S) * BINS_PER_S, (end - WINDOW_S) * BINS_PER_S + 1):
            if came[now]:
                share = kept[now] / min(target, came[now])
                low, high = min(low, share), max(high, share)
        begin = end
    return low, high


def peak(curve: Curve, target: float = TARGET) -> float:
    """The highest rate over 2 s, from the start on, as a share of the target."""
    return max(rates(curve.kept, PEAK_S)) / target
