"""Thresholds, counts and `ot=th` against the reference, in Python and through the native path; and that the counts
are honest."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.otlp import sampling
from tests.pipeline.driver import WAIT, Driver, trace_id
from tests.support import reference, strategies, tracestate, wire

PROBABILITIES = [
    0.0,
    1e-20,
    2**-57,
    2**-56,
    1e-6,
    1e-4,
    0.001,
    0.01,
    1 / 16,
    0.1,
    0.25,
    1 / 3,
    0.5,
    0.9,
    0.99,
    0.9999,
    1 - 2**-53,
    1.0,
]

thresholds = st.sampled_from([0, 1, 1 << 52, 1 << 55, sampling.NEVER - 1]) | st.integers(0, sampling.NEVER - 1)
randomness = st.sampled_from([0, 1 << 55, sampling.NEVER - 1]) | st.integers(0, sampling.NEVER - 1)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(1.0, "0"), (0.5, "8"), (1 / 3, "aaab"), (0.1, "e666"), (0.01, "fd70a"), (0.0001, "fff9724"), (0.99, "028f6")],
)
def test_thresholds_of_the_specification(probability: float, expected: str) -> None:
    assert sampling.encode_threshold(sampling.threshold_of(probability)) == expected


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_threshold_of_notable_probabilities(probability: float) -> None:
    for value in (probability, math.nextafter(probability, 0), math.nextafter(probability, 1)):
        assert sampling.threshold_of(value) == reference.threshold_of(value)


@given(st.floats(0, 1) | st.floats(0, 1).map(lambda p: p**8) | st.floats(0, 1).map(lambda p: 1 - p**8))
def test_threshold_of_any_probability(probability: float) -> None:
    assert sampling.threshold_of(probability) == reference.threshold_of(probability)


@given(thresholds)
def test_encoding_and_adjusted_count_of_a_threshold(threshold: int) -> None:
    assert tracestate.parse(b"ot=th:" + sampling.encode_threshold(threshold).encode()).threshold == threshold
    assert sampling.adjusted_count(threshold) == reference.adjusted_count(threshold)
    assert sampling.probability_of(threshold) == pytest.approx(1 / sampling.adjusted_count(threshold))


def test_probabilities_of_zero_and_one() -> None:
    assert sampling.threshold_of(1.0) == sampling.ALWAYS == 0
    assert sampling.threshold_of(0.0) == sampling.NEVER == 1 << 56
    assert sampling.probability_of(sampling.ALWAYS) == 1.0
    assert sampling.probability_of(sampling.NEVER) == 0.0
    assert sampling.adjusted_count(sampling.ALWAYS) == 1.0


RV = "rv:90000000000000"
R = 0x90000000000000
T = 0x80000000000000


@pytest.mark.parametrize(
    ("before", "threshold", "after"),
    [
        ("", T, "ot=th:8"),
        ("", 0, ""),
        ("x=y", T, "ot=th:8,x=y"),
        (" x=y ", 0, " x=y "),
        (f"ot={RV}", T, f"ot=th:8;{RV}"),
        ("ot=th:4,x=y", T, "ot=th:8,x=y"),
        ("ot=th:88,x=y", T, "ot=th:88,x=y"),
        (f"x=y,ot=th:a;{RV};k:v", T, f"ot={RV};k:v,x=y"),  # could not have been sampled with its own threshold
        ("ot=th:a", 0, ""),
    ],
)
def test_rewriting(before: str, threshold: int, after: str) -> None:
    assert sampling.rewrite_tracestate(before.encode(), R, threshold).decode() == after


@given(strategies.tracestates.map(str.encode) | st.binary(max_size=60), randomness, thresholds)
@settings(max_examples=300)
def test_rewriting_random_tracestates(before: bytes, random: int, threshold: int) -> None:
    assert sampling.rewrite_tracestate(before, random, threshold) == tracestate.rewrite(before, random, threshold)


# The native path


@given(st.lists(strategies.tracestates, min_size=1, max_size=30), st.sampled_from([1.0, 0.5, 0.999, 0.001]))
@settings(max_examples=150)
def test_the_native_path(states: list[str], probability: float) -> None:
    """One trace for each tracestate, and a second span without any: decided, stamped and counted as the reference
    says."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number, state in enumerate(states):
        spans.add(trace_id=trace_id(number + 1), span_id=b"\x01" * 8, trace_state=state)
        spans.add(trace_id=trace_id(number + 1), span_id=b"\x02" * 8)
    driver = Driver([("some", None, probability)], stamp_adjusted_count=True)
    driver.send(message)
    driver.tick(WAIT)
    rule = [reference.Rule("some", probability)]

    def stamp_of(trace: reference.Trace) -> reference.Stamp | None:
        found = reference.decide(rule, trace)
        return reference.Stamp("some", "root", found.threshold, found.randomness, True, True) if found.keep else None

    assert reference.spans_of(driver.kept()) == reference.expected_kept([message], stamp_of)
    inconsistent = sum(
        1
        for trace in reference.traces([message]).values()
        if reference.decide(rule, trace).keep
        for one in trace
        if tracestate.leaving_threshold(
            one.span.trace_state.encode(), reference.randomness(trace), reference.threshold_of(probability)
        )
        is None
    )
    assert driver.total(metrics.SPANS_INCONSISTENT_THRESHOLD) == inconsistent


@given(
    st.lists(
        st.sampled_from(["", "a=1", "a=2", "ot=th:4", "ot=th:c", "a=1,b=2", "a=1," * 40, "a=1," * 200]), max_size=20
    ),
    st.lists(st.sampled_from([0.5, 0.75]), min_size=3, max_size=3),
)
def test_spans_of_one_trace_with_equal_and_other_tracestates(states: list[str], probabilities: list[float]) -> None:
    """What one tracestate becomes is remembered for the next span; traces differ in threshold and randomness."""
    driver = Driver([(f"r{n}", f"{{ name = `{n}` }}", p) for n, p in enumerate(probabilities)] + [("rest", None, 0.0)])
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number in range(12):
        one = trace_id(number + 1)
        for index, state in enumerate(["a=1", *states]):
            spans.add(trace_id=one, span_id=bytes([index + 1]) * 8, trace_state=state, name=str(number % 3))
    driver.send(message)
    driver.tick(WAIT)
    kept = {(one.trace_id, one.span_id): one for part in driver.kept().resource_spans for scope in part.scope_spans
            for one in scope.spans}  # fmt: skip
    for one in spans:
        leaving = kept.get((one.trace_id, one.span_id))
        if leaving is not None:
            (trace,) = (t for t in reference.traces([message]).values() if t[0].span.trace_id == one.trace_id)
            threshold = reference.threshold_of(probabilities[int(one.name)])
            expected = tracestate.rewrite(one.trace_state.encode(), reference.randomness(trace), threshold)
            assert leaving.trace_state.encode() == expected


@pytest.mark.parametrize(
    "state",
    [
        "ot=th:8",
        "ot=th:8x",
        "ot=th:8 ;rv:ffffffffffffff",
        "ot=th:c0000000000000",
        "ot=th:c00000000000000",
        "ot=th:C",
        "ot=th:",
        "ot=th",
        "ot=thc:8",
        "ot=xth:8",
        "ot=th:8;th:c",
        "ot=th:x;th:c",
        "ot=th:0",
        "ot=rv:ffffffffffffff",
        "ot=rv:fffffffffffff",
        "ot=rv:fffffffffffffff",
        "ot=rv:fffffffffffffg",
        "ot=rv:FFFFFFFFFFFFFF",
        "ot=rv:00000000000000;rv:ffffffffffffff",
        "ot=rv:x;rv:ffffffffffffff",
        "ot=;th:c",
        "ot=;;th:c;",
        "ot=th:c,ot=th:4",
        "ot=,ot=th:c",
        "ot=a=b,ot=th:c",
        "ot=é,ot=th:c",
        "ot=th:c=",
        "ot =th:c",
        "ot= th:c",
        " \tot=th:c \t,x=y",
        "ot=th:c\n",
        "x=y,ot=th:c",
        "xot=th:c",
        "oth:c",
        "OT=th:c",
        f"ot=z:{'v' * 247};th:c",  # 256 bytes: the longest value
        f"ot=z:{'v' * 248};th:c",
        "x=1," * 31 + "ot=th:c",  # 32 members are read
        "x=1," * 32 + "ot=th:c",
        "x," * 31 + " ,,ot=th:c",  # valid or not, empty ones apart
        "x," * 32 + "ot=th:c",
        f"a={'v' * 250},b={'v' * 249},ot=th:c",  # 512 bytes are read
        f"a={'v' * 250},b={'v' * 249},ot=th:c,x=1",
        f"a={'v' * 250},b={'v' * 250},ot=th:c",
        f"a={'v' * 250},b={'v' * 252},ot=th:c",
    ],
)
def test_what_the_scan_reads_of_a_tracestate(state: str) -> None:
    """Randomness and own threshold, as they show in the decision and in what leaves."""
    for number, probability in enumerate((1.0, 0.75, 0.5, 0.25, 0.01)):
        message = ExportTraceServiceRequest()
        spans = message.resource_spans.add().scope_spans.add().spans
        spans.add(trace_id=trace_id(number + 1), span_id=b"\x01" * 8, trace_state=state)
        driver = Driver([("some", None, probability)], stamp_adjusted_count=True)
        driver.send(message)
        driver.tick(WAIT)
        rule = [reference.Rule("some", probability)]
        (trace,) = reference.traces([message]).values()
        found = reference.decide(rule, trace)
        stamp = reference.Stamp("some", "root", found.threshold, found.randomness, True, True) if found.keep else None
        assert reference.spans_of(driver.kept()) == reference.expected_kept([message], lambda _, stamp=stamp: stamp)


STATE = wire.field(3, wire.LEN, b"x=y")
EMPTY = wire.field(3, wire.LEN, b"")
OTHER_TYPE = wire.tag(3, wire.VARINT) + b"\x05" + wire.tag(3, wire.SGROUP) + wire.tag(3, wire.EGROUP)


@pytest.mark.parametrize(
    "fields",
    [
        STATE,
        OTHER_TYPE,  # the number of trace_state, but unknown fields: they stay
        STATE + OTHER_TYPE,
        OTHER_TYPE + STATE + OTHER_TYPE,
        STATE + EMPTY,  # the last one counts
        EMPTY + STATE,
        wire.field(3, wire.LEN, b"ot=th:c") + STATE,
        STATE + wire.field(3, wire.LEN, b"ot=th:c"),
        STATE + wire.field(99, wire.LEN, b"x") + EMPTY + wire.field(5, wire.LEN, b"name"),
    ],
)
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_tracestates_in_strange_encodings(fields: bytes, probability: float) -> None:
    ids = wire.field(1, wire.LEN, trace_id(1)), wire.field(2, wire.LEN, b"\x01" * 8)
    span = wire.field(2, wire.LEN, ids[0] + fields + ids[1])
    raw = wire.field(1, wire.LEN, wire.field(2, wire.LEN, span))
    driver = Driver([("some", None, probability)])
    driver.send(raw)
    driver.tick(WAIT)
    found = reference.decide(
        [reference.Rule("some", probability)], next(iter(reference.traces([parsed(raw)]).values()))
    )
    stamp = reference.Stamp("some", "root", found.threshold, found.randomness)
    assert reference.spans_of(driver.kept()) == reference.expected_kept([parsed(raw)], lambda _: stamp)


def parsed(raw: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(raw)


@pytest.mark.parametrize("probability", [0.5, 0.01])
def test_traces_at_the_threshold(probability: float) -> None:
    """R = T is kept, R = T - 1 is not; by trace id and by rv."""
    threshold = sampling.threshold_of(probability)
    for number in (threshold, threshold - 1):
        for state, low in (("", number), (f"ot=rv:{number:014x}", 0)):
            message = ExportTraceServiceRequest()
            message.resource_spans.add().scope_spans.add().spans.add(
                trace_id=b"\x01" * 9 + low.to_bytes(7), span_id=b"\x01" * 8, trace_state=state
            )
            driver = Driver([("some", None, probability)])
            driver.send(message)
            driver.tick(WAIT)
            assert len(driver.destinations[0].traces) == (number == threshold)


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("head", [1.0, 0.25, 0.05])
def test_counts_are_honest(probability: float, head: float) -> None:
    """Traces that a head sampler has thinned already: the counts of what we keep still estimate how many were
    started."""
    random, started = Random(5), 40_000
    head_threshold = sampling.threshold_of(head)
    state = f"ot=th:{sampling.encode_threshold(head_threshold)}" if head_threshold else ""
    driver = Driver([("some", None, probability)], stamp_adjusted_count=True)
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for _ in range(started):
        identity = random.randbytes(16)
        if int.from_bytes(identity[9:]) >= head_threshold:
            spans.add(trace_id=identity, span_id=b"\x01" * 8, trace_state=state)
    driver.send(message)
    driver.tick(WAIT)
    estimate = 0.0
    for outer in driver.kept().resource_spans:
        for one in outer.scope_spans[0].spans:
            count = next(a.value.double_value for a in one.attributes if a.key == "sampler_proxy.adjusted_count")
            assert count == reference.adjusted_count(tracestate.parse(one.trace_state.encode()).threshold or 0)
            estimate += count
    share = min(probability, head)
    assert abs(estimate - started) < 4 * math.sqrt(started * (1 / share - 1)) + 1
