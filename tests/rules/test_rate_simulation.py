"""A target is held: the scenarios of benchmarks/traffic.py and others, in simulated time.

"Kept" is the expected weight, the sum of probabilities: what is tested is the controller and not the luck of the draw.
Arrivals are Poisson.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest

from benchmarks import traffic
from benchmarks.rivals import water_level
from benchmarks.traffic import SECOND_NS, TARGET, Curve, Outcome, Phase, Scenario, zipf
from sampler_proxy.otlp.sampling import ALWAYS, probability_of, threshold_of
from sampler_proxy.rules.target import Target

KEYS = (1, 100, 10_000)
SEEDS = range(4)


def run(
    scenario: Scenario,
    seed: int,
    weigh: Callable[[Random], float] | None = None,
    per_second: float = TARGET,
    **more: Any,
) -> Curve:
    random = Random(seed)
    controller = Target(per_second=per_second, **{"keyed": True, "seed": seed, **more})
    return traffic.simulate(
        scenario, random, traffic.controlled(controller, random, (lambda: weigh(random)) if weigh else None)
    )


@pytest.mark.parametrize("number", range(6), ids=[scenario.name for scenario in traffic.scenarios(1)])
@pytest.mark.parametrize("keys", KEYS)
def test_target_in_traces_is_held(keys: int, number: int) -> None:
    scenario = traffic.scenarios(keys)[number]
    for seed in SEEDS:
        curve = run(scenario, seed)
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        assert traffic.peak(curve) <= 1.5


@pytest.mark.parametrize("tick_ms", [50, 100])
@pytest.mark.parametrize("keys", KEYS)
def test_target_is_held_when_traces_are_decided_in_batches(keys: int, tick_ms: int) -> None:
    """As the service does: what has come since the last tick is decided at once, in slices a moment apart."""
    for scenario in traffic.scenarios(keys)[:5]:
        random = Random(1)
        decide = traffic.controlled(Target(per_second=TARGET, keyed=True, seed=1), random)
        count = last = 0

        def batched(key: bytes, now_ns: int, decide: traffic.Decide = decide) -> Outcome:
            nonlocal count, last
            tick = now_ns // (tick_ms * 1_000_000) + 1
            count = count + 1 if tick == last else 0
            last = tick
            return decide(key, tick * tick_ms * 1_000_000 + count // 50 * 1_000_000)

        curve = traffic.simulate(scenario, random, batched)
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        assert traffic.peak(curve) <= 1.5


def test_target_without_keys_is_held() -> None:
    for scenario in traffic.scenarios(100):
        curve = run(scenario, 1, keyed=False)
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        assert traffic.peak(curve) <= 1.5


def steady(rates: Mapping[bytes, float], seconds: int = 40) -> Scenario:
    return Scenario("steady", [Phase(seconds, rates)])


MORE: dict[str, dict[str, Any]] = {
    "bounds": {"at_least": 0.001, "at_most": 0.5},
    "a minimum": {"minimum_per_second": 1 / 60},
    "a minimum that cannot be": {"minimum_per_second": 5.0},
    "too many keys": {"max_keys": 64},
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize("keys", KEYS)
def test_target_with_bounds_or_minimums_is_held(keys: int, more: dict[str, Any]) -> None:
    for seed in SEEDS:
        scenario = Scenario("step", [Phase(20, zipf(keys, 500)), Phase(20, zipf(keys, 2000))])
        curve = run(scenario, seed, **more)
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        assert traffic.peak(curve) <= 1.5


def spans(random: Random) -> float:
    """1 to 200, heavy-tailed: half of the traces have one or two, one in a hundred over fifty. 7 on average."""
    return float(min(200, int(random.paretovariate(1.2))))


@pytest.mark.parametrize("keys", KEYS)
def test_target_in_spans_is_held(keys: int) -> None:
    """Less exact: a large trace that is kept whole is a fifth of a second's target, and left alone 5 s would often be
    off by more than a tenth."""
    scenario = Scenario("step", [Phase(20, zipf(keys, 500)), Phase(20, zipf(keys, 5000)), Phase(20, zipf(keys, 500))])
    for seed in SEEDS:
        curve = run(scenario, seed, spans, per_second=1000.0)
        low, high = traffic.settled(scenario, curve, 1000.0)
        assert 0.85 <= low <= high <= 1.15
        assert traffic.peak(curve, 1000.0) <= 1.5


@pytest.mark.parametrize("keys", KEYS)
def test_slow_target_is_held_over_minutes(keys: int) -> None:
    """One trace a second, of ten: over minutes."""
    scenario = steady(zipf(keys, 10), 660)
    for seed in SEEDS:
        curve = run(scenario, seed, per_second=1.0)
        assert sum(curve.kept[600:]) == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("keys", KEYS)
def test_target_is_held_for_traces_sampled_before(keys: int) -> None:
    """Traces with incoming probabilities, mixed in each key: kept of them is what arrives and passes both."""
    scenario = Scenario("step", [Phase(20, zipf(keys, 1000)), Phase(20, zipf(keys, 5000))])
    for seed in SEEDS:
        random = Random(seed)
        controller = Target(per_second=TARGET, keyed=True, seed=seed)

        def decide(key: bytes, now_ns: int, random: Random = random, controller: Target = controller) -> Outcome:
            p_in = random.choice((1.0, 0.5, 0.1, 0.01))
            if random.random() >= p_in:
                return Outcome(0.0, 0.0, 0.0)
            p = probability_of(controller.decide(key, incoming=p_in, now_ns=now_ns))
            return Outcome(1.0, min(1.0, p / p_in), 0.0)

        curve = traffic.simulate(scenario, random, decide)
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        stats = controller.stats(40 * SECOND_NS)
        assert stats.demand_per_s == pytest.approx(5000, rel=0.25)  # few stand for many
        assert stats.kept_per_s == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("others", [0, 100])
def test_rare_key_beside_a_huge_one_is_kept_whole(others: int) -> None:
    """All its traces are kept once it is known for 3 s; before, it has at least a new key's share of the pool."""
    before = {b"huge": 5000.0, **(zipf(others, 300) if others else {})}
    for seed in SEEDS:
        random = Random(seed)
        controller = Target(per_second=TARGET, keyed=True, seed=seed)
        first = None
        later = 0
        for at, key in traffic.arrivals([Phase(10, before), Phase(30, {**before, b"rare": 0.5})], random):
            now_ns = int(at * SECOND_NS)
            share = controller.stats(now_ns).pool_probability if key == b"rare" else 0.0
            threshold = controller.decide(key, now_ns=now_ns)
            if key == b"rare":
                first = at if first is None else first
                if at - first >= 3:
                    later += 1
                    assert threshold == ALWAYS
                else:
                    assert threshold <= threshold_of(0.9 * share)
        assert later >= 5


def test_new_keys_are_not_starved_by_a_crowd_of_old_ones() -> None:
    """With ten thousand keys the level is a hundredth of a trace per second; a key that comes then still begins with
    its share of a tenth of the target."""
    controller = Target(per_second=TARGET, keyed=True, seed=1)
    old = zipf(10_000, 2000, exponent=0.2)
    new = []
    for number, (at, key) in enumerate(traffic.arrivals([Phase(60, old)], Random(1))):
        threshold = controller.decide(key, now_ns=int(at * SECOND_NS))
        if at > 40 and number % 400 == 0:  # five a second
            new.append(probability_of(controller.decide(b"%d" % number, now_ns=int(at * SECOND_NS))))
        elif at > 59:
            assert threshold != ALWAYS
    assert controller.stats(60 * SECOND_NS).level_per_s < 0.05
    assert sum(new) / len(new) > 0.5


def test_probabilities_are_those_of_water_filling() -> None:
    """Known rates: large keys at the level, small ones whole, but for the noise of estimates."""
    rates = zipf(100, 400)
    level = water_level(rates, TARGET)
    controller = Target(per_second=TARGET, keyed=True, seed=2)
    came: dict[bytes, int] = dict.fromkeys(rates, 0)
    kept: dict[bytes, float] = dict.fromkeys(rates, 0.0)
    for at, key in traffic.arrivals([Phase(140, rates)], Random(2)):
        p = probability_of(controller.decide(key, now_ns=int(at * SECOND_NS)))
        if at >= 20:
            came[key] += 1
            kept[key] += p
    for key, rate in rates.items():
        # Near the level what is estimated too low cannot make up for what is estimated too high.
        near = 1 / 3 < rate / level < 3
        assert kept[key] / came[key] == pytest.approx(min(1.0, level / rate), rel=0.25 if near else 0.1)


@pytest.mark.parametrize("number", range(6), ids=[scenario.name for scenario in traffic.scenarios(1)])
@pytest.mark.parametrize("keys", KEYS)
def test_counts_vary_little_more_than_they_must(keys: int, number: int) -> None:
    """A trace kept at p counts 1 / p, which adds 1 / p - 1 to the variance of the estimate: one at a tiny probability
    spoils all. Compared with water-filling by someone who knows the rates."""
    scenario = traffic.scenarios(keys)[number]
    must = 0.0
    for phase in scenario.phases:
        level = water_level(phase.rates, TARGET)
        must += phase.seconds * sum(rate * max(rate / level - 1, 0) for rate in phase.rates.values())
    for seed in SEEDS:
        controller = Target(per_second=TARGET, keyed=True, seed=seed)
        variance = 0.0
        for at, key in traffic.arrivals(scenario.phases, Random(seed)):
            variance += 1 / probability_of(controller.decide(key, now_ns=int(at * SECOND_NS))) - 1
        assert variance <= 2 * must


def test_probabilities_stay_within_their_bounds() -> None:
    """Also where the target is not: a large `at_least` makes more of it, and once there is room again it is held."""
    controller = Target(per_second=TARGET, keyed=True, at_least=0.1, at_most=0.5, seed=1)
    scenario = Scenario("step", [Phase(30, zipf(10, 3000)), Phase(20, zipf(10, 500)), Phase(20, zipf(10, 50))])
    random = Random(1)
    lowest, highest = threshold_of(0.1), threshold_of(0.5)

    def decide(key: bytes, now_ns: int) -> Outcome:
        threshold = controller.decide(key, now_ns=now_ns)
        assert highest <= threshold <= lowest
        return Outcome(1.0, probability_of(threshold), 0.0)

    kept = traffic.rates(traffic.simulate(scenario, random, decide).kept, 10)
    assert kept[150] == pytest.approx(300, rel=0.05)
    assert kept[400] == pytest.approx(100, rel=0.05)
    assert kept[600] == pytest.approx(25, rel=0.2)


def test_small_keys_get_their_minimum() -> None:
    """Small keys have it, by admissions; a large one that keeps enough anyway needs none; the target is met."""
    rates = {b"huge": 1000.0, **{b"small %d" % number: 5.0 for number in range(50)}}
    controller = Target(per_second=20.0, keyed=True, minimum_per_second=0.1, seed=1)
    admitted: dict[bytes, int] = dict.fromkeys(rates, 0)
    kept: dict[bytes, float] = dict.fromkeys(rates, 0.0)
    first: dict[bytes, int] = {}
    for at, key in traffic.arrivals([Phase(220, rates)], Random(1)):
        threshold = controller.decide(key, now_ns=int(at * SECOND_NS))
        first.setdefault(key, threshold)
        if at >= 20:
            admitted[key] += threshold == ALWAYS
            kept[key] += probability_of(threshold)
    assert list(first.values()).count(ALWAYS) >= 10, "as many as half of a second's target"
    assert admitted[b"huge"] <= 2
    assert sum(kept.values()) == pytest.approx(200 * 20, rel=0.02)
    # The target's level is 0.4/s, so the draw alone does for all.
    assert all(count >= 0.1 * 200 for count in kept.values())


def test_minimum_is_admitted_where_the_draw_falls_short() -> None:
    """Each of fifty keys would have 1 in 50 s from the draw. The minimum of 1 in 10 s is half of the target."""
    rates = {b"%d" % number: 10.0 for number in range(50)}
    controller = Target(per_second=10.0, keyed=True, minimum_per_second=0.1, seed=1)
    admissions: dict[bytes, list[float]] = {key: [] for key in rates}
    drawn = 0.0
    for at, key in traffic.arrivals([Phase(320, rates)], Random(1)):
        threshold = controller.decide(key, now_ns=int(at * SECOND_NS))
        if at >= 20:
            if threshold == ALWAYS:
                admissions[key].append(at)
            else:
                drawn += probability_of(threshold)
    assert drawn + sum(map(len, admissions.values())) == pytest.approx(3000, rel=0.03)
    for times in admissions.values():
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert min(gaps, default=10.0) >= 9.9, "no more often than owed"


@pytest.mark.parametrize("before", [10, 100])
@pytest.mark.parametrize("keys", KEYS)
def test_a_surge_costs_less_than_a_second(keys: int, before: float) -> None:
    """From a tenth of the target, or all of it, to a hundred times the target."""
    for seed in SEEDS:
        curve = run(Scenario("surge", [Phase(20, zipf(keys, before)), Phase(10, zipf(keys, 10_000))]), seed)
        assert traffic.peak(curve) <= 1.5
        assert sum(curve.kept[200:210]) <= 2 * TARGET
        assert sum(curve.kept[200:]) == pytest.approx(10 * TARGET, rel=0.1)


def test_target_is_held_after_a_long_silence() -> None:
    """Nothing came for an hour: what is unspent is not a credit, and everything learned has faded."""
    rates = zipf(100, 1000)
    scenario = Scenario("silence", [Phase(20, rates), Phase(3600, {}), Phase(20, rates)])
    curve = run(scenario, 1)
    low, high = traffic.settled(scenario, curve)
    assert 0.95 <= low <= high <= 1.05
    assert traffic.peak(curve) <= 1.5
