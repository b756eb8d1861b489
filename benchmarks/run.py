"""Measure sampler-proxy, or any other OTLP endpoint, beside the bare echo of the same protocol.

usage: python -m benchmarks.run throughput|memory|latency|all [options]   (--help; README.md says what the numbers mean)

throughput  spans per second of CPU time of the target, the drain after the load included, for each shape of load; the
            echo is measured before the target in each round, with the same corpus on the same core. What arrived at
            the sink is compared with what a sampler of the default rules has to keep.
memory      growth of resident memory per span that waits for its decision, divided by the span's bytes on the wire
latency     p50 and p99 of the answer at a fixed rate, echo and target in turns

The target runs on one core, sender, sink and this program on another. A target that is started here is started anew for
each measurement; one that runs already (--pid) gets traces of its own in each.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import corpus, procs, report
from benchmarks.procs import BenchmarkError, Process

_START_S = 30.0
_QUIET_S = 1.5  # for so long nothing may reach the sink, and the target may do nothing, before it counts as drained
_QUIET_CPU = 0.05
_DRAIN_S = 120.0
_HOLD_S = 600  # decision wait in the measurement of memory
# The default rules in such a form that none decides before its time: what they keep would leave at once.
_HOLDING_RULES = [
    {"name": "errors", "match": "{ status = error }", "unless": "{ name = `never` }", "keep": "all"},
    {"name": "slow", "match": "{ traceDuration > 1s }", "unless": "{ name = `never` }", "keep": "all"},
    {"name": "baseline", "keep": "1%"},
]
LATENCY_RATE = 40_000


class Shape(NamedTuple):
    spans_per_trace: int
    spans_per_request: int
    spans: int  # enough for about four seconds of sampler-proxy


SHAPES = {
    "512": Shape(20, 512, 2_000_000),
    "100": Shape(20, 100, 1_500_000),
    "8": Shape(20, 8, 160_000),
    "single": Shape(1, 512, 1_000_000),
}
MEMORY_SHAPES = {"512": Shape(20, 512, 400_000), "8": Shape(20, 8, 200_000), "single": Shape(1, 512, 400_000)}
LATENCY_SHAPE = Shape(20, 512, 17 * LATENCY_RATE)


class Target(NamedTuple):
    pid: int
    endpoint: str
    process: Process | None  # None: not ours


@dataclasses.dataclass
class Bench:
    """What all measurements of a run share."""

    arguments: argparse.Namespace
    directory: Path
    sink: Process
    sink_address: str
    _corpus: tuple[tuple[Shape, int], Path] | None = None
    _measurements: int = 0

    def corpus(self, shape: Shape) -> tuple[Path, corpus.Corpus]:
        """The file of the corpus, generated unless it is the last one; a target that goes on running gets others."""
        scaled = shape._replace(spans=max(int(shape.spans * self.arguments.scale) // 1000, 1) * 1000)
        self._measurements += 1
        seed = self._measurements if self.arguments.pid else 1
        if not self._corpus or self._corpus[0] != (scaled, seed):
            if self._corpus:
                self._corpus[1].unlink()
            path = self.directory / "corpus.bin"
            corpus.write(str(path), corpus.Corpus(scaled.spans, scaled.spans_per_trace, scaled.spans_per_request, seed))
            self._corpus = (scaled, seed), path
        return self._corpus[1], corpus.read(str(self._corpus[1]))

    @contextlib.contextmanager
    def echo(self) -> Iterator[Target]:
        endpoint = f"127.0.0.1:{procs.free_port()}"
        name = "echo" if self.arguments.protocol == "grpc" else "echo_http"
        with self._started(procs.module(name, endpoint), procs.REPOSITORY, endpoint) as target:
            yield target

    @contextlib.contextmanager
    def target(self, wait_s: float, after_root_s: float) -> Iterator[Target]:
        """What is measured. The waits are for sampler-proxy; any other system has to bring its own."""
        wanted = self.arguments
        if wanted.pid:
            procs.pin(wanted.pid, wanted.target_core)
            yield Target(wanted.pid, wanted.endpoint, None)
        elif wanted.target_cmd:
            with self._started(shlex.split(wanted.target_cmd), self.directory, wanted.endpoint) as target:
                yield target
        else:
            endpoint, other, admin = (f"127.0.0.1:{procs.free_port()}" for _ in range(3))
            grpc, http = (endpoint, "off") if wanted.protocol == "grpc" else (other, endpoint)
            settings = {
                "receive": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}},
                "buffer": {
                    "decision_wait": f"{wait_s}s",
                    "decision_wait_after_root": f"{after_root_s}s",
                    "max_bytes": "8GiB",
                },
                "export": [
                    {
                        "name": "sink",
                        "endpoint": f"http://{self.sink_address}",
                        "protocol": "grpc",
                        "compression": "gzip",
                    }
                ],
                "admin": {"endpoint": admin},
                "shutdown_timeout": "5s",
                **({"rules": _HOLDING_RULES} if wait_s == _HOLD_S else {}),
            }
            config = self.directory / "sampler-proxy.yaml"
            config.write_text(json.dumps(settings))  # JSON is YAML
            command = [sys.executable, "-m", "sampler_proxy", "run", "--config", str(config)]
            with self._started(command, self.directory, endpoint, f"http://{admin}/readyz") as target:
                yield target

    @contextlib.contextmanager
    def _started(self, command: list[str], directory: Path, endpoint: str, ready: str = "") -> Iterator[Target]:
        with Process(command, self.arguments.target_core, self.directory / "target.log", directory) as process:

            def is_ready() -> bool:
                process.check()
                if not procs.accepts(endpoint):
                    return False
                if ready:
                    try:
                        urllib.request.urlopen(ready, timeout=5).close()
                    except (urllib.error.URLError, OSError):
                        return False
                return True

            procs.wait_until(is_ready, _START_S, "the target is not ready")
            yield Target(process.pid, endpoint, process)
            process.check()

    @contextlib.contextmanager
    def load(self, target: Target, path: Path) -> Iterator[Process]:
        protocol = self.arguments.protocol
        command = procs.module("load", "--endpoint", target.endpoint, "--corpus", str(path), "--protocol", protocol)
        core, log = self.arguments.load_core, self.directory / "load.log"
        with Process(command, core, log, procs.REPOSITORY, dialogue=True) as load:
            load.read()
            yield load

    def drain(self, target: Target, at_least_s: float) -> None:
        """Wait until the target has nothing left to do."""
        start = since = time.monotonic()
        count, cpu = self.sink.ask("count"), procs.cpu_s(target.pid)
        while True:
            time.sleep(0.25)
            now = time.monotonic()
            if now - start > _DRAIN_S:
                raise BenchmarkError(f"the target was not done {_DRAIN_S:.0f} s after the load")
            latest = self.sink.ask("count")
            if latest != count:
                count, cpu, since = latest, procs.cpu_s(target.pid), now
            elif now - since >= _QUIET_S:
                used = procs.cpu_s(target.pid)
                if used - cpu <= _QUIET_CPU * (now - since) and now - start >= at_least_s:
                    return
                cpu, since = used, now


def send(load: Process, **what: float) -> dict[str, Any]:
    sent = load.ask(json.dumps(what))
    if sent["failed"]:
        raise BenchmarkError(f"requests failed: {sent['failed']}")
    return sent


def throughput_once(bench: Bench, target: Target, path: Path, at_least_s: float) -> dict[str, Any]:
    with bench.load(target, path) as load:
        before = procs.cpu_s(target.pid)
        sent = send(load)
        busy = (procs.cpu_s(target.pid) - before) / sent["seconds"]
        bench.drain(target, at_least_s)
        cpu = procs.cpu_s(target.pid) - before
    return {"spans_per_cpu_s": sent["spans"] / cpu, "cpu_s": cpu, "busy": busy, **sent}


def throughput(bench: Bench) -> list[dict[str, Any]]:
    rows = []
    wait = bench.arguments.wait
    for name in bench.arguments.shapes or SHAPES:
        rounds = []
        for number in range(bench.arguments.rounds):
            path, expected = bench.corpus(SHAPES[name])
            with bench.echo() as target:
                echo = throughput_once(bench, target, path, 0)
            bench.sink.ask("tally")
            with bench.target(wait, wait / 2) as target:
                measured = throughput_once(bench, target, path, wait + 1)
            kept = report.verdict(expected, bench.sink.ask("tally"))
            ratio = measured["spans_per_cpu_s"] / echo["spans_per_cpu_s"]
            rounds.append({"target": measured, "echo": echo, "ratio": ratio, "kept": kept})
            speeds = f"{measured['spans_per_cpu_s']:,.0f} / {echo['spans_per_cpu_s']:,.0f} = {ratio:.3f}"
            say(f"throughput {name} round {number + 1}: {speeds}; {kept}")
        rows.append({"shape": name, "rounds": rounds})
    return rows


def memory(bench: Bench) -> list[dict[str, Any]]:
    rows = []
    for name in bench.arguments.shapes or MEMORY_SHAPES:
        if name not in MEMORY_SHAPES:
            continue
        path, expected = bench.corpus(MEMORY_SHAPES[name])
        bench.sink.ask("tally")
        with bench.target(_HOLD_S, _HOLD_S) as target, bench.load(target, path) as load:
            send(load, requests=expected.requests // 10)  # connections, arenas, caches
            time.sleep(_QUIET_S)
            before = procs.rss_bytes(target.pid)
            sent = send(load)
            time.sleep(_QUIET_S)
            growth = procs.rss_bytes(target.pid) - before
            if bench.sink.ask("count")["requests"]:
                raise BenchmarkError("spans left the target meanwhile: it has to hold them, give it longer waits")
        span_bytes = expected.span_bytes / expected.spans
        row = {
            "shape": name,
            "spans": sent["spans"],
            "span_bytes": span_bytes,
            "rss_growth_bytes": growth,
            "rss_before_bytes": before,
            "ratio": growth / sent["spans"] / span_bytes,
        }
        rows.append(row)
        say(f"memory {name}: {growth / sent['spans']:.0f} bytes per span of {span_bytes:.0f}: {row['ratio']:.2f}")
    return rows


def latency_once(bench: Bench, target: Target, path: Path, expected: corpus.Corpus) -> dict[str, Any]:
    with bench.load(target, path) as load:
        send(load, rate=LATENCY_RATE, requests=expected.requests // 8)  # to warm up
        before = procs.cpu_s(target.pid)
        sent = send(load, rate=LATENCY_RATE)
        return {"busy": (procs.cpu_s(target.pid) - before) / sent["seconds"], **sent}


def latency(bench: Bench) -> list[dict[str, Any]]:
    rounds = []
    wait = bench.arguments.wait
    for number in range(bench.arguments.rounds):
        path, expected = bench.corpus(LATENCY_SHAPE)
        with bench.echo() as target:
            echo = latency_once(bench, target, path, expected)
        with bench.target(wait, wait / 2) as target:
            measured = latency_once(bench, target, path, expected)
            bench.drain(target, wait + 1)
        bench.sink.ask("tally")
        ratio = measured["p99_ms"] / echo["p99_ms"]
        rounds.append({"target": measured, "echo": echo, "ratio": ratio})
        p50, p99 = (f"{measured[key]:.2f} / {echo[key]:.2f}" for key in ("p50_ms", "p99_ms"))
        say(f"latency round {number + 1}: p50 {p50}, p99 {p99} = {ratio:.2f}")
    return rounds


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("throughput", "memory", "latency", "all"))
    parser.add_argument("--protocol", choices=("grpc", "http", "http/json"), default="grpc", help="default grpc")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput and latency (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the usual number of spans, e.g. 0.1")
    parser.add_argument(
        "--shapes", type=lambda text: text.split(","), help="some of " + ",".join(SHAPES) + " (default all)"
    )
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--target-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    other = parser.add_argument_group("another system than sampler-proxy")
    other.add_argument("--target-cmd", help="how to start it (no shell), anew for each measurement")
    other.add_argument("--pid", type=int, help="or the process it runs in already")
    other.add_argument("--endpoint", help="HOST:PORT where it takes OTLP")
    other.add_argument(
        "--sink", default="127.0.0.1:0", help="HOST:PORT where the sink shall listen, for it to export to"
    )
    other.add_argument("--wait", type=float, default=2, help="seconds until it has decided at the latest (default 2)")
    arguments = parser.parse_args()
    if arguments.target_cmd and arguments.pid:
        parser.error("--target-cmd or --pid, not both")
    if bool(arguments.target_cmd or arguments.pid) != bool(arguments.endpoint):
        parser.error("--endpoint goes with --target-cmd or --pid")
    if unknown := set(arguments.shapes or ()) - SHAPES.keys():
        parser.error(f"no such shape: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {arguments.target_core})
    results: dict[str, Any] = {"conditions": report.conditions()}  # its calibration runs where the target will
    os.sched_setaffinity(0, {arguments.load_core})
    wanted = [arguments.what] if arguments.what != "all" else ["throughput", "memory", "latency"]
    measures = {"throughput": throughput, "memory": memory, "latency": latency}
    tables = {"throughput": report.throughput, "memory": report.memory, "latency": report.latency}
    with tempfile.TemporaryDirectory(prefix="sampler-proxy-bench-") as name:
        directory = Path(name)
        command = procs.module("sink", "--listen", arguments.sink)
        with Process(command, arguments.load_core, directory / "sink.log", procs.REPOSITORY, dialogue=True) as sink:
            bench = Bench(arguments, directory, sink, sink.read()["ready"])
            for what in wanted:
                results[what] = measures[what](bench)
    print(results["conditions"], "\n")
    for what in wanted:
        print(tables[what](results[what]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
