"""What becomes of connections: the acceptor in front of a real engine."""

from __future__ import annotations

import errno
import gc
import http.client
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog.testing

from sampler_proxy.receive import accepting
from sampler_proxy.receive.accepting import Acceptor
from sampler_proxy.receive.core_acceptor import CoreAcceptor
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine

from .raw_http2 import DATA, EXPORT, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, Connection, message
from .waiting import eventually

SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"


class Server:
    """A running engine, and what it has counted."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.refused: list[str] = []
        self.calls: list[bytes] = []
        self.engine = CompletionQueueEngine(
            {EXPORT: self._export},
            "127.0.0.1:0",
            1 << 24,
            self.refused.append,
            on_connection_refused=self.kinds.append,
        )
        self.port = self.engine.start()

    def _export(self, request: bytes) -> bytes:
        self.calls.append(request)
        return request

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
        assert rest(half)[:9] == SETTINGS_FRAME
    assert sorted(server.kinds) == ["silent", "unacknowledged"]
    assert len(logs) == 2
    server.check_alive()


def test_a_crowd_waits_for_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of connections that have been here for long the oldest go: to core, or closed where they have not begun."""
    monkeypatch.setattr(accepting, "MAX_HERE", 5)
    monkeypatch.setattr(accepting, "CROWDED_S", 0.3)
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


def test_a_crowd_that_is_slow_is_served(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is closed for coming with others: those who find no room wait in the system's queue."""
    monkeypatch.setattr(accepting, "MAX_HERE", 20)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        for each in connections:
            each.sendall(PREFACE + SETTINGS_FRAME)
        eventually(lambda: server.here() == 20)
        for each in connections:
            each.sendall(b"\0\0\0\4\1\0\0\0\0" + b"\0\0\x08\6\0\0\0\0\0" + b"p" * 8)
        for each in connections:
            each.settimeout(10)
            received = b""
            while b"p" * 8 not in received:
                data = each.recv(4096)
                assert data
                received += data
    assert server.kinds == []


def test_what_is_held_here_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_TOTAL_BYTES", 100_000)
    window = b"\0\0\4\x08\0\0\0\0\0\0\0\0\1"
    with server.connect() as small, server.connect() as large:
        for each, count in ((small, 10), (large, 7600)):
            each.sendall(PREFACE + SETTINGS_FRAME + window * count)
        eventually(lambda: server.acceptor._bytes > 98_000)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            large.sendall(window * 1_000_000)
        eventually(lambda: server.kinds == ["unacknowledged"])
        assert server.acceptor._bytes < 1000
        small.sendall(b"\0\0\0\4\1\0\0\0\0" + b"\0\0\x08\6\0\0\0\0\0" + b"p" * 8)
        received = b""
        while b"p" * 8 not in received:
            received += small.recv(4096)


def test_a_client_that_never_acknowledges(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(PREFACE + SETTINGS_FRAME)
        window = b"\0\0\4\x08\0\0\0\0\0\0\0\0\1"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(window * 1_000_000)
    eventually(lambda: server.kinds == ["unacknowledged"])


def test_a_client_that_calls_before_it_hears_from_us(server: Server) -> None:
    """As Go's and Node's do: headers and the first 64 KiB of messages come with the preface."""
    connection = Connection.__new__(Connection)
    connection._socket, connection._buffer = server.connect(), b""
    with connection:
        connection._socket.sendall(PREFACE + SETTINGS_FRAME)
        for stream in range(1, 201, 2):
            connection.begin(stream, padding=2000)
            connection.data(stream, message(b"%d" % stream))
        answers: dict[int, bytes] = {}
        while len(answers) < 100:
            frame = connection.read()
            connection._acknowledge(frame)
            if frame.kind == DATA:
                answers[frame.stream] = frame.payload
    assert answers == {stream: message(b"%d" % stream) for stream in range(1, 201, 2)}
    assert server.kinds == []


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
        connection.begin(1, encoding="lz4")
        frames = []
        while not frames or frames[-1].kind != RST_STREAM:
            frames.append(connection.read())
        (answer,) = [frame for frame in frames if frame.kind == HEADERS]
        assert answer.flags & 1, "END_STREAM"
        assert frames[-1].payload == b"\0\0\0\0"
        connection.data(1, b"what was under way", end=False)
        connection.begin(3, encoding="lz4")
        assert connection.answer(3)[0].kind == HEADERS
    assert server.refused == ["unknown_compression"] * 2
    eventually(lambda: server.here() == 0)


def test_many_refused_calls_with_their_messages(server: Server) -> None:
    with Connection(server.port) as connection:
        for stream in range(1, 401, 2):
            connection.begin(stream, encoding="br")
            connection.send(DATA, 1, stream, message(b"x" * 5000, compressed=True))
            assert connection.answer(stream)[0].kind == HEADERS
    assert server.refused == ["unknown_compression"] * 200


def test_many_calls_at_once_are_all_refused(server: Server) -> None:
    with Connection(server.port) as connection:
        for stream in range(1, 601, 2):
            connection.begin(stream, encoding="lz4")
        answered = set()
        while len(answered) < 300:
            frame = connection.read()
            assert frame.kind != GOAWAY
            connection._acknowledge(frame)
            if frame.kind == HEADERS:
                answered.add(frame.stream)
    assert server.refused == ["unknown_compression"] * 300


@pytest.mark.parametrize("encoding", ["", "identity", "gzip"])
def test_calls_of_others_on_one_connection_are_sent_elsewhere(server: Server, encoding: str) -> None:
    """GOAWAY says which calls were not processed, and the connection ends, with time to hear that."""
    with Connection(server.port) as connection:
        connection.begin(1, encoding="lz4")
        connection.answer(1)
        connection.begin(3, encoding="lz4")
        connection.answer(3)
        connection.begin(5, encoding=encoding)
        connection.send(DATA, 1, 5, message(b"good"))
        while (frame := connection.read()).kind != GOAWAY:
            assert frame.stream != 5
        assert frame.payload[:8] == b"\0\0\0\3" + b"\0\0\0\0"
        connection.begin(7)
        with pytest.raises(ConnectionError):
            connection.read()
    assert server.refused == ["unknown_compression"] * 2
    eventually(lambda: server.here() == 0)
    server.check_alive()


@pytest.mark.parametrize("flood", ["settings", "undecided"])
def test_what_a_refused_client_makes_us_hold_is_bounded(server: Server, flood: str) -> None:
    with Connection(server.port) as connection:
        connection.begin(1, encoding="lz4")
        connection.answer(1)
        for number in range(150):
            if flood == "settings":
                connection.send(SETTINGS, 0, 0, struct.pack(">HI", 1000 + number, 0))
            else:
                connection.begin(3 + 2 * number)
        while connection.read().kind != GOAWAY:
            pass
    eventually(lambda: server.here() == 0)


def test_idle_refused_clients_are_sent_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "UNREADABLE_S", 0.2)
    monkeypatch.setattr(accepting, "MAX_UNREADABLE", 3)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in range(5)]
        for connection in connections:
            connection.begin(1, encoding="lz4")
            connection.answer(1)
        eventually(lambda: len(server.acceptor._unreadable) <= 3)
        for connection in connections:
            while connection.read().kind != GOAWAY:
                pass
    eventually(lambda: server.here() == 0)


def test_garbage_after_a_refused_call(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1, encoding="lz4")
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
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_connection_that_fails_harms_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: type[Exception], encoding: str
) -> None:
    """On its way to core, with a relay and without."""
    owner: Any = server.acceptor if encoding == "gzip" else server.engine._acceptor.relay
    hand_over = owner._hand_over
    faults = [error]

    def failing(*arguments: Any) -> None:
        if faults:
            raise faults.pop()
        hand_over(*arguments)

    monkeypatch.setattr(owner, "_hand_over", failing)
    with structlog.testing.capture_logs() as logs, Connection(server.port) as connection:
        connection.begin(1, encoding=encoding)
        rest(connection._socket)
        eventually(lambda: bool(logs))
    assert [(line["event"], line["error"]) for line in logs] == [("grpc: a connection was dropped", error.__name__)]
    server.check_alive()
    assert server.engine.alive


def test_the_thread_survives_a_lack_of_memory(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection(accepting._Connection):
        lacking = 3

        def __init__(self, *arguments: Any) -> None:
            if Connection.lacking:
                Connection.lacking -= 1
                raise MemoryError
            super().__init__(*arguments)

    monkeypatch.setattr(accepting, "_Connection", Connection)
    for _ in range(3):
        with server.connect() as connection:
            assert rest(connection) == b""
    server.check_alive()
    assert server.engine.alive


def test_a_thread_that_cannot_go_on_closes_the_port(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(accepting, "MAX_FAILURES", 3)
    monkeypatch.setattr(accepting, "_Connection", fails)
    with structlog.testing.capture_logs() as logs, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect())
        eventually(lambda: not server.engine.alive)
    assert logs[-1]["event"] == "grpc: the accepting thread cannot go on, and ends"
    with pytest.raises(ConnectionRefusedError):
        server.connect()


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


DRAINS = """
import contextlib, random, threading
from tests.receive.raw_http2 import EXPORT, message
from tests.receive.test_accepting import PREFACE, SETTINGS_FRAME, Server
from hpack import Encoder
from tests.receive.test_opening import DATA, END_HEADERS, END_STREAM, HEADERS, OUR_ACK, frame

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", EXPORT), (":authority", "x"), ("te", "trailers")]
FIELDS.append(("content-type", "application/grpc"))
CALL = frame(HEADERS, END_HEADERS, Encoder().encode(FIELDS)) + frame(DATA, END_STREAM, message(b"x"))

def connects(server, stop, chance):
    while not stop.is_set():
        with contextlib.suppress(OSError), server.connect() as connection:
            connection.sendall(PREFACE + SETTINGS_FRAME)
            connection.sendall(OUR_ACK + CALL)
            connection.recv(9 if chance.random() < 0.5 else 1000)

for number in range(20):
    server, stop = Server(), threading.Event()
    clients = [threading.Thread(target=connects, args=(server, stop, random.Random(i))) for i in range(4)]
    for client in clients:
        client.start()
    while len(server.calls) < 20:
        stop.wait(0.01)
    server.engine.drain(3 * (number % 2))
    stop.set()
    for client in clients:
        client.join()
    server.engine.stop()
    assert not server.engine._thread.is_alive()
print("drained")
"""


def test_draining_while_clients_connect_does_not_end_the_process() -> None:
    """Core is down before the calls have ended that it has told of: nothing may be begun on its queue any more."""
    process = subprocess.run(
        [sys.executable, "-c", DRAINS], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stdout) == (0, "drained\n"), process.stderr[-2000:]
