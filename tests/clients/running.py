"""Clients as processes, and a relay that sees what they send."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.clients.known import VARIABLES, arrived, expected
from tests.support.processes import Process, Proxy, environment, until
from tests.support.sink import Sink

SENT = "sent"
TRACES_ONLY = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
GZIP = b"\x1f\x8b\x08"


def built(*path: str) -> Path:
    """Return a file of those that `tests.clients.build` has made; skip the test where it is not there."""
    folder = os.environ.get("SAMPLER_PROXY_TEST_CLIENTS")
    if folder is None:
        pytest.skip(f"no client {path[0]}: SAMPLER_PROXY_TEST_CLIENTS names no folder of tests.clients.build")
    file = Path(folder, *path)
    if not file.exists():
        pytest.skip(f"no client {path[0]}: tests.clients.build has not built it")
    return file


def tool(name: str) -> str:
    """Return the path of a program of this machine; skip the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def to(port: int, protocol: str | None = None, **more: str) -> dict[str, str]:
    """Return the variables that have a client send to a port of this machine."""
    variables = {**VARIABLES, **TRACES_ONLY, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **more}
    return variables if protocol is None else {**variables, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


class Sender(Process):
    """A client that sends the known trace for each line of its standard input."""

    def __init__(self, command: Sequence[str], folder: Path, variables: dict[str, str]) -> None:
        env = {name: value for name, value in environment(**variables).items() if not name.endswith("_CA_BUNDLE")}
        super().__init__("client", command, folder, env, stdin=subprocess.PIPE)  # those would outdo OpenTelemetry's
        self._told = 0

    def send(self, seconds: float = 60.0) -> str:
        """Have it send the trace once more, and return what it tells of that."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        self._told += 1
        until(self._has_told, seconds, lambda: f"the client tells nothing\n{self.stderr()}")
        return self.stdout().splitlines()[self._told - 1]

    def end(self) -> int:
        """Have it end, and return its exit code."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        return self.wait(60)

    def kill(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        super().kill()

    def _has_told(self) -> bool:
        if self.stdout().count("\n") >= self._told:
            return True
        return not self._must_run() and False


class Relay:
    """Passes connections on to a port of this machine, and keeps what clients sent. Listens from `with` on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._received = bytearray()
        self._open = [socket.create_server(("127.0.0.1", 0))]
        self._threads = [threading.Thread(target=self._accept, args=(self._open[0],))]
        self.port = int(self._open[0].getsockname()[1])

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        while self._threads:
            for each in self._open:
                with suppress(OSError):  # it is no longer connected
                    each.shutdown(socket.SHUT_RDWR)
            self._threads.pop().join(10)
        for each in self._open:
            each.close()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                for pair in ((client, server, self._received), (server, client, None)):
                    self._threads.append(threading.Thread(target=self._pass, args=pair))
                    self._threads[-1].start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


PYTHON = (sys.executable, str(Path(__file__).parent / "python" / "send.py"))


def configuration(sink: Sink, **receive: Any) -> dict[str, Any]:
    """Return the configuration of a proxy that keeps everything and waits for nothing."""
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "127.0.0.1:0"}, **receive},
        "buffer": {"decision_wait": "200ms", "decision_wait_after_root": "100ms"},
        "rules": [{"name": "all", "keep": "all"}],
        "export": [{"name": "sink", "endpoint": sink.endpoint, "batch": {"max_wait": "20ms"}}],
        "admin": {"endpoint": "127.0.0.1:0"},
    }


def arrives(sink: Sink, traces: int = 1, **differences: Any) -> None:
    """Wait for the known trace, so many times, and compare. `differences`: of the client, see `expected`."""
    until(lambda: len(sink.spans) >= 3 * traces, 20, lambda: f"{len(sink.spans)} spans have come")
    found = arrived(sink.requests)
    assert len(found) == traces
    for trace in found:
        for name, span in expected(**differences).items():
            assert trace[name] == span


def sends(command: Sequence[str], protocol: str, gzip: bool, sink: Sink, folder: Path, **differences: Any) -> None:
    """Have a client send the known trace twice through a proxy, and compare what arrives at the back end."""
    proxy = Proxy(configuration(sink), folder)
    compression = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"} if gzip else {}
    with Relay(proxy.port if protocol == "grpc" else proxy.http_port) as relay:
        client = Sender(command, folder / "client", to(relay.port, protocol, **compression))
        assert [client.send(), client.send()] == [SENT, SENT], client.stderr()
        arrives(sink, 2, **differences)
        assert client.end() == 0
    assert (GZIP in relay.received) == gzip
    metrics = proxy.metrics()
    assert metrics.by("spans_received_total", "transport") == {"grpc" if protocol == "grpc" else "http": 6}
    assert not metrics.total("requests_refused_total")
    assert proxy.terminate() == 0
