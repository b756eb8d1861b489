"""A Collector of OpenTelemetry in front of the proxy, and behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.running import PYTHON, SENT, Sender, arrives, built, configuration, to
from tests.support.processes import Process, Proxy, environment, free_port, until
from tests.support.sink import Sink

DIFFERENCES = {"link_state": ""}  # of the client in Python


class Collector(Process):
    """Takes OTLP over gRPC and HTTP, and sends it on by one exporter."""

    def __init__(self, folder: Path, exporter: str, settings: dict[str, Any]) -> None:
        folder.mkdir()
        self.port, self.http_port = free_port(), free_port()
        protocols = {
            "grpc": {"endpoint": f"127.0.0.1:{self.port}"},
            "http": {"endpoint": f"127.0.0.1:{self.http_port}"},
        }
        pipeline = {"receivers": ["otlp"], "exporters": [exporter]}
        file = folder / "collector.yaml"
        configured = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {exporter: {**settings, "tls": {"insecure": True}}},
            "service": {"pipelines": {"traces": pipeline}, "telemetry": {"metrics": {"level": "none"}}},
        }
        file.write_text(yaml.safe_dump(configured))
        command = [str(built("collector", "otelcol")), f"--config=file:{file}"]
        super().__init__("collector", command, folder, environment())
        until(lambda: "Everything is ready" in self.stderr() or self._must_run(), 30, self.stderr)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "snappy"])
def test_it_sends_over_grpc(compression: str, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(configuration(sink), tmp_path / "proxy")
    settings = {"endpoint": f"127.0.0.1:{proxy.port}", "compression": compression}
    _goes_through(Collector(tmp_path / "collector", "otlp_grpc", settings), sink, tmp_path)
    assert proxy.metrics().by("spans_received_total", "transport")["grpc"] == 6


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", ["none", "gzip", "deflate", "zstd"])
def test_it_sends_over_http(compression: str, encoding: str, sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(configuration(sink), tmp_path / "proxy")
    settings = {
        "endpoint": f"http://127.0.0.1:{proxy.http_port}",
        "compression": compression,
        "encoding": encoding,
    }
    _goes_through(Collector(tmp_path / "collector", "otlp_http", settings), sink, tmp_path)
    assert proxy.metrics().by("spans_received_total", "transport")["http"] == 6


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_it_receives(protocol: str, compression: str, sink: Sink, tmp_path: Path) -> None:
    if protocol == "grpc" and compression == "zstd":
        pytest.skip("gRPC for Python has no zstd")
    collector = Collector(tmp_path / "collector", "otlp_grpc", {"endpoint": f"127.0.0.1:{sink.port}"})
    settings = configuration(sink)
    port = collector.port if protocol == "grpc" else collector.http_port
    settings["export"][0] |= {
        "endpoint": f"http://127.0.0.1:{port}",
        "protocol": protocol,
        "compression": compression,
    }
    proxy = Proxy(settings, tmp_path / "proxy")
    client = Sender(PYTHON, tmp_path / "client", to(proxy.port, "grpc"))
    assert [client.send(), client.send()] == [SENT, SENT]
    arrives(sink, 2, **DIFFERENCES)
    assert proxy.metrics().total("spans_exported_total") == 6
    assert proxy.terminate() == 0
    assert collector.terminate() == 0


def _goes_through(collector: Collector, sink: Sink, folder: Path) -> None:
    """Have the known trace go through a Collector and the proxy behind it, twice."""
    client = Sender(PYTHON, folder / "client", to(collector.port, "grpc"))
    assert [client.send(), client.send()] == [SENT, SENT]
    arrives(sink, 2, **DIFFERENCES)
    assert client.end() == 0
    assert collector.terminate() == 0
    assert "error" not in collector.stderr().lower(), collector.stderr()
