"""How long connections live, in the contract of both engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sampler_proxy.receive.grpc_server import GrpcEngine
from sampler_proxy.receive.keepalive import Keepalive

from .raw_http2 import ACK, EXPORT, GOAWAY, PING, Connection, Frame, message

MS = 1_000_000


@pytest.fixture
def port(engine_class: type[GrpcEngine], request: pytest.FixtureRequest) -> Iterator[int]:
    settings: dict[str, Any] = request.param
    engine = engine_class({EXPORT: bytes}, "127.0.0.1:0", 1000, print, keepalive=Keepalive(**settings))
    yield engine.start()
    engine.stop()


def until(connection: Connection, kind: int, flags: int = 0) -> Frame:
    while (frame := connection.read()).kind != kind or frame.flags != flags:
        connection._acknowledge(frame)
    return frame


def call(connection: Connection, stream: int = 1) -> None:
    connection.begin(stream)
    connection.data(stream, message(b"x"))
    assert connection.answer(stream)[1].payload == message(b"x")


@pytest.mark.parametrize("port", [{"time_ns": 200 * MS, "timeout_ns": 300 * MS}], indirect=True)
@pytest.mark.parametrize("called", [True, False])
def test_an_idle_connection_is_asked_whether_it_is_there(port: int, called: bool) -> None:
    with Connection(port) as connection:
        if called:
            call(connection)
        for _ in range(4):  # as often as it answers
            asked = until(connection, PING)
            connection.send(PING, ACK, 0, asked.payload)
        call(connection, 3)
        until(connection, PING)
        with pytest.raises(ConnectionError):  # noqa: PT012 (nothing is answered)
            while True:
                connection.read()


@pytest.mark.parametrize("port", [{"max_connection_age_ns": 300 * MS}], indirect=True)
def test_a_client_is_sent_away_at_an_age(port: int) -> None:
    """Its call in flight is answered, and calls that it begins before it hears of it."""
    with Connection(port) as connection:
        connection.begin(1)
        until(connection, GOAWAY)
        connection.data(1, message(b"x"))
        frames = []
        while not frames or frames[-1].payload != message(b"x"):
            frames.append(connection.read())
            if frames[-1].kind == PING:
                connection.send(PING, ACK, 0, frames[-1].payload)


@pytest.mark.parametrize(
    "port", [{"max_connection_age_ns": 200 * MS, "max_connection_age_grace_ns": 200 * MS}], indirect=True
)
def test_what_does_not_end_within_the_grace_is_ended(port: int) -> None:
    with Connection(port) as connection:
        connection.begin(1)
        until(connection, GOAWAY)
        with pytest.raises(ConnectionError):  # noqa: PT012
            while True:
                frame = connection.read()
                if frame.kind == PING:
                    connection.send(PING, ACK, 0, frame.payload)


@pytest.mark.parametrize("port", [{"max_connection_idle_ns": 300 * MS}], indirect=True)
def test_a_client_without_calls_is_sent_away(port: int) -> None:
    with Connection(port) as connection:
        call(connection)
        until(connection, GOAWAY)


def test_what_core_is_told() -> None:
    options = dict(Keepalive(time_ns=10**30, timeout_ns=1).options())
    assert options["grpc.keepalive_time_ms"] == options["grpc.max_connection_age_ms"] == 2**31 - 1
    assert options["grpc.keepalive_timeout_ms"] == 1
    assert dict(Keepalive().options())["grpc.keepalive_time_ms"] == 7_200_000
