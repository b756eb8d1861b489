"""What an operator reads in the log, by a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sampler_proxy.export import reporter
from sampler_proxy.export.fates import REMEMBERED, Fates
from sampler_proxy.export.reporter import MAX_CHANGES, Reporter
from tests.export.support import Trace

SECOND = 10**9


class Bench:
    def __init__(self, caplog):
        caplog.set_level(logging.INFO, "sampler_proxy")
        self.now_ns = 0
        self.caplog = caplog
        self.report = Reporter("tempo", lambda: self.now_ns)

    def lines(self):
        found = [record.getMessage().removeprefix("export tempo: ") for record in self.caplog.records]
        self.caplog.clear()
        return found


@pytest.fixture
def bench(caplog):
    return Bench(caplog)


def test_every_change_of_state_is_logged(bench):
    report = bench.report
    assert report.up
    report.failed("UNAVAILABLE", "it is down")
    assert not report.up
    assert bench.lines() == ["it is down; trying again until it works"]
    bench.now_ns += 2 * SECOND
    report.failed("UNAVAILABLE", "it is down")
    assert bench.lines() == []
    assert report.succeeded()
    assert bench.lines() == ["works again after 2.0 s and 2 failed tries"]
    assert not report.succeeded()
    report.failed("UNAVAILABLE", "it is down")  # seconds after the first time
    assert bench.lines() == ["it is down; trying again until it works"]
    assert report.failures == {"UNAVAILABLE": 3}
    assert (report.last_error, report.last_error_ns) == ("it is down", 2 * SECOND)


def test_repeats_are_logged_once_a_minute_each(bench):
    for second in range(130):
        bench.now_ns = second * SECOND
        bench.report.failed("A", "down")
        bench.report.failed("B", "slow")
    lines = bench.lines()
    assert [line for line in lines if line.startswith("down")] == [
        "down; trying again until it works",
        "down; trying again until it works (60 times since the last line)",
        "down; trying again until it works (60 times since the last line)",
    ]
    assert sum(line.startswith("slow") for line in lines) == 3


def test_a_destination_that_flaps_does_not_fill_the_log(bench):
    for second in range(59):
        bench.now_ns = second * SECOND
        bench.report.failed("A", "down")
        bench.report.succeeded()
    assert len(bench.lines()) == MAX_CHANGES
    bench.now_ns = 70 * SECOND
    bench.report.failed("A", "down")
    assert bench.lines() == [
        "down; trying again until it works (108 changes of state more since the last line)",
    ]


def test_spans_are_summed_up_since_the_last_line(bench, monkeypatch):
    monkeypatch.setattr(reporter, "INTERVAL_NS", SECOND // 10)

    async def main():
        for number in range(1, 11):
            bench.report.complain("rejected", 3, "spans rejected: no", [number.to_bytes(16, "big")])
        assert bench.lines() == [f"3 spans rejected: no (trace {1:032x})"]
        bench.now_ns += SECOND // 10
        await asyncio.sleep(0.2)  # the line comes by itself
        assert bench.lines() == [
            "27 spans rejected: no (trace " + ", ".join(f"{number:032x}" for number in range(2, 7)) + ", ...)"
        ]
        bench.report.complain("rejected", 2, "spans rejected: no")
        bench.report.final()
        assert bench.lines() == ["2 spans rejected: no"]
        bench.report.final()
        assert bench.lines() == []

    asyncio.run(main())


def test_repeats_that_were_held_back_leave_at_the_stop(bench):
    for _ in range(7):
        bench.report.failed("A", "down")
    for _ in range(3):
        bench.report.failed_alone("B", "slow")
    bench.lines()
    bench.report.final()
    assert bench.lines() == [
        "down; trying again until it works (6 times since the last line)",
        "slow; others pass, so these traces are tried apart from them (2 times since the last line)",
    ]
    bench.report.final()
    assert bench.lines() == []


def test_repeats_of_an_outage_that_is_over_are_not_logged_again(bench):
    for _ in range(7):
        bench.report.failed("A", "down")
    bench.report.succeeded()
    assert bench.lines()[-1] == "works again after 0.0 s and 7 failed tries"
    bench.report.final()
    assert bench.lines() == []


def test_texts_are_not_formats(bench):
    text = "cannot read /run/a%d/100%/%s"
    bench.report.failed("A", text)
    bench.now_ns += 61 * SECOND
    bench.report.failed("A", text)
    bench.report.complain("headers", 0, text)
    assert [line.split(";")[0] for line in bench.lines()] == [text, text, text]


def test_what_fails_while_others_pass_is_no_change_of_state(bench):
    bench.report.failed_alone("A", "down")
    assert bench.report.up
    assert bench.report.failures == {"A": 1}
    assert bench.lines() == ["down; others pass, so these traces are tried apart from them"]


@pytest.mark.parametrize(
    ("exported", "rejected", "lost", "words"),
    [
        ([10], [], [], "exported"),
        ([3, 7], [], [], "exported"),
        ([], [10], [], "rejected"),
        ([], [], [10], "lost"),
        ([9], [1], [], "exported, 1 of 10 spans rejected"),
        ([7], [1], [2], "exported, 1 of 10 spans rejected, 2 of 10 spans lost"),
        ([], [1], [9], "1 of 10 spans rejected, 9 of 10 spans lost"),
        ([], [], [], None),
    ],
)
def test_what_became_of_a_trace_counts_its_spans(exported, rejected, lost, words):
    """Whichever parts of it, of one request or of several, came first."""
    fates, trace = Fates(), [Trace(1, spans=10)]
    for spans in rejected:
        fates.rejected(trace, spans)
    for spans in exported:
        fates.exported(trace, spans)
    for spans in lost:
        fates.lost(trace, spans)
    assert fates.get(trace[0].trace_id) == words


def test_spans_that_came_late_count_with_those_before():
    fates, one, other = Fates(), Trace(1, spans=3), Trace(2, spans=5)
    fates.exported([one, other, one])
    fates.exported([one])
    fates.rejected([one, other], 1)
    assert fates.get(one.trace_id) == "exported, 1 of 10 spans rejected"
    assert fates.get(other.trace_id) == "exported, 1 of 6 spans rejected"


def test_a_partial_success_of_several_traces_tells_of_each_that_it_may_be_meant():
    fates, traces = Fates(), [Trace(1), Trace(2)]
    fates.exported(traces)
    fates.rejected(traces, 0, unsure=True)
    assert [fates.get(trace.trace_id) for trace in traces] == ["partly rejected"] * 2


def test_fates_are_bounded():
    fates = Fates()
    traces = [Trace(number) for number in range(1, 3 * REMEMBERED + 1)]
    for trace in traces:
        fates.exported([trace])
    known = [fates.get(trace.trace_id) for trace in traces]
    assert known[-REMEMBERED:] == ["exported"] * REMEMBERED
    assert sum(fate is not None for fate in known) <= 2 * REMEMBERED
