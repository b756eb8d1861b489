"""Compressed requests: what Python's zlib makes of them in one go, within a bound; zstd and snappy in either way.

The first byte chooses the bound and what is done with the rest: given as it is, or compressed first (and
cut, where a bit says so).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

import cramjam

from sampler_proxy.errors import MalformedRequest, RequestTooLarge
from sampler_proxy.receive.http_bodies import zstd
from sampler_proxy.receive.inflate import inflate

BOUNDS = (0, 1, 100, 1 << 16)
COMPRESS: tuple[Callable[[bytes], bytes], ...] = (
    zstd.compress,
    lambda data: bytes(cramjam.snappy.compress(data)),
    zlib.compress,
    lambda data: gzip.compress(data, mtime=0),
)
OTHERS = (b"\x28\xb5\x2f\xfd", b"\xff\x06\x00\x00sNaPpY")


def one(data: bytes) -> None:
    choice, rest = (data[0], data[1:]) if data else (0, b"")
    bound = BOUNDS[choice & 3]
    if choice & 4:
        packed = COMPRESS[choice >> 5 & 1](rest) if choice & 64 else COMPRESS[2 + (choice >> 3 & 1)](rest)
        if choice & 16:
            _compare(packed[: len(packed) * choice // 256], bound)
        elif len(rest) > bound:
            _refused(packed, bound)
        else:
            assert inflate(packed, bound) == rest
    else:
        _compare(rest, bound)


def _compare(data: bytes, bound: int) -> None:
    if data.startswith(OTHERS):  # there is nothing to compare with that has a bound
        with suppress(MalformedRequest, RequestTooLarge):
            assert len(inflate(data, bound)) <= bound
        return
    try:
        plain = inflate(data, bound)
    except RequestTooLarge:
        assert len(zlib.decompressobj(47).decompress(data, bound + 1)) > bound
        return
    except MalformedRequest:
        assert data.startswith(b"\x1f\x8b")
        assert _whole(data) is None
        return
    whole = _whole(data)
    assert plain == (data if whole is None else whole)
    assert whole is None or len(plain) <= bound


def _whole(data: bytes) -> bytes | None:
    """What zlib reads where it is one stream, complete and with nothing behind it."""
    stream = zlib.decompressobj(47)
    try:
        plain = stream.decompress(data) + stream.flush()
    except zlib.error:
        return None
    return plain if stream.eof and not stream.unused_data else None


def _refused(packed: bytes, bound: int) -> None:
    try:
        inflate(packed, bound)
    except RequestTooLarge:
        return
    raise AssertionError("more than the bound came out of it")
