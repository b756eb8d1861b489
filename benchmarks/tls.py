"""CPU of the whole process per request over TLS, beside plaintext: two proxies that are alike but for that, in turn.

What is sent is decided and exported within the measurement. Short rounds in alternation, since a machine's speed
changes within seconds; the best of each counts.

usage: python -m benchmarks.tls [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import trustme

from benchmarks import corpus, procs

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SHAPES = ((512, 200), (100, 600), (8, 2000))
"""Spans of a request, and requests of a round."""

IN_FLIGHT = 4

SETTLED_S = 0.6
"""From the last request until all are decided, and what is kept has left."""

Send = Callable[[list[bytes]], None]


def cpu_s(pid: int) -> float:
    """CPU time of all threads, by the scheduler's clock: ticks are too coarse for short rounds."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


@contextlib.contextmanager
def proxy(folder: Path, tls: dict[str, str] | None) -> Iterator[tuple[int, int, int]]:
    """Start a proxy; its process and its ports."""
    folder.mkdir()
    ports = procs.free_port(), procs.free_port(), procs.free_port()
    receive = {
        name: {"endpoint": f"127.0.0.1:{port}", **({} if tls is None else {"tls": tls})}
        for name, port in zip(("grpc", "http"), ports, strict=False)
    }
    settings = {
        "receive": receive,
        "admin": {"endpoint": f"127.0.0.1:{ports[2]}"},
        "buffer": {"decision_wait": "200ms", "decision_wait_after_root": "100ms"},
        "export": [{"name": "file", "protocol": "file", "path": str(folder / "out.jsonl")}],
    }
    (folder / "sampler-proxy.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "sampler_proxy", "run", "--config", str(folder / "sampler-proxy.yaml")]
    with procs.Process(command, 0, folder / "log", procs.REPOSITORY) as process:
        procs.wait_until(lambda: all(procs.accepts(f"127.0.0.1:{port}") for port in ports), 30, "no proxy")
        yield process.pid, ports[0], ports[1]


@contextlib.contextmanager
def by_grpc(port: int, authority: bytes | None) -> Iterator[Send]:
    channel = (
        grpc.insecure_channel(f"127.0.0.1:{port}")
        if authority is None
        else grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(authority))
    )
    with channel:
        export = channel.unary_unary(EXPORT)

        def send(requests: list[bytes]) -> None:
            waiting: list[grpc.Future] = []
            for request in requests:
                waiting.append(export.future(request, timeout=30))
                if len(waiting) == IN_FLIGHT:
                    waiting.pop(0).result()
            for each in waiting:
                each.result()

        yield send


@contextlib.contextmanager
def by_http(port: int, authority: bytes | None) -> Iterator[Send]:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port)
        if authority is None
        else http.client.HTTPSConnection(
            "localhost", port, context=ssl.create_default_context(cadata=authority.decode())
        )
    )
    with contextlib.closing(connection):

        def send(requests: list[bytes]) -> None:
            for request in requests:
                connection.request("POST", "/v1/traces", request, {"Content-Type": "application/x-protobuf"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise procs.BenchmarkError(f"HTTP {answer.status}")

        yield send


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=10)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        leaf.private_key_pem.write_to_path(folder / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        tls = {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}
        plain = (*stack.enter_context(proxy(folder / "plain", None)), None)
        secured = (*stack.enter_context(proxy(folder / "tls", tls)), authority.cert_pem.bytes())
        for protocol, connect in (("grpc", by_grpc), ("http", by_http)):
            for spans, count in SHAPES:
                facts = corpus.Corpus(spans=spans * 50, spans_per_trace=20, spans_per_request=spans, seed=1)
                requests = [
                    *itertools.islice(itertools.cycle([each.message for each in corpus.generate(facts)]), count)
                ]
                best = [float("inf"), float("inf")]
                for _ in range(rounds):
                    for number, (pid, grpc_port, http_port, pem) in enumerate((plain, secured)):
                        with connect(grpc_port if protocol == "grpc" else http_port, pem) as send:
                            send(requests[:5])
                            before = cpu_s(pid)
                            send(requests)
                            time.sleep(SETTLED_S)
                            best[number] = min(best[number], (cpu_s(pid) - before) / count)
                plain_us, tls_us = (1e6 * each for each in best)
                ratio = f"{tls_us / plain_us:.2f}"
                print(f"{protocol} {spans:4} spans: {plain_us:5.0f} us, TLS {tls_us:5.0f} us: {ratio}", flush=True)


if __name__ == "__main__":
    main()
