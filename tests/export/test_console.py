"""The console: what a trace looks like, whatever a sender has put into it, on pipes and on a real terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import re
import time
from contextlib import asynccontextmanager, suppress
from fcntl import ioctl
from random import Random
from struct import pack
from termios import TIOCSWINSZ

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.config.model import Batch, ConsoleExport
from sampler_proxy.export import console
from sampler_proxy.export.console import ConsoleExporter
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.trace_tree import MAX_SPANS, draw, duration
from tests.export.support import Trace, assemble, counts, offer, running, until

MS = 10**6
TRACE_ID = bytes(range(16))


def span(
    request, name, identity, parent=b"", *, start=0, ms=1.0, service="shop", status=0, message="", kind=0, **stamps
):
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    one = resource_spans.scope_spans.add().spans.add(
        trace_id=TRACE_ID,
        span_id=identity.ljust(8, b"."),
        parent_span_id=parent.ljust(8, b".") if parent else b"",
        name=name,
        kind=kind,
        start_time_unix_nano=10**18 + start * MS,
        end_time_unix_nano=10**18 + start * MS + int(ms * MS),
    )
    one.status.code, one.status.message = status, message
    for key, value in stamps.items():
        attribute = one.attributes.add(key=f"sampler_proxy.{key}").value
        if isinstance(value, bool):
            attribute.bool_value = value
        else:
            attribute.string_value = value
    return one


def drawn(request, width=200, colour=False):
    return draw(request, width, colour).splitlines()


def test_a_trace():
    request = ExportTraceServiceRequest()
    span(request, "charge", b"d", b"a", start=20, ms=340.4, service="payment", status=2, kind=3)
    span(request, "INSERT", b"c", b"b", start=6, ms=1.5, kind=3)
    root = span(
        request,
        "POST /checkout",
        b"a",
        ms=1234,
        status=2,
        message="card declined",
        kind=2,
        rule="errors",
        reason="root",
    )
    span(request, "save", b"b", b"a", start=5, ms=12, kind=1, status=1)
    assert drawn(request) == [
        "trace 000102030405060708090a0b0c0d0e0f  4 spans  1.23 s  kept by errors (root)",
        "POST /checkout  1.23 s  ERROR card declined  server, shop",
        "├─ save  12 ms  OK  internal, shop",
        "│  └─ INSERT  1.5 ms  client, shop",
        "└─ charge  340 ms  ERROR  client, payment",
    ]
    root.trace_state = "vendor=x,ot=rv:1;th:fd70a"
    root.attributes.add(key="sampler_proxy.incomplete").value.bool_value = True
    assert drawn(request)[0].endswith("kept by errors (root), stands for 100, incomplete")


@pytest.mark.parametrize(
    ("stamps", "why"),
    [
        ({}, "kept"),
        ({"rule": "baseline"}, "kept by baseline"),
        ({"rule": "rest", "reason": "wait", "sampled_out": True}, "sampled out by rest (wait)"),
        ({"sampled_out": True}, "sampled out"),
    ],
)
def test_why(stamps, why):
    request = ExportTraceServiceRequest()
    span(request, "one", b"a", **stamps)
    assert drawn(request)[0].endswith(f"1 span  1 ms  {why}")


def test_circles_orphans_and_doubles():
    request = ExportTraceServiceRequest()
    span(request, "orphan", b"a", b"z", start=3)
    span(request, "egg", b"b", b"c", start=1)
    span(request, "hen", b"c", b"b", start=2)
    span(request, "self", b"d", b"d", start=9)
    span(request, "twin", b"e", start=10)
    span(request, "twin", b"e", start=11)
    span(request, "child", b"f", b"e", start=12)
    lines = [re.sub(r"  .*", "", line) for line in drawn(request)[1:]]
    assert sorted(re.sub(r"^[│├└─ ]+", "", line) for line in lines) == sorted(
        ["orphan", "egg", "hen", "self", "twin", "twin", "child"]
    )
    assert lines[0] == "orphan"
    assert lines[lines.index("egg") + 1] == "└─ hen"


def test_any_tree_shows_each_span_once_below_its_parent():
    for seed in range(50):
        dice = Random(seed)
        request = ExportTraceServiceRequest()
        size = dice.randrange(1, 60)
        for number in range(size):
            parent = b"" if not number or dice.random() < 0.1 else b"%d" % dice.randrange(size)
            span(request, f"s{number}", b"%d" % number, parent, start=dice.randrange(50))
        lines = drawn(request)
        assert sorted(re.search(r"s\d+", line)[0] for line in lines[1:]) == sorted(f"s{n}" for n in range(size))


def test_spans_that_share_an_id_cost_no_more():
    request = ExportTraceServiceRequest()
    for number in range(20_000):
        span(request, "x", b"same", b"same" if number else b"", start=number)
    lines = drawn(request)
    assert len(lines) == MAX_SPANS + 2


def test_deep_and_large_traces_are_bounded():
    request = ExportTraceServiceRequest()
    for number in range(3000):
        span(request, "x", b"%d" % number, b"%d" % (number - 1) if number else b"", start=number)
    began = time.monotonic()
    lines = drawn(request, width=100)
    assert time.monotonic() - began < 5
    assert len(lines) == MAX_SPANS + 2
    assert lines[-1] == f"… and {3000 - MAX_SPANS} spans more"
    assert all(len(line) <= 100 for line in lines)


def test_what_a_sender_chose_stays_in_its_line():
    request = ExportTraceServiceRequest()
    hostile = "\x1b[31mred\r\nnew line\u202e\x00" + "y" * 10_000
    span(request, hostile, b"a", service=hostile, status=2, message=hostile, rule=hostile, reason=hostile)
    for colour in (False, True):
        lines = draw(request, 80, colour)
        assert lines.count("\n") == 2
        plain = re.sub(r"\x1b\[\d+m", "", lines)
        assert plain.replace("\n", "").isprintable()
        assert all(len(line) <= 80 for line in plain.splitlines())
        assert ("\x1b" in lines) is colour
        assert lines.count("\x1b[31m") <= 1  # ours


def test_durations():
    assert [duration(ns) for ns in (0, 999, 1000, 1234567, 999_999_999, 10**9, 86_400 * 10**9, -1)] == [
        "0 ns",
        "999 ns",
        "1 µs",
        "1.23 ms",
        "1 s",
        "1 s",
        "86400 s",
        "ends before it begins",
    ]


@asynccontextmanager
async def exporting(fd, environ=None):
    settings = ConsoleExport(name="console", protocol="console", batch=Batch(max_wait_ns=5 * MS))
    dependencies = Dependencies(
        assemble, time.monotonic_ns, lambda: random.random() / 50, lambda _seconds: None, environ or {}
    )
    async with running(ConsoleExporter(settings, dependencies, fd)) as exporter:
        yield exporter


def test_a_pipe_gets_plain_text(run):
    read, write = os.pipe()

    async def scenario():
        async with exporting(write) as exporter:
            offer(exporter, [1, 2], spans=3)
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (6, 0, {})

    run(scenario())
    os.close(write)
    with open(read, encoding="utf-8") as reader:
        text = reader.read()
    assert text.count("trace 0000") == 2
    assert text.count("GET /") == 6
    assert "\x1b" not in text


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_and_its_width(run, environ, coloured):
    master, slave = pty.openpty()
    ioctl(slave, TIOCSWINSZ, pack("HHHH", 24, 30, 0, 0))

    async def scenario():
        async with exporting(slave, environ) as exporter:
            offer(exporter, [1], spans=1)
            await until(lambda: exporter.queue.empty)

    run(scenario())
    text = os.read(master, 65536).decode()
    os.close(master)
    os.close(slave)
    assert ("\x1b[1m" in text) is coloured
    assert all(len(line) <= 30 for line in re.sub(r"\x1b\[\d+m", "", text).splitlines())


def test_a_reader_that_stops_holds_traces_up_and_not_the_stop(run, monkeypatch, caplog):
    monkeypatch.setattr(console, "PATIENCE_S", 0.05)
    read, write = os.pipe()

    async def scenario():
        async with exporting(write) as exporter:
            offer(exporter, range(1, 2001), spans=1)
            await until(lambda: exporter.failed_tries)
            assert not exporter.report.up
            os.set_blocking(read, False)

            def emptied():
                with suppress(BlockingIOError):
                    os.read(read, 1 << 20)
                return exporter.queue.empty

            await until(emptied)
            assert counts(exporter) == (2000, 0, {})
            offer(exporter, range(1, 2001), spans=1)
            failed = exporter.failed_tries
            await until(lambda: exporter.failed_tries > failed)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5

    run(scenario())
    os.close(read)
    os.close(write)
    assert "standard output takes nothing, EAGAIN" in caplog.text


def test_a_reader_that_is_gone(run):
    read, write = os.pipe()
    os.close(read)

    async def scenario():
        async with exporting(write) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries)
            assert exporter.report.last_error == "standard output takes nothing, EPIPE"

    run(scenario())
    os.close(write)


def test_traces_that_the_parser_refuses_are_rejected(run):
    read, write = os.pipe()

    class Odd(Trace):
        def __init__(self):
            super().__init__(1)
            self.data = b"\x0a\x05"

    async def scenario():
        async with exporting(write) as exporter:
            assert exporter.queue.offer(Odd())
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (0, 2, {})

    run(scenario())
    os.close(read)
    os.close(write)
