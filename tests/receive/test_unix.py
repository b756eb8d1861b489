"""Unix sockets, for both protocols: in the contract of both engines, and their files."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import structlog.testing

from sampler_proxy.errors import StartError
from sampler_proxy.receive import accepting
from sampler_proxy.receive.bounds import BROKEN_OFF
from sampler_proxy.receive.cors import Cors
from sampler_proxy.receive.grpc_aio import AioEngine
from sampler_proxy.receive.grpc_server import GrpcEngine
from sampler_proxy.receive.http import HttpReceiver
from sampler_proxy.receive.listeners import UnixListener
from sampler_proxy.settings import Endpoint

from .raw_http2 import EXPORT, RST_STREAM, Connection, message
from .test_grpc_engines import Server
from .waiting import eventually


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def raw(path: Path) -> Connection:
    connection = Connection.__new__(Connection)
    connection._socket, connection._buffer = connect(path), b""
    connection._greet(patient=False)
    return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "otlp.sock"


@pytest.fixture
def server(launch: Callable[..., Server], path: Path) -> Server:
    return launch(address=f"unix:{path}")


def test_calls(server: Server, path: Path) -> None:
    assert server.port == 0
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(f"unix:{path}", [("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(3)
        ]
        for size in (0, 10, 90_000):
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                for channel in channels:
                    answer = channel.unary_unary(EXPORT)(b"x" * size, timeout=10, compression=compression)
                    assert answer == b"answer to " + b"x" * min(size, 16)
    assert server.engine.drain(5)
    assert not path.exists()


def test_the_file_of_a_process_that_was_killed_is_replaced(launch: Callable[..., Server], path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = launch(address=f"unix:{path}")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert channel.unary_unary(EXPORT)(b"x", timeout=10) == b"answer to x"
    server.close()


@pytest.mark.usefixtures("server")
def test_a_socket_that_is_taken_and_a_file_that_is_none(
    engine_class: type[GrpcEngine], path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    for taken, why in (
        (path, os.strerror(errno.EADDRINUSE)),
        (tmp_path / "file", "there is a file of that name, which is not a socket"),
        (tmp_path / "nowhere" / "x.sock", os.strerror(errno.ENOENT)),
    ):
        with pytest.raises(StartError) as refused:
            engine_class({}, f"unix:{taken}", 1000, print).start()
        assert str(refused.value) == f"grpc: cannot listen on unix:{taken}: {why}"
    assert (tmp_path / "file").read_text() == "precious"
    with connect(path):
        pass


def test_the_file_of_a_successor_stays(path: Path) -> None:
    old = UnixListener(str(path), 5)
    os.unlink(path)
    with UnixListener(str(path), 5):
        old.close()
        assert path.exists()
    assert not path.exists()


# By the completion queue only: grpc.aio listens itself, and tells connections over one socket not apart


def of_completion_queue(server: Server) -> None:
    if isinstance(server.engine, AioEngine):
        pytest.skip("with grpc.aio core listens itself")


def test_connections_are_told_apart(server: Server, path: Path) -> None:
    """One that breaks off call after call is closed, and named by its process; the other goes on."""
    of_completion_queue(server)
    kinds: list[str] = []
    server.engine._bounds._on_closed = kinds.append
    server.engine._bounds.broken_off._limit = 10
    with structlog.testing.capture_logs() as logs, raw(path) as honest, raw(path) as attacker:
        honest.begin(1)
        honest.data(1, message(b"one"))
        assert honest.answer(1)[1].payload == message(b"answer to one")
        for stream in range(1, 40, 2):
            attacker.begin(stream)
            attacker.send(RST_STREAM, 0, stream, b"\0\0\0\x08")
        with pytest.raises(ConnectionError):
            attacker.answer(99)
        honest.begin(3)
        honest.data(3, message(b"two"))
        assert honest.answer(3)[1].payload == message(b"answer to two")
        eventually(lambda: kinds == [BROKEN_OFF])
        eventually(lambda: bool(logs))
    assert [line["peer"] for line in logs] == [f"unix:process {os.getpid()}"]


def test_compressions_and_what_is_not_http2(server: Server, path: Path) -> None:
    of_completion_queue(server)
    with structlog.testing.capture_logs() as logs:
        with raw(path) as connection:
            connection.begin(1, encoding="lz4")
            assert b"grpc-status\x0212" in connection.answer(1)[0].payload
        with connect(path) as http1:
            http1.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            assert http1.recv(1000).startswith(b"HTTP/1.1 400")
    assert [line["peer"] for line in logs] == [f"unix:process {os.getpid()}"] * 2
    assert server.refused == ["unknown_compression"]


def test_silence_is_ended(launch: Callable[..., Server], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "SILENT_S", 0.2)
    server = launch(address=f"unix:{path}")
    of_completion_queue(server)
    with connect(path) as silent:
        assert silent.recv(1) == b""


# HTTP


def test_http(path: Path) -> None:
    refused: list[str] = []

    async def serve() -> None:
        receiver = HttpReceiver(Endpoint("", 0, str(path)), Cors((), (), 0), 1000, bytes, bytes, refused.append)
        try:
            assert await receiver.start() == Endpoint("", 0, str(path))
            answer = await asyncio.to_thread(post, path)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            with structlog.testing.capture_logs() as logs:
                assert b"OTLP over HTTP/1.1" in await asyncio.to_thread(speak_http2, path)
            assert [line["peer"] for line in logs] == [f"unix:process {os.getpid()}"]
            with pytest.raises(StartError, match=r"^http: cannot listen on unix:.*: Address already in use$"):
                await HttpReceiver(Endpoint("", 0, str(path)), Cors((), (), 0), 1000, bytes, bytes, print).start()
            await receiver.drain(5)
            assert os.listdir(path.parent) == []
        finally:
            await receiver.stop()

    asyncio.run(serve())
    assert refused == []


def post(path: Path) -> bytes:
    with connect(path) as connection:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 2"
        connection.sendall(head + b"\r\n\r\nok")
        return connection.recv(1000)


def speak_http2(path: Path) -> bytes:
    with connect(path) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1000), b""))


def test_listeners_are_left_open_by_nobody(path: Path) -> None:
    for _ in range(3):
        listener = UnixListener(str(path), 5)
        waiting = threading.Thread(target=lambda: connect(path).close())
        waiting.start()
        waiting.join(10)
        with pytest.raises(OSError, match="in use"):
            UnixListener(str(path), 5)
        listener.close()
