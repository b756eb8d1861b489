"""What the whole process does where receiving fails, or senders are odd."""

from __future__ import annotations

import http.client
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from tests.receive.raw_http2 import EXPORT, Connection
from tests.support.processes import Proxy, until
from tests.support.sink import Sink
from tests.system.test_run import config
from tests.system.traffic import Client, one_trace

Connect = Callable[..., Client]

DIES = """
import os, sys
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine

received = CompletionQueueEngine._received

def dies(self, *arguments):
    if os.path.exists("die"):
        raise SystemExit
    return received(self, *arguments)

CompletionQueueEngine._received = dies
from sampler_proxy.cli import main
main()
"""


def test_a_receiving_thread_that_dies_ends_the_process_and_loses_nothing(
    client: Connect, sink: Sink, tmp_path: Path
) -> None:
    settings = config(sink.endpoint, buffer={"decision_wait": "60s", "decision_wait_after_root": "60s"})
    proxy = Proxy(settings, tmp_path, run=[sys.executable, "-c", DIES, "run"])
    client(proxy.port).export(one_trace(Random(1), error=True))
    (tmp_path / "die").touch()
    with pytest.raises(grpc.RpcError) as caught:
        client(proxy.port).export(one_trace(Random(2), error=True))
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert proxy.wait() == 1
    assert len(sink.traces) == 1
    events = [line["event"] for line in proxy.log()]
    assert "grpc: the receiving thread cannot go on, and ends" in events
    assert any(event.startswith("stopping, so that a supervisor can start this anew") for event in events)
    assert "Traceback" not in proxy.stderr()


def test_logs_and_metrics_are_told_that_they_are_in_the_wrong_place(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint, passthrough="off"), tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        for kind, method in (("logs", "logs.v1.LogsService"), ("metrics", "metrics.v1.MetricsService")):
            call: Any = channel.unary_unary(f"/opentelemetry.proto.collector.{method}/Export")
            with pytest.raises(grpc.RpcError, match="this proxy takes traces only"):
                call(b"", timeout=20)
            until(lambda kind=kind: proxy.metrics().by("calls_not_served_total", "kind")[kind] == 1)  # type: ignore[misc]
    assert proxy.metrics().total("requests_refused_total") == 0


def test_out_of_descriptors(client: Connect, sink: Sink, tmp_path: Path) -> None:
    """Who is connected goes on; one line says why others are not; and it ends with the lack."""
    proxy = Proxy(config(sink.endpoint), tmp_path, limit=(resource.RLIMIT_NOFILE, (32, 64)))
    connected = client(proxy.port)
    connected.export(one_trace(Random(1), error=True))
    assert "Max open files            64                   64" in Path(f"/proc/{proxy.pid}/limits").read_text()
    with ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        proxy.await_event("this process is out of file descriptors (limit of this process: 64)")
        connected.export(one_trace(Random(2), error=True))
    proxy.await_event("there are file descriptors again")
    client(proxy.port).export(one_trace(Random(3), error=True))
    until(lambda: len(sink.traces) == 3)
    assert "Traceback" not in proxy.stderr()
    assert len([line for line in proxy.log() if "file descriptors" in line["event"]]) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_wildcards_are_reached_over_both_families(sink: Sink, tmp_path: Path, host: str) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    admin = {"endpoint": f"{host}:0", "insecure": True}
    settings = config(sink.endpoint, admin=admin, receive={"grpc": {"endpoint": f"{host}:0"}})
    proxy = Proxy(settings, tmp_path)
    ready = proxy.await_event("ready")
    assert (ready["grpc"], ready["admin"]) == (f"{host}:{proxy.port}", f"{host}:{proxy.admin_port}")
    for loopback in ("127.0.0.1", "::1"):
        for port in (proxy.port, proxy.admin_port):
            socket.create_connection((loopback, port), timeout=5).close()


def test_senders_that_do_not_speak_grpc_are_told_and_counted(client: Connect, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    wrong = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    wrong.request("POST", "/v1/traces", body=one_trace(Random(1), error=True).SerializeToString())
    answer = wrong.getresponse()
    assert answer.status == 400
    assert b"OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in answer.read()
    wrong.close()
    credentials = grpc.ssl_channel_credentials()
    with grpc.secure_channel(f"127.0.0.1:{proxy.port}", credentials) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(EXPORT)(b"", timeout=5)
    with Connection(proxy.port) as connection:
        connection.begin(1, encoding="lz4")
        assert b"reads gzip, deflate, zstd and snappy" in connection.answer(1)[0].payload
    http_1 = proxy.await_event("grpc: a sender speaks HTTP/1.1 to this port")
    assert http_1["peer"].startswith("127.0.0.1:")
    proxy.await_event("grpc: a sender speaks TLS to this port")
    assert proxy.await_event("grpc: a sender compresses in a way")["encoding"] == "lz4"
    client(proxy.port).export(one_trace(Random(2), error=True))
    until(lambda: len(sink.traces) == 1)
    kinds = proxy.metrics().by("connections_refused_total", "kind")
    assert kinds["http1"] == 1
    assert kinds["tls"] >= 1
    assert proxy.metrics().by("requests_refused_total", "reason") == {"unknown_compression": 1}
    assert "Traceback" not in proxy.stderr()
