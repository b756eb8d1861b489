"""Compressed bodies: what is read whole, what is refused, and how much memory a bomb gets."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.receive import http_bodies
from sampler_proxy.receive.http_bodies import MAX_PARTS, decode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = bytes(range(256)) * 1000
LIMIT = 1 << 20


def raw(data: bytes) -> bytes:
    deflator = zlib.compressobj(wbits=-15)
    return deflator.compress(data) + deflator.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw),
    "zstd": ("zstd", zstd.compress),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_whole_bodies(name: str) -> None:
    encoding, encode = ENCODERS[name]
    for plain in (b"", b"x", PLAIN, bytes(LIMIT)):
        data = encode(plain)
        assert decode([data], encoding, LIMIT) == plain
        assert decode([data[:3], data[3:]], encoding, LIMIT) == plain


@pytest.mark.parametrize("name", ENCODERS)
def test_every_truncation_and_every_tail_is_refused(name: str) -> None:
    encoding, encode = ENCODERS[name]
    data = encode(PLAIN[:500])
    for end in range(len(data)):
        with pytest.raises(MalformedRequest, match=r"is (damaged|incomplete)$"):
            decode([data[:end]], encoding, LIMIT)
    with pytest.raises(MalformedRequest):
        decode([data + b"more"], encoding, LIMIT)
    with pytest.raises(MalformedRequest):
        decode([b"x" + data], encoding, LIMIT)


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
def test_a_changed_byte_at_the_end_is_found(name: str) -> None:
    encoding, encode = ENCODERS[name]
    if name == "zstd":
        data = zstd.compress(PLAIN, options={zstd.CompressionParameter.checksum_flag: 1})
    else:
        data = encode(PLAIN)
    at = -6 if name == "gzip" else -1
    changed = bytearray(data)
    changed[at] ^= 1
    with pytest.raises(MalformedRequest, match="damaged"):
        decode([bytes(changed)], encoding, LIMIT)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_all_parts_are_read(name: str) -> None:
    encoding, encode = ENCODERS[name]
    parts = [encode(PLAIN), encode(b""), encode(b"end")]
    assert decode([b"".join(parts)], encoding, LIMIT) == PLAIN + b"end"
    assert decode([encode(b"a") * MAX_PARTS], encoding, LIMIT) == b"a" * MAX_PARTS
    with pytest.raises(MalformedRequest, match="too many parts"):
        decode([encode(b"a") * (MAX_PARTS + 1)], encoding, LIMIT)
    with pytest.raises(MalformedRequest, match="incomplete"):
        decode([b"".join(parts)[:-1]], encoding, LIMIT)


def test_zlib_data_has_one_part() -> None:
    with pytest.raises(MalformedRequest, match="followed by more"):
        decode([zlib.compress(b"a") + zlib.compress(b"b")], "deflate", LIMIT)


def test_parts_that_end_with_a_step() -> None:
    """Where the rest of a step is empty, the next one begins a part."""
    first = gzip.compress(b"x" * 100, 0)
    for size in range(http_bodies._STEP - 40, http_bodies._STEP - 10):
        data = gzip.compress(bytes(size), 0)
        assert decode([data + first], "gzip", LIMIT) == bytes(size) + b"x" * 100


@pytest.mark.parametrize(("name", "parts"), [*((name, 1) for name in ENCODERS), ("gzip", 10), ("zstd", 10)])
def test_bombs_are_refused_before_the_memory_is_spent(name: str, parts: int) -> None:
    encoding, encode = ENCODERS[name]
    data = encode(bytes(64 * LIMIT // parts)) * parts
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge, match=rf"^more than {LIMIT} bytes after decompression$"):
            decode([data], encoding, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT + 8 * LIMIT * (encoding == "zstd")
    finally:
        tracemalloc.stop()
    assert decode([encode(bytes(LIMIT))], encoding, LIMIT) == bytes(LIMIT)
    with pytest.raises(RequestTooLarge):
        decode([encode(bytes(LIMIT + 1))], encoding, LIMIT)


def test_a_large_window_of_zstd_is_refused() -> None:
    def encode(window_log: int) -> bytes:
        options = {zstd.CompressionParameter.window_log: window_log}
        compressor = zstd.ZstdCompressor(options=options)
        return compressor.compress(PLAIN) + compressor.flush()

    assert decode([encode(http_bodies.ZSTD_WINDOW_LOG)], "zstd", LIMIT) == PLAIN
    with pytest.raises(MalformedRequest, match="zstd data is damaged"):
        decode([encode(http_bodies.ZSTD_WINDOW_LOG + 1)], "zstd", LIMIT)
