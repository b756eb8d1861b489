"""The beginning of a TLS connection: one verdict, wherever the bytes are cut, and none of them raises."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.receive.client_hello import HTTP1, MAX_BYTES, PLAINTEXT, TOO_OLD, TlsOpening, answer
from sampler_proxy.receive.opening import CORE


def hello(newest: ssl.TLSVersion, *protocols: str) -> bytes:
    """What OpenSSL begins with."""
    context = ssl.create_default_context()
    context.maximum_version = newest
    if protocols:
        context.set_alpn_protocols([*protocols])
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


NEW, OLD = hello(ssl.TLSVersion.TLSv1_3), hello(ssl.TLSVersion.TLSv1_2)
HTTP1_ONLY, BOTH = hello(ssl.TLSVersion.TLSv1_3, "http/1.1"), hello(ssl.TLSVersion.TLSv1_3, "h2", "http/1.1")
FRAGMENTS = NEW[:3] + b"\0\5" + NEW[5:10] + NEW[:3] + (len(NEW) - 10).to_bytes(2, "big") + NEW[10:]


def verdict(data: bytes, least: str, step: int = 1 << 20) -> str | None:
    opening = TlsOpening(least)
    for at in range(0, len(data), step):
        opening.receive(data[at : at + step])
    assert opening.received == data
    return opening.verdict


@pytest.mark.parametrize(
    ("data", "of_1_2", "of_1_3"),
    [
        (NEW, CORE, CORE),
        (NEW + b"more", CORE, CORE),
        (OLD, CORE, TOO_OLD),
        (FRAGMENTS, CORE, CORE),
        (HTTP1_ONLY, HTTP1, HTTP1),
        (BOTH, CORE, CORE),
        (hello(ssl.TLSVersion.TLSv1_2, "h2"), CORE, TOO_OLD),
        (hello(ssl.TLSVersion.TLSv1_3, "other"), CORE, CORE),
        (b"", None, None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PLAINTEXT, PLAINTEXT),
        (b"POST / HTTP/1.1\r\n", PLAINTEXT, PLAINTEXT),
        (b"\0", PLAINTEXT, PLAINTEXT),
        (b"\x16\x02", PLAINTEXT, PLAINTEXT),
        (b"\x16\x03\x01\x00\x00" * 16, CORE, TOO_OLD),  # records of nothing
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", CORE, TOO_OLD),  # another message
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", CORE, TOO_OLD),  # one without an end
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", CORE, TOO_OLD),  # one without anything
        (b"\x16\x03\x01\xff\xff\x01\x00\xff\xf0" + bytes(MAX_BYTES), CORE, TOO_OLD),
    ],
)
def test_verdicts(data: bytes, of_1_2: str | None, of_1_3: str | None) -> None:
    assert (verdict(data, "1.2"), verdict(data, "1.3")) == (of_1_2, of_1_3)


@pytest.mark.parametrize("data", [NEW, OLD, FRAGMENTS, BOTH], ids=["new", "old", "fragments", "both"])
def test_every_cut(data: bytes) -> None:
    for least in ("1.2", "1.3"):
        whole = verdict(data, least)
        for step in (1, 2, 3, 5, 100):
            assert verdict(data, least, step) == whole
        for end in range(1, len(data)):
            assert verdict(data[:end], least) is None


@given(
    st.sampled_from([NEW, OLD, FRAGMENTS, HTTP1_ONLY]), st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=4)))
)
def test_damage_raises_nothing(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for at, piece in changes:
        damaged[at : at + len(piece)] = piece
    for least in ("1.2", "1.3"):
        assert verdict(bytes(damaged), least) in (None, CORE, TOO_OLD, PLAINTEXT, HTTP1)


def test_answers() -> None:
    assert answer(TOO_OLD, OLD) == b"\x15\x03\x01\x00\x02\x02\x46"
    assert answer(PLAINTEXT, b"GET / HTTP/1.1\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer(HTTP1, HTTP1_ONLY) == b"\x15\x03\x01\x00\x02\x02\x78"
    assert answer(HTTP1, b"GET / HTTP/1.1\r\n") == b""
    assert answer(PLAINTEXT, b"PRI * HTTP/2.0\r\n") == b""
