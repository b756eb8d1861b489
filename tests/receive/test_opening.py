"""How connections begin: every kind, at every cut."""

from __future__ import annotations

import random
import struct

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder

from sampler_proxy.receive.opening import (
    COMPRESSION,
    CORE,
    FOREIGN,
    LATER,
    MAX_BYTES,
    RECODING,
    UNACKNOWLEDGED,
    Opening,
    classify,
)

from . import raw_http2
from .raw_http2 import PREFACE

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
ACK, END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32


def frame(kind: int, flags: int = 0, payload: bytes = b"", stream: int = 1) -> bytes:
    return raw_http2.frame(kind, flags, stream, payload)


def block(encoding: str | None) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/s/M"), ("content-type", "application/grpc")]
    if encoding is not None:
        fields.append(("grpc-encoding", encoding))
    return bytes(Encoder().encode([*fields, ("te", "trailers")]))


def headers(encoding: str | None, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, block(encoding))


def message(compressed: bool) -> bytes:
    return struct.pack(">BI", compressed, 3) + b"abc"


START = PREFACE + frame(SETTINGS, payload=b"\0\3\0\0\0\x64", stream=0)
OUR_ACK = frame(SETTINGS, ACK, stream=0)
WINDOW = frame(WINDOW_UPDATE, payload=b"\0\1\0\0", stream=0)
GREASE = frame(0xBB, payload=b"?", stream=0)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        *((PREFACE[:length], None) for length in range(1, 25)),
        *((method + b" /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n", "http1") for method in (b"POST", b"GET", b"OPTIONS")),
        *((b"POST /"[:length], "http1") for length in range(2, 7)),
        (b"PUT", "http1"),
        (b"\x16", "tls"),
        (b"\x16\x03\x01\x02\x00\x01", "tls"),
        (b"\x16\x02", "other"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "proxy_protocol"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21", "proxy_protocol"),
        (b"PRI * HTTP/1.1\r\n", "other"),
        (b"\x00\x00\x00\x04", "other"),
        (b"SSH-2.0-x\r\n", "other"),
        (b"post /", "other"),
    ],
)
def test_first_bytes(first: bytes, kind: str | None) -> None:
    assert classify(first) == kind
    opening = Opening()
    opening.receive(first)
    assert opening.verdict == kind
    assert opening.verdict is None or opening.verdict in FOREIGN


FIRST_CALLS = {
    "no encoding": ([headers(None), frame(DATA, END_STREAM, message(False))], CORE, ""),
    "identity": ([headers("identity"), frame(DATA, 0, message(False))], CORE, ""),
    "gzip": ([headers("gzip")], CORE, ""),
    "deflate": ([headers("deflate")], CORE, ""),
    "zstd": ([headers("zstd")], RECODING, ""),
    "snappy, and a window before": ([WINDOW, headers("snappy")], RECODING, ""),
    "brotli, and a window before": ([WINDOW, headers("br")], COMPRESSION, "br"),
    "a made-up one": ([headers("hunter2")], COMPRESSION, "unknown"),
    "an empty one": ([headers("")], COMPRESSION, "unknown"),
    "compressed without an encoding": ([headers(None), frame(DATA, 0, message(True))], COMPRESSION, ""),
    "compressed by identity": ([headers("identity"), frame(DATA, 0, message(True))], COMPRESSION, ""),
    "compressed, after an empty frame": (
        [headers(None), frame(DATA), WINDOW, frame(DATA, PADDED, b"\2" + message(True) + b"\0\0")],
        COMPRESSION,
        "",
    ),
    "by way of a middleman": ([frame(HEADERS, END_HEADERS, block("gzip") + b"\0\3via\1x")], RECODING, ""),
    "in no compression, by way of Envoy": (
        [frame(HEADERS, END_HEADERS, block(None) + b"\0\x11x-forwarded-proto\4http")],
        RECODING,
        "",
    ),
    "no message": ([headers(None, END_HEADERS | END_STREAM)], CORE, ""),
    "no message, said later": ([headers(None), frame(DATA, END_STREAM)], CORE, ""),
    "reset": ([headers(None), frame(RST_STREAM, payload=b"\0\0\0\x08")], CORE, ""),
    "padded": ([frame(HEADERS, END_HEADERS | PADDED, b"\3" + block("lz4") + b"\0\0\0")], COMPRESSION, "lz4"),
    "with a priority": (
        [frame(HEADERS, END_HEADERS | HAS_PRIORITY, b"\0\0\0\0\x10" + block("br"))],
        COMPRESSION,
        "br",
    ),
    "padded, with a priority": (
        [frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, b"\1\0\0\0\0\x10" + block("lz4") + b"\0")],
        COMPRESSION,
        "lz4",
    ),
    "continued": (
        [frame(HEADERS, 0, block("xz")[:7]), frame(CONTINUATION, 0), frame(CONTINUATION, 4, block("xz")[7:])],
        COMPRESSION,
        "xz",
    ),
    "continued by something else": ([frame(HEADERS, 0, block("zstd")[:7]), frame(DATA)], CORE, ""),
    "broken compression of headers": ([frame(HEADERS, END_HEADERS, b"\xff\xff\xff\xff\xff\xff\xff")], CORE, ""),
    "a ping, which wants an answer": ([frame(PING, payload=b"12345678", stream=0)], LATER, ""),
    "an unknown frame": ([GREASE], LATER, ""),
}


@pytest.mark.parametrize("name", FIRST_CALLS)
@pytest.mark.parametrize("ack_at", [0, 1, "end"])
def test_first_calls_at_every_cut(name: str, ack_at: int | str) -> None:
    frames, verdict, encoding = FIRST_CALLS[name]
    with_ack = [*frames]
    with_ack.insert(len(frames) if ack_at == "end" else int(ack_at), OUR_ACK)
    sent = START + b"".join(with_ack)
    for cut in range(len(sent) + 1):
        opening = Opening()
        for part in filter(None, (sent[:cut], sent[cut:])):
            if opening.verdict is None:  # else the rest stays in the socket
                opening.receive(part)
        assert (opening.verdict, opening.encoding) == (verdict, encoding), cut
        assert opening.greeted
        assert opening.acknowledged
        expected = START + b"".join(frames)
        assert opening.received == expected[: len(opening.received)]
        assert cut not in (0, len(sent)) or opening.received == expected


def test_byte_by_byte() -> None:
    sent = START + WINDOW + OUR_ACK + headers("zstd")
    opening = Opening()
    for i in range(len(sent)):
        assert opening.verdict is None
        assert opening.greeted == (i >= len(PREFACE))
        opening.receive(sent[i : i + 1])
    assert opening.verdict == RECODING


def test_there_is_no_verdict_before_the_acknowledgement() -> None:
    opening = Opening()
    opening.receive(START + headers("gzip") + frame(DATA, 0, b"x" * 16384))
    assert opening.verdict is None
    assert not opening.acknowledged
    opening.receive(OUR_ACK + frame(DATA, END_STREAM, b"y"))
    assert opening.verdict == CORE
    assert opening.received == START + headers("gzip") + frame(DATA, 0, b"x" * 16384) + frame(DATA, END_STREAM, b"y")


def test_only_our_own_acknowledgement_is_taken_out() -> None:
    opening = Opening()
    opening.receive(START + OUR_ACK + frame(SETTINGS, ACK, stream=0) + headers("gzip"))
    assert opening.received == START + frame(SETTINGS, ACK, stream=0) + headers("gzip")


def test_what_is_read_is_bounded() -> None:
    opening = Opening()
    opening.receive(START)
    sent = 0
    while opening.verdict is None:
        opening.receive(frame(WINDOW_UPDATE, payload=b"\0\0\0\1", stream=0) * 1000)
        sent += 1
    assert opening.verdict == UNACKNOWLEDGED
    assert len(opening.received) < MAX_BYTES + 13 * 1000 + 100


def test_many_calls_before_the_acknowledgement() -> None:
    """Headers have no window: a client that does not wait may begin a hundred calls before it hears from us."""
    calls = b"".join(frame(HEADERS, 5, block("gzip") + b"\0\1a\x7f\xa9\5" + b"x" * 700, 2 * i + 1) for i in range(150))
    opening = Opening()
    opening.receive(START + calls)
    assert opening.verdict is None
    opening.receive(OUR_ACK)
    assert opening.verdict == CORE
    assert opening.received == START + calls


def test_the_first_byte_of_a_message_is_enough() -> None:
    for compressed, verdict in ((False, CORE), (True, COMPRESSION)):
        opening = Opening()
        opening.receive(START + OUR_ACK + headers(None) + frame(DATA, END_STREAM, message(compressed) * 2000)[:10])
        assert opening.verdict == verdict


def test_a_real_client_of_http2() -> None:
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    opening = Opening()
    opening.receive(client.data_to_send())
    assert opening.greeted
    assert opening.verdict is None
    client.receive_data(frame(SETTINGS, stream=0))
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x"), ("grpc-encoding", "zstd")]
    client.send_headers(1, fields)
    opening.receive(client.data_to_send())
    assert (opening.verdict, opening.encoding) == (RECODING, "")


def test_garbage_has_a_verdict_or_waits_and_never_fails() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        sent = bytearray(START + OUR_ACK + headers("zstd") + frame(DATA, 0, message(True)))
        for _ in range(chance.randrange(1, 6)):
            sent[chance.randrange(len(START) - 15, len(sent))] = chance.randrange(256)
        opening = Opening()
        opening.receive(bytes(sent))
        assert opening.verdict in (None, CORE, COMPRESSION, RECODING, LATER, "other")
