"""A target is held: the scenarios of benchmarks/traffic.py, in simulated time.

"Kept" is the expected weight, the sum of probabilities, so what is tested is the controller and not the luck of the draw.
Arrivals are Poisson.
"""

from __future__ import annotations

from random import Random

import pytest

from benchmarks import traffic
from benchmarks.traffic import SECOND_NS, TARGET, Phase, Scenario, zipf
from sampler_proxy.rate import Target
from sampler_proxy.sampling import ALWAYS, probability_of

SEEDS = range(4)
SCENARIOS = [(keys, number) for keys in (1, 100, 10_000) for number in range(len(traffic.scenarios(1)))]


def name(of: tuple[int, int]) -> str:
    return f"{of[0]} keys, {traffic.scenarios(1)[of[1]].name}"


@pytest.mark.parametrize("of", SCENARIOS, ids=name)
def test_a_target_in_traces(of: tuple[int, int]) -> None:
    keys, number = of
    scenario = traffic.scenarios(keys)[number]
    for seed in SEEDS:
        random = Random(seed)
        controller = Target(per_second=TARGET, keyed=True, seed=seed)
        curve = traffic.simulate(scenario, random, traffic.controlled(controller, random))
        low, high = traffic.settled(scenario, curve)
        assert 0.95 <= low <= high <= 1.05
        assert traffic.peak(curve) <= 1.5
