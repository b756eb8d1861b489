"""Calls in compressions that gRPC core does not know: recoded, relayed and inflated."""

from __future__ import annotations

import random
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import cramjam
import grpc
import pytest
import structlog.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.receive import relay
from sampler_proxy.receive.grpc_completion_queue import CompletionQueueEngine
from sampler_proxy.receive.grpc_server import GrpcEngine
from sampler_proxy.receive.http_bodies import zstd
from sampler_proxy.receive.inflate import MAX_CHUNKS, Inflation, inflate
from sampler_proxy.receive.recoding import AT_ONCE_BYTES, MAX_BLOCK_BYTES, UNKNOWN, NotHttp2, Recoder
from sampler_proxy.receive.relay import Relay

from . import raw_http2
from .raw_http2 import CONTINUATION, DATA, EXPORT, HEADERS, PING, PREFACE, SETTINGS, Connection, frame, message
from .test_grpc_engines import LIMIT, Server
from .waiting import Held, eventually

SNAPPY_START = b"\xff\x06\x00\x00sNaPpY"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.compress,
    "snappy": lambda data: bytes(cramjam.snappy.compress(data)),
}


@pytest.fixture
def engine_class() -> type[GrpcEngine]:
    """With grpc.aio core answers by itself, and nobody hears of it."""
    return CompletionQueueEngine


def exchange(connection: Connection, stream: int, data: bytes, encoding: str, compressed: bool = True) -> bytes:
    """A call's answer: its frames' payloads together."""
    connection.begin(stream, encoding=encoding)
    connection.data(stream, message(data, compressed=compressed))
    return b"".join(each.payload for each in connection.answer(stream))


# What is inflated


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("size", [0, 1, 1000, LIMIT])
def test_messages_are_inflated(server: Server, encoding: str, size: int) -> None:
    plain = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    with Connection(server.port) as connection:
        for stream in (1, 3):
            assert b"answer to " + plain[:16] in exchange(connection, stream, COMPRESS[encoding](plain), encoding)
        assert b"answer to alive?" in exchange(connection, 5, b"alive?", encoding, compressed=False)
    assert server.requests == [plain, plain, b"alive?"]
    assert server.refused == []


@pytest.mark.parametrize("encoding", COMPRESS)
def test_the_limit_holds_after_decompression(server: Server, encoding: str) -> None:
    with Connection(server.port) as connection:
        assert b"grpc-status\x018" in exchange(connection, 1, COMPRESS[encoding](bytes(LIMIT + 1)), encoding)
        exchange(connection, 3, COMPRESS[encoding](bytes(LIMIT)), encoding)
    assert server.refused == ["too_large"]
    assert server.requests == [bytes(LIMIT)]


@pytest.mark.parametrize("encoding", COMPRESS)
def test_damaged_data_is_refused(server: Server, encoding: str) -> None:
    whole = COMPRESS[encoding](b"hello" * 1000)
    for stream, damaged in enumerate((whole[:-1], whole + b"\1", whole[:12])):
        with Connection(server.port) as connection:
            assert b"grpc-status\x013" in exchange(connection, 1, damaged, encoding)
        assert len(server.refused) == stream + 1
    assert server.refused == ["compression"] * 3
    server.check_alive()


def test_a_bomb_is_refused_without_being_unpacked(launch: Callable[..., Server]) -> None:
    server = launch(limit=64 << 20)
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 20})
    bombs = (
        b"".join(compressor.compress(bytes(1 << 20)) for _ in range(1024)) + compressor.flush(),
        bytes(cramjam.snappy.compress(bytes(1 << 20))) * 256,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in bombs:
        assert server.refusal(bomb).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 * 1024  # KiB
    server.check_alive()


def test_other_calls_of_the_connection(server: Server) -> None:
    """Plain ones, in other compressions, and in one that nobody knows: each as if it were alone."""
    with Connection(server.port) as connection, structlog.testing.capture_logs() as logs:
        assert b"answer to one" in exchange(connection, 1, zstd.compress(b"one"), "zstd")
        assert b"answer to two" in exchange(connection, 3, b"two", "", compressed=False)
        assert b"answer to three" in exchange(connection, 5, COMPRESS["snappy"](b"three"), "snappy")
        refused = exchange(connection, 7, b"\x04\x22\x4d\x18 ...", "lz4")
        assert b"grpc-status\x0212" in refused
        assert b"reads gzip, deflate, zstd and snappy" in refused
        assert b"answer to four" in exchange(connection, 9, b"four", "identity", compressed=False)
    assert server.requests == [b"one", b"two", b"three", b"four"]
    assert server.refused == ["unknown_compression"]
    assert server.not_served == []
    assert logs == []


def test_who_calls_later_may_compress_with_anything(server: Server) -> None:
    """One that waits for the acknowledgement of its SETTINGS, and one that pings before it calls."""
    for patient in (True, False):
        with Connection(server.port, patient) as connection:
            if not patient:
                connection.send(PING, 0, 0, b"12345678")
                while connection.read().kind != PING:
                    pass
            assert b"answer to one" in exchange(connection, 1, zstd.compress(b"one"), "zstd")
            assert b"grpc-status\x0212" in exchange(connection, 3, b"...", "lz4")
            assert b"answer to two" in exchange(connection, 5, b"two", "", compressed=False)
    assert server.requests == [b"one", b"two"] * 2
    assert server.refused == ["unknown_compression"] * 2


def test_calls_of_many_senders_by_way_of_a_middleman(server: Server) -> None:
    with Connection(server.port) as connection:
        fields = [(":method", "POST"), (":scheme", "http"), (":path", EXPORT), (":authority", "x"), ("te", "trailers")]
        fields += [("content-type", "application/grpc"), ("x-request-id", "1")]
        connection.send(HEADERS, 4, 1, raw_http2.block(fields))
        connection.data(1, message(b"plain"))
        assert connection.answer(1)[1].payload == message(b"answer to plain")
        assert b"answer to packed" in exchange(connection, 3, zstd.compress(b"packed"), "zstd")
        assert b"grpc-status\x0212" in exchange(connection, 5, b"...", "br")
    assert server.refused == ["unknown_compression"]


# The relay


def test_many_calls_of_many_connections(server: Server) -> None:
    chance = random.Random(1)
    plain = [chance.randbytes(chance.choice((10, 5_000, 90_000))) for _ in range(20)]

    def calls() -> None:
        with Connection(server.port) as connection:
            for number, each in enumerate(plain):
                assert b"answer to " + each[:16] in exchange(connection, 2 * number + 1, zstd.compress(each), "zstd")

    threads = [threading.Thread(target=calls) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(server.requests) == sorted(plain * 5)
    eventually(lambda: not server.engine._acceptor.relay._here)


@pytest.mark.parametrize("recoding", [False, True])
def test_who_reads_nothing_is_not_read_from(recoding: bool) -> None:
    """What is sent waits in the system's buffers, in both directions, and then its sender does."""
    cores: list[socket.socket] = []
    relaying = Relay(lambda _, inner, __, ___: cores.append(socket.socket(fileno=inner.detach())))
    client, theirs = socket.socketpair()
    theirs.setblocking(False)
    with client:
        relaying.add(theirs, theirs, PREFACE + frame(SETTINGS, 0, 0), "a client", Recoder() if recoding else None)
        with cores[0] as core:
            data = frame(DATA, 0, 1, bytes(16000)) * 4
            for sender, receiver in ((client, core), (core, client)):
                sender.settimeout(0.5)
                receiver.settimeout(10)
                sent = 0
                with pytest.raises(TimeoutError):  # noqa: PT012
                    while sent < 20_000_000:
                        sent += sender.send(data[sent % len(data) :])
                received = b""
                while len(received) < sent:
                    received += receiver.recv(65536)
                assert received == (data * (sent // len(data) + 1))[:sent]
        assert client.recv(1) == b""
    eventually(lambda: not relaying._here)
    relaying.close()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO")
def test_the_bytes_of_relayed_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompletionQueueEngine, "_in_flight_bound", 2 << 20)
    server = Server(CompletionQueueEngine, limit=1 << 20)
    try:
        with Connection(server.port) as connection:
            exchange(connection, 1, zstd.compress(b"one"), "zstd")
            for stream in range(3, 60, 2):  # as much as may be sent without a window's update
                connection.begin(stream, encoding="zstd")
                connection.data(stream, message(b"x" * (1 << 20))[:200_000], end=False)
                time.sleep(0.005)
            eventually(lambda: "in_flight" in server.refused)
        assert server.engine.peak_in_flight() > 2 << 20
        server.check_alive()
    finally:
        server.close()


def test_the_last_answer_is_relayed_at_a_drain(server: Server) -> None:
    server.answer = held = Held()
    with Connection(server.port) as connection:
        connection.begin(1, encoding="zstd")
        connection.data(1, message(zstd.compress(b"hello"), compressed=True))
        assert held.entered.wait(10)
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(server.engine.drain(10)))
        draining.start()
        eventually(lambda: server.engine._draining)
        held.release.set()
        frames = []
        with pytest.raises(ConnectionError):  # noqa: PT012
            while True:
                frames.append(connection.read())
        assert message(b"done") in [each.payload for each in frames if each.kind == DATA]
        draining.join(20)
    assert drained == [True]
    assert not server.engine._acceptor.relay._thread.is_alive()


@pytest.mark.parametrize("garbage", [frame(HEADERS, 4, 3, b"\xff" * 20), frame(CONTINUATION, 4, 3, b"")])
def test_what_is_no_http2_ends_a_relayed_connection(server: Server, garbage: bytes) -> None:
    with Connection(server.port) as connection:
        exchange(connection, 1, zstd.compress(b"one"), "zstd")
        connection._socket.sendall(garbage)
        with pytest.raises(ConnectionError):
            connection.answer(3)
    eventually(lambda: not server.engine._acceptor.relay._here)
    server.check_alive()


def test_those_that_may_do_without_are_relayed_within_a_bound(
    launch: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_UNDECIDED", 2)
    server = launch()
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port, patient=True)) for _ in range(4)]
        assert len(server.engine._acceptor.relay._here) == 2
        for connection in connections:
            assert b"answer to one" in exchange(connection, 1, b"one", "", compressed=False)
        with Connection(server.port) as another:
            assert b"answer to two" in exchange(another, 1, zstd.compress(b"two"), "zstd")


def test_a_relay_that_has_ended_is_noticed(server: Server) -> None:
    assert server.engine.alive
    with Connection(server.port) as connection:
        exchange(connection, 1, zstd.compress(b"one"), "zstd")
    server.engine._acceptor.relay.close()
    assert not server.engine.alive


# Recoding


def fields_of(recoded: bytes) -> list[list[tuple[bytes, bytes]]]:
    """The headers that a strict server reads in a client's stream."""
    h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    h2.initiate_connection()
    events = h2.receive_data(recoded)
    return [[(bytes(n), bytes(v)) for n, v in event.headers] for event in events if hasattr(event, "headers")]


def test_recoding_at_every_cut() -> None:
    encoder = Encoder()
    base = [(":method", "POST"), (":scheme", "http"), (":path", EXPORT), (":authority", "x"), ("te", "trailers")]
    calls = [
        [*base, ("grpc-encoding", "zstd"), ("x-long", "v" * 300)],
        [*base, ("grpc-encoding", "zstd"), ("x-long", "v" * 300)],  # by the table
        [*base, ("grpc-encoding", "gzip")],
        [*base, ("grpc-encoding", "lz4")],
        base,
    ]
    blocks = [encoder.encode(call) for call in calls]
    sent = PREFACE + frame(SETTINGS, 0, 0)
    for stream, block in zip(range(1, 11, 2), blocks, strict=True):
        if stream == 1:  # padded, with a priority, in three parts
            head = b"\2" + b"\0\0\0\0\x10" + block[:5] + b"\0\0"
            sent += frame(HEADERS, 8 | 32, stream, head) + frame(CONTINUATION, 0, stream, block[5:9])
            sent += frame(CONTINUATION, 4, stream, block[9:])
        else:
            sent += frame(HEADERS, 4, stream, block)
        sent += frame(DATA, 1, stream, message(b"hello" * stream))
    expected = Recoder().receive(sent)
    encodings = [dict(each).get(b"grpc-encoding") for each in fields_of(expected)]
    assert encodings == [b"gzip", b"gzip", b"gzip", b"gzip", None]
    assert [dict(each)[b":path"] for each in fields_of(expected)] == [EXPORT.encode()] * 3 + [UNKNOWN, EXPORT.encode()]
    assert dict(fields_of(expected)[1])[b"x-long"] == b"v" * 300
    for cut in range(len(sent) + 1):
        recoder = Recoder()
        assert recoder.receive(sent[:cut]) + recoder.receive(sent[cut:]) == expected, cut
    recoder = Recoder()
    assert b"".join(recoder.receive(bytes((byte,))) for byte in sent) == expected


@pytest.mark.parametrize(
    ("first", "changed"),
    [((), False), ((("grpc-encoding", "gzip"),), False), ((("grpc-encoding", "br"),), True), ((("via", "x"),), True)],
)
def test_the_first_call_of_who_is_undecided(first: tuple[tuple[str, str], ...], changed: bool) -> None:
    """Where nothing has to be renamed, all passes as it is, in whatever pieces it comes."""
    encoder = Encoder()
    base = [(":method", "POST"), (":scheme", "http"), (":path", EXPORT), (":authority", "x"), ("x-long", "v" * 300)]
    block, later = encoder.encode([*base, *first]), encoder.encode([*base, ("grpc-encoding", "zstd")])
    sent = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, block[:3]) + frame(CONTINUATION, 4, 1, block[3:])
    sent += frame(DATA, 1, 1, message(b"hello")) + frame(HEADERS, 4, 3, later) + frame(DATA, 1, 3, message(b"there"))
    expected = Recoder(undecided=True).receive(sent)
    assert (expected != sent) == changed
    assert dict(fields_of(expected)[1])[b"grpc-encoding"] == (b"gzip" if changed else b"zstd")
    for cut in range(len(sent) + 1):
        recoder = Recoder(undecided=True)
        assert recoder.receive(sent[:cut]) + recoder.receive(sent[cut:]) == expected, cut


@given(st.lists(st.tuples(st.text("abc-", min_size=1, max_size=200), st.binary(max_size=2_000)), max_size=5))
def test_any_header_is_as_it_was(more: list[tuple[str, bytes]]) -> None:
    fields = [(b":path", b"/a/b"), *((b"x" + name.encode(), value) for name, value in more)]
    recoder, decoder = Recoder(), Recoder()
    out = recoder.receive(PREFACE + b"".join(raw_frames(Encoder().encode(fields))))
    assert decoder.receive(out) == out  # read and written again it is the same
    block = b""
    left = out[len(PREFACE) :]
    while left:
        size = int.from_bytes(left[:3], "big")
        assert size <= 16384
        block, left = block + left[9 : 9 + size], left[9 + size :]
    assert [*Decoder().decode(block, raw=True)] == fields


def raw_frames(block: bytes) -> list[bytes]:
    pieces = [block[at : at + 16000] for at in range(0, len(block), 16000)]
    return [
        frame(CONTINUATION if at else HEADERS, 4 if at == len(pieces) - 1 else 0, 1, piece)
        for at, piece in enumerate(pieces)
    ]


@pytest.mark.parametrize(
    "sent",
    [
        frame(CONTINUATION, 4, 1),
        frame(HEADERS, 0, 1) + frame(DATA, 0, 1),
        frame(HEADERS, 0, 1) + frame(CONTINUATION, 4, 3),
        frame(HEADERS, 0, 1) + frame(HEADERS, 4, 3),
        frame(HEADERS, 0, 1, b"\0" * 60_000) + frame(CONTINUATION, 0, 1, b"\0" * 60_000),
        raw_http2.frame(HEADERS, 4, 1, bytes(MAX_BLOCK_BYTES + 1)),
        frame(HEADERS, 4, 1, b"\x40\1a\x7f\xff\x1d" + b"v" * 3966 + b"\xbe" * 16_000),  # 63 MB, by HPACK's table
        frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 100,
    ],
    ids=["continues nothing", "data", "another stream", "two", "too much", "too large", "bomb", "in pieces"],
)
def test_streams_that_are_none(sent: bytes) -> None:
    with pytest.raises(NotHttp2):
        Recoder().receive(PREFACE + sent)


def test_what_grows_is_written_anew_bit_by_bit() -> None:
    """Small blocks that name what is in HPACK's table: of a megabyte no more than a part is there at once."""
    filled = b"\x40\1a\x7f\xf1\x1d" + b"v" * 3952
    sent = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, filled)
    sent += b"".join(frame(HEADERS, 4, 3 + 2 * number, b"\xbe" * 3) for number in range(500))
    recoder = Recoder()
    out, pieces = recoder.receive(sent), 0
    total = len(out)
    while recoder.more:
        assert len(out) <= AT_ONCE_BYTES + MAX_BLOCK_BYTES
        out, pieces = recoder.receive(b""), pieces + 1
        total += len(out)
    assert pieces > 20
    assert total > 500 * 3 * 3900


# Inflating


@given(st.binary(max_size=3000), st.integers(1, 3), st.integers(0, 4000))
def test_parts_and_steps(plain: bytes, times: int, first: int) -> None:
    for compress in COMPRESS.values():
        inflation = Inflation(compress(plain) * times, 10_000)
        begun = inflation.begin(first) if first else False
        assert inflation.finish() == plain * times
        assert not begun or len(plain) * times <= first
    with pytest.raises(RequestTooLarge):
        inflate(zstd.compress(bytes(101)), 100)


@pytest.mark.parametrize("encoding", COMPRESS)
def test_every_truncation(encoding: str) -> None:
    whole = COMPRESS[encoding](bytes(range(256)) * 20)
    for cut in range(len(SNAPPY_START) if encoding == "snappy" else 4, len(whole)):
        if encoding == "snappy" and cut == len(SNAPPY_START):
            continue  # a stream without a chunk
        with pytest.raises(MalformedRequest, match=f"^{encoding} data is damaged or incomplete$"):
            inflate(whole[:cut], 100_000)


@pytest.mark.parametrize(
    "chunks",
    [
        b"\0\x09\0\0" + b"\0\0\0\0" + b"\xff\xff\xff\xff\x0f",  # announces 4 GiB
        b"\0\x05\0\0" + b"\0\0\0\0" + b"\x80",  # announces no number
        b"\1\x07\0\0" + b"\0\0\0\0" + b"abc",  # a wrong checksum
        b"\2\0\0\0",  # a chunk that nobody may skip
        b"\1\x02\0\0ab",  # without a checksum
        b"\xfe\0\0\0" * (MAX_CHUNKS + 1),
    ],
)
def test_snappy_that_is_damaged(chunks: bytes) -> None:
    with pytest.raises(MalformedRequest):
        inflate(SNAPPY_START + chunks, 100_000)


def test_what_waits_to_be_inflated_holds_little() -> None:
    packed = zstd.compress(bytes(1 << 24), options={zstd.CompressionParameter.window_log: 23})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    waiting = [Inflation(packed, 1 << 25) for _ in range(50)]
    assert not any(inflation.begin(1 << 20) for inflation in waiting)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB
    assert waiting[0].finish() == bytes(1 << 24)


def test_zstd_of_many_frames_and_windows_is_bounded() -> None:
    with pytest.raises(MalformedRequest):
        inflate(zstd.compress(b"") * 1001, 100_000)
    options = {zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    with pytest.raises(MalformedRequest):
        inflate(compressor.compress(bytes(1 << 24)) + compressor.flush(), 1 << 25)


# The official clients, which compress with gzip, are in test_grpc_engines.py


def test_grpc_clients_on_a_relayed_connection(server: Server) -> None:
    """The official client behind the relay: it connects, and calls later."""
    with server.channel() as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        eventually(lambda: len(server.engine._acceptor.relay._here) == 1)
        call = channel.unary_unary(EXPORT)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            assert call(b"x" * 90_000, timeout=10, compression=compression) == b"answer to " + b"x" * 16
    with socket.create_connection(("127.0.0.1", server.port)):
        server.check_alive()
