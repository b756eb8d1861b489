"""gRPC's health checks and reflection, in the contract of both engines, by the official clients."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sampler_proxy.receive import grpc_streams, health
from sampler_proxy.receive.grpc_aio import AioEngine
from sampler_proxy.receive.reflection import METHODS, Reflection

from .raw_http2 import EXPORT, Connection, message
from .test_grpc_engines import Server
from .waiting import Held, eventually

SERVICE = EXPORT.split("/")[1]
SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


def stub(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


# Health


def test_check(server: Server) -> None:
    with server.channel() as channel:
        for service in ("", SERVICE):
            assert stub(channel).Check(request(service), timeout=10).status == SERVING
        for service in ("nobody", SERVICE + "s"):
            with pytest.raises(grpc.RpcError) as refused:
                stub(channel).Check(request(service), timeout=10)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert service not in refused.value.details()
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(health.CHECK)(b"\x0a\xff", timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.refused == server.not_served == []


def test_list(server: Server) -> None:
    with server.channel() as channel:
        found = stub(channel).List(health_pb2.HealthListRequest(), timeout=10)
    assert {name: each.status for name, each in found.statuses.items()} == {"": SERVING, SERVICE: SERVING}


def test_watch_and_drain(launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches hears of the drain before the port closes, while calls are still taken."""
    monkeypatch.setattr(health, "NOTICE_S", 60.0)
    server = launch()
    with ExitStack() as stack:
        channel = stack.enter_context(server.channel())
        watches = {name: stub(channel).Watch(request(name), timeout=30) for name in ("", SERVICE, "nobody")}
        assert {name: next(watch).status for name, watch in watches.items()} == {
            "": SERVING,
            SERVICE: SERVING,
            "nobody": UNKNOWN,
        }
        draining = threading.Thread(target=server.engine.drain, args=(20,))
        draining.start()
        assert next(watches[""]).status == next(watches[SERVICE]).status == NOT_SERVING
        assert stub(channel).Check(request(), timeout=10).status == NOT_SERVING
        found = stub(channel).List(health_pb2.HealthListRequest(), timeout=10).statuses
        assert {each.status for each in found.values()} == {NOT_SERVING}
        server.check_alive()
        with server.channel() as another:
            assert stub(another).Check(request(SERVICE), timeout=10).status == NOT_SERVING
        held = Held()
        server.answer = held
        in_flight = server.method().future(b"in flight", timeout=30)
        assert held.entered.wait(10)
        hurried: list[bool] = []
        stops = threading.Thread(target=lambda: hurried.append(server.engine.drain(10)))
        stops.start()  # ends the notice, not what is in flight
        held.release.set()
        for watch in watches.values():
            with pytest.raises(grpc.RpcError) as ended:
                next(watch)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert in_flight.result() == b"done"
        stops.join(20)
        draining.join(20)
        assert hurried == [True]
    assert not server.engine.alive


def test_a_drain_of_which_nobody_asks_gives_no_notice(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(server.engine._health._hurry, "wait", waits.append)
    server.check_alive()
    assert server.engine.drain(20)
    assert waits == []


def test_the_notice_is_within_the_grace(server: Server) -> None:
    with server.channel() as channel:
        stub(channel).Check(request(), timeout=10)
        watch = stub(channel).Watch(request(), timeout=30)
        next(watch)
        server.engine.stop()
        assert not server.engine.alive
        with pytest.raises(grpc.RpcError):
            list(watch)


def test_nothing_is_left_of_many_watches(server: Server) -> None:
    if isinstance(server.engine, AioEngine):
        pytest.skip("what it keeps is grpc.aio's")
    with server.channel() as channel:
        for _ in range(100):
            watch = stub(channel).Watch(request(), timeout=30)
            next(watch)
            watch.cancel()
        watch = stub(channel).Watch(request(), timeout=30)
        next(watch)
    eventually(lambda: gc.collect() >= 0 and not len(server.engine._streams._open))
    assert server.engine._in_flight == 0
    assert server.engine.drain(5)


def test_watches_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(server.engine, AioEngine):
        pytest.skip("grpc.aio bounds the calls of a connection only")
    monkeypatch.setattr(grpc_streams, "MAX_OPEN", 5)
    monkeypatch.setattr(grpc_streams, "MAX_OPEN_EACH", 3)
    with ExitStack() as stack:
        channels = [stack.enter_context(server.channel()) for _ in range(2)]
        watches = [stub(channels[0]).Watch(request(), timeout=30) for _ in range(3)]
        watches += [stub(channels[1]).Watch(request(), timeout=30) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [SERVING] * 5
        for channel in channels:
            with pytest.raises(grpc.RpcError) as refused:
                next(stub(channel).Watch(request(), timeout=30))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.refused == ["busy"] * 2
        watches[0].cancel()
        eventually(lambda: len(server.engine._streams._open) == 4)
        assert next(stub(channels[1]).Watch(request(), timeout=30)).status == SERVING


@pytest.mark.parametrize("text", [b"", b"\x0a\xff"])
def test_a_watch_of_nothing(server: Server, text: bytes) -> None:
    """A call without a message, or with one that is none."""
    with server.channel() as channel:
        watch = channel.stream_stream(health.WATCH)
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(iter((text,) if text else ()), timeout=10))
        assert refused.value.code() is (grpc.StatusCode.INVALID_ARGUMENT if text else grpc.StatusCode.UNIMPLEMENTED)
    server.check_alive()


def test_a_watch_whose_client_disconnects(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1, health.WATCH)
        connection.data(1, message(b""))
        while (frame := connection.read()).payload != message(b"\x08\x01"):
            connection._acknowledge(frame)
    server.check_alive()
    assert server.engine.drain(5)


def test_a_watch_without_its_message_does_not_hold_up_a_drain(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1, health.WATCH)
        server.check_alive()
        assert server.engine.drain(10)


# Reflection


@pytest.mark.parametrize("method", METHODS)
def test_reflection_asks_as_often_as_it_likes(server: Server, method: str) -> None:
    asks: list[dict[str, Any]] = [
        {"list_services": "*"},
        {"file_containing_symbol": SERVICE},
        {"file_containing_symbol": method.split("/")[1]},
        {"file_containing_symbol": "grpc.health.v1.Health"},
        {"file_by_filename": "opentelemetry/proto/trace/v1/trace.proto"},
        {"file_containing_symbol": "hunter2"},
        {"all_extension_numbers_of_type": "google.protobuf.FieldOptions"},
        {"file_containing_extension": {"containing_type": SERVICE, "extension_number": 1}},
        {},
    ]
    heard = threading.Semaphore(0)

    def one_at_a_time() -> Iterator[bytes]:
        for ask in asks:
            yield reflection_pb2.ServerReflectionRequest(**ask).SerializeToString()
            assert heard.acquire(timeout=10)

    answers = []
    with server.channel() as channel:
        for answer in channel.stream_stream(method)(one_at_a_time(), timeout=30):
            answers.append(reflection_pb2.ServerReflectionResponse.FromString(answer))
            heard.release()
    assert [answer.WhichOneof("message_response") for answer in answers] == [
        "list_services_response",
        *["file_descriptor_response"] * 4,
        *["error_response"] * 4,
    ]
    assert {service.name for service in answers[0].list_services_response.service} == {
        SERVICE,
        "grpc.health.v1.Health",
        *(each.split("/")[1] for each in METHODS),
    }
    assert [answer.error_response.error_code for answer in answers[5:]] == [5, 5, 5, 3]
    assert "hunter2" not in answers[5].error_response.error_message
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.original_request == reflection_pb2.ServerReflectionRequest(**ask)
        pool = descriptor_pool.DescriptorPool()
        files = [
            *map(descriptor_pb2.FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        ]
        for file in reversed(files):
            pool.Add(file)
        if files and (symbol := ask.get("file_containing_symbol")):
            assert pool.FindServiceByName(symbol).methods
    assert server.refused == []
    eventually(lambda: server.engine._in_flight == 0)


def test_the_official_reflection_client(server: Server) -> None:
    with server.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        service = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)
        assert service.methods_by_name["Export"].input_type.full_name.endswith("ExportTraceServiceRequest")


def test_a_reflection_that_asks_for_nothing_does_not_hold_up_a_drain(server: Server) -> None:
    """Before its first message, and behind it."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in range(2)]
        for connection in connections:
            connection.begin(1, METHODS[0])
        connections[1].data(1, message(b"\x3a\x01*"), end=False)
        while not (frame := connections[1].read()).payload.startswith(b"\0"):
            connections[1]._acknowledge(frame)
        server.check_alive()
        assert server.engine.drain(10)


def test_a_message_that_is_none_ends_the_reflection(server: Server) -> None:
    with server.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        list(channel.stream_stream(METHODS[0])(iter((b"\xff",)), timeout=10))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    server.check_alive()


def test_services_without_a_description_are_listed() -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    found = reflection_pb2.ServerReflectionResponse.FromString(Reflection(["my.own.Service"]).answer(asked))
    assert "my.own.Service" in [service.name for service in found.list_services_response.service]
