"""The gRPC port of the whole process: its health while it stops, unix sockets, and compressions of Collectors."""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cramjam
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sampler_proxy.receive.http_bodies import zstd
from tests.receive.raw_http2 import EXPORT, Connection, message
from tests.support.processes import Proxy, until
from tests.support.sink import Sink
from tests.system.test_run import config
from tests.system.traffic import Client, one_trace

Connect = Callable[..., Client]
SERVICE = EXPORT.split("/")[1]
SERVING, NOT_SERVING = 1, 2


def test_health_until_the_port_closes(client: Connect, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
        assert next(watch).status == SERVING
        client(proxy.port).export(one_trace(Random(1), error=True))
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == SERVING
        proxy.signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10).status == NOT_SERVING
        assert proxy.wait() == 0
    assert len(sink.traces) == 1
    assert "Traceback" not in proxy.stderr()


def test_reflection_knows_what_is_served(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= {*found.get_services()}
        assert found.FindFileContainingSymbol(SERVICE).service[0].name == "TraceService"
    assert proxy.metrics().total("calls_not_served_total") == 0


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def test_unix_sockets(sink: Sink, tmp_path: Path) -> None:
    """Both protocols, by one label; and once more where a process was killed."""
    paths = {name: tmp_path / f"{name}.sock" for name in ("grpc", "http")}
    receive = {name: {"endpoint": f"unix:{path}"} for name, path in paths.items()}
    for number in range(2):
        proxy = Proxy(config(sink.endpoint, receive=receive), tmp_path)
        ready = proxy.await_event("ready")
        assert {name: ready[name] for name in paths} == {name: f"unix:{path}" for name, path in paths.items()}
        with grpc.insecure_channel(f"unix:{paths['grpc']}") as channel:
            traces = [one_trace(Random(10 * number + each), error=True).SerializeToString() for each in range(2)]
            channel.unary_unary(EXPORT)(traces[0], timeout=20)
        connection = _Unix(paths["http"])
        connection.request("POST", "/v1/traces", traces[1], {"Content-Type": "application/x-protobuf"})
        assert connection.getresponse().status == 200
        connection.close()
        until(lambda number=number: len(sink.traces) == 2 * number + 2)  # type: ignore[misc]
        assert proxy.metrics().by("requests_received_total", "transport") == {"unix": 2}
        if number == 0:
            proxy.kill()
            assert all(path.exists() for path in paths.values())
        else:
            assert proxy.terminate() == 0
            assert not any(path.exists() for path in paths.values())


@pytest.mark.parametrize("encoding", ["zstd", "snappy"])
def test_compressions_of_collectors(sink: Sink, tmp_path: Path, encoding: str) -> None:
    proxy = Proxy(config(sink.endpoint), tmp_path)
    sent = one_trace(Random(1), error=True).SerializeToString()
    packed = zstd.compress(sent) if encoding == "zstd" else bytes(cramjam.snappy.compress(sent))
    with Connection(proxy.port) as connection:
        connection.begin(1, encoding=encoding)
        connection.data(1, message(packed, compressed=True))
        assert connection.answer(1)[-1].payload
    until(lambda: len(sink.traces) == 1)
    assert proxy.metrics().by("requests_received_total", "transport") == {"grpc": 1}
    assert proxy.metrics().total("requests_refused_total") == 0


def test_keepalive_is_configured(sink: Sink, tmp_path: Path) -> None:
    receive = {"grpc": {"endpoint": "127.0.0.1:0", "keepalive": {"max_connection_age": "1s"}}}
    proxy = Proxy(config(sink.endpoint, receive=receive), tmp_path)
    with Connection(proxy.port) as connection:
        connection.begin(1)
        with pytest.raises(ConnectionError, match="GOAWAY"):
            connection.answer(1)
