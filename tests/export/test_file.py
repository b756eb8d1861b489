"""The file exporter on a real disk, and on one whose writes are made to fail."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.internal.encoder import _VarintBytes
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from sampler_proxy.config.model import Batch, FileExport, Queue
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies, Persistence
from sampler_proxy.export.file import FileExporter, LineFile
from sampler_proxy.otlp.json import json_line
from tests.export.support import Trace, assemble, counts, in_seconds, offer, running, until

MS = 10**6


@asynccontextmanager
async def exporting(path, *, max_bytes=1 << 20, batch_bytes=1 << 20, wait_ms=5, assemble=assemble, max_age_ns=None):
    settings = FileExport(
        name="local",
        protocol="file",
        path=str(path),
        max_bytes=max_bytes,
        max_age_ns=max_age_ns,
        batch=Batch(max_bytes=batch_bytes, max_wait_ns=wait_ms * MS),
        queue=Queue(max_bytes=64 << 20),
    )
    exporter = FileExporter(
        settings,
        Dependencies(
            assemble,
            clock=time.monotonic_ns,
            random=lambda: random.random() / 50,  # as the backoff of the file is in seconds
            observe_latency=lambda _seconds: None,
        ),
    )
    async with running(exporter):
        yield exporter


def traces_in(*paths):
    found = []
    for path in paths:
        for line in Path(path).read_text().splitlines():
            for resource_spans in json.loads(line)["resourceSpans"]:
                for scope_spans in resource_spans["scopeSpans"]:
                    found += [int(span["traceId"], 16) for span in scope_spans["spans"]]
    return found


def test_what_is_written(run, tmp_path):
    path = tmp_path / "traces.jsonl"

    async def scenario():
        async with exporting(path, wait_ms=1000) as exporter:
            offer(exporter, range(1, 4), spans=2)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (6, 0, {})

    run(scenario())
    assert path.read_bytes().count(b"\n") == 1
    assert traces_in(path) == [1, 1, 2, 2, 3, 3]
    assert path.stat().st_mode & 0o007 == 0  # traces are nobody else's business


def test_an_existing_file_is_appended_to(run, tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(json_line(Trace(7).data))

    async def scenario():
        async with exporting(path) as exporter:
            offer(exporter, [8])
            assert await exporter.drain(in_seconds(10))

    run(scenario())
    assert traces_in(path) == [7, 7, 8, 8]


def test_the_size_is_bounded_with_the_predecessor(run, tmp_path):
    path, predecessor = tmp_path / "traces.jsonl", tmp_path / "traces.jsonl.1"
    sizes = []

    async def scenario():
        async with exporting(path, max_bytes=20_000, batch_bytes=1) as exporter:
            for number in range(1, 201):
                offer(exporter, [number])
                if number % 10 == 0:
                    await until(lambda: exporter.queue.empty)
                    sizes.append(sum(p.stat().st_size for p in (path, predecessor) if p.exists()))
            assert counts(exporter) == (400, 0, {})

    run(scenario())
    assert max(sizes) <= 20_000
    assert sizes[-1] > 10_000
    kept = traces_in(predecessor, path)
    assert kept == [n for n in range(201 - len(kept) // 2, 201) for _ in range(2)]  # the newest, in order


def test_what_a_larger_limit_left_is_cut_down(tmp_path):
    path, predecessor = tmp_path / "t", tmp_path / "t.1"
    path.write_bytes(b"x" * 900 + b"\n")
    predecessor.write_bytes(b"y" * 900)
    lines = LineFile(str(path), 1000)
    lines.check()
    assert not predecessor.exists()
    lines.append(b"z\n")
    assert path.read_bytes() == b"z\n"
    assert not predecessor.exists()


class Clock:
    """The time of day, which moves by hand; files get their times from it."""

    def __init__(self, *paths):
        self.now_s = time.time()
        self.paths = paths

    def __call__(self):
        return self.now_s

    def wrote(self, path):
        os.utime(path, (self.now_s, self.now_s))


@pytest.mark.parametrize("restarts", [False, True])
def test_no_line_stays_longer_than_the_age(tmp_path, restarts):
    """A line every ten seconds, and 100 s as the bound: after each step no line is older, and those of the last 50 s
    are all there. Then nothing comes any more, and the files go one after the other."""
    path, predecessor = tmp_path / "t", tmp_path / "t.1"
    clock = Clock()

    def made():
        return LineFile(str(path), 1 << 20, 100, clock)

    def ages():
        text = "".join(file.read_text() for file in (predecessor, path) if file.exists())
        return [round(clock.now_s - float(json.loads(line)["startTimeUnixNano"]) / 1e9) for line in text.splitlines()]

    lines, retired = made(), False
    for _ in range(60):
        if restarts:
            lines = made()
        lines.append(b'{"startTimeUnixNano":"%d"}\n' % int(clock.now_s * 1e9))
        clock.wrote(path)
        lines.remove_old()
        retired |= predecessor.exists()
        assert max(ages()) <= 100
        assert [age for age in ages() if age <= 50] == list(range(min(50, max(ages())), -1, -10))
        clock.now_s += 10
    assert retired
    for _ in range(11):
        clock.now_s += 10
        (made() if restarts else lines).remove_old()
    assert not path.exists()
    assert not predecessor.exists()
    lines.remove_old()


def test_a_file_whose_spans_have_no_sound_times_is_as_old_as_its_last_line(tmp_path):
    for first in (b"{}\n", b'{"startTimeUnixNano":"99999999999999999999"}\n'):
        path, clock = tmp_path / "t", Clock()
        path.write_bytes(first)
        clock.wrote(path)
        clock.now_s += 40
        LineFile(str(path), 1 << 20, 100, clock).append(b"{}\n")
        assert path.read_bytes() == first + b"{}\n"
        clock.wrote(path)
        clock.now_s += 51
        LineFile(str(path), 1 << 20, 100, clock).append(b"{}\n")
        assert path.read_bytes() == b"{}\n"
        (tmp_path / "t.1").unlink()


def test_old_lines_are_removed_while_nothing_comes(run, tmp_path):
    path = tmp_path / "traces.jsonl"

    async def scenario():
        async with exporting(path, max_age_ns=10**9) as exporter:
            offer(exporter, [1])
            await until(lambda: path.exists() and path.stat().st_size)
            await until(lambda: not path.exists())
            await until(lambda: not (tmp_path / "traces.jsonl.1").exists())

    run(scenario())


def test_a_torn_line_takes_no_other_with_it(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b'{"torn')
    LineFile(str(path), 1000).append(b"{}\n")
    assert path.read_bytes() == b'{"torn\n{}\n'


def test_the_line_break_after_a_torn_line_counts_too(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"x" * 10)
    LineFile(str(path), 40).append(b"y" * 9 + b"\n")
    assert path.read_bytes() == b"y" * 9 + b"\n"
    assert (tmp_path / "t.1").read_bytes() == b"x" * 10


def test_a_removed_file_is_made_anew(run, tmp_path):
    path = tmp_path / "traces.jsonl"

    async def scenario():
        async with exporting(path) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.queue.empty)
            path.unlink()
            offer(exporter, [2])
            assert await exporter.drain(in_seconds(10))

    run(scenario())
    assert traces_in(path) == [2, 2]


def test_a_batch_too_large_for_the_file_is_split(run, tmp_path):
    path = tmp_path / "traces.jsonl"

    async def scenario():
        async with exporting(path, max_bytes=20_000, wait_ms=50) as exporter:
            offer(exporter, range(1, 21), spans=1, padding=400)
            offer(exporter, [99], spans=1, padding=11_000)
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (20, 1, {})

    run(scenario())
    assert 99 not in traces_in(path)


def nested(trace, depth):
    """`trace` with an attribute of `depth` arrays inside one another: two messages each."""
    value = AnyValue(string_value="x").SerializeToString()
    for _ in range(depth):
        for tag in (b"\x0a", b"\x2a"):  # ArrayValue.values, AnyValue.array_value
            value = tag + _VarintBytes(len(value)) + value
    attribute = b"\x0a\x01k\x12" + _VarintBytes(len(value)) + value
    span = b"\x0a\x10" + trace.trace_id + b"\x12\x08" + b"\x01" * 8 + b"\x4a" + _VarintBytes(len(attribute)) + attribute
    for tag in (b"\x12", b"\x12", b"\x0a"):  # ScopeSpans.spans, ResourceSpans.scope_spans, resource_spans
        span = tag + _VarintBytes(len(span)) + span
    trace.data = span
    return trace


def test_what_the_official_parser_refuses_is_rejected_alone(run, tmp_path):
    path = tmp_path / "traces.jsonl"

    async def scenario():
        async with exporting(path, wait_ms=50) as exporter:
            offer(exporter, [1])
            assert exporter.queue.offer(nested(Trace(2, spans=1), 120))
            assert exporter.queue.offer(nested(Trace(5, spans=1), 45))
            offer(exporter, [3, 4])
            assert await exporter.drain(in_seconds(10))
            assert counts(exporter) == (7, 1, {})

    run(scenario())
    assert sorted(set(traces_in(path))) == [1, 3, 4, 5]


def test_a_full_disk_is_tried_again_and_logged_once(run, tmp_path, monkeypatch, caplog):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"{}\n")
    write = os.write
    full = [True]

    def write_a_little(fd, data):
        if not full:
            return write(fd, data)
        if os.fstat(fd).st_size > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:5])  # a torn line, were it left

    monkeypatch.setattr("sampler_proxy.export.file.os.write", write_a_little)

    async def scenario():
        async with exporting(path) as exporter:
            offer(exporter, [1])
            await until(lambda: exporter.failed_tries >= 3)
            offer(exporter, [2])
            assert path.read_bytes() == b"{}\n"
            assert exporter.queue.counters().queued_spans == 4
            full.clear()
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (4, 0, {})

    run(scenario())
    lines = path.read_bytes().splitlines()
    assert lines[0] == b"{}"
    assert [bool(json.loads(line)) for line in lines[1:]] == [True, True]
    assert caplog.text.count("ENOSPC") == 1


DISKS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk does not work",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "permission denied",
    errno.EFBIG: "the system does not let it grow any further",
}


@pytest.mark.parametrize("number", DISKS)
def test_a_disk_that_takes_short_lines_only_is_down_and_the_long_one_not_to_blame(
    run, tmp_path, monkeypatch, caplog, number
):
    """As a full one often does. Nothing is rejected, however long it lasts, and nothing is torn."""
    monkeypatch.setattr("sampler_proxy.export.file.PERSISTENCE", Persistence(10 * MS, 50 * MS, give_up_ns=100 * MS))
    path = tmp_path / "traces.jsonl"
    write = os.write
    failing = [True]

    def write_short_lines(fd, data):
        if failing and len(data) > 2000:
            write(fd, data[:100])
            raise OSError(number, "no")
        return write(fd, data)

    monkeypatch.setattr("sampler_proxy.export.file.os.write", write_short_lines)

    async def scenario():
        async with exporting(path, batch_bytes=1) as exporter:
            offer(exporter, [1])
            offer(exporter, [2], padding=2000)
            offer(exporter, range(3, 30))
            end = time.monotonic() + 1
            await until(lambda: exporter.failed_tries >= 5 and time.monotonic() > end)
            assert counts(exporter) == (2, 0, {})
            assert not exporter.report.up
            failing.clear()
            await until(lambda: exporter.queue.empty)
            assert counts(exporter) == (58, 0, {})
            assert exporter.report.up

    run(scenario())
    assert traces_in(path) == [number for number in range(1, 30) for _ in range(2)]
    name = errno.errorcode[number]
    assert f"export local: cannot write the file: {DISKS[number]}, {name}; trying again until it works" in caplog.text


def test_a_real_full_disk_and_a_torn_line_that_cannot_be_removed(tmp_path, monkeypatch):
    """ENOSPC of /dev/full in the middle of a line, and nothing can be truncated either: what is there of the line goes
    before the next one is written."""
    path = tmp_path / "t"
    lines = LineFile(str(path), 1000)
    lines.append(b'{"one": 1}\n')
    write, truncate = os.write, os.ftruncate
    with open("/dev/full", "wb", buffering=0) as full, monkeypatch.context() as broken:
        broken.setattr(
            "os.write", lambda fd, data: write(fd, data[:5]) if len(data) > 6 else write(full.fileno(), data)
        )
        broken.setattr("os.ftruncate", lambda *_: write(full.fileno(), b"x"))
        with pytest.raises(OSError, match="No space"):
            lines.append(b'{"two": 2}\n')
        assert path.read_bytes() == b'{"one": 1}\n{"two'
        with pytest.raises(OSError, match="No space"):
            lines.append(b'{"two": 2}\n')
        broken.setattr("os.ftruncate", truncate)
        with pytest.raises(OSError, match="No space"):
            lines.append(b'{"two": 2}\n')
        assert path.read_bytes() == b'{"one": 1}\n'
    lines.append(b'{"two": 2}\n')
    assert path.read_bytes() == b'{"one": 1}\n{"two": 2}\n'


def test_a_disk_that_never_recovers_costs_what_is_queued(run, tmp_path):
    directory = tmp_path / "d"
    directory.mkdir()

    async def scenario():
        async with exporting(directory / "t") as exporter:
            (directory / "t").unlink()
            directory.rmdir()
            offer(exporter, range(1, 11))
            assert not await exporter.drain(in_seconds(0.3))
            assert await exporter.stop() == 20
            assert counts(exporter) == (0, 0, {"shutdown": 20})

    run(scenario())


@pytest.mark.parametrize("path", ["missing/traces.jsonl", "", "pipe"])
def test_unwritable_at_start(run, tmp_path, path):
    os.mkfifo(tmp_path / "pipe")

    async def scenario():
        with pytest.raises(StartError, match=r"export local: cannot write .*: "):
            async with exporting(tmp_path / path):
                pass

    run(scenario())


def test_the_loop_is_free_while_the_disk_is_slow(run, tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr("sampler_proxy.export.file.os.write", lambda fd, data: (time.sleep(0.3), write(fd, data))[1])

    async def scenario():
        async with exporting(tmp_path / "t") as exporter:
            offer(exporter, [1])
            longest, last = 0.0, time.monotonic()
            while not exporter.queue.empty:
                await asyncio.sleep(0.002)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            assert longest < 0.2

    run(scenario())
