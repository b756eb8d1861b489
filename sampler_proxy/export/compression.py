"""Compresses the bodies of requests, for the protocols that leave that to their user.

gzip is isal's where there is one: per MiB half a millisecond, a tenth of zlib's fastest level, and smaller. Levels are
the fastest ones: back ends decompress at the same speed whatever the level, and higher ones take many times as long for
a few percent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

try:
    from isal.igzip import compress as _gzip
except ImportError:  # there are no builds of it for this machine
    from gzip import compress as _gzip  # type: ignore[assignment]

INLINE_BYTES = 256 * 1024
"""What is larger is compressed on a thread of its own, which does not hold up the loop."""

LEVEL = 1


def gzip(data: bytes) -> bytes:
    """Compress into one gzip member."""
    return _gzip(data, LEVEL)


def zstandard(data: bytes) -> bytes:
    """Compress into one zstd frame, with the size of the data in its header."""
    return zstd.compress(data, LEVEL)


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip, "zstd": zstandard}
"""By the name that Content-Encoding has."""


async def compressed(data: bytes, encoding: str) -> bytes:
    """Compress `data` by one of ENCODINGS."""
    if len(data) <= INLINE_BYTES:
        return ENCODINGS[encoding](data)
    return await asyncio.to_thread(ENCODINGS[encoding], data)
