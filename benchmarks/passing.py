"""Measures what it costs to pass logs on: requests per second of CPU time, beside the bare echo.

usage: python -m benchmarks.passing [--rounds N] [--requests N] [--compression none|gzip]

Requests are those of an SDK: one resource, 100 log records of 260 bytes (time, severity, a line of text, four
attributes, trace and span id). As in `benchmarks.run`, the target has one core, sender and sink another, the echo is
measured before it in each round, and the CPU time runs until all has arrived at the sink. The sink has to get every
byte that was sent. The goal is 0.8 of the echo without compression; what gzip takes is zlib's, and more than all else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from benchmarks import corpus, procs, report
from benchmarks.procs import BenchmarkError, Process

METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
RECORDS = 100
DISTINCT = 64
"""Different requests, sent again and again: nothing here looks into them."""

GOAL = 0.8


def request(chance: random.Random) -> bytes:
    """One request, as an SDK sends it."""
    made = ExportLogsServiceRequest()
    logs = made.resource_logs.add()
    for key, value in (("service.name", "checkout"), ("service.instance.id", f"checkout-{chance.randrange(4)}")):
        logs.resource.attributes.add(key=key).value.string_value = value
    scope = logs.scope_logs.add()
    scope.scope.name = "shop.checkout"
    for number in range(RECORDS):
        record = scope.log_records.add(
            time_unix_nano=corpus.EPOCH_NS + number,
            observed_time_unix_nano=corpus.EPOCH_NS + number,
            severity_number=9,
            severity_text="INFO",
            trace_id=chance.randbytes(16),
            span_id=chance.randbytes(8),
            flags=1,
        )
        order = f"{chance.getrandbits(48):012x}"
        record.body.string_value = (
            f"order {order} was placed: {chance.randrange(9)} items for {chance.random():.2f} EUR"
        )
        for key, value in (("code.function.name", "place_order"), ("code.file.path", "/srv/shop/checkout.py")):
            record.attributes.add(key=key).value.string_value = value
        record.attributes.add(key="code.line.number").value.int_value = 217
        record.attributes.add(key="order.id").value.string_value = order
    return made.SerializeToString()


def write(path: Path, count: int) -> tuple[int, int]:
    """Write a file that `load` reads; returns how many bytes its requests have, and how many a record."""
    chance = random.Random(1)
    messages = [request(chance) for _ in range(DISTINCT)]
    made = corpus.Corpus(count * RECORDS, 1, RECORDS, 1, requests=count)
    with path.open("wb") as file:
        numbers = {**vars(made), "must": 0, "random": 0, "ids": 0}
        file.write(json.dumps(numbers).encode().ljust(corpus.HEADER_BYTES - 1) + b"\n")
        for number in range(count):
            message = messages[number % DISTINCT]
            file.write(struct.pack("<II", len(message), RECORDS) + message)
    sizes = [len(messages[number % DISTINCT]) for number in range(count)]
    return sum(sizes), sum(map(len, messages)) // (DISTINCT * RECORDS)


class Bench:
    def __init__(self, arguments: argparse.Namespace, folder: Path, sink: Process) -> None:
        self._arguments = arguments
        self._folder = folder
        self._sink = sink
        self._sink_address = sink.read()["ready"]
        self._corpus = folder / "logs.bin"
        self._bytes, self.record_bytes = write(self._corpus, arguments.requests)

    @contextmanager
    def echo(self) -> Iterator[tuple[int, str]]:
        endpoint = f"127.0.0.1:{procs.free_port()}"
        with self._process(procs.module("echo", endpoint), procs.REPOSITORY) as process:
            procs.wait_until(lambda: procs.accepts(endpoint), 30, "the echo is not ready")
            yield process.pid, endpoint

    @contextmanager
    def proxy(self) -> Iterator[tuple[int, str]]:
        endpoint, admin = (f"127.0.0.1:{procs.free_port()}" for _ in range(2))
        config = self._folder / "sampler-proxy.yaml"
        sink = {"name": "sink", "endpoint": f"http://{self._sink_address}", "compression": self._arguments.compression}
        settings = {
            "receive": {"grpc": {"endpoint": endpoint}, "http": {"endpoint": "off"}},
            "export": [sink],
            "admin": {"endpoint": admin},
        }
        config.write_text(json.dumps(settings))
        with self._process(
            [sys.executable, "-m", "sampler_proxy", "run", "--config", str(config)], self._folder
        ) as one:

            def ready() -> bool:
                try:
                    urllib.request.urlopen(f"http://{admin}/readyz", timeout=5).close()
                except OSError:
                    return False
                return True

            procs.wait_until(ready, 30, "the proxy is not ready")
            yield one.pid, endpoint

    def _process(self, command: list[str], folder: Path) -> Process:
        return Process(command, self._arguments.target_core, self._folder / "target.log", folder)

    def measure(self, pid: int, endpoint: str, *, arrives: bool) -> dict[str, Any]:
        """Send everything, and return requests per second of CPU time."""
        command = procs.module("load", "--endpoint", endpoint, "--corpus", str(self._corpus), "--method", METHOD)
        self._sink.ask("forget")
        with Process(
            command, self._arguments.load_core, self._folder / "load.log", procs.REPOSITORY, dialogue=True
        ) as load:
            load.read()
            before = procs.cpu_s(pid)
            sent = load.ask("{}")
            if sent["failed"]:
                raise BenchmarkError(f"requests failed: {sent['failed']}")
            busy = (procs.cpu_s(pid) - before) / sent["seconds"]
            if arrives:
                wanted = self._bytes
                procs.wait_until(lambda: self._sink.ask("count")["bytes"] >= wanted, 60, "the sink has not got all")
            time.sleep(0.5)
            cpu = procs.cpu_s(pid) - before
        if arrives and self._sink.ask("count")["bytes"] != self._bytes:
            raise BenchmarkError("the sink has got more than was sent")
        return {"per_cpu_s": sent["requests"] / cpu, "busy": busy, "refused": sent["refused"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.passing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--compression", choices=("none", "gzip"), default="none")
    parser.add_argument("--target-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.load_core})
    rows = [("requests per CPU-second", "logs passed on", "echo", "ratio", "busy", "refused")]
    with tempfile.TemporaryDirectory(prefix="sampler-proxy-bench-") as name:
        folder = Path(name)
        command = procs.module("sink")
        with Process(command, arguments.load_core, folder / "sink.log", procs.REPOSITORY, dialogue=True) as sink:
            bench = Bench(arguments, folder, sink)
            for number in range(arguments.rounds):
                with bench.echo() as target:
                    echo = bench.measure(*target, arrives=False)
                with bench.proxy() as target:
                    passed = bench.measure(*target, arrives=True)
                rows.append((
                    f"round {number + 1}",
                    f"{passed['per_cpu_s']:,.0f}",
                    f"{echo['per_cpu_s']:,.0f}",
                    f"{passed['per_cpu_s'] / echo['per_cpu_s']:.2f}",
                    f"{passed['busy']:.0%} / {echo['busy']:.0%}",
                    str(passed["refused"]),
                ))  # fmt: skip
    print(
        f"{RECORDS} records of {bench.record_bytes} bytes a request, compression {arguments.compression}; goal {GOAL}"
    )
    print(report.table(*rows))


if __name__ == "__main__":
    main()
