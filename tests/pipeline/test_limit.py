"""The hard cap alone: which candidates are admitted, at what threshold, debts, and that counts stay true."""

from __future__ import annotations

import math
from itertools import groupby
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.otlp.sampling import NEVER, adjusted_count
from sampler_proxy.pipeline.limit import Limit

SECOND = 1_000_000_000


class Offer(NamedTuple):
    position: int
    randomness: int
    threshold: int
    size: float


def offered(limit: Limit, offers: list[Offer], now_ns: int = 0) -> None:
    for number, one in enumerate(offers):
        limit.offer(
            number,
            position=one.position,
            randomness=one.randomness,
            threshold=one.threshold,
            size=one.size,
            now_ns=now_ns,
        )


def outcomes_by_number(limit: Limit, offers: list[Offer], now_ns: int = SECOND) -> dict[int, tuple[bool, int]]:
    offered(limit, offers)
    return {number: (admitted, threshold) for number, admitted, threshold in limit.close_for_tests(now_ns)}


def outcomes(limit: Limit, offers: list[Offer], now_ns: int) -> list[tuple[int, bool, int]]:
    """Offer candidates to a window of their own, and close it."""
    offered(limit, offers, now_ns)
    return limit.close_for_tests(now_ns + SECOND)


def fair_shares(demands: list[float], budget: float) -> list[float]:
    """Divide a budget by max-min fairness: the smallest demand first, each at most an equal share of what is left."""
    shares = [0.0] * len(demands)
    for done, index in enumerate(sorted(range(len(demands)), key=lambda index: demands[index])):
        shares[index] = min(demands[index], budget / (len(demands) - done))
        budget -= shares[index]
    return shares


def model(offers: list[Offer], budget: float, floor: float) -> dict[int, tuple[bool, int]]:
    """Admit candidates as limit.pyi says, slowly; all randomness must differ."""
    rules = [
        sorted(group, key=lambda number: -offers[number].randomness)
        for _, group in groupby(
            sorted(range(len(offers)), key=lambda number: offers[number].position),
            key=lambda number: offers[number].position,
        )
    ]
    shares = fair_shares([sum(offers[number].size for number in rule) for rule in rules], budget * floor)
    left = budget - sum(shares)
    found: dict[int, tuple[bool, int]] = {}
    for rule, share in zip(rules, shares, strict=True):
        room, spent, raised = share + max(left, 0), 0.0, 0
        admitted = []
        for number in rule:
            if spent + offers[number].size > room * (1 + 1e-9):
                break
            spent += offers[number].size
            admitted.append(number)
        if not admitted:
            first = offers[rule[0]]
            raised = NEVER - int(
                min(1.0, room / first.size / sum(adjusted_count(offers[n].threshold) for n in rule)) * NEVER
            )
            spent = room
            if first.randomness >= raised:
                admitted = rule[:1]
        if len(admitted) < len(rule):
            raised = max(raised, offers[rule[len(admitted)]].randomness + 1)
        left -= spent - share
        for number in rule:
            found[number] = (number in admitted, max(offers[number].threshold, raised))
    return found


@st.composite
def windows(draw: st.DrawFn) -> list[Offer]:
    randomness = draw(st.lists(st.integers(0, NEVER - 1), min_size=1, max_size=30, unique=True))
    return [
        Offer(draw(st.integers(0, 3)), r, draw(st.integers(0, r)), draw(st.sampled_from([1.0, 1.0, 2.0, 7.0, 50.0])))
        for r in randomness
    ]


@given(windows(), st.sampled_from([1.0, 5.0, 20.0, 1000.0]), st.sampled_from([0.0, 0.2, 1.0]))
def test_admission_equals_the_model(offers: list[Offer], per_second: float, floor: float) -> None:
    found = outcomes_by_number(Limit(per_second, "spans", floor), offers)
    expected = model(offers, per_second, floor)
    assert {number: admitted for number, (admitted, _) in found.items()} == {n: one[0] for n, one in expected.items()}
    for number, (_, threshold) in found.items():
        assert abs(threshold - expected[number][1]) < 4096  # chance is reckoned in doubles
    for number, (admitted, threshold) in found.items():
        assert admitted == (offers[number].randomness >= threshold)
        assert offers[number].threshold <= threshold <= NEVER


def test_the_first_rules_come_first_and_the_floor_is_shared() -> None:
    offers = [Offer(position, 1000 - number, 0, 1.0) for position in range(3) for number in range(100)]
    admitted = outcomes_by_number(Limit(100.0, "traces", 0.3), offers)
    by_rule = [sum(admitted[100 * rule + number][0] for number in range(100)) for rule in range(3)]
    assert by_rule == [80, 10, 10]
    # The first needs less than there is, and leaves the rest to the next.
    few = [one for number, one in enumerate(offers) if not 30 <= number < 100]
    admitted = outcomes_by_number(Limit(100.0, "traces", 0.3), few)
    assert [sum(admitted[number][0] for number in rule) for rule in (range(30), range(30, 130), range(130, 230))] == [
        30,
        60,
        10,
    ]


def test_nothing_slips_in_behind_the_first_that_does_not_fit() -> None:
    offers = [Offer(0, 30, 0, 4.0), Offer(0, 20, 5, 9.0), Offer(0, 10, 0, 1.0)]
    assert outcomes_by_number(Limit(10.0, "spans", 0.2), offers) == {0: (True, 21), 1: (False, 21), 2: (False, 21)}


def test_a_trace_larger_than_the_budget_is_admitted_by_chance_and_spends_it_on_average() -> None:
    random = Random(1)
    limit = Limit(10.0, "spans", 1.0)
    spent = estimate = 0.0
    for window in range(20_000):
        offers = [Offer(0, random.getrandbits(56), 0, 40.0) for _ in range(3)]
        for number, admitted, threshold in outcomes(limit, offers, window * SECOND):
            if admitted:
                spent += offers[number].size
                estimate += offers[number].size * adjusted_count(threshold)
    assert 0.88 * 20_000 * 10 <= spent <= 20_000 * 10
    assert estimate == pytest.approx(20_000 * 3 * 40, rel=0.05)


def test_a_limit_of_one_in_a_minute_holds() -> None:
    random = Random(2)
    limit = Limit(1 / 60, "traces", 0.2)
    kept = estimate = 0.0
    for window in range(3600 * 2):
        offers = [Offer(rule, random.getrandbits(56), 0, 1.0) for rule in range(10) for _ in range(5)]
        for _, admitted, threshold in outcomes(limit, offers, window * SECOND):
            kept += admitted
            estimate += adjusted_count(threshold) if admitted else 0
    assert 80 <= kept <= 140  # 120 are allowed
    assert estimate == pytest.approx(3600 * 2 * 50, rel=0.9)  # of so few


def test_debts_are_paid_by_time_and_by_windows() -> None:
    limit = Limit(10.0, "spans", 0.2)
    limit.owe(15, SECOND)
    offered(limit, [Offer(0, 9, 0, 1.0)], 2 * SECOND)  # a second has paid 10
    assert limit.owed == 5
    limit.owe(1000, 2 * SECOND)
    assert limit.owed == 100  # 10 s, no more
    limit.owe(0, 9 * SECOND)
    assert limit.owed == 100  # the window's time is the window's
    assert limit.is_due(3 * SECOND)
    assert not limit.is_due(3 * SECOND - 1)
    # A tenth of a window is left to it.
    offered(limit, [Offer(0, 100 - number, 0, 0.25) for number in range(30)], 2 * SECOND)
    assert sum(admitted for _, admitted, _ in limit.close_for_tests(3 * SECOND)) == 4
    assert limit.owed == 91
    # What was idle before something was owed does not pay for it, and is not saved up.
    limit = Limit(10.0, "spans", 0.2)
    limit.owe(5, 1000 * SECOND)
    offered(limit, [Offer(0, 100 - number, 0, 1.0) for number in range(50)], 1000 * SECOND)
    assert limit.owed == 5
    assert sum(admitted for _, admitted, _ in limit.close_for_tests(1001 * SECOND)) == 5


def test_debts_shrink_with_the_limit() -> None:
    limit = Limit(5000.0, "spans", 0.2)
    limit.owe(20_000, 0)
    limit.configure(50.0, "spans", 0.2)
    assert limit.owed == 500
    limit.configure(50.0, "traces", 0.2)
    assert limit.owed == 0


def test_a_limit_that_was_away_for_a_moment_carries_over_no_more_than_its_own() -> None:
    """A window that had no bound, closed early for want of memory, leaves the next one a second's budget at most."""
    limit = Limit(3.0, "traces", 0.2)
    limit.configure(1e300, "traces", 0.2)
    limit.offer(1, position=0, randomness=5, threshold=0, size=1, now_ns=0)
    limit.close_for_tests(SECOND // 10)
    limit.configure(3.0, "traces", 0.2)
    for number in range(50):
        limit.offer(number, position=0, randomness=number, threshold=0, size=1, now_ns=SECOND // 5)
    outcomes = limit.close_for_tests(SECOND // 5 + SECOND)
    assert sum(admitted for _, admitted, _ in outcomes) == 6


def test_a_grant_is_spent_once() -> None:
    limit = Limit(10.0, "spans", 0.2)
    limit.grant(4.0)
    kept = []
    for window in range(2):
        offers = [Offer(0, 100 - number, 0, 1.0) for number in range(80)]
        kept.append(sum(admitted for _, admitted, _ in outcomes(limit, offers, window * SECOND)))
    assert kept == [50, 10]


def test_equal_randomness_is_rejected_together_unless_it_is_all_there_is() -> None:
    offers = [Offer(0, 9, 0, 1.0), Offer(0, 5, 0, 1.0), Offer(0, 5, 0, 1.0), Offer(0, 5, 0, 1.0)]
    assert [one[0] for one in outcomes_by_number(Limit(3.0, "traces", 0.2), offers).values()] == [
        True,
        False,
        False,
        False,
    ]
    same = [Offer(0, 5, 0, 1.0)] * 4
    found = outcomes_by_number(Limit(3.0, "traces", 0.2), same)
    assert sum(admitted for admitted, _ in found.values()) == 3
    assert all(threshold <= 5 for admitted, threshold in found.values() if admitted)


def test_the_order_of_arrival_does_not_matter() -> None:
    random = Random(1)
    offers = [Offer(random.randrange(3), random.getrandbits(56), 0, float(random.randrange(1, 9))) for _ in range(300)]
    one = outcomes_by_number(Limit(400.0, "spans", 0.2), offers)
    order = list(range(len(offers)))
    random.shuffle(order)
    other = outcomes_by_number(Limit(400.0, "spans", 0.2), [offers[number] for number in order])
    assert {number: other[place] for place, number in enumerate(order)} == one


@pytest.mark.parametrize(
    "setting", [(0.0, "spans", 0.2), (1.0, "meters", 0.2), (1.0, "spans", 1.5), (math.nan, "spans", 0)]
)
def test_nonsensical_limits_are_refused(setting: tuple[float, str, float]) -> None:
    with pytest.raises(ValueError, match="a limit is"):
        Limit(*setting)


@pytest.mark.parametrize("seed", range(3))
def test_adjusted_counts_add_up_to_what_was_offered(seed: int) -> None:
    """Sizes of all kinds, three rules of which two sample already: over many windows the estimates are unbiased. (So
    they are where a rule is left with one trace a window, but then with a variance without bound.)"""
    random = Random(seed)
    errors: list[list[float]] = [[], [], []]
    thresholds = (0, NEVER // 2, NEVER - NEVER // 10)
    limit = Limit(170.0, "spans", 0.6)
    now_ns = 0
    for _ in range(1000):
        truth, estimate = [0.0] * 3, [0.0] * 3
        kept = []
        for rule, number in ((0, 8), (1, 30), (2, 200)):
            for _ in range(number):
                size = random.choice((1.0, 2.0, 3.0, 20.0))
                truth[rule] += size
                randomness = random.getrandbits(56)
                if randomness >= thresholds[rule]:
                    kept.append(Offer(rule, randomness, thresholds[rule], size))
        random.shuffle(kept)
        offered(limit, kept, now_ns)
        now_ns += SECOND
        for number, admitted, threshold in limit.close_for_tests(now_ns):
            if admitted:
                estimate[kept[number].position] += kept[number].size * adjusted_count(threshold)
        for rule in range(3):
            errors[rule].append(estimate[rule] - truth[rule])
    for rule in range(3):
        mean = sum(errors[rule]) / len(errors[rule])
        deviation = math.sqrt(sum((error - mean) ** 2 for error in errors[rule]) / len(errors[rule]))
        assert abs(mean) < 3.5 * deviation / math.sqrt(len(errors[rule])), (rule, mean, deviation)
