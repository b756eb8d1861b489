"""One contract, both engines: what senders see of them, and what the service may rely on."""

from __future__ import annotations

import asyncio
import gc
import gzip
import resource
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import cramjam
import grpc
import grpc.aio
import pytest
import structlog.testing
from google.rpc import error_details_pb2, status_pb2
from hpack import Decoder
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from sampler_proxy import errors
from sampler_proxy.receive import grpc as grpc_choice
from sampler_proxy.receive import grpc_aio, grpc_completion_queue, grpc_server
from sampler_proxy.receive.grpc import create, self_check
from sampler_proxy.receive.grpc_aio import AioEngine
from sampler_proxy.receive.grpc_call import Call
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine
from sampler_proxy.receive.grpc_server import GrpcEngine
from sampler_proxy.receive.http_bodies import zstd
from sampler_proxy.receive.inflate import Inflation

from . import raw_http2
from .raw_http2 import EXPORT, Connection, message
from .waiting import Held, eventually

LIMIT = 100_000
GZIP = grpc.Compression.Gzip


class Server:
    """An engine that runs, what it was asked, and what its handlers do (`answer` may be replaced)."""

    def __init__(self, engine_class: type[GrpcEngine], limit: int = LIMIT, address: str = "127.0.0.1:0") -> None:
        self.requests: list[bytes] = []
        self.refused: list[str] = []
        self.answer: Callable[[bytes], bytes] = lambda request: b"answer to " + request[:16]
        methods = {EXPORT: self._export}
        self.not_served: list[str] = []
        self.engine = engine_class(methods, address, limit, self.refused.append, self.not_served.append)
        self.port = self.engine.start()
        self._channel: grpc.Channel | None = None

    def _export(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self.answer(request)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)])

    def method(self, name: str = EXPORT) -> Any:
        if self._channel is None:
            self._channel = self.channel()
        return self._channel.unary_unary(name)

    def call(self, request: bytes, **options: Any) -> bytes:
        response: bytes = self.method()(request, timeout=20, **options)
        return response

    def refusal(self, request: bytes, **options: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(request, **options)
        return caught.value

    def check_alive(self) -> None:
        assert self.call(b"alive?") == b"answer to alive?"

    def close(self) -> None:
        self.engine.stop()
        if self._channel is not None:
            self._channel.close()


@pytest.fixture(params=[CompletionQueueEngine, AioEngine], ids=["completion_queue", "aio"])
def engine_class(request: pytest.FixtureRequest) -> type[GrpcEngine]:
    return request.param


@pytest.fixture
def launch(engine_class: type[GrpcEngine]) -> Iterator[Callable[..., Server]]:
    """Start a server, which is stopped when the test ends. Takes `limit` and `address`."""
    running: list[Server] = []

    def start(**options: Any) -> Server:
        running.append(Server(engine_class, **options))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def server(launch: Callable[..., Server]) -> Server:
    return launch()


def details(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, list[str]]:
    return error.code(), error.details(), sorted(key for key, _ in error.trailing_metadata())


# Answers


def test_a_call_is_answered(server: Server) -> None:
    assert server.call(b"hello") == b"answer to hello"
    assert server.call(b"") == b"answer to "
    assert server.method("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x01"
    assert server.requests == [b"hello", b""]
    assert server.refused == []


async def _gather(port: int, count: int) -> list[bytes]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(EXPORT)
        return await asyncio.gather(*(method(b"%d" % number, timeout=20) for number in range(count)))


def test_an_asyncio_client_in_the_same_process(server: Server) -> None:
    assert asyncio.run(_gather(server.port, 500)) == [b"answer to %d" % number for number in range(500)]


def test_the_sdk_exporter_is_served_and_retries_when_told_to(server: Server) -> None:
    refusals = [errors.Overloaded("full", retry_after_ns=10_000_000)]

    def answer(_: bytes) -> bytes:
        if refusals:
            raise refusals.pop()
        return b""

    server.answer = answer
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{server.port}", compression=GZIP)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    started = time.monotonic()
    provider.get_tracer("test").start_span("checkout").end()
    assert time.monotonic() - started < 0.8  # without RetryInfo it waits for 0.8 to 1.2 s
    provider.shutdown()
    assert len(server.requests) == 2
    for request in server.requests:
        spans = ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans
        assert [span.name for span in spans] == ["checkout"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MalformedRequest("bad tag at byte 7"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.RequestTooLarge("more than 5 bytes"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Draining("stopping – über"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_refusal_that_must_not_be_retried(server: Server, error: errors.RequestError, code: grpc.StatusCode) -> None:
    def answer(_: bytes) -> bytes:
        raise error

    server.answer = answer
    assert details(server.refusal(b"x")) == (code, str(error), [])
    assert server.refused == []  # whoever raised it counts it


@pytest.mark.parametrize(("retry_after_ns", "told_ns"), [(0, 0), (1_500_000_001, 1_500_000_001), (10**12, 2 * 10**9)])
def test_a_retryable_refusal_carries_retry_info_twice(server: Server, retry_after_ns: int, told_ns: int) -> None:
    def answer(_: bytes) -> bytes:
        raise errors.Overloaded("buffer full", retry_after_ns)

    server.answer = answer
    refusal = server.refusal(b"x")
    names = ["google.rpc.retryinfo-bin", "grpc-status-details-bin"]
    assert details(refusal) == (grpc.StatusCode.UNAVAILABLE, "buffer full", names)
    trailers = dict(refusal.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message, len(status.details)) == (14, "buffer full", 1)
    packed = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(packed)
    for info in (packed, error_details_pb2.RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])):
        assert info.retry_delay.ToNanoseconds() == told_ns


def test_a_refusal_is_trailers_only(server: Server) -> None:
    def answer(request: bytes) -> bytes:
        if request == b"no":
            raise errors.Overloaded("full", retry_after_ns=1)
        return b"yes"

    server.answer = answer
    with Connection(server.port) as connection:
        for stream, request, kinds in ((1, b"no", [raw_http2.HEADERS]), (3, b"yes", [1, raw_http2.DATA, 1])):
            connection.begin(stream)
            connection.data(stream, message(request))
            frames = connection.answer(stream)
            assert [frame.kind for frame in frames] == kinds


def test_a_handler_that_fails_is_internal_and_logged_once_without_its_text(server: Server) -> None:
    def answer(request: bytes) -> bytes:
        raise KeyError(request)

    good = server.answer
    server.answer = answer
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert details(server.refusal(b"secret")) == (grpc.StatusCode.INTERNAL, "internal error", [])
    assert [entry["error"] for entry in logs] == ["KeyError"]
    assert "secret" not in str(logs)
    assert server.refused == ["internal"] * 3
    server.answer = good
    server.check_alive()


def test_unknown_methods(server: Server) -> None:
    for name in ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", EXPORT + "s", EXPORT[:-1], "/"):
        with pytest.raises(grpc.RpcError) as caught:
            server.method(name)(b"x" * LIMIT, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    server.check_alive()
    assert server.requests == [b"alive?"]


def test_a_call_without_a_message_and_one_with_two(server: Server) -> None:
    with server.channel() as channel:
        stream = channel.stream_unary(EXPORT)
        with pytest.raises(grpc.RpcError) as caught:
            stream(iter(()), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert stream(iter((b"one", b"two")), timeout=20) == b"answer to one"
    assert server.requests == [b"one"]
    assert server.refused == []
    server.check_alive()


def test_metadata(server: Server) -> None:
    metadata = [(f"x-header-{number}", "v" * 40) for number in range(50)]
    metadata += [("x-trace-bin", bytes(range(256))), ("authorization", "Bearer t"), ("x-same", "1"), ("x-same", "2")]
    assert server.call(b"hello", metadata=metadata) == b"answer to hello"


# Size and compression


def test_the_limit_on_plain_messages(server: Server) -> None:
    assert server.call(b"x" * LIMIT) == b"answer to " + b"x" * 16
    assert server.refused == []
    code, _, trailers = details(server.refusal(b"x" * (LIMIT + 1)))
    assert (code, trailers) == (grpc.StatusCode.RESOURCE_EXHAUSTED, [])
    eventually(lambda: server.refused == ["too_large"])
    assert server.refusal(b"x" * (10 * LIMIT)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [len(request) for request in server.requests] == [LIMIT]
    server.check_alive()


def test_messages_that_core_refuses_are_counted_too(server: Server) -> None:
    if isinstance(server.engine, AioEngine):
        pytest.skip("grpc.aio does not tell a message that core refused from a cancelled call")
    server.refusal(b"x" * (10 * LIMIT))
    eventually(lambda: server.refused == ["too_large"])


def test_the_limit_on_compressed_messages_holds_after_decompression(server: Server) -> None:
    assert server.call(b"x" * LIMIT, compression=GZIP) == b"answer to " + b"x" * 16
    code, _, trailers = details(server.refusal(b"x" * (LIMIT + 1), compression=GZIP))
    assert (code, trailers) == (grpc.StatusCode.RESOURCE_EXHAUSTED, [])
    assert server.refused == ["too_large"]
    assert server.requests == [b"x" * LIMIT]
    server.check_alive()


def test_a_gzip_bomb_is_refused_without_being_unpacked(launch: Callable[..., Server]) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb = gzip.compress(b"", mtime=0)[:10] + megabyte * 1024  # a gigabyte
    server = launch(limit=64 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert server.refusal(bomb).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 * 1024  # KiB; twice the limit and a bit
    assert server.refused == ["too_large"]
    server.check_alive()


@pytest.mark.parametrize("compression", list(grpc.Compression))
@pytest.mark.parametrize("request_", [b"", b"x", b"\n" * 5000, b"x\x9c\x01 not zlib", bytes(range(256)) * 9])
def test_what_clients_may_compress_with(server: Server, compression: grpc.Compression, request_: bytes) -> None:
    server.call(request_, compression=compression)
    assert server.requests == [request_]


@pytest.mark.parametrize("compress", [zstd.compress, lambda data: bytes(cramjam.snappy.compress(data))])
def test_other_compressions(server: Server, compress: Callable[[bytes], bytes]) -> None:
    """Told by the first bytes; how calls that name one come so far is in test_encodings.py."""
    assert server.call(compress(b"x" * LIMIT)) == b"answer to " + b"x" * 16
    assert server.refusal(compress(b"x" * (LIMIT + 1))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.refusal(compress(b"x" * LIMIT)[:-1]).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.requests == [b"x" * LIMIT]
    assert server.refused == ["too_large", "compression"]
    server.check_alive()


@pytest.mark.parametrize("damage", ["cut", "flipped", "followed", "cut to its signature"])
def test_damaged_gzip(server: Server, damage: str) -> None:
    whole = gzip.compress(b"hello" * 100, mtime=0)
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # the checksum
    damaged = {
        "cut": whole[:-1],
        "flipped": bytes(flipped),
        "followed": whole + b"\0",
        "cut to its signature": whole[:2],
    }
    with Connection(server.port) as connection:
        connection.begin(1, encoding="gzip")
        connection.data(1, message(damaged[damage], compressed=True))
        (frame,) = connection.answer(1)
    assert b"grpc-status\x013" in frame.payload
    assert server.refused == ["compression"]
    assert server.requests == []
    server.check_alive()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("encoding", ["lz4", "br", "hunter2", "identity", ""])
def test_a_compression_that_nobody_offered(
    server: Server, engine_class: type[GrpcEngine], encoding: str, compressed: bool
) -> None:
    known = encoding in ("identity", "")
    if engine_class is AioEngine and (compressed or not known):
        pytest.skip("with grpc.aio core answers by itself, and nobody hears of it")
    decoder = Decoder()
    with Connection(server.port) as connection, structlog.testing.capture_logs() as logs:
        for stream in (1, 3):
            connection.begin(stream, encoding=encoding)
            connection.data(stream, message(b"\x04\x22\x4d\x18 ...", compressed=compressed))
            answer = b"".join(frame.payload for frame in connection.answer(stream))
            if known and not compressed:
                assert answer.startswith(b"\x88"), "200"
                continue
            fields = dict(decoder.decode(answer))
            assert fields["grpc-status"] == ("13" if known else "12")
            assert fields["grpc-accept-encoding"] == "identity,deflate,gzip,zstd,snappy"
            assert ("names no grpc-encoding" if known else "reads gzip, deflate, zstd and snappy") in fields[
                "grpc-message"
            ]
    if known and not compressed:
        assert server.requests == [b"\x04\x22\x4d\x18 ..."] * 2
        assert not logs
        return
    assert server.refused == ["compression" if known else "unknown_compression"] * 2
    (line,) = logs
    assert line["encoding"] == {"hunter2": "unknown"}.get(encoding, "none named" if known else encoding)
    assert line["peer"].startswith("127.0.0.1:")
    server.check_alive()
    assert server.requests == [b"alive?"]


@pytest.mark.parametrize("encoding", ["zstd", "lz4"])
def test_a_compression_that_comes_behind_another_is_ended_by_core(server: Server, encoding: str) -> None:
    """Core answers by itself what docs/messages.md says, and other calls of the connection go on."""
    with Connection(server.port) as connection:
        connection.begin(1)
        connection.data(1, message(b"first"))
        connection.answer(1)
        connection.begin(3, encoding=encoding)
        connection.data(3, message(b"\x04\x22\x4d\x18 ...", compressed=True))
        answer = b"".join(frame.payload for frame in connection.answer(3))
        assert b"grpc-status\x0213" in answer
        assert b"Error parsing 'grpc-encoding' metadata" in answer
        connection.begin(5)
        connection.data(5, message(b"alive?"))
        assert connection.answer(5)[1].payload == message(b"answer to alive?")
    assert server.requests == [b"first", b"alive?"]
    assert server.refused == []


# Calls that end early


def test_deadlines(server: Server) -> None:
    release = threading.Event()
    good = server.answer
    server.answer = lambda _: b"%d" % release.wait(20)
    with pytest.raises(grpc.RpcError) as caught:
        server.method()(b"x", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError) as caught:  # it ends while it waits for the first
        server.method()(b"x", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    release.set()
    server.answer = good
    server.check_alive()
    assert server.refused == []


def test_half_of_200_calls_are_cancelled(server: Server) -> None:
    futures: list[Any] = [server.method().future(b"%d" % number, timeout=20) for number in range(200)]
    for future in futures[::2]:
        future.cancel()
    assert [future.result() for future in futures[1::2]] == [b"answer to %d" % number for number in range(1, 200, 2)]
    server.check_alive()
    assert server.refused == []


@pytest.mark.parametrize("end", ["reset", "end of stream", "disconnect"])
def test_a_message_that_never_ends(server: Server, end: str) -> None:
    connection = Connection(server.port)
    connection.begin(1)
    connection.data(1, message(b"x" * 100)[:50], end=end == "end of stream")
    if end == "reset":
        connection.send(raw_http2.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
    elif end == "disconnect":
        connection.close()
    server.check_alive()
    connection.close()
    assert server.requests == [b"alive?"]
    assert "too_large" not in server.refused
    assert server.engine.drain(10)  # nothing is left that it would have to wait for


def test_nothing_is_left_of_2000_calls(server: Server) -> None:
    def run(count: int) -> None:
        futures = []
        for number in range(count):
            futures.append(server.method().future(b"x" * (LIMIT + 1 if number % 200 == 0 else 100)))
            if number % 3 == 0:
                futures[-1].cancel()
            if len(futures) == 50:
                for future in futures:
                    eventually(future.done)
                futures.clear()

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    run(500)
    server.requests.clear()
    before = objects()
    run(2000)
    server.requests.clear()
    server.refused.clear()
    eventually(lambda: objects() - before < 200)


def test_garbage_and_then_a_good_call(server: Server) -> None:
    for garbage in (
        b"\0" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    server.check_alive()
    assert server.requests == [b"alive?"]


# Many at once


def test_1000_connections(server: Server) -> None:
    channels = [server.channel() for _ in range(1000)]
    try:
        futures = [
            channel.unary_unary(EXPORT).future(b"%d" % number, timeout=60) for number, channel in enumerate(channels)
        ]
        assert [future.result() for future in futures] == [b"answer to %d" % number for number in range(1000)]
    finally:
        for channel in channels:
            channel.close()
    assert server.refused == []


def test_a_burst_during_a_slow_call_is_not_refused(
    launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Core's own queue would answer RESOURCE_EXHAUSTED to part of it, and senders would drop their spans."""
    monkeypatch.setattr(grpc_server, "MAX_WAITING", 10_000)
    server = launch()
    release = threading.Event()
    server.answer = lambda _: b"%d" % release.wait(20)
    channels = [server.channel() for _ in range(10)]
    try:
        methods = [channel.unary_unary(EXPORT) for channel in channels]
        futures = [methods[number % 10].future(b"x", timeout=60) for number in range(2000)]
        eventually(lambda: len(server.requests) == 1)
        time.sleep(0.5)  # for the burst to arrive; if it is late, the test proves less but does not fail
        release.set()
        for future in futures:
            future.result()
    finally:
        for channel in channels:
            channel.close()
    assert len(server.requests) == 2000


def begin_slow(connection: Connection, *streams: int) -> None:
    for stream in streams:
        connection.begin(stream)
        connection.data(stream, message(b"slow")[:6], end=False)
    connection.send(raw_http2.PING, 0, 0, b"........")
    while connection.read().kind != raw_http2.PING:
        pass


def receiving(server: Server) -> int:
    return len(server.engine._places.receiving)  # type: ignore[attr-defined]


def waiting(server: Server) -> int:
    count: int = server.engine._places.waiting  # type: ignore[attr-defined]
    return count


def test_calls_wait_behind_those_of_their_own_connection(
    launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "MAX_RECEIVING", 4)
    monkeypatch.setattr(grpc_server, "MAX_WAITING", 2)
    server = launch()
    with Connection(server.port) as slow:
        begin_slow(slow, 1, 3, 5, 7)
        eventually(lambda: (receiving(server), waiting(server)) == (2, 2))
        server.check_alive()  # others have places
        slow.begin(9)
        (busy,) = slow.answer(9)
        assert b"grpc-status\x0214" in busy.payload
        assert server.refused == ["busy"]
        for stream in (1, 3, 5, 7):
            slow.data(stream, message(b"slow")[6:])
            assert slow.answer(stream)[1].payload == message(b"answer to slow")
    assert server.requests == [b"alive?"] + [b"slow"] * 4
    assert server.refused == ["busy"]


@pytest.mark.parametrize("connections", [1, 16])
def test_messages_that_never_end_hold_up_nobody_else(launch: Callable[..., Server], connections: int) -> None:
    """Their calls take all places that they can have, and all that may wait; a stranger's are received at once."""
    server = launch(limit=64 << 20)
    with ExitStack() as stack:
        for _ in range(connections):
            attacker = stack.enter_context(Connection(server.port, patient=True))
            for number in range(500 // connections):
                attacker.begin(1 + 2 * number)
                attacker.data(1 + 2 * number, (60 << 20).to_bytes(5, "big") + b"x" * 100, end=False)
        eventually(lambda: receiving(server) + waiting(server) == 500 // connections * connections)
        assert waiting(server) > 300
        for number in range(100):
            assert server.call(b"%d" % number) == b"answer to %d" % number
    assert server.refused == []


def test_all_that_have_stalled_give_way_at_once(launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "MAX_RECEIVING", 4)
    monkeypatch.setattr(grpc_server, "STALLED_S", 0.3)
    monkeypatch.setattr(grpc_server, "RECHECK_S", 0.1)
    server = launch()
    with Connection(server.port) as slow:
        begin_slow(slow, 1, 3)
        eventually(lambda: receiving(server) == 2)
        slow.begin(5)
        slow.data(5, message(b"waits"))
        assert slow.answer(5)[1].payload == message(b"answer to waits")
    assert server.refused == ["stalled"] * 2
    assert server.requests == [b"waits"]


def test_who_holds_up_nobody_may_take_long(launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "STALLED_S", 0.05)
    server = launch()
    with Connection(server.port) as slow:
        begin_slow(slow, 1, 3)
        time.sleep(0.2)  # longer than STALLED_S
        server.check_alive()
        for stream in (1, 3):
            slow.data(stream, message(b"slow")[6:])
            assert slow.answer(stream)[1].payload == message(b"answer to slow")
    assert server.refused == []


def test_keepalive_pings_are_not_punished(server: Server) -> None:
    with Connection(server.port) as connection:
        for number in range(30):
            connection.send(raw_http2.PING, 0, 0, b"%08d" % number)
            while (frame := connection.read()).kind != raw_http2.PING:
                assert frame.kind != raw_http2.GOAWAY
            assert frame.payload == b"%08d" % number
        connection.begin(1)
        connection.data(1, message(b"hello"))
        assert connection.answer(1)[1].payload == message(b"answer to hello")


# Start and end


def test_draining(server: Server, launch: Callable[..., Server]) -> None:
    with Connection(server.port) as in_flight:
        in_flight.begin(1)
        in_flight.data(1, message(b"slow")[:6], end=False)
        eventually(lambda: receiving(server) == 1)
        idle = server.channel()
        idle.unary_unary(EXPORT)(b"before", timeout=20)

        async def drain() -> bool:
            draining = asyncio.create_task(asyncio.to_thread(server.engine.drain, 20))
            while True:  # until nobody listens any more
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
                except ConnectionRefusedError:
                    break
                await asyncio.sleep(0.01)
            for channel in (idle, server.channel()):
                with channel, pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(EXPORT)(b"new", timeout=20)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not draining.done()
            in_flight.data(1, message(b"slow")[6:])
            return await draining

        assert asyncio.run(drain()) is True
        with pytest.raises(ConnectionError, match="GOAWAY"):
            in_flight.answer(3)
    assert server.requests == [b"before", b"slow"]
    assert server.engine.drain(1) is True
    server.engine.stop()
    launch(address=f"127.0.0.1:{server.port}").check_alive()  # the port is free


def test_the_call_in_flight_is_answered_while_draining(server: Server) -> None:
    server.answer = held = Held()
    in_flight = server.method().future(b"x", timeout=20)
    assert held.entered.wait(20)
    draining = threading.Thread(target=server.engine.drain, args=(20,))
    draining.start()
    held.release.set()
    assert in_flight.result() == b"done"
    draining.join(20)
    assert not draining.is_alive()


def test_a_client_that_has_gone_silent_does_not_hold_up_the_end(server: Server) -> None:
    with Connection(server.port):  # it answers no ping
        server.check_alive()
        started = time.monotonic()
        assert server.engine.drain(15) is True
        assert time.monotonic() - started < 5


def test_draining_is_bounded(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1)  # and never a message
        eventually(lambda: receiving(server) == 1)
        started = time.monotonic()
        assert server.engine.drain(0.2) is False
        assert 0.2 <= time.monotonic() - started < 5
        assert not [thread for thread in threading.enumerate() if thread.name == "grpc"]


def test_stop_cuts_a_drain_short(server: Server) -> None:
    with Connection(server.port) as connection:
        connection.begin(1)
        eventually(lambda: receiving(server) == 1)
        started = time.monotonic()
        thread = threading.Thread(target=server.engine.drain, args=(60,))
        thread.start()
        server.engine.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - started < 10


def test_draining_under_load_loses_no_call(server: Server) -> None:
    """Every call is either answered, and then it was handled, or refused by a code that OTLP senders retry on."""
    server.answer = lambda request: request
    outcomes: list[tuple[bytes, bool]] = []
    ends: list[grpc.StatusCode] = []

    def load(worker: int) -> None:
        with server.channel() as channel:
            method = channel.unary_unary(EXPORT)
            for number in range(100_000):
                request = b"%d-%d" % (worker, number)
                try:
                    outcomes.append((request, method(request, timeout=20) == request))
                except grpc.RpcError as error:
                    ends.append(error.code())
                    return

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(server.requests) > 100)
    assert server.engine.drain(20) is True
    for thread in threads:
        thread.join(20)
    assert len(ends) == 4
    assert {*ends} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert all(answered for _, answered in outcomes)
    assert sorted(request for request, _ in outcomes) == sorted(server.requests)


def test_a_taken_port_is_an_error(server: Server, launch: Callable[..., Server]) -> None:
    for address in (f"127.0.0.1:{server.port}", f"0.0.0.0:{server.port}", f"localhost:{server.port}"):
        with pytest.raises(errors.StartError, match=r"cannot listen on .*: Address already in use"):
            launch(address=address)
    server.check_alive()


@pytest.mark.parametrize(
    "address", ["", "localhost", "127.0.0.1:", ":4317", "127.0.0.1:65536", "127.0.0.1:+1", "192.0.2.1:0"]
)
def test_an_address_that_cannot_be_used(engine_class: type[GrpcEngine], address: str) -> None:
    engine = engine_class({}, address, LIMIT, print)
    with pytest.raises(errors.StartError, match="cannot listen on"):
        engine.start()
    engine.stop()


def test_a_port_that_core_cannot_have(launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken between our look at it and core's, by a stranger or by another proxy (which core would share it with)."""
    monkeypatch.setattr(grpc_server, "check_address", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        for port in (stranger.getsockname()[1], launch().port):
            with pytest.raises(errors.StartError, match=f"cannot listen on 127.0.0.1:{port}"):
                launch(address=f"127.0.0.1:{port}")


# The choice of the engine


def test_both_engines_pass_the_check_at_start(engine_class: type[GrpcEngine]) -> None:
    self_check(engine_class)


def test_the_completion_queue_is_preferred() -> None:
    with structlog.testing.capture_logs() as logs:
        engine = create({}, "127.0.0.1:0", LIMIT, print)
    assert isinstance(engine, CompletionQueueEngine)
    assert logs == []


@pytest.mark.parametrize("missing", ["127.0.0.1", "both"])
def test_a_machine_without_127_0_0_1_has_the_faster_engine_all_the_same(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    check_address = grpc_server.check_address

    def without(address: str) -> None:
        if missing == "both" or address.startswith("127."):
            raise errors.StartError(f"grpc: cannot listen on {address}: Cannot assign requested address")
        check_address(address)

    monkeypatch.setattr(grpc_server, "check_address", without)
    with structlog.testing.capture_logs() as logs:
        engine = create({}, "[::1]:0", LIMIT, print)
    assert isinstance(engine, CompletionQueueEngine)
    expected = ["no loopback address to check the gRPC engine on: it is used unchecked"] if missing == "both" else []
    assert [entry["event"] for entry in logs] == expected


@pytest.mark.parametrize("fault", ["import", "operation", "answer", "drain"])
def test_falling_back(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "import":
        monkeypatch.setitem(sys.modules, "sampler_proxy.receive.grpc_completion_queue", None)
    elif fault == "operation":
        monkeypatch.setattr("sampler_proxy.receive.grpc_completion_queue._Message", lambda: None)
        monkeypatch.setattr(grpc_choice, "CHECK_CALL_S", 0.2)
    elif fault == "answer":
        monkeypatch.setattr(CompletionQueueEngine, "_handle", lambda *_: b"wrong")
    else:
        monkeypatch.setattr(CompletionQueueEngine, "drain", lambda *_: False)
    with structlog.testing.capture_logs() as logs:
        engine = create({EXPORT: bytes}, "127.0.0.1:0", LIMIT, print)
    assert isinstance(engine, AioEngine)
    assert [entry["log_level"] for entry in logs if entry["log_level"] == "warning"] == ["warning"]
    port = engine.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert channel.unary_unary(EXPORT)(b"hello", timeout=20) == b"hello"
    assert engine.drain(10)


# Out of memory


def test_a_handler_without_memory_is_tried_again(server: Server) -> None:
    good = server.answer

    def answer(_: bytes) -> bytes:
        raise MemoryError

    server.answer = answer
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            refusal = server.refusal(b"x")
            assert details(refusal)[:2] == (grpc.StatusCode.UNAVAILABLE, "the proxy is out of memory")
            assert len(refusal.trailing_metadata()) == 2
    assert [entry["event"].split(":")[0] for entry in logs] == ["out of memory"]
    assert server.refused == ["out_of_memory"] * 3
    server.answer = good
    server.check_alive()


def test_a_handler_that_has_counted_its_lack_of_memory(server: Server) -> None:
    def answer(_: bytes) -> bytes:
        raise errors.OutOfMemory("the proxy is out of memory", retry_after_ns=1)

    server.answer = answer
    assert server.refusal(b"x").code() is grpc.StatusCode.UNAVAILABLE
    assert server.refused == []


def test_memory_that_is_missing_for_a_compressed_message(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Inflation, "finish", finish)
    assert server.refusal(b"x" * 1000, compression=GZIP).code() is grpc.StatusCode.UNAVAILABLE
    assert server.refused == ["out_of_memory"]
    server.check_alive()


class LosesEvents:
    """A completion queue whose `poll` takes an event and then finds no memory for it, where `lose` says so."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.lose: Callable[[Any], bool] = lambda _: False
        self.lost = 0

    def poll(self, deadline: float | None = None) -> Any:
        event = self._queue.poll(deadline)
        if self.lose(event):
            self.lost += 1
            raise MemoryError
        return event

    def shutdown(self) -> None:
        self._queue.shutdown()


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, LosesEvents]]:
    made: list[LosesEvents] = []
    run = CompletionQueueEngine._run

    def with_losses(engine: Any) -> None:
        # Core wants its own object as the queue of a request; only the loop's polls go through ours.
        made.append(LosesEvents(engine._queue))
        poll_from = made[0]
        real, engine._queue = engine._queue, _Both(engine._queue, poll_from)
        engine._server = _WithQueue(engine._server, real)
        run(engine)

    monkeypatch.setattr(CompletionQueueEngine, "_run", with_losses)
    server = Server(CompletionQueueEngine)
    eventually(lambda: bool(made))
    yield server, made[0]
    server.close()


class _Both:
    def __init__(self, queue: Any, losing: LosesEvents) -> None:
        self.poll, self.shutdown, self.queue = losing.poll, queue.shutdown, queue


class _WithQueue:
    def __init__(self, server: Any, queue: Any) -> None:
        self._server, self._queue = server, queue
        self.cancel_all_calls = server.cancel_all_calls

    def request_call(self, _: Any, __: Any, tag: object) -> None:
        self._server.request_call(self._queue, self._queue, tag)

    def shutdown(self, _: Any, tag: object) -> None:
        self._server.shutdown(self._queue, tag)


@pytest.mark.parametrize("kind", ["message", "call", "answer"])
def test_events_that_are_lost_for_want_of_memory(losing: tuple[Server, LosesEvents], kind: str) -> None:
    server, queue = losing
    engine: Any = server.engine
    server.check_alive()
    queue.lose = {
        "message": lambda event: type(event.tag) is Call,
        "call": lambda event: event.tag is engine._begun,
        "answer": lambda event: event.tag is engine._answered,
    }[kind]
    with structlog.testing.capture_logs() as logs:
        for number in range(200):  # more than there are calls asked for, and slots
            if kind == "answer":
                assert server.call(b"x") == b"answer to x"
            elif kind == "message":
                assert server.refusal(b"x").code() is grpc.StatusCode.UNAVAILABLE
            else:
                assert server.refusal(b"x").code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            eventually(lambda number=number: queue.lost > number)  # type: ignore[misc]
        queue.lose = lambda _: False
        server.check_alive()
    assert [entry["event"].split(":")[0] for entry in logs] == ["out of memory"]
    assert server.refused == (["out_of_memory"] * 200 if kind == "message" else [])
    eventually(lambda: engine._in_flight == 0 and not engine._places.receiving)
    assert engine.alive
    assert engine.drain(5)


def test_a_loop_that_cannot_go_on_ends_and_says_so(
    losing: tuple[Server, LosesEvents], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampler_proxy.receive.grpc_completion_queue._MAX_FAILURES", 5)
    server, queue = losing
    queue.lose = lambda _: True
    with structlog.testing.capture_logs() as logs:
        futures = [server.method().future(b"x", timeout=20) for _ in range(10)]
        eventually(lambda: not server.engine.alive)
    assert [entry["event"] for entry in logs][-1] == "grpc: the receiving thread cannot go on, and ends"
    for future in futures:
        assert future.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert server.refusal(b"x").code() is grpc.StatusCode.UNAVAILABLE  # the port is closed


def test_alive(server: Server, engine_class: type[GrpcEngine]) -> None:
    assert not engine_class({}, "127.0.0.1:0", LIMIT, print).alive
    assert server.engine.alive
    assert server.engine.drain(5)
    assert not server.engine.alive


# Methods that nobody handles


@pytest.mark.parametrize(
    ("method", "kind", "text"),
    [
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", "logs", "takes traces only"),
        ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "metrics", "takes traces only"),
        ("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", "profiles", "traces only"),
        ("/grpc.health.v1.Health/Unknown", "other", "no such method"),
        (EXPORT + "s", "other", "no such method"),
        ("/", "other", "no such method"),
    ],
)
def test_methods_that_nobody_handles_are_counted_by_kind(server: Server, method: str, kind: str, text: str) -> None:
    for number in range(1, 3):
        with pytest.raises(grpc.RpcError) as caught:
            server.method(method)(b"x" * 1000, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert text in caught.value.details()
        assert server.not_served == [kind] * number
    assert server.refused == []
    server.check_alive()


# An engine that stands still


def test_a_loop_that_stands_still_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_aio, "BEAT_S", 0.01)
    monkeypatch.setattr(grpc_aio, "STUCK_S", 0.3)
    server = Server(AioEngine)
    hanging, go_on = threading.Event(), threading.Event()

    def answer(_: bytes) -> bytes:
        hanging.set()
        go_on.wait(20)
        return b"late"

    try:
        eventually(lambda: server.engine._beats > 3)  # type: ignore[attr-defined]
        assert server.engine.alive
        server.answer = answer
        future = server.method().future(b"x", timeout=20)
        assert hanging.wait(20)
        eventually(lambda: not server.engine.alive)
        go_on.set()
        assert future.result() == b"late"
        eventually(lambda: server.engine.alive)
        assert server.engine.drain(5)
        assert not server.engine.alive
    finally:
        go_on.set()
        server.close()


def test_a_process_that_stood_still_is_alive_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pause of the whole process both clocks tell; nobody had the chance to show anything meanwhile."""
    server = Server(AioEngine)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    try:
        monkeypatch.setattr(server.engine, "_beats_seen", server.engine._beats)  # type: ignore[attr-defined]
        for _ in range(3):
            now += 1000
            assert server.engine.alive
    finally:
        monkeypatch.undo()
        server.close()


# Where there is no memory to handle an event


@pytest.mark.parametrize(
    ("missing", "refused"),
    [
        ("_Message", ["out_of_memory"]),  # to ask for the message
        ("_Response", []),  # to answer with what has been taken
        ("_handle", ["out_of_memory"]),
        ("_request_call", ["out_of_memory"]),
        ("_on_not_served", []),
    ],
)
@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_a_call_that_cannot_be_handled_is_answered_and_counted(
    monkeypatch: pytest.MonkeyPatch, missing: str, refused: list[str], kind: type[Exception]
) -> None:
    if kind is RuntimeError and missing == "_Response":
        pytest.skip("an answer that cannot be made for another reason is not tried again")
    server = Server(CompletionQueueEngine)
    server.check_alive()
    owner: Any = server.engine if missing in ("_handle", "_request_call", "_on_not_served") else grpc_completion_queue
    real = getattr(owner, missing)
    failures = 0

    def fails_once(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise kind
        return real(*arguments)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(owner, missing, fails_once)
            with structlog.testing.capture_logs() as logs:
                if missing == "_Response":
                    assert server.call(b"x") == b"answer to x"
                else:
                    with pytest.raises(grpc.RpcError) as caught:
                        server.method("/none" if missing == "_on_not_served" else EXPORT)(b"x", timeout=20)
                    assert caught.value.code() is (
                        grpc.StatusCode.UNIMPLEMENTED
                        if missing == "_on_not_served"
                        else (grpc.StatusCode.UNAVAILABLE if kind is MemoryError else grpc.StatusCode.INTERNAL)
                    )
        assert server.refused == (refused if kind is MemoryError else ["internal"] * len(refused))
        assert len(logs) == 1
        server.check_alive()
        engine: Any = server.engine
        eventually(lambda: engine._in_flight == 0 and not engine._places.receiving)
        assert engine._open is None
        assert engine.drain(5)
    finally:
        server.close()


def test_calls_that_wait_go_on_waiting_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whose message has arrived is refused; the one that would have had its slot is received later."""
    monkeypatch.setattr(grpc_server, "MAX_RECEIVING", 1)
    server = Server(CompletionQueueEngine)
    engine: Any = server.engine
    real = grpc_completion_queue._Message
    failing = False

    def fails_once(*arguments: Any) -> Any:
        nonlocal failing
        if failing:
            failing = False
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(grpc_completion_queue, "_Message", fails_once)
    try:
        with Connection(server.port) as slow:
            slow.begin(1)
            slow.data(1, message(b"x" * 1000)[:500], end=False)
            eventually(lambda: receiving(server) == 1)
            slow.begin(3)
            slow.data(3, message(b"waits"))
            eventually(lambda: waiting(server) == 1)
            failing = True
            slow.data(1, message(b"x" * 1000)[500:], end=True)
            assert slow.answer(3)[1].payload == message(b"answer to waits")
        assert server.refused == ["out_of_memory"]
        assert server.requests == [b"waits"]
        eventually(lambda: engine._in_flight == 0)
    finally:
        server.close()


def test_a_refusal_that_cannot_be_counted_is_counted_later() -> None:
    server = Server(CompletionQueueEngine)
    counts: Any = server.engine._count_refused.__self__  # type: ignore[attr-defined]
    real, lacking = counts._on_refused, True

    def on_refused(reason: str) -> None:
        if lacking:
            raise MemoryError
        real(reason)

    def answer(_: bytes) -> bytes:
        raise MemoryError

    counts._on_refused, server.answer = on_refused, answer
    try:
        for _ in range(3):
            assert server.refusal(b"x").code() is grpc.StatusCode.UNAVAILABLE
        assert server.refused == []
        lacking = False
        assert server.refusal(b"x").code() is grpc.StatusCode.UNAVAILABLE
        assert server.refused == ["out_of_memory"] * 4
    finally:
        server.close()


def test_what_a_lost_tag_is_referred_to_by_is_measured() -> None:
    tags = {object(): None}
    ((tag, lost),) = grpc_completion_queue._references(tags)
    assert grpc_completion_queue._references(tags) == [(tag, lost + 1)]
    del tag
    assert grpc_completion_queue._references(tags)[0][1] == lost
