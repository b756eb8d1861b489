"""What one connection can do to others, and what becomes of it: attacks on a real engine, and honest clients beside."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
import structlog.testing

from sampler_proxy.errors import EffortSpent
from sampler_proxy.receive import grpc_completion_queue, grpc_server
from sampler_proxy.receive.connections import BROKEN_OFF, UNFINISHED
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine
from sampler_proxy.receive.inflate import Inflation

from .raw_http2 import EXPORT, GOAWAY, PING, RST_STREAM, Connection, message
from .waiting import Held, eventually

LIMIT = 8 << 20
RESET = struct.pack(">I", 8)


class Server:
    """A running engine, with a handler for large messages; `answer` may be replaced."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.kinds: list[str] = []
        self.threads: list[tuple[str, int]] = []
        self.answer: Callable[[bytes], bytes] = lambda request: request[:16]
        self.engine = CompletionQueueEngine(
            {EXPORT: self._export},
            "127.0.0.1:0",
            LIMIT,
            self.refused.append,
            on_connection_refused=self.kinds.append,
            large_methods={EXPORT: self._export},
        )
        self.port = self.engine.start()

    def _export(self, request: bytes) -> bytes:
        self.threads.append((threading.current_thread().name, len(request)))
        return self.answer(request)

    def channel(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options)

    def check_alive(self) -> None:
        with self.channel() as channel:
            assert channel.unary_unary(EXPORT)(b"alive?", timeout=20) == b"alive?"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.engine.stop()


def goaway_of(connection: Connection) -> bytes:
    """Return what a GOAWAY says, with its error code."""
    while (frame := connection.read()).kind != GOAWAY:
        pass
    return frame.payload[4:]


# Closing


def test_who_resets_call_after_call_is_closed_with_a_reason(server: Server) -> None:
    with structlog.testing.capture_logs() as logs, Connection(server.port, patient=True) as attacker:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 (which one finds it closed?)
            for stream in range(1, 1_000_001, 2):
                attacker.begin(stream)
                attacker.send(RST_STREAM, 0, stream, RESET)
        eventually(lambda: server.kinds == [BROKEN_OFF])
        eventually(lambda: bool(logs))
    (line,) = logs
    assert line["event"].startswith("grpc: a connection was closed: too many of its calls were broken off")
    assert line["peer"].startswith("127.0.0.1:")
    server.check_alive()


def test_the_reason_can_be_read(server: Server) -> None:
    server.engine._bounds.broken_off._limit = 10
    with Connection(server.port, patient=True) as attacker:
        for stream in range(1, 40, 2):
            attacker.begin(stream)
            attacker.send(RST_STREAM, 0, stream, RESET)
        assert (
            goaway_of(attacker) == b"\0\0\0\x0btoo many of its calls were broken off before their messages had arrived"
        )
        with pytest.raises(ConnectionError):
            attacker.read()
    eventually(lambda: server.kinds == [BROKEN_OFF])


def test_messages_that_stall_again_and_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.engine._bounds._unfinished._limit = 20
    with Connection(server.port, patient=True) as attacker:
        for stream in range(1, 300, 2):  # more than it may have places
            attacker.begin(stream)
        eventually(lambda: server.engine._places.waiting > 50)
        monkeypatch.setattr(grpc_server, "STALLED_S", 0.05)
        assert goaway_of(attacker).startswith(b"\0\0\0\x0btoo many of its messages did not arrive in time")
    eventually(lambda: server.kinds == [UNFINISHED])
    server.check_alive()


def test_a_service_whose_deadlines_pass_is_not_closed(server: Server) -> None:
    """150 calls at once, twice, none of which is answered in time; and a stop that cancels all."""
    release = threading.Event()
    server.answer = lambda _: b"%d" % release.wait(20)
    with server.channel() as channel:
        method = channel.unary_unary(EXPORT)
        for _ in range(2):
            calls = [method.future(b"x" * 5000, timeout=0.3) for _ in range(150)]
            assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        calls = [method.future(b"x" * 5000) for _ in range(150)]
        for call in calls:
            call.cancel()
        release.set()
        server.answer = lambda request: request
        assert method(b"alive?", timeout=20) == b"alive?"  # on the same connection
    assert server.kinds == []
    assert server.refused == []


def test_whole_requests_make_up_for_broken_ones(server: Server) -> None:
    server.engine._bounds.broken_off._limit = 50
    server.engine._bounds.broken_off._per_s = 0.0
    with Connection(server.port, patient=True) as connection:
        for stream in range(1, 401, 4):
            connection.begin(stream)
            connection.send(RST_STREAM, 0, stream, RESET)
            connection.begin(stream + 2)
            connection.data(stream + 2, message(b"whole"))
            assert connection.answer(stream + 2)[1].payload == message(b"whole")
    assert server.kinds == []


# Descriptors


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_500_connections_leave_nothing(server: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    server.check_alive()
    eventually(lambda: server.engine._in_flight == 0)
    before = descriptors()
    for number in range(500):
        with Connection(server.port) as connection:
            connection.begin(1)
            connection.data(1, message(b"x" * 5000)[: 6000 if number % 2 else 1000], end=bool(number % 2))
            if number % 2:
                assert connection.answer(1)[1].payload == message(b"x" * 16)
            else:
                connection.send(PING, 0, 0, b"12345678")
                time.sleep(0.001)
            server.engine._bounds.next_look_s = 0.0  # looks at what it has received
    eventually(lambda: descriptors() <= before + 2)
    assert len(server.engine._bounds.connections._numbers) <= 64
    server.check_alive()


# Bytes in flight


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO")
def test_bytes_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "IN_FLIGHT_BYTES", 2 << 20)
    monkeypatch.setattr(CompletionQueueEngine, "_in_flight_bound", 2 << 20)
    server = Server()
    try:
        with Connection(server.port, patient=True) as attacker, Connection(server.port, patient=True) as honest:
            honest.begin(1)
            honest.data(1, message(b"x" * 20_000)[:10_000], end=False)
            for stream in range(1, 60, 2):  # as much as may be sent without a window's update
                attacker.begin(stream)
                attacker.data(stream, message(b"x" * (1 << 20))[:200_000], end=False)
                time.sleep(0.005)
            eventually(lambda: "in_flight" in server.refused)
            assert b"grpc-status\x0214" in attacker.answer(1)[0].payload
            honest.data(1, message(b"x" * 20_000)[10_000:])
            assert honest.answer(1)[1].payload == message(b"x" * 16)
        assert set(server.refused) == {"in_flight"}
        assert server.engine.peak_in_flight() > 2 << 20
    finally:
        server.engine.stop()


# The thread, and the one of large messages


@pytest.mark.parametrize("packed", [False, True])
def test_large_messages_have_a_thread_of_their_own(server: Server, packed: bool) -> None:
    large = bytes(range(256)) * 8192
    held = Held(large[:6])
    server.answer = lambda request: held(request) if len(request) > 1000 else request
    with server.channel() as channel, server.channel() as other:
        call = channel.unary_unary(EXPORT).future(gzip.compress(large) if packed else large, timeout=20)
        assert held.entered.wait(20)
        for _ in range(50):
            assert other.unary_unary(EXPORT)(b"small", timeout=20) == b"small"
        assert not call.done()
        held.release.set()
        assert call.result() == large[:6]
    assert server.threads == [("grpc-large", len(large))] + [("grpc", 5)] * 50
    assert server.engine.drain(5)
    eventually(lambda: not server.engine._lane.alive)


def test_a_message_that_takes_too_much_effort_is_handled_on_that_thread_too(server: Server) -> None:
    def answer(request: bytes) -> bytes:
        if request == b"dear" and threading.current_thread().name == "grpc":
            raise EffortSpent
        return request

    server.answer = answer
    with server.channel() as channel:
        assert channel.unary_unary(EXPORT)(b"dear", timeout=20) == b"dear"
        assert channel.unary_unary(EXPORT)(b"cheap", timeout=20) == b"cheap"
    assert server.threads == [("grpc", 4), ("grpc-large", 4), ("grpc", 5)]
    eventually(lambda: not server.engine._in_flight and not server.engine._places.receiving)
    assert not server.refused


def test_a_message_whose_size_finds_no_memory_is_answered_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bool:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(Inflation, "begin", fails)
    with server.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(EXPORT)(gzip.compress(b"x"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert channel.unary_unary(EXPORT)(b"y", timeout=20) == b"y"
    assert server.refused == ["out_of_memory"]
    eventually(lambda: not server.engine._in_flight)
    assert server.engine.drain(5)


def test_what_waits_for_that_thread_is_not_taken_once_its_senders_were_told_so(server: Server) -> None:
    server.answer = held = Held()
    with server.channel() as channel:
        calls = [channel.unary_unary(EXPORT).future(b"x" * (2 << 20), timeout=20) for _ in range(4)]
        assert held.entered.wait(20)
        eventually(lambda: sum(its.whole for its in server.engine._places.receiving) == 4)
        draining = threading.Thread(target=server.engine.drain, args=(0,))
        draining.start()
        assert all(call.exception(timeout=20) is not None for call in calls)
        held.release.set()
        draining.join(20)
    eventually(lambda: not server.engine._lane.alive)
    assert len(server.threads) == 1
    assert server.refused == ["draining"] * 3


def test_draining_waits_for_large_messages(server: Server) -> None:
    server.answer = held = Held()
    with server.channel() as channel:
        calls = [channel.unary_unary(EXPORT).future(b"x" * (2 << 20), timeout=20) for _ in range(3)]
        assert held.entered.wait(20)
        draining = threading.Thread(target=server.engine.drain, args=(20,))
        draining.start()
        held.release.set()
        draining.join(20)
        assert not draining.is_alive()
        assert sum(call.exception() is None and call.result() == b"done" for call in calls) >= 1
    assert server.engine._in_flight == 0


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_large_message_that_fails_is_answered(server: Server, error: type[Exception]) -> None:
    def answer(_: bytes) -> bytes:
        raise error

    server.answer = answer
    with server.channel() as channel:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(EXPORT)(b"x" * (2 << 20), timeout=20)
    memory = error is MemoryError
    assert caught.value.code() is (grpc.StatusCode.UNAVAILABLE if memory else grpc.StatusCode.INTERNAL)
    assert server.refused == ["out_of_memory" if memory else "internal"] * 3
    server.answer = lambda request: request[:16]
    server.check_alive()
    eventually(lambda: server.engine._in_flight == 0)
    assert server.engine.drain(5)


def test_a_large_answer_that_finds_no_memory_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = grpc_completion_queue._operations, [MemoryError] * 3

    def failing(answer: object) -> object:
        if failures and threading.current_thread().name == "grpc-large":
            raise failures.pop()
        return real(answer)  # type: ignore[arg-type]

    monkeypatch.setattr(grpc_completion_queue, "_operations", failing)
    with server.channel() as channel:
        assert channel.unary_unary(EXPORT)(b"x" * (2 << 20), timeout=20) == b"x" * 16
    assert len(server.threads) == 1
    eventually(lambda: server.engine._in_flight == 0)


def test_who_sends_much_does_not_hold_up_who_sends_little(server: Server) -> None:
    """100 dear messages of one connection are there when a cheap one comes: it waits for a few of them, not for all."""
    order: list[bytes] = []

    def answer(request: bytes) -> bytes:
        order.append(request[:5])
        if request.startswith(b"dear"):
            time.sleep(0.02)
        return request[:5]

    server.answer = answer
    with server.channel() as many, server.channel() as one:
        assert one.unary_unary(EXPORT)(b"first", timeout=20) == b"first"
        calls = [many.unary_unary(EXPORT).future(b"dear!", timeout=60) for _ in range(60)]
        eventually(lambda: len(order) > 5)
        assert one.unary_unary(EXPORT)(b"cheap", timeout=20) == b"cheap"
        assert {call.result() for call in calls} == {b"dear!"}
    assert order.index(b"cheap") < 40
