"""What every rate controller owes, whatever its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.traffic import SECOND_NS, zipf
from sampler_proxy.otlp import sampling
from sampler_proxy.otlp.sampling import ALWAYS, NEVER, probability_of, threshold_of
from sampler_proxy.rules import rate
from sampler_proxy.rules.rate import Controller, Fixed
from sampler_proxy.rules.target import Target

MAX_KEYS = 50
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "all": lambda: Fixed(1.0),
    "fixed": lambda: Fixed(0.01),
    "none": lambda: Fixed(0.0),
    "unkeyed": lambda: Target(per_second=20, keyed=False, seed=1),
    "keyed": lambda: Target(per_second=20, keyed=True, max_keys=MAX_KEYS, seed=1),
    "bounded": lambda: Target(per_second=20, keyed=True, at_least=0.02, at_most=0.5, max_keys=MAX_KEYS, seed=1),
    "minimum": lambda: Target(per_second=20, keyed=True, minimum_per_second=0.1, max_keys=MAX_KEYS, seed=1),
    "slow": lambda: Target(per_second=0.1, keyed=True, minimum_per_second=0.001, max_keys=MAX_KEYS, seed=1),
    "restored": lambda: restored(Target(per_second=20, keyed=True, max_keys=MAX_KEYS, seed=1)),
}


def of(names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", [CONTROLLERS[name] for name in names.split()], ids=names.split())


controllers = of(" ".join(CONTROLLERS))
keeping = of("all fixed unkeyed keyed bounded minimum slow restored")
learning = of("unkeyed keyed bounded minimum slow restored")
keyed = of("keyed bounded minimum slow restored")


def restored(controller: Controller) -> Controller:
    controller.restore(0.5, {f"key {n}".encode(): 1.5 * n for n in range(100)}, bytes)
    return controller


class Trace(NamedTuple):
    key: bytes
    weight: float
    incoming: float
    now_ns: int
    randomness: int


def traffic(seed: int, seconds: float = 20, per_second: float = 400, incoming: tuple[float, ...] = (1,)) -> list[Trace]:
    """Keys of very different size, more of them than there is room for, and spans as weight. Already thinned by their
    incoming probabilities."""
    random = Random(seed)
    rates = zipf(2 * MAX_KEYS, per_second)
    found: list[Trace] = []
    at = 0.0
    for key in random.choices(list(rates), weights=list(rates.values()), k=int(per_second * seconds)):
        at += random.expovariate(per_second)
        p_in = random.choice(incoming)
        trace = Trace(key, float(random.randint(1, 30)), p_in, int(at * SECOND_NS), random.getrandbits(56))
        if trace.randomness >= threshold_of(p_in):
            found.append(trace)
    return found


def thresholds(controller: Controller, traces: list[Trace]) -> list[int]:
    return [controller.decide(*trace[:3], now_ns=trace.now_ns) for trace in traces]


@given(st.floats(0, 1) | st.floats(0, 1).map(lambda p: p**8) | st.floats(0, 1).map(lambda p: 1 - p**8))
@settings(max_examples=500)
def test_native_threshold_equals_the_python_one(probability: float) -> None:
    assert rate.threshold_of(probability) == sampling.threshold_of(probability)


@pytest.mark.parametrize("probability", [0.0, 5e-324, 2**-57, 2**-56, 1 / 3, 0.5, 1 - 2**-53, 1.0, -1.0, 2.0])
def test_native_threshold_equals_the_python_one_at_the_edges(probability: float) -> None:
    for near in (probability, math.nextafter(probability, -9), math.nextafter(probability, 9)):
        assert rate.threshold_of(near) == sampling.threshold_of(near)


@controllers
def test_thresholds_are_rounded_and_in_range(make: Callable[[], Controller]) -> None:
    for threshold in thresholds(make(), traffic(1, incoming=(1, 0.1))):
        assert ALWAYS <= threshold <= NEVER
        assert threshold_of(probability_of(threshold)) == threshold or probability_of(threshold) < 1e-9


@controllers
def test_the_same_traces_get_the_same_thresholds(make: Callable[[], Controller]) -> None:
    """Whether or not stats are read in between."""
    traces = traffic(2, incoming=(1, 0.25))
    watched = make()
    found = []
    for number, trace in enumerate(traces):
        found.append(watched.decide(*trace[:3], now_ns=trace.now_ns))
        if number % 50 == 0:
            watched.stats(trace.now_ns + number * SECOND_NS)
            watched.top(10)
            watched.learned()
    assert found == thresholds(make(), traces)


@controllers
def test_replicas_with_the_same_thresholds_keep_the_same(make: Callable[[], Controller]) -> None:
    """Thresholds of one controller, applied to the traces in another order; and a smaller threshold keeps all that a
    larger one keeps."""
    traces = traffic(3)
    pairs = list(zip(traces, thresholds(make(), traces), strict=True))
    kept = {trace for trace, threshold in pairs if trace.randomness >= threshold}
    Random(3).shuffle(pairs)
    assert kept == {trace for trace, threshold in pairs if trace.randomness >= threshold}
    assert kept <= {trace for trace, threshold in pairs if trace.randomness >= threshold // 2}


@keeping
@pytest.mark.parametrize("incoming", [(1,), (1, 0.5, 0.05)], ids=["all", "sampled before"])
def test_adjusted_counts_are_unbiased(make: Callable[[], Controller], incoming: tuple[float, ...]) -> None:
    """The sum over what is kept of weight times adjusted count, against all that was started, sampled away before or
    not. `variance`: of that sum, given the thresholds, of which each depends on the past only."""
    total = variance = 0.0
    for seed in range(12):
        controller = make()
        for trace in traffic(seed, incoming=incoming):
            threshold = controller.decide(*trace[:3], now_ns=trace.now_ns)
            # Given that it came, and is uniform above the incoming threshold.
            p_in = probability_of(threshold_of(trace.incoming))
            p = min(probability_of(threshold), p_in)
            if trace.randomness >= threshold:
                total += trace.weight / p
            total -= trace.weight / p_in
            variance += (trace.weight / p) ** 2 * (p / p_in) * (1 - p / p_in)
    assert abs(total) <= 3 * math.sqrt(variance)


@controllers
def test_keys_and_their_texts_are_bounded(make: Callable[[], Controller]) -> None:
    controller = make()
    for number in range(20_000):
        controller.decide(b"%d" % number, now_ns=number * 1_000_000)
        assert controller.stats(number * 1_000_000).keys <= MAX_KEYS
    assert len(controller.learned().demands) <= MAX_KEYS
    assert len(controller.top(10 * MAX_KEYS)) <= MAX_KEYS
    assert all(len(text) <= 256 for text, _ in controller.learned().demands)


def test_quiet_keys_leave_the_table() -> None:
    """Keys that are gone leave their places: soon where room is short, later where it is not."""
    controller = Target(per_second=20, keyed=True, max_keys=MAX_KEYS, seed=1)
    for number in range(MAX_KEYS):
        controller.decide(b"%d" % number, now_ns=0)
    assert controller.stats(0).keys == MAX_KEYS
    for second in range(1, 400):
        controller.decide(b"1", now_ns=second * SECOND_NS)
        controller.decide(b"2", now_ns=second * SECOND_NS)
        if second == 9:
            assert controller.stats(0).keys == MAX_KEYS
        if second == 12:
            assert controller.stats(0).keys == 2
        if second == 20:
            controller.decide(b"3", now_ns=second * SECOND_NS)
        if second == 300:
            assert controller.stats(0).keys == 3
    assert controller.stats(0).keys == 2
    assert {key.text for key in controller.top(9)} == {b"1", b"2"}


@keyed
def test_key_table_agrees_with_a_dictionary(make: Callable[[], Controller]) -> None:
    """A key that has come within the shortest silence is there, and none is there twice."""
    controller = make()
    random = Random(6)
    last: dict[bytes, int] = {}
    now_ns = 0
    for _ in range(5000):
        now_ns += int(random.expovariate(1) * SECOND_NS)
        key = b"%d" % int(random.paretovariate(0.7))
        controller.decide(key, now_ns=now_ns)
        there = [text for text, _ in controller.learned().demands]
        assert len(there) == len(set(there))
        if key in there:
            last[key] = now_ns
        else:
            assert len(there) == MAX_KEYS, "there was room for it"
        assert {one for one in last if now_ns - last[one] <= 10 * SECOND_NS} <= set(there)
        last = {one: then for one, then in last.items() if one in there}


hostile = st.sampled_from([
    0.0, -0.0, -1.0, 5e-324, 1e-9, 1e-300, 1e15, 1e300, 1.5, math.inf, -math.inf, math.nan, 2.0**-56, 1 - 2**-53,
]) | st.floats()  # fmt: skip
times = st.sampled_from([-(2**63), -1, 0, 1, 10**9, 10**18, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
asked = st.tuples(st.binary(max_size=3) | st.just(b"\xff" * 999), hostile, hostile, times)


@controllers
@given(st.lists(asked, max_size=30), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_impossible_input_gets_thresholds_in_range(
    make: Callable[[], Controller], requests: list[tuple[bytes, float, float, int]], repeat: int
) -> None:
    """No answer out of range, whatever comes, and minutes later usual traffic gets usual answers."""
    controller = make()
    latest = -(2**63)
    for key, weight, incoming, now_ns in requests * (1 + repeat):
        latest = max(latest, now_ns)
        assert ALWAYS <= controller.decide(key, weight, incoming, now_ns=now_ns) <= NEVER
        stats = controller.stats(now_ns)
        for number in (*stats, *(number for key in controller.top(9) for number in key[1:])):
            assert math.isfinite(number)
            assert number >= 0
    if isinstance(controller, Target) and latest < 2**63 - 1000 * SECOND_NS:
        kept = 0.0
        for tick in range(3000):
            p = probability_of(controller.decide(b"key", now_ns=latest + tick * SECOND_NS // 10))
            kept += p if tick >= 2400 else 0
        wanted = min(controller.per_second, 10 * controller.at_most) * 60
        # A slow one may still be paying for what it kept before.
        assert (0.5 * wanted if controller.per_second >= 1 else 0) < kept <= 1.5 * wanted


@controllers
def test_time_that_goes_back_stands_still(make: Callable[[], Controller]) -> None:
    traces = traffic(4)
    late = [trace._replace(now_ns=trace.now_ns - (10**12 if n % 2 else 0)) for n, trace in enumerate(traces)]
    still = [traces[n - 1 if n % 2 else n].now_ns for n in range(len(traces))]
    stopped = [trace._replace(now_ns=now_ns) for trace, now_ns in zip(traces, still, strict=True)]
    assert thresholds(make(), late) == thresholds(make(), stopped)


@learning
def test_learned_rates_are_restored(make: Callable[[], Controller]) -> None:
    """In a new process, under a hash: the probabilities that it leads to, from the first trace on. An unkeyed target
    has one key."""
    traces = traffic(5, seconds=30)
    before = make()
    thresholds(before, traces)
    learned = before.learned()
    after = make()
    after.restore(learned.level, {text[::-1]: demand for text, demand in learned.demands}, lambda text: text[::-1])
    assert isinstance(before, Target)
    largest = sorted(learned.demands, key=lambda pair: -pair[1])[:5]
    for number, (text, demand) in enumerate(largest):
        now = probability_of(after.decide(text, now_ns=number))
        wanted = min(max(learned.level / demand, before.at_least), before.at_most)
        assert now == pytest.approx(wanted, rel=0.05)
    fresh = after.learned()
    assert fresh.level == learned.level
    assert [text for text, _ in fresh.demands] == [text for text, _ in largest]
    assert [demand for _, demand in fresh.demands] == pytest.approx([demand for _, demand in largest], rel=0.2)


def test_restored_demands_expire_after_a_minute() -> None:
    asked: list[bytes] = []

    def fingerprint(text: bytes) -> bytes:
        asked.append(text)
        return text

    controller = Target(per_second=10, keyed=True, seed=1)
    controller.restore(1.0, {b"a": 1000.0, b"b": 1000.0, b"c": 1000.0}, fingerprint)
    for second, key in (7, b"a"), (66, b"b"), (68, b"c"), (69, b"d"):
        controller.decide(key, now_ns=second * SECOND_NS)
    assert asked == [b"a", b"b"]
    demands = dict(controller.learned().demands)
    assert demands[b"b"] > 100
    assert demands[b"c"] < 10


def test_fingerprints_are_computed_only_while_demands_are_left() -> None:
    asked: list[bytes] = []

    def fingerprint(text: bytes) -> bytes:
        asked.append(text)
        return text

    controller = Target(per_second=10, keyed=True, seed=1)
    controller.restore(1.0, {b"b": 1.0}, fingerprint)
    for key in (b"a", b"a", b"b", b"b", b"c"):
        controller.decide(key, now_ns=1)
    assert asked == [b"a", b"b"]


def test_a_fingerprint_that_raises_ends_restoring() -> None:
    def fingerprint(text: bytes) -> bytes:
        raise RuntimeError(text)

    controller = Target(per_second=10, keyed=True, seed=1)
    controller.restore(1.0, {b"a": 1000.0}, fingerprint)
    assert controller.decide(b"a", now_ns=1) == ALWAYS
    controller.decide(b"b", now_ns=1)
    assert controller.stats(1).keys == 2


@given(hostile, st.dictionaries(st.binary(max_size=1), hostile))
def test_impossible_numbers_are_not_restored(level: float, demands: dict[bytes, float]) -> None:
    controller = Target(per_second=10, keyed=True, seed=1)
    controller.restore(level, demands, bytes)
    for number, key in enumerate(demands):
        assert ALWAYS <= controller.decide(key, now_ns=number * SECOND_NS) < NEVER
    assert all(0 <= demand <= 1.1e15 for _, demand in controller.learned().demands)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan, math.inf])
def test_impossible_probabilities_are_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Fixed(probability)


IMPOSSIBLE: list[dict[str, float]] = [
    *({"per_second": number} for number in (0.0, -1.0, math.nan, math.inf, 1e16)),
    *({"at_most": number} for number in (0.0, -1.0, 1.1, math.nan)),
    *({"at_least": number} for number in (-0.1, 1.1, math.nan)),
    {"at_least": 0.5, "at_most": 0.4},
    *({"minimum_per_second": number} for number in (-1.0, math.nan, math.inf)),
    *({"max_keys": number} for number in (0, -1, 2**25)),
]


@pytest.mark.parametrize("wrong", IMPOSSIBLE, ids=str)
def test_impossible_targets_are_refused(wrong: dict[str, float]) -> None:
    settings: dict[str, float] = {"per_second": 10.0, **wrong}
    with pytest.raises(ValueError, match=r"to|<="):
        Target(keyed=True, seed=1, **settings)  # type: ignore[arg-type]


def test_stats_and_top_report_the_rates() -> None:
    controller = Target(per_second=20, keyed=True, seed=1)
    rates = {b"large": 100, b"small": 2}
    for tick in range(3000):
        for key, per_second in rates.items():
            if tick % (100 // per_second) == 0:
                controller.decide(key, now_ns=tick * SECOND_NS // 100)
    stats = controller.stats(30 * SECOND_NS)
    assert stats.demand_per_s == pytest.approx(102, rel=0.02)
    assert stats.kept_per_s == pytest.approx(20, rel=0.05)
    assert stats.probability == pytest.approx(20 / 102, rel=0.05)
    assert stats.keys == 2
    assert stats.level_per_s == pytest.approx(18, rel=0.1)
    large, small = controller.top(3)
    assert (large.text, small.text) == (b"large", b"small")
    assert large.demand_per_s == pytest.approx(100, rel=0.02)
    assert large.probability == pytest.approx(0.18, rel=0.1)
    assert small.demand_per_s == pytest.approx(2, rel=0.1)
    assert small.probability == 1
    assert controller.top(1) == [large]
    # After a minute of silence.
    assert controller.stats(90 * SECOND_NS).demand_per_s < 0.01


def test_key_texts_are_copied_up_to_256_bytes() -> None:
    controller = Target(per_second=20, keyed=True, seed=1)
    texts = [b"", b"\xff\x00\n", b"x" * 256, b"y" * 300]
    for text in texts:
        controller.decide(text, now_ns=1)
    assert [text for text, _ in controller.learned().demands] == [text[:256] for text in texts]


@controllers
def test_times_as_far_apart_as_can_be(make: Callable[[], Controller]) -> None:
    """A clock may begin anywhere: what lies between is a rate of next to nothing, and the other way round no time."""
    first, last = -(2**63), 2**63 - 1
    controller = make()
    controller.decide(b"key 1", now_ns=first)
    assert controller.stats(last).demand_per_s < 1e-9
    controller.decide(b"key 1", now_ns=last)
    assert controller.stats(first).demand_per_s == controller.stats(last).demand_per_s
