"""What becomes of connections: the acceptor in front of a real engine."""

from __future__ import annotations

import errno
import gc
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
import structlog.testing

from sampler_proxy.receive import accepting
from sampler_proxy.receive.accepting import Acceptor
from sampler_proxy.receive.core_acceptor import CoreAcceptor
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine

from .raw_http2 import DATA, EXPORT, GOAWAY, HEADERS, PING, RST_STREAM, Connection, message


class Server:
    """A running engine, and what it has counted."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.refused: list[str] = []
        self.engine = CompletionQueueEngine(
            {EXPORT: lambda request: request},
            "127.0.0.1:0",
            1 << 24,
            self.refused.append,
            on_connection_refused=self.kinds.append,
        )
        self.port = self.engine.start()

    @property
    def acceptor(self) -> Acceptor:
        return self.engine._acceptor

    def here(self) -> int:
        return len(self.acceptor._here)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def check_alive(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            assert channel.unary_unary(EXPORT)(b"alive?", timeout=20) == b"alive?"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.engine.stop()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes; a reset ends it as well."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


# Not HTTP/2


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
def test_http_1_is_told_what_to_set(server: Server, size: int) -> None:
    with structlog.testing.capture_logs() as logs:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            client.request("POST", "/v1/traces", body=b"x" * size, headers={"Content-Type": "application/x-protobuf"})
        except (BrokenPipeError, ConnectionResetError):
            assert size > 100_000  # LINGER_S is over
        answer = client.getresponse()
        assert answer.status == 400
        assert b"OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in answer.read()
        client.close()
    assert server.kinds == ["http1"]
    (line,) = logs
    assert line["log_level"] == "warning"
    assert line["event"].startswith("grpc: a sender speaks HTTP/1.1 to this port")
    assert line["peer"].startswith("127.0.0.1:")
    server.check_alive()
    eventually(lambda: server.here() == 0)


def test_tls_is_logged_once_a_minute(server: Server) -> None:
    context = ssl.create_default_context()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            with server.connect() as connection, pytest.raises((ssl.SSLError, ConnectionResetError)):
                context.wrap_socket(connection, server_hostname="localhost")
    assert server.kinds == ["tls"] * 3
    assert [line["event"].partition(" to this port")[0] for line in logs] == ["grpc: a sender speaks TLS"]
    assert not any("hunter2" in str(line) for line in logs)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPRI * HTTP/2.0\r\n\r\n", "proxy_protocol"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "proxy_protocol"),
        (b"SSH-2.0-hunter2\r\n", "other"),
        (b"\0" * 50, "other"),
    ],
)
def test_other_protocols(server: Server, first: bytes, kind: str) -> None:
    with structlog.testing.capture_logs() as logs, server.connect() as connection:
        connection.sendall(first)
        assert rest(connection) == b""
    assert server.kinds == [kind]
    assert len(logs) == 1
    assert "hunter2" not in str(logs)
    server.check_alive()


def test_probes_leave_no_trace(server: Server) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            server.connect().close()
        server.check_alive()
        eventually(lambda: server.here() == 0)
    assert server.kinds == []
    assert logs == []


def test_silence_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "SILENT_S", 0.2)
    with server.connect() as silent, server.connect() as half, structlog.testing.capture_logs() as logs:
        half.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert rest(silent) == b""
        assert rest(half)[:9] == b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert server.kinds == ["silent"] * 2
    assert len(logs) == 1
    server.check_alive()


def test_connections_here_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are closed where they have not begun; those that have go to core."""
    monkeypatch.setattr(accepting, "MAX_HERE", 5)
    monkeypatch.setattr(accepting, "INSPECT_S", 60.0)
    with ExitStack() as stack:
        begun = [stack.enter_context(Connection(server.port)) for _ in range(3)]
        eventually(lambda: sum(each.opening.acknowledged for each in [*server.acceptor._here]) == 3)
        silent = [stack.enter_context(server.connect()) for _ in range(10)]
        for each in silent[:5]:
            assert rest(each) == b""
        eventually(lambda: server.here() == 5)
        assert server.kinds == ["silent"] * 5
        for connection in begun:
            connection.begin(1)
            connection.data(1, message(b"hello"))
            assert connection.answer(1)[1].payload == message(b"hello")
    server.check_alive()


def test_a_client_that_never_acknowledges(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        window = b"\0\0\4\x08\0\0\0\0\0\0\0\0\1"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(window * 1_000_000)
    eventually(lambda: server.kinds == ["other"])


# HTTP/2


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("size", [0, 1, 20_000, 65_530, 65_536, 1_000_000])
def test_what_was_read_here_reaches_core(server: Server, patient: bool, size: int) -> None:
    """The first bytes of a message are read here and the rest by core, and calls that follow belong to core."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    request = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with Connection(server.port, patient) as connection:
        connection.begin(1)
        connection.data(1, message(request[:60_000]))
        assert connection.answer(1)[1].payload[:5] == message(request[:60_000])[:5]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        for _ in range(3):
            assert channel.unary_unary(EXPORT)(request, timeout=20) == request


def test_pings_are_answered_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "INSPECT_S", 60.0)
    with Connection(server.port) as connection:
        connection.send(PING, 0, 0, b"12345678")
        while (frame := connection.read()).kind != PING:
            assert frame.kind != GOAWAY
        assert frame.payload == b"12345678"


def test_an_idle_client_goes_to_core(server: Server) -> None:
    with Connection(server.port) as connection:
        eventually(lambda: server.here() == 1)
        eventually(lambda: server.here() == 0)
        connection.begin(1)
        connection.data(1, message(b"late"))
        assert connection.answer(1)[1].payload == message(b"late")


# Calls that are refused here


def test_a_refused_call_is_ended_before_its_message(server: Server) -> None:
    """Trailers-Only, then a reset without an error: the client need not send the rest."""
    with Connection(server.port) as connection:
        connection.begin(1, encoding="zstd")
        frames = []
        while not frames or frames[-1].kind != RST_STREAM:
            frames.append(connection.read())
        (answer,) = [frame for frame in frames if frame.kind == HEADERS]
        assert answer.flags & 1, "END_STREAM"
        assert frames[-1].payload == b"\0\0\0\0"
        connection.data(1, b"what was under way", end=False)
        connection.begin(3, encoding="zstd")
        assert connection.answer(3)[0].kind == HEADERS
    assert server.refused == ["compression"] * 2
    eventually(lambda: server.here() == 0)


def test_many_refused_calls_with_their_messages(server: Server) -> None:
    with Connection(server.port) as connection:
        for stream in range(1, 401, 2):
            connection.begin(stream, encoding="snappy")
            connection.send(DATA, 1, stream, message(b"x" * 5000, compressed=True))
            assert connection.answer(stream)[0].kind == HEADERS
    assert server.refused == ["compression"] * 200


def test_garbage_after_a_refused_call(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1, encoding="zstd")
        connection.answer(1)
        connection.send(HEADERS, 4, 2, b"\xff" * 20)
        with pytest.raises(ConnectionError):
            connection.answer(2)
    eventually(lambda: server.here() == 0)
    server.check_alive()


# Faults


def test_connections_wait_while_there_are_no_descriptors(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, failed = threading.Event(), threading.Event()
    failing.set()
    accept = socket.socket.accept

    def fails(listener: socket.socket) -> Any:
        if failing.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "too many")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", fails)
    with server.connect() as connection:
        assert failed.wait(10)
        failing.clear()
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 400")
    server.check_alive()


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_connection_that_fails_harms_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    hand_over = server.acceptor._hand_over
    faults = [error]

    def failing(*arguments: Any) -> None:
        if faults:
            raise faults.pop()
        hand_over(*arguments)

    monkeypatch.setattr(server.acceptor, "_hand_over", failing)
    with structlog.testing.capture_logs() as logs, server.connect() as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0\0\0\x08\6\0\0\0\0\0" + b"p" * 8
        )
        rest(connection)
        eventually(lambda: bool(logs))
    assert [(line["event"], line["error"]) for line in logs] == [("grpc: a connection was dropped", error.__name__)]
    server.check_alive()
    assert server.engine.alive


def test_closing_closes_what_is_here() -> None:
    server = Server()
    connections = [server.connect() for _ in range(5)]
    eventually(lambda: server.here() == 5)
    assert server.engine.drain(5)
    for connection in connections:
        assert rest(connection) == b""
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert not server.acceptor.alive
    server.engine.stop()
    gc.collect()  # a socket that was left open would warn


def test_an_acceptor_that_ends_is_noticed(server: Server) -> None:
    assert server.engine.alive
    server.acceptor.close()
    assert not server.engine.alive


def test_a_grpcio_without_a_way_in_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="takes no connections"):
        CoreAcceptor().connect()
