"""Rules with a target and the limit, in the pipeline: keys of traces, thresholds of kept spans, traces that wait, late
spans, reloads. Each test checks the span ledger."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy import metrics
from sampler_proxy.errors import Overloaded, TraceQLError
from sampler_proxy.otlp.sampling import NEVER, encode_threshold
from sampler_proxy.pipeline.id_randomness import Uniformity
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.rules.trace_key import values_of
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import MIB, SECOND, WAIT, WAIT_AFTER_ROOT, Destination, Driver, request, rules_of, trace_id
from tests.support import reference
from tests.support.tracestate import parse as parse_tracestate


def target(per_second: float, per: Iterable[str] = (), unit: str = "traces") -> Keep:
    slots = tuple(parse_key(text) for text in per)
    return Keep(Target(per_second=per_second, keyed=bool(slots), seed=1), slots, unit)


def native(*rules: tuple[str, str | None, float | Keep]) -> tuple[object, ...]:
    compiled = compile_rules([(None if match is None else parse(match), None) for _, match, _ in rules])
    return [name for name, _, _ in rules], [keep for _, _, keep in rules], compiled


def spans(driver: Driver) -> list[Span]:
    return [one.span for one in reference.seen(driver.kept())]


def random_id(random: Random) -> bytes:
    return random.randbytes(16)


def trace(random: Random, size: int = 1, **settings: object) -> ExportTraceServiceRequest:
    """Build a trace whose id is random."""
    message = request(*((1, number + 1) for number in range(size)), **settings)  # type: ignore[arg-type]
    name = random_id(random)
    for one in message.resource_spans[0].scope_spans[0].spans:
        one.trace_id = name
    return message


# What tells traces apart

KEYS: list[tuple[list[str], list[list[str | None]]]] = [
    (["resource.service.name", "rootName"], [["shop", "GET /"]]),
    (["rootServiceName", "name"], [["shop", "GET /"]]),
    ([".padding", "span.padding", "resource.padding"], [["xxx", "xxx", None]]),
    (["kind", "status", "statusMessage"], [["3", "2", "boom"]]),
    (["instrumentation:name", "instrumentation:version", "instrumentation.zone"], [["test", "", "z"]]),
    (["span.int", "span.double", "span.yes", "span.list", "span.bytes"], [["-5", "2.5", "true", "[...]", "(...)"]]),
]


@pytest.mark.parametrize(("per", "found"), KEYS, ids=[" ".join(per) for per, _ in KEYS])
def test_the_root_tells_what_the_key_is(per: list[str], found: list[list[str | None]]) -> None:
    keep = target(1000, per)
    driver = Driver(native=native(("rest", None, keep)))
    message = request((1, 1), root=True, size=3, error=True)
    scope = message.resource_spans[0].scope_spans[0]
    scope.scope.attributes.add(key="zone").value.string_value = "z"
    span = scope.spans[0]
    span.kind = Span.SPAN_KIND_CLIENT
    span.status.message = "boom"
    span.attributes.add(key="int").value.int_value = -5
    span.attributes.add(key="double").value.double_value = 2.5
    span.attributes.add(key="yes").value.bool_value = True
    span.attributes.add(key="list").value.array_value.values.add(int_value=1)
    span.attributes.add(key="bytes").value.bytes_value = b"\xff"
    other = request((1, 2), service="other")  # not the root, and earlier
    other.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano = 1
    driver.send(other)
    driver.send(message)
    driver.tick(WAIT)
    # A key is known after the first interval.
    for number in range(2, 8):
        message.resource_spans[0].scope_spans[0].spans[0].trace_id = trace_id(number)
        driver.send(message, WAIT + number * SECOND)
        driver.tick(2 * WAIT + number * SECOND)
    assert [values_of(key.text) for key in keep.controller.top(5)] == found


def test_without_a_root_the_earliest_span_tells_whatever_came_first() -> None:
    for order in (0, 1), (1, 0):
        keep = target(1000, ["resource.service.name"])
        driver = Driver(native=native(("rest", None, keep)))
        for number in range(1, 8):
            messages = [request((number, 1), service="late"), request((number, 2), (number, 3), service="early")]
            for at, one in enumerate(messages[1].resource_spans[0].scope_spans[0].spans):
                one.start_time_unix_nano = at + 5
            for place in order:
                driver.send(messages[place], number * SECOND)
            driver.tick(number * SECOND + WAIT)
        assert [values_of(key.text) for key in keep.controller.top(5)] == [["early"]]


def test_long_values_are_cut_and_told_apart_all_the_same() -> None:
    keep = target(1000, ["resource.service.name", "rootName"])
    driver = Driver(native=native(("rest", None, keep)))
    for number in range(1, 20):
        driver.send(request((number, 1), service="x" * 5000 + "ab"[number % 2], root=True), number * SECOND)
        driver.tick(number * SECOND + WAIT)
    assert [values_of(key.text) for key in keep.controller.top(5)] == [["x" * 127, "GET /"]] * 2


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("rootNam", 0, "did you mean rootName"),
        ("duration", 0, "not a field that tells traces apart"),
        ("event.x", 0, "not a field that tells traces apart"),
        ("span:id", 0, "not a field that tells traces apart"),
        ("1", 0, "not a field that tells traces apart"),
        ("span.a || span.b", 0, "not a field that tells traces apart"),
        ("span.a = 1", 13, "boolean"),
        ("span.a b", 7, "unexpected b"),
        ("", 0, "an attribute such as span.x"),
    ],
)
def test_what_is_no_key_is_refused(text: str, offset: int, message: str) -> None:
    with pytest.raises(TraceQLError, match=message) as refused:
        parse_key(text)
    assert refused.value.offset == min(offset, len(text))


# Targets


def steady(driver: Driver, random: Random, per_second: int, seconds: int, start_s: int = 0, **settings: object) -> None:
    """Send traces of a single root span, evenly in time; each is decided when its wait is over."""
    for number in range(per_second * seconds):
        now_ns = start_s * SECOND + number * SECOND // per_second
        driver.send(trace(random, root=True, **settings), now_ns)
        driver.tick(now_ns)


def test_a_target_is_held_and_kept_spans_say_at_what_threshold() -> None:
    driver = Driver(native=native(("rest", None, target(50, ["resource.service.name"]))), wait_after_root_ns=0)
    steady(driver, Random(1), 500, 20)
    driver.check_ledger()
    kept = spans(driver)
    assert 0.9 * 50 * 20 < len(kept) < 1.2 * 50 * 20
    thresholds = set()
    for span in kept:
        threshold = parse_tracestate(span.trace_state.encode()).threshold or 0
        assert int.from_bytes(span.trace_id[9:]) >= threshold
        thresholds.add(threshold)
    assert len(thresholds) > 5
    estimate = sum(NEVER / (NEVER - (parse_tracestate(span.trace_state.encode()).threshold or 0)) for span in kept)
    assert estimate == pytest.approx(500 * 20, rel=0.1)


def test_a_target_of_spans_and_of_bytes_counts_these() -> None:
    random = Random(2)
    scope = trace(random, size=5).resource_spans[0].scope_spans[0]
    span_bytes = sum(2 + span.ByteSize() for span in scope.spans) / 5
    for unit, per_second in ("spans", 400.0), ("bytes", 400.0 * span_bytes):
        driver = Driver(native=native(("rest", None, target(per_second, unit=unit))), wait_ns=0)
        for number in range(200 * 20):
            driver.send(trace(random, size=5), number * SECOND // 200)
            driver.tick(number * SECOND // 200)
        stats = driver.pipeline.rules.controllers[0].stats(20 * SECOND)
        assert stats.demand_per_s == pytest.approx(1000 * (1 if unit == "spans" else span_bytes), rel=0.03)
        assert stats.kept_per_s == pytest.approx(per_second, rel=0.1)
        assert len(spans(driver)) == pytest.approx(20 * 400, rel=0.15)


def test_late_spans_follow_with_the_threshold_of_their_trace() -> None:
    random = Random(3)
    driver = Driver(native=native(("rest", None, target(10))), wait_after_root_ns=0)
    messages = [trace(random, root=True) for _ in range(2000)]
    for number, message in enumerate(messages):
        driver.send(message, number * SECOND // 200)
        driver.tick(number * SECOND // 200)
    before = {span.trace_id: span.trace_state for span in spans(driver)}
    assert 60 < len(before) < 250
    for message in messages:
        message.resource_spans[0].scope_spans[0].spans[0].span_id = b"\x09" * 8
        driver.send(message, 11 * SECOND)
    late = [span for span in spans(driver) if span.span_id == b"\x09" * 8]
    assert {span.trace_id: span.trace_state for span in late} == before
    driver.check_ledger()


def test_demand_is_what_there_was_before_an_upstream_sampler() -> None:
    """Half of the traces come from a sampler of 1 %: 500 a second were started, 5 come."""
    random = Random(4)
    keep = target(25)
    driver = Driver(native=native(("rest", None, keep)), wait_after_root_ns=0)
    threshold = NEVER - NEVER // 100
    for number in range(40 * 505):
        message = trace(random, root=True)
        span = message.resource_spans[0].scope_spans[0].spans[0]
        if number % 101 == 0:
            low = random.randrange(threshold, NEVER)
            span.trace_id = span.trace_id[:9] + low.to_bytes(7)
            span.trace_state = f"ot=th:{encode_threshold(threshold)}"
        now_ns = number * SECOND // 505
        driver.send(message, now_ns)
        driver.tick(now_ns)
    stats = keep.controller.stats(40 * SECOND)
    assert stats.demand_per_s == pytest.approx(1000, rel=0.2)
    assert stats.kept_per_s == pytest.approx(25, rel=0.1)
    upstream = [span for span in spans(driver) if span.trace_state.startswith("ot=th:fd70a")]
    assert upstream  # whose threshold was larger than ours


def test_two_replicas_keep_the_same_traces_at_the_same_threshold() -> None:
    random = Random(5)
    messages = [trace(random, root=True) for _ in range(1000)]
    kept = []
    for seed in range(2):
        driver = Driver(native=native(("rest", None, 0.3)), wait_after_root_ns=0, seed=seed)
        order = list(messages)
        Random(seed).shuffle(order)
        for message in order:
            driver.send(message)
        driver.tick(SECOND)
        kept.append({(span.trace_id, span.trace_state) for span in spans(driver)})
    assert kept[0] == kept[1]
    assert 200 < len(kept[0]) < 400


def test_rules_that_have_not_changed_go_on_with_what_they_have_learned() -> None:
    keep = target(10)
    driver = Driver(native=native(("rest", None, keep)), wait_after_root_ns=0)
    steady(driver, Random(6), 300, 5)
    before = len(spans(driver))
    rules = native(("new", "{ name = `x` }", 0.0), ("rest", None, keep))  # type: ignore[arg-type]
    driver.pipeline.replace_rules(rules)
    steady(driver, Random(7), 300, 5, start_s=5)
    assert 30 < len(spans(driver)) - before < 75
    driver.check_ledger()


def test_a_controller_that_is_keyed_wants_fields() -> None:
    with pytest.raises(ValueError, match="wants fields"):
        Driver(native=native(("rest", None, Keep(Target(per_second=1, keyed=True, seed=1)))))


# The limit


def limited(per_second: float, unit: str = "spans", floor: float = 0.2, **settings: object) -> Driver:
    return Driver(
        native=rules_of([("errors", "{ status = error }", 1.0), ("rest", None, 0.5)], early=True),
        limit=(per_second, unit, floor),
        wait_after_root_ns=0,
        **settings,
    )


def test_what_the_rules_keep_waits_for_the_end_of_a_window() -> None:
    driver = limited(5)
    random = Random(1)
    for _ in range(20):
        driver.send(trace(random, size=2, root=True, error=True), SECOND)
    for _ in range(20):
        driver.send(trace(random, root=True), SECOND)
    driver.tick(SECOND)
    assert not spans(driver)
    sampled_out = driver.total(metrics.SPANS_SAMPLED_OUT)
    assert 4 <= sampled_out <= 16  # the rule's own decisions wait for nothing
    assert driver.total(metrics.BUFFER_SPANS) == 60 - sampled_out
    driver.check_ledger()
    driver.tick(2 * SECOND - 1)
    assert not spans(driver)
    driver.tick(2 * SECOND)
    driver.check_ledger()
    kept = Counter(attribute.value.string_value for span in spans(driver) for attribute in span.attributes)
    assert (kept["errors"], kept["rest"]) == (4, 1)  # two traces of two, and the floor's one
    for span in spans(driver):
        threshold = parse_tracestate(span.trace_state.encode()).threshold
        assert threshold is not None
        assert int.from_bytes(span.trace_id[9:]) >= threshold
    values = driver.values()
    assert dict(values[metrics.LIMITED_TRACES]) == {("errors",): 18, ("rest",): 20 - sampled_out - 1}
    assert values[metrics.LIMITED_SPANS]["errors",] == 36
    assert sum(values[metrics.TRACES_DECIDED].values()) == 40
    assert driver.total(metrics.BUFFER_SPANS) == 0


def test_spans_that_come_while_a_trace_waits_join_it_and_later_ones_are_owed() -> None:
    driver = limited(5)
    driver.send(request((1, 1), error=True), SECOND)  # kept at once, and so in the window
    driver.send(request((1, 2), (1, 3)), SECOND)
    driver.tick(SECOND + 1)
    found = driver.pipeline.find(trace_id(1), SECOND)
    assert found is not None
    assert (found["state"], found["chosen"], found["spans"]) == ("buffered", True, 3)
    driver.tick(2 * SECOND)
    assert len(spans(driver)) == 3
    driver.send(request((1, 4), (1, 5), (1, 6)), 2 * SECOND)
    assert len(spans(driver)) == 6
    assert driver.pipeline.limit is not None
    assert driver.pipeline.limit.owed == 3
    driver.check_ledger()


def test_late_spans_of_what_the_limit_rejected_are_dropped() -> None:
    driver = limited(1, "traces")
    random = Random(1)
    messages = [trace(random, error=True) for _ in range(5)]
    for message in messages:
        driver.send(message, 3 * SECOND)
    driver.tick(4 * SECOND)
    kept = {span.trace_id for span in spans(driver)}
    assert len(kept) == 1
    for message in messages:
        message.resource_spans[0].scope_spans[0].spans[0].span_id = b"\x07" * 8
        driver.send(message, 5 * SECOND)
    assert {span.trace_id for span in spans(driver) if span.span_id == b"\x07" * 8} == kept
    driver.check_ledger()
    for message in messages:
        name = message.resource_spans[0].scope_spans[0].spans[0].trace_id
        found = driver.pipeline.find(name, 6 * SECOND)
        assert found is not None
        assert (found["rule"], found["limited"]) == ("errors", name not in kept)


def test_a_limit_keeps_what_leaves_below_it() -> None:
    driver = limited(100)
    random = Random(2)
    at: list[int] = []
    for number in range(20 * 400):
        now_ns = number * SECOND // 400
        driver.send(trace(random, size=1 + number % 5, root=True, error=number % 10 == 0), now_ns)
        driver.tick(now_ns)
        at += [now_ns] * (len(driver.destinations[0].traces) - len(at))
    sizes = [one.spans for one in driver.destinations[0].traces]
    for start in range(0, 17 * SECOND, SECOND // 4):
        leaving = sum(size for when, size in zip(at, sizes, strict=True) if start <= when < start + 3 * SECOND)
        assert leaving <= 3 * 100 + 2 * 5 + 100
    assert 0.85 * 100 * 19 <= sum(sizes) <= 100 * 20 + 10
    driver.check_ledger()


def test_the_limit_may_change_and_go() -> None:
    driver = limited(3)
    random = Random(3)
    messages = [trace(random, size=2, error=True) for _ in range(30)]
    for message in messages[:10]:
        driver.send(message, SECOND)
    driver.pipeline.replace_limit((4.0, "traces", 0.2))  # of which two spans are one
    driver.tick(2 * SECOND)
    assert len(driver.destinations[0].traces) == 4
    for message in messages[10:20]:
        driver.send(message, 3 * SECOND)
    driver.pipeline.replace_limit(None)
    for message in messages[20:]:
        driver.send(message, 3 * SECOND)
    assert len(driver.destinations[0].traces) == 14  # at once
    driver.tick(4 * SECOND)
    assert len(driver.destinations[0].traces) == 24
    assert driver.pipeline.limit is None
    driver.check_ledger()
    driver.pipeline.replace_limit((1.0, "traces", 0.2))
    for number in range(3):
        driver.send(trace(random, error=True), 5 * SECOND + number)
    driver.tick(6 * SECOND)
    assert len(driver.destinations[0].traces) == 25
    driver.check_ledger()


def test_when_memory_runs_out_the_window_ends_early_and_errors_survive() -> None:
    driver = limited(1000, max_bytes=MIB, max_trace_bytes=MIB // 2)
    random = Random(4)
    refused = sent = 0
    for number in range(3000):
        try:
            driver.send(trace(random, size=10, error=number % 50 == 0), SECOND + number * SECOND // 1000)
            sent += 10
        except Overloaded:
            refused += 1
        driver.check_ledger()
    assert driver.values()[metrics.BUFFER_BYTES][()] <= MIB
    driver.tick(6 * SECOND)
    assert driver.total(metrics.SPANS_RECEIVED) == sent
    decided = driver.values()[metrics.TRACES_DECIDED]
    assert sum(count for (_, _, reason), count in decided.items() if reason == "memory") > 100
    assert decided["errors", "keep", "early"] >= 58  # they alone would have fitted
    assert refused < 300
    left = [one.spans for one in driver.destinations[0].traces]
    assert sum(left) <= 1000 * 4


def test_a_stop_closes_the_window_when_its_second_is_over_or_at_once() -> None:
    driver = limited(4)
    random = Random(5)
    for _ in range(10):
        driver.send(trace(random, size=2, error=True), SECOND)
    for _ in range(10):
        driver.send(trace(random, size=2), SECOND)
    driver.pipeline.close()
    while driver.pipeline.drain(SECOND + 1) and not driver.pipeline.only_limit_left:
        pass
    assert driver.pipeline.only_limit_left
    assert driver.pipeline.drain(SECOND + 2)
    assert not driver.pipeline.drain(SECOND + 2, hurry=True)
    assert not driver.pipeline.drain(SECOND + 3, hurry=True)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    assert len(driver.destinations[0].traces) == 2  # there is a second's budget, if there was no second


def test_a_stop_gives_what_is_buffered_the_budget_of_the_time_it_came_in() -> None:
    driver = limited(100, wait_ns=WAIT)
    random = Random(6)
    rules = [("errors", "{ status = error }", 0.9), ("rest", None, 0.5)]  # not early
    driver.pipeline.replace_rules(rules_of(rules))  # type: ignore[arg-type]
    for number in range(1500):  # 50 spans a second for 30 s: half of the limit
        driver.send(trace(random, error=True), number * SECOND // 50)
    driver.pipeline.close()
    while driver.pipeline.drain(WAIT) and not driver.pipeline.only_limit_left:
        pass
    driver.pipeline.drain(WAIT + SECOND)
    while driver.pipeline.drain(WAIT + SECOND):
        pass
    assert 0.85 * 1500 < len(spans(driver)) < 0.95 * 1500
    assert driver.total(metrics.LIMITED_SPANS) == 0


def test_a_stop_does_not_make_a_target_think_that_traffic_has_grown() -> None:
    driver = Driver(native=native(("rest", None, target(50, ["resource.service.name"]))), wait_ns=10 * SECOND)
    random = Random(7)
    for number in range(30 * 500):
        driver.send(trace(random), number * SECOND // 500)
        driver.tick(number * SECOND // 500)
    before = len(spans(driver))
    driver.pipeline.close()
    while driver.pipeline.drain(30 * SECOND):
        pass
    assert len(spans(driver)) - before == pytest.approx(10 * 50, rel=0.2)
    driver.check_ledger()


def test_spans_that_join_a_waiting_trace_count() -> None:
    """Traces of one error, kept at once, whose other spans come while they wait: 21 spans each, 100 traces a second."""
    driver = limited(100)
    random = Random(8)
    later: list[ExportTraceServiceRequest] = []
    for step in range(200):
        now_ns = step * SECOND // 20
        for message in later:
            driver.send(message, now_ns)
        later = []
        for _ in range(5):
            message = trace(random, size=21, error=True)
            rest = ExportTraceServiceRequest()
            rest.CopyFrom(message)
            del message.resource_spans[0].scope_spans[0].spans[1:]
            del rest.resource_spans[0].scope_spans[0].spans[:1]
            driver.send(message, now_ns)
            later.append(rest)
        driver.tick(now_ns)
    assert len(spans(driver)) <= 10 * 100 + 42
    assert len(spans(driver)) >= 7 * 100  # four of 21 in each window
    driver.check_ledger()


def test_a_root_that_joins_a_waiting_trace_does_not_have_it_decided_again() -> None:
    driver = limited(100)
    driver.send(request((1, 1), error=True), SECOND)
    driver.send(request((1, 2), root=True), SECOND)
    driver.tick(SECOND + 1)
    driver.tick(2 * SECOND)
    assert len(spans(driver)) == 2
    assert dict(driver.values()[metrics.TRACES_DECIDED]) == {("errors", "keep", "early"): 1}
    driver.check_ledger()


def test_a_waiting_trace_that_grows_too_large_waits_no_longer_and_is_owed() -> None:
    driver = limited(100, max_trace_bytes=MIB // 4)
    driver.send(request((1, 1), error=True), SECOND)
    driver.send(request((2, 1), error=True), SECOND)
    for number in range(2, 300):
        driver.send(request((1, number), size=1024), SECOND)
    assert {span.trace_id for span in spans(driver)} == {trace_id(1)}
    assert driver.pipeline.limit is not None
    assert 200 < driver.pipeline.limit.owed <= 300
    assert driver.pipeline.limit.count == 1
    assert driver.total(metrics.SPANS_KEPT) == 299
    driver.check_ledger()


def test_admitted_traces_wait_where_a_destination_has_no_room() -> None:
    driver = limited(1000, destinations=[Destination(2)], max_bytes=MIB, max_trace_bytes=MIB // 2)
    random = Random(6)
    for number in range(200):
        driver.send(trace(random, size=3, error=True), SECOND + number)
    driver.tick(3 * SECOND)
    driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 594
    driver.destinations[0].room = None
    driver.tick(4 * SECOND)
    assert driver.total(metrics.SPANS_KEPT) == 600
    driver.check_ledger()


# Trace ids that are no chance


def test_ids_that_do_not_look_random_are_noticed() -> None:
    driver = Driver(native=native(("rest", None, 0.0)), wait_after_root_ns=0)
    random = Random(1)

    def send(count: int, low: bytes | None = None, state: str = "") -> None:
        message = request(*((number, 1) for number in range(1, count + 1)), root=True, trace_state=state)
        for one in message.resource_spans[0].scope_spans[0].spans:
            one.trace_id = random.randbytes(16) if low is None else random.randbytes(9) + low + random.randbytes(5)
        driver.send(message)
        driver.tick(WAIT_AFTER_ROOT)

    block = 1 << 14
    send(block)
    assert driver.values()[metrics.TRACE_IDS_RANDOM][()] == 1
    send(block, b"\x00\x00", "ot=rv:12345678901234")  # these are not sampled by their ids
    send(block, b"\xff\xff", "ot=th:c")  # nor do these say what the ids were like
    assert driver.values()[metrics.TRACE_IDS_RANDOM][()] == 1
    send(block, b"\x00\x00")
    assert driver.values()[metrics.TRACE_IDS_RANDOM][()] == 0
    send(block)
    assert driver.values()[metrics.TRACE_IDS_RANDOM][()] == 1


ANYHOW = Random(3)


@pytest.mark.parametrize(
    "ids",
    [
        lambda n: n,  # counted up
        lambda n: n << 64,
        lambda n: int.from_bytes(n.to_bytes(16, "little")),
        lambda n: (1_790_000_000_000 + n) << 22,  # a snowflake: time first
        lambda _: ANYHOW.getrandbits(32),  # too short
        lambda _: ANYHOW.getrandbits(128) & ~(0xFF << 40),  # one byte that is always the same
        lambda n: n if n % 8 == 0 else ANYHOW.getrandbits(128),  # one sender of eight
        lambda _: ANYHOW.getrandbits(64) << 64 | 0x9F_0242_AC12_0002,  # an address, as in UUIDs of version 1
        lambda _: ANYHOW.choice([0xABCDEF, 0x123456]) << 32 | ANYHOW.getrandbits(32),  # few of one kind
    ],
)
def test_ids_that_are_no_chance_are_noticed_after_a_few_hundred(ids: Callable[[int], int]) -> None:
    driver = Driver(native=native(("rest", None, 0.1)), wait_after_root_ns=0)
    for at in range(0, 512, 128):
        message = request(*((number, 1) for number in range(128)), root=True)
        for number, one in enumerate(message.resource_spans[0].scope_spans[0].spans, at + 1):
            one.trace_id = ids(number).to_bytes(16)
        driver.send(message)
        driver.tick(0)
    assert driver.values()[metrics.TRACE_IDS_RANDOM][()] == 0


def test_ids_that_become_counted_are_noticed_wherever_they_begin() -> None:
    uniformity, random = Uniformity(), Random(4)
    for _ in range(8_000):
        uniformity.add(random.getrandbits(56))
    assert uniformity.random
    for number in range(512):
        uniformity.add(number)
    assert not uniformity.random
    for _ in range(2 << 14):
        uniformity.add(random.getrandbits(56))
    assert uniformity.random


def test_ids_that_are_random_stay_so() -> None:
    uniformity, random = Uniformity(), Random(5)
    for _ in range(1 << 20):
        uniformity.add(random.getrandbits(56))
        assert uniformity.random


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_holds_whatever_happens(seed: int) -> None:
    """Traffic, late spans, full destinations and memory, changes of rules and limit, and a stop, in any order."""
    random = Random(seed)
    destinations = [Destination(), Destination(3)]
    driver = limited(random.choice([5, 200]), destinations=destinations, max_bytes=MIB, max_trace_bytes=MIB // 8)
    rules = [
        native(("errors", "{ status = error }", 1.0), ("rest", None, target(20, ["resource.service.name"]))),
        native(("slow", "{ traceDuration > 1s }", 0.7), ("rest", None, 0.3)),
    ]
    sent: list[ExportTraceServiceRequest] = []
    now_ns = SECOND
    for _ in range(400):
        action = random.randrange(12)
        if action < 6:
            old = random.choice(sent) if sent and random.random() < 0.3 else None
            message = trace(
                random,
                size=random.randrange(1, 6),
                root=random.random() < 0.5,
                error=random.random() < 0.3,
                service=random.choice("abc"),
            )
            for span in message.resource_spans[0].scope_spans[0].spans:
                if old is not None:
                    span.trace_id = old.resource_spans[0].scope_spans[0].spans[0].trace_id
                    span.span_id = random.randbytes(8)
                if random.random() < 0.2:
                    span.attributes.add(key="padding").value.string_value = "x" * random.choice([10, 5000, 60_000])
            sent.append(message)
            with contextlib.suppress(Overloaded):
                driver.send(message, now_ns)
        elif action < 9:
            now_ns += random.choice([1, SECOND // 20, SECOND, 31 * SECOND])
            driver.pipeline.tick(now_ns, random.choice([1, 256]))
        elif action == 9:
            destinations[1].room = random.choice([None, len(destinations[1].traces), len(destinations[1].traces) + 4])
        elif action == 10:
            driver.pipeline.replace_rules(random.choice(rules))  # type: ignore[arg-type]
        else:
            unit = random.choice(["traces", "spans", "bytes"])
            driver.pipeline.replace_limit(random.choice([None, (random.choice([0.1, 50, 1e6]), unit, 0.2)]))
        driver.check_ledger()
        assert driver.values()[metrics.BUFFER_BYTES][()] <= MIB + MIB // 8
    destinations[1].room = None
    driver.pipeline.close()
    for _ in range(10_000):
        if not driver.pipeline.drain(now_ns, 7, hurry=random.random() < 0.5):
            break
        now_ns += SECOND // 20
        driver.check_ledger()
    assert driver.total(metrics.BUFFER_SPANS) == 0
    kept = driver.total(metrics.SPANS_KEPT)
    assert [sum(one.spans for one in destination.traces) for destination in destinations] == [kept, kept]
    for span in spans(driver):
        threshold = parse_tracestate(span.trace_state.encode()).threshold or 0
        assert int.from_bytes(span.trace_id[9:]) >= threshold


def test_values_of_different_types_are_different_keys() -> None:
    keep = target(1000, ["span.x"])
    driver = Driver(native=native(("rest", None, keep)), wait_after_root_ns=0)
    random = Random(9)
    values: list[dict[str, object]] = [
        {"int_value": 1},
        {"int_value": 2},
        {"string_value": "1"},
        {"double_value": 1.0},
        {"bool_value": True},
        {"bool_value": False},
        {},
    ]
    for number in range(10 * len(values)):
        message = trace(random, root=True)
        attribute = message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="x")
        for kind, value in values[number % len(values)].items():
            setattr(attribute.value, kind, value)
        driver.send(message, number * SECOND // 10)
        driver.tick(number * SECOND // 10)
    assert len(keep.controller.top(50)) == len(values)


def test_a_threshold_that_cannot_be_says_nothing_of_demand() -> None:
    keep = target(1000)
    driver = Driver(native=native(("rest", None, keep)), wait_after_root_ns=0)
    random = Random(10)
    for number in range(100):
        message = trace(random, root=True, trace_state="ot=th:fffff")
        span = message.resource_spans[0].scope_spans[0].spans[0]
        span.trace_id = span.trace_id[:9] + b"\x80" + bytes(6)  # its own sampler cannot have kept it
        driver.send(message, number * SECOND // 100)
        driver.tick(number * SECOND // 100)
    assert keep.controller.stats(SECOND).demand_per_s == pytest.approx(100, rel=0.1)
