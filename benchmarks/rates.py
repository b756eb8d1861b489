"""Does a target hold, what do the others do in its place, and what does a decision cost?

usage: python -m benchmarks.rates [--seeds N] [--plots]

Simulated time, seeded Poisson traffic (traffic.py), a target of 100 traces/s. "Kept" is the sum of probabilities.

scenarios   1, 100 and 10 000 keys of Zipf's sizes: steps, 10 000 new keys at once, a key that goes quiet and returns.
            The lowest and highest rate over any 5 s from 10 s after each change on, and the highest over any 2 s, as
            shares of what is wanted: the target, or all traffic where that is less; and the seconds after a change
            until every 5 s are within 5 %
others      the same scenarios, and each kind's error of rate and of the estimate. Rate error: the mean of
            |kept / wanted - 1| over all windows of 5 s. The estimate: the sum of adjusted counts of what was kept,
            against what came; its bias is the mean of its errors, with their standard error
cost        nanoseconds of a decision, beside one of a fixed probability; what the end of an interval adds. Scaled to
            the reference machine of calibrate.py

About two minutes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from benchmarks import rivals, traffic
from benchmarks.calibrate import calibrate
from benchmarks.report import table
from benchmarks.traffic import SECOND_NS, TARGET, WINDOW_S, Curve, Decide, Scenario, zipf
from sampler_proxy.rules.rate import Controller, Fixed
from sampler_proxy.rules.target import Target

KEYS = (1, 100, 10_000)
COLUMNS = 80
ROWS = 8
BARS = " ▁▂▃▄▅▆▇█"


def target(random: Random) -> Decide:
    return traffic.controlled(Target(per_second=TARGET, keyed=True, seed=random.getrandbits(64)), random)


KINDS: dict[str, Callable[[Random], Decide]] = {
    "sampler-proxy": target,
    "fixed 1 %": lambda random: rivals.FixedShare(TARGET, random).decide,
    "token bucket": lambda random: rivals.TokenBucket(TARGET, random).decide,
    "EMA of windows": lambda random: rivals.Ema(TARGET, random).decide,
    "equal shares": lambda random: rivals.EqualShares(TARGET, random).decide,
}


def curves(scenario: Scenario, kind: str, seeds: int) -> Iterator[Curve]:
    for seed in range(seeds):
        random = Random(f"{seed} {scenario.name} {len(scenario.phases[0].rates)} {kind}")
        yield traffic.simulate(scenario, random, KINDS[kind](random))


def shares(curve: Curve, seconds: int) -> list[float]:
    """Kept of what was wanted, over every window in which something came."""
    pairs = zip(traffic.rates(curve.kept, seconds), traffic.rates(curve.came, seconds), strict=True)
    return [kept / min(TARGET, came) for kept, came in pairs if came]


def recovery(scenario: Scenario, curve: Curve) -> float:
    """Seconds after a change, the longest of all changes, from which on every 5 s are within 5 %."""
    kept, came = traffic.rates(curve.kept, WINDOW_S), traffic.rates(curve.came, WINDOW_S)
    longest = 0.0
    begin = 0
    for phase in scenario.phases:
        bins = range(begin * traffic.BINS_PER_S, (begin + phase.seconds - WINDOW_S) * traffic.BINS_PER_S + 1)
        for now in reversed(bins):
            if came[now] and abs(kept[now] / min(TARGET, came[now]) - 1) > 0.05:
                longest = max(longest, (now + 1 - bins.start) / traffic.BINS_PER_S)
                break
        begin += phase.seconds
    return longest


def scenario_table(seeds: int) -> str:
    rows = [("keys", "scenario", "any 5 s, settled", "highest 2 s", "within 5 % after")]
    for keys in KEYS:
        for scenario in traffic.scenarios(keys):
            found = list(curves(scenario, "sampler-proxy", seeds))
            bounds = [traffic.settled(scenario, curve) for curve in found]
            low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
            peak = max(traffic.peak(curve) for curve in found)
            after = max(recovery(scenario, curve) for curve in found)
            rows.append((f"{keys:,}", scenario.name, f"{low:.3f}-{high:.3f}", f"{peak:.2f}", f"{after:.1f} s"))
    return table(*rows)


class Errors(NamedTuple):
    rate: float
    low: float
    high: float
    peak: float
    bias: float
    bias_error: float


def errors(kind: str, keys: int, seeds: int) -> Errors:
    rate: list[float] = []
    estimates: list[float] = []
    low, high, peak = math.inf, 0.0, 0.0
    for scenario in traffic.scenarios(keys):
        for curve in curves(scenario, kind, seeds):
            rate.append(statistics.fmean(abs(share - 1) for share in shares(curve, WINDOW_S)))
            estimates.append(sum(curve.counted) / sum(curve.came) - 1)
            bounds = traffic.settled(scenario, curve)
            low, high = min(low, bounds[0]), max(high, bounds[1])
            peak = max(peak, traffic.peak(curve))
    spread = statistics.stdev(estimates) / math.sqrt(len(estimates))
    return Errors(statistics.fmean(rate), low, high, peak, statistics.fmean(estimates), spread)


def others_table(seeds: int) -> str:
    rows = [("", "keys", "rate error", "any 5 s, settled", "highest 2 s", "bias of the estimate")]
    for keys in KEYS:
        for kind in KINDS:
            found = errors(kind, keys, seeds)
            rows.append((
                kind,
                f"{keys:,}",
                f"{found.rate:.1%}",
                f"{found.low:.2f}-{found.high:.2f}",
                f"{found.peak:.2f}",
                f"{found.bias:+.2%} ± {found.bias_error:.2%}",
            ))  # fmt: skip
    return table(*rows)


def plot(curve: Curve) -> str:
    """Kept per second, and the target as a line; what does not fit ends in an arrow."""
    width = 5 * math.ceil(len(curve.kept) / COLUMNS / 5)  # half seconds
    values = [traffic.BINS_PER_S / width * sum(curve.kept[at : at + width]) for at in range(0, len(curve.kept), width)]
    lines = []
    for row in reversed(range(ROWS)):
        unit = 2 * TARGET / ROWS
        cells = []
        for value in values:
            eighths = int(min(max((value - row * unit) / unit, 0), 1) * 8)
            beyond = row == ROWS - 1 and value > 2 * TARGET
            cells.append("↑" if beyond else "┄" if not eighths and row * unit == TARGET else BARS[eighths])
        label = {ROWS - 1: f"{2 * TARGET:.0f}", ROWS // 2: f"{TARGET:.0f}", 0: "0"}.get(row, "")
        lines.append(f"{label:>5} {''.join(cells)}".rstrip())
    seconds = "".join(f"{at * width // traffic.BINS_PER_S:<10}" for at in range(0, len(values), 10))
    return "\n".join([*lines, f"    s {seconds}".rstrip()])


def plots(seed: int = 1) -> str:
    found = []
    for scenario in traffic.scenarios(100):
        for kind in ("sampler-proxy", "EMA of windows"):
            random = Random(seed)
            curve = traffic.simulate(scenario, random, KINDS[kind](random))
            found.append(f"{scenario.name}, 100 keys: {kind}\n{plot(curve)}\n")
    return "\n".join(found)


def decision_ns(controller: Controller, keys: int, rounds: int = 5, decisions: int = 100_000) -> float:
    """Of decide(), with Python's call and the hash of the key; 10 000 traces/s."""
    random = Random(1)
    rates = zipf(keys, 10_000)
    chosen = random.choices(list(rates), weights=list(rates.values()), k=decisions)
    decide = controller.decide
    best = math.inf
    now_ns = 0
    for _ in range(rounds):
        start = time.perf_counter()
        for key in chosen:
            now_ns += 100_000
            decide(key, now_ns=now_ns)
        best = min(best, time.perf_counter() - start)
    return best / decisions * 1e9


def interval_ms(keys: int, rounds: int = 12) -> float:
    """The decision that ends an interval in which each of so many keys had a trace."""
    controller = Target(per_second=TARGET, keyed=True, max_keys=keys, seed=1)
    names = [b"%d" % number for number in range(keys)]
    best = math.inf
    for number in range(rounds):
        now_ns = number * 6 * SECOND_NS // 10
        start = time.perf_counter()
        controller.decide(names[0], now_ns=now_ns)
        if number > 2:
            best = min(best, time.perf_counter() - start)
        for key in names:
            controller.decide(key, now_ns=now_ns + 1)
    return best * 1e3


def cost_table() -> str:
    before = calibrate()
    fixed = decision_ns(Fixed(0.5), 1)
    found = {keys: decision_ns(Target(per_second=TARGET, keyed=True, seed=1), keys) for keys in KEYS}
    intervals = {keys: interval_ms(keys) for keys in (10_000, 65_536)}
    speed = max(before, calibrate())
    rows = [("", "ns a decision, from Python", "more than a fixed one")]
    rows.append(("fixed", f"{fixed * speed:.0f}", ""))
    rows += [
        (f"{keys:,} keys" if keys > 1 else "1 key", f"{ns * speed:.0f}", f"{(ns - fixed) * speed:.0f}")
        for keys, ns in found.items()
    ]
    more = [("", "ms")]
    more += [(f"end of an interval, {keys:,} keys active", f"{ms * speed:.2f}") for keys, ms in intervals.items()]
    return table(*rows) + "\n" + table(*more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="runs of each scenario (12)")
    parser.add_argument("--plots", action="store_true", help="the curves alone")
    given = parser.parse_args()
    print(plots())
    if given.plots:
        return
    print(scenario_table(given.seeds))
    print(others_table(given.seeds))
    print(cost_table())


if __name__ == "__main__":
    main()
