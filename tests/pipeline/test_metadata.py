"""Spans stay with the metadata that their requests came with, through rules, redaction and stamping."""

from __future__ import annotations

import pytest

from sampler_proxy import metrics
from sampler_proxy.errors import MalformedRequest
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.otlp.metadata import Metadata, decode, encode
from sampler_proxy.pipeline.stamp import assemble
from tests.pipeline.driver import KEEP_ALL, WAIT, Destination, Driver, request, rules_of, trace_id
from tests.support.redacting import policy

ONE, OTHER = encode([("x-scope-orgid", "one")]), encode([("x-scope-orgid", "other"), ("x-zone", "b")])
BY_TENANT = [
    ("drop", '{ metadata.X-Scope-OrgID = "other" && metadata.x-zone = "b" }', 0.0),
    ("rest", None, 1.0),
]


def left(driver: Driver, metadata: bytes) -> list[KeptTrace]:
    return [trace for trace in driver.destinations[0].traces if trace.metadata == metadata]


def accept(driver: Driver, metadata: bytes | None, trace: int, spans: int = 1) -> None:
    message = request(*((trace, number) for number in range(1, spans + 1)))
    driver.intake.accept(message.SerializeToString(), 0, metadata)


@pytest.mark.parametrize("metadata", [(), (("a", ""),), (("a", "x y"), ("b", "~" * 300))])
def test_encoding_round_trips(metadata: Metadata) -> None:
    assert decode(encode(metadata)) == metadata
    assert (encode(metadata) == b"") == (not metadata)


@pytest.mark.parametrize("redact", [False, True], ids=["plain", "redacted"])
def test_metadata_stay_with_traces_and_go_into_no_body(redact: bool) -> None:
    driver = Driver(KEEP_ALL)
    if redact:
        driver.pipeline.replace_redaction(policy({"preset": "strict", "allow_only": {"resource": ["service.name"]}}))
    for metadata, number in ((ONE, 1), (OTHER, 2), (None, 3), (b"", 4), (ONE, 5)):
        accept(driver, metadata, number, 3)
    driver.tick(WAIT)
    driver.check_ledger()
    assert [trace.metadata for trace in driver.destinations[0].traces] == [ONE, OTHER, b"", b"", ONE]
    assert b"x-scope-orgid" not in assemble(driver.destinations[0].traces)
    assert len(driver.kept().resource_spans) == 3  # the same resource, under three different metadata
    driver.destinations[0].traces.clear()
    assert len(driver.pipeline.envelopes) == 0


def test_parts_of_a_trace_leave_apart() -> None:
    """One trace, one decision; each part as a trace of its own, the first part first, each span once."""
    destination = Destination()
    driver = Driver(native=rules_of(KEEP_ALL), destinations=[destination])
    for metadata, spans in ((ONE, 1), (OTHER, 2), (ONE, 4), (None, 8), (OTHER, 16)):
        accept(driver, metadata, 1, spans)
    accept(driver, ONE, 2)
    assert driver.total(metrics.BUFFER_TRACES) == 2
    driver.tick(WAIT)
    assert {trace.trace_id for trace in destination.traces[:3]} == {trace_id(1)}
    assert [(trace.metadata, trace.spans) for trace in destination.traces] == [
        *((ONE, 5), (OTHER, 18), (b"", 8)),
        (ONE, 1),
    ]
    driver.check_ledger()
    assert driver.total(metrics.SPANS_KEPT) == 32
    assert driver.total(metrics.BUFFER_SPANS) == 0
    destination.traces.clear()
    assert len(driver.pipeline.envelopes) == 0


def test_parts_of_a_trace_wait_for_room() -> None:
    destination = Destination(room=1)
    driver = Driver(native=rules_of(KEEP_ALL), destinations=[destination])
    accept(driver, ONE, 1, 2)
    accept(driver, OTHER, 1, 3)
    accept(driver, ONE, 1, 4)
    for room, buffered in ((1, 3), (2, 0)):
        destination.room = room
        driver.tick(WAIT)
        driver.check_ledger()
        assert driver.total(metrics.BUFFER_SPANS) == buffered
    assert [(trace.metadata, trace.spans) for trace in destination.traces] == [(ONE, 6), (OTHER, 3)]


def test_parts_of_a_trace_meet_a_want_of_memory() -> None:
    class Forgetful(Destination):
        """Has no memory for every second offer."""

        offers = 0

        def offer(self, trace: KeptTrace) -> bool:
            self.offers += 1
            if self.offers % 2:
                raise MemoryError
            return super().offer(trace)

    destination = Forgetful()
    driver = Driver(native=rules_of(KEEP_ALL), destinations=[destination])
    for number in range(3):
        accept(driver, ONE, number, 2)
        accept(driver, OTHER, number, 3)
    for _ in range(20):
        try:
            driver.tick(WAIT)
        except MemoryError:
            driver.check_ledger()
    driver.check_ledger()
    assert sorted(trace.spans for trace in destination.traces) == [2, 2, 2, 3, 3, 3]
    assert driver.total(metrics.BUFFER_SPANS) == 0


def test_each_part_is_finished_once() -> None:
    finished = 0

    def observe(*_: object) -> None:
        nonlocal finished
        finished += 1

    driver = Driver(KEEP_ALL)
    driver.pipeline.replace_redaction(policy({"preset": "common"}), observe)
    for number in range(200):
        message = request((number, 1))
        message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="password").value.string_value = "hunter2"
        for metadata in (ONE, OTHER):
            driver.intake.accept(message.SerializeToString(), 0, metadata)
    driver.tick(WAIT)
    driver.check_ledger()
    assert finished == len(driver.destinations[0].traces) == 400


def test_rules_name_metadata() -> None:
    """At once, and read again behind a change of the rules."""
    driver = Driver(BY_TENANT)
    for metadata, number in ((ONE, 1), (OTHER, 2), (None, 3)):
        accept(driver, metadata, number)
    driver.tick(WAIT)
    assert [trace.metadata for trace in driver.destinations[0].traces] == [ONE, b""]
    driver = Driver(KEEP_ALL)
    for metadata, number in ((ONE, 1), (OTHER, 2), (None, 3)):
        accept(driver, metadata, number)
    driver.pipeline.replace_rules(rules_of(BY_TENANT))
    driver.tick(WAIT)
    assert [trace.metadata for trace in driver.destinations[0].traces] == [ONE, b""]


def test_a_refused_request_leaves_no_metadata_behind() -> None:
    driver = Driver(KEEP_ALL)
    with pytest.raises(MalformedRequest):
        driver.intake.accept(b"\xff", 0, ONE)
    driver.intake.accept(b"", 0, ONE)
    accept(driver, None, 1)
    driver.tick(WAIT)
    assert not left(driver, ONE)
    driver.destinations[0].traces.clear()
    assert len(driver.pipeline.envelopes) == 0
