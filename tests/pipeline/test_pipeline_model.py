"""Compares the pipeline with small models of itself, step by step: nothing is lost, nothing is doubled, whatever
happens in between."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, MalformedRequest, Overloaded, RequestError, RequestTooLarge
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.stamp import assemble
from tests.pipeline.driver import KEEP_ALL, KEEP_NONE, SECOND, Destination, Driver, request, trace_id
from tests.support import reference
from tests.support.wire import LEN, field

KIB = 1 << 10
Key = tuple[bytes, bytes]  # trace id and span id


def spans_of(traces: list[KeptTrace]) -> Counter[Key]:
    message = ExportTraceServiceRequest.FromString(assemble(traces))
    return Counter((one.span.trace_id, one.span.span_id) for one in reference.seen(message))


class Ledger(RuleBasedStateMachine):
    """Half of the trace ids are kept, whenever and for whatever reason they are decided: so each accepted span's
    fate is known."""

    max_bytes = 96 * KIB
    decides_by: tuple[tuple[str, str | None, float], ...] = (("half", None, 0.5),)
    where: Mapping[str, Any] = {}  # routes and archives of the pipeline

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(
            self.decides_by,
            destinations=[Destination(), Destination()],
            max_bytes=self.max_bytes,
            max_trace_bytes=16 * KIB,
            decision_memory_bytes=KIB,
            **self.where,
        )
        self.empty_bytes = self.driver.pipeline.buffer.nbytes
        self.now = 0
        self.number = 0
        self.accepted: Counter[Key] = Counter()
        self.errors: Counter[Key] = Counter()  # of these
        self.closed = False
        self.offered: list[list[KeptTrace]] = [[], []]

    @initialize(rooms=st.tuples(st.sampled_from([None, 0, 3]), st.sampled_from([None, 0, 3])))
    def begin(self, rooms: tuple[int | None, int | None]) -> None:
        for destination, room in zip(self.driver.destinations, rooms, strict=True):
            destination.room = room

    @rule(
        traces=st.lists(st.integers(1, 40), min_size=1, max_size=6),
        size=st.sampled_from([0, 0, 100, 2000, 9000]),
        root=st.booleans(),
        service=st.sampled_from(["a", "b", "c" * 500, "unique"]),
        back_ns=st.sampled_from([0, 0, SECOND]),
        error=st.booleans(),
    )
    def send(self, traces: list[int], size: int, root: bool, service: str, back_ns: int, error: bool) -> None:
        spans = []
        for trace in traces:
            self.number += 1
            spans.append((trace, self.number))
        message = request(
            *spans,
            root=root,
            size=size,
            service=f"{service} {self.number}" if service == "unique" else service,
            error=error,
        )
        for one in message.resource_spans[0].scope_spans[0].spans:
            # R, the last seven bytes, is far above or far below the threshold.
            low = b"\xff" if int.from_bytes(one.trace_id[:9]) % 2 else b"\x00"
            one.trace_id = one.trace_id[:9] + low * 7
        refusal: type[RequestError] | None = None
        try:
            self.driver.send(message, max(self.now - back_ns, 0))
        except RequestError as refused:
            refusal = type(refused)
        assert refusal in ((Draining,) if self.closed else (None, Overloaded, RequestTooLarge))
        if refusal is None:
            keys = [(one.span.trace_id, one.span.span_id) for one in reference.seen(message)]
            self.accepted.update(keys)
            self.errors.update(keys if error else [])

    @rule(raw=st.sampled_from([b"\xff", b"\x0a\x05", request((1, 1), (2, 1)).SerializeToString() + b"\x00"]))
    def send_garbage(self, raw: bytes) -> None:
        with pytest.raises(MalformedRequest):
            self.driver.send(raw, self.now)

    @rule(forward=st.sampled_from([0, 1, SECOND, 6 * SECOND, 31 * SECOND]), slice=st.sampled_from([1, 3, 256]))
    def tick(self, forward: int, slice: int) -> None:
        self.now += forward
        self.driver.pipeline.tick(self.now, slice)

    @rule(which=st.integers(0, 1), room=st.sampled_from([None, 0, 1, 5]))
    def take_from_destination(self, which: int, room: int | None) -> None:
        destination = self.driver.destinations[which]
        self.offered[which] += destination.traces
        destination.traces = []
        destination.room = room

    @precondition(lambda self: self.number > 60)
    @rule()
    def close(self) -> None:
        self.driver.pipeline.close()
        self.closed = True

    @rule(slice=st.sampled_from([1, 256]))
    def drain(self, slice: int) -> None:
        self.driver.pipeline.drain(self.now, slice)

    @invariant()
    def every_span_is_accounted_for(self) -> None:
        self.driver.check_ledger()
        assert self.driver.total(metrics.SPANS_RECEIVED) == self.accepted.total()

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.driver.values()[metrics.BUFFER_BYTES][()] <= self.max_bytes * 17 / 16 + 17 * KIB

    def teardown(self) -> None:
        for destination in self.driver.destinations:
            destination.room = None
        while self.driver.pipeline.drain(self.now):
            pass
        self.driver.check_ledger()
        for which in range(2):
            self.take_from_destination(which, None)
        self.check_destinations()
        self.offered = [[], []]
        assert len(self.driver.pipeline.envelopes) == 0
        assert self.driver.pipeline.buffer.nbytes == self.empty_bytes

    def check_destinations(self) -> None:
        for traces in self.offered:
            self.check_kept(traces)
        assert self.driver.total(metrics.SPANS_KEPT) == spans_of(self.offered[0]).total()
        assert [t.trace_id for t in self.offered[0]] == [t.trace_id for t in self.offered[1]]

    def check_kept(self, traces: list[KeptTrace]) -> None:
        assert spans_of(traces) == Counter({key: count for key, count in self.accepted.items() if key[0][-1]})


class LateErrors(Ledger):
    """Errors are kept with certainty, also those that come after the decision on their trace, whatever it was; half of
    the others are, by the trace id, or more, where an error came before them."""

    decides_by = (("errors", "{ status = error }", 1.0), ("half", None, 0.5))

    def check_kept(self, traces: list[KeptTrace]) -> None:
        kept = spans_of(traces)
        assert kept <= self.accepted
        assert kept >= Counter({key: n for key, n in self.accepted.items() if key[0][-1]}) | self.errors
        message = ExportTraceServiceRequest.FromString(assemble(traces))
        for one in reference.seen(message):
            if one.span.status.code == 2:
                assert not one.span.trace_state


class Archive(LateErrors):
    """The second destination takes what is sampled out, too: each accepted span comes to it, once."""

    where = MappingProxyType({"archives": [1]})

    def check_destinations(self) -> None:
        kept, archived = self.offered
        self.check_kept(kept)
        self.check_kept([trace for trace in archived if not trace.sampled_out])
        assert spans_of(archived) == self.accepted
        assert not any(trace.sampled_out for trace in kept)
        sampled_out = spans_of([trace for trace in archived if trace.sampled_out]).total()
        assert self.driver.total(metrics.SPANS_SAMPLED_OUT) == sampled_out
        assert self.driver.total(metrics.SPANS_KEPT) == spans_of(kept).total()


class Routes(LateErrors):
    """Errors go to the first destination only, and all else to the second."""

    where = MappingProxyType({"routes": {"errors": [0], "half": [1]}})

    def check_destinations(self) -> None:
        self.check_kept([*self.offered[0], *self.offered[1]])
        assert {self.driver.pipeline.ledger_id("errors")} >= {trace.rule for trace in self.offered[0]}
        assert {self.driver.pipeline.ledger_id("half")} >= {trace.rule for trace in self.offered[1]}


TestArchive = Archive.TestCase
TestArchive.settings = settings(max_examples=60, stateful_step_count=60)
TestRoutes = Routes.TestCase
TestRoutes.settings = settings(max_examples=40, stateful_step_count=60)
TestLateErrors = LateErrors.TestCase
TestLateErrors.settings = settings(max_examples=60, stateful_step_count=60)
TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=60)


@pytest.mark.parametrize("max_bytes", [1, 1536 * 59, 70_000])
def test_the_memory_of_decisions_is_exact(max_bytes: int) -> None:
    """Compare with a dictionary and a queue, over many more traces than the memory holds. Each trace is decided as it
    comes (by its size)."""
    driver, random = Driver(KEEP_NONE, decision_memory_bytes=max_bytes, max_trace_bytes=1), Random(1)
    room = max(1024, max_bytes // 59)
    remembered: set[int] = set()
    order: deque[int] = deque()
    late = 0
    for _ in range(400):
        numbers = {random.randrange(1, 3 * room) for _ in range(random.choice([1, 5, 200]))}
        spans = b"".join(
            field(2, LEN, field(1, LEN, trace_id(number)) + field(2, LEN, b"\x01" * 8)) for number in numbers
        )
        # In the order of the request: what is decided on the way may push out what comes later.
        for number in numbers:
            if number in remembered:
                late += 1
                continue
            if len(order) == room:
                remembered.remove(order.popleft())
            order.append(number)
            remembered.add(number)
        driver.send(field(1, LEN, field(2, LEN, spans)))
        assert driver.pipeline.decisions.count == len(remembered)
        assert driver.values()[metrics.LATE_SPANS][("drop",)] == late
    assert len(order) == room
    assert driver.pipeline.decisions.nbytes <= max(max_bytes, 1024 * 59)


def test_the_buffer_finds_its_traces_whatever_was_removed() -> None:
    """Compare with a dictionary: traces come, grow, and go in any order (those with a root sooner), and the table
    grows on the way."""
    driver, random = Driver(KEEP_ALL, wait_ns=400, wait_after_root_ns=30, decision_memory_bytes=1 << 24), Random(2)
    expected: dict[int, list[int]] = {}
    due: dict[int, int] = {}
    decided: set[int] = set()
    most = 0
    for now in range(1, 1500):
        chosen = random.sample(range(1, 6000), 8)
        roots = {number for number in chosen if random.random() < 0.3}
        for group in (set(chosen) - roots, roots):
            fresh = [number for number in group if number not in decided]
            if fresh:
                driver.send(request(*((number, now) for number in fresh), root=group is roots), now)
            for number in fresh:
                expected.setdefault(number, []).append(now)
                due.setdefault(number, now + 400)
                if group is roots:
                    due[number] = min(due[number], now + 30)
        most = max(most, len(due) - len(decided))
        driver.tick(now)
        decided |= {number for number, at in due.items() if at <= now}
        assert driver.pipeline.buffer.traces == len(due) - len(decided)
    assert most > 1024 * 3 // 4  # so that the table has grown
    driver.pipeline.drain(1500, 1 << 20)
    leaving: dict[int, list[int]] = {}
    for one in reference.seen(driver.kept()):
        number = int.from_bytes(one.span.trace_id[:9])
        leaving.setdefault(number, []).append(int.from_bytes(one.span.span_id))
    assert leaving == expected


def test_two_receiving_threads_and_a_clock() -> None:
    """Two intakes, a ticking thread, and a consumer that lets traces go, all at once; then every span is found."""
    destination = Destination(room=2_000)
    driver = Driver(
        [
            ("errors", "{ status = error }", 1.0),
            ("names", '{ name =~ "GET.*" && span.n =~ "..7" }', 0.5),
            ("rest", None, 0.1),
        ],
        destinations=[destination],
        max_bytes=1 << 20,
        wait_ns=20_000_000,
        wait_after_root_ns=5_000_000,
        decision_memory_bytes=KIB,
    )
    stop = time.monotonic() + 1.5
    accepted, taken = [0, 0], [0]
    failures: list[BaseException] = []

    def guarded(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as failure:
            failures.append(failure)

    def sender(which: int) -> None:
        intake, random, span = driver.pipeline.intake(f"t{which}"), Random(which), which
        while time.monotonic() < stop:
            spans = []
            for _ in range(random.choice([1, 8, 100])):
                span += 2
                spans.append((random.randrange(1, 3000), span + 1))
            message = request(*spans, root=random.random() < 0.3, error=random.random() < 0.1, service=f"s{span % 50}")
            for one in message.resource_spans[0].scope_spans[0].spans:
                one.attributes.add(key="n").value.string_value = str(random.randrange(1000))
            try:
                intake.accept(message.SerializeToString(), time.monotonic_ns())
            except Overloaded:
                time.sleep(0.001)
            else:
                accepted[which] += len(spans)

    def clock() -> None:
        while time.monotonic() < stop:
            driver.pipeline.tick(time.monotonic_ns())
            driver.check_ledger()

    def consumer() -> None:
        while time.monotonic() < stop:
            with driver.pipeline.lock:
                traces, destination.traces = destination.traces, []
            taken[0] += sum(spans_of(traces).values())
            traces.clear()
            gc.collect(0)

    work = [lambda: sender(0), lambda: sender(1), clock, consumer]
    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    destination.room = None
    while driver.pipeline.drain(time.monotonic_ns()):
        pass
    driver.check_ledger()
    assert driver.values()[metrics.SPANS_RECEIVED] == {("t0",): accepted[0], ("t1",): accepted[1]}
    assert min(accepted) > 100
    taken[0] += sum(spans_of(destination.traces).values())
    assert driver.total(metrics.SPANS_KEPT) == taken[0]
    destination.traces.clear()
    assert len(driver.pipeline.envelopes) == 0
