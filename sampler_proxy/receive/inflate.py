"""Inflates messages, up to a size and never beyond it: the guard against decompression bombs.

Why not leave gzip to gRPC core: grpcio 1.70 to 1.76 at least inflate a message without any bound, in slices of 1 KiB
(1 MB of gzip becomes 1 GB), and look at `grpc.max_receive_message_length` only before. Python's zlib stops there.

Core's flag for a compressed message and the `grpc-encoding` header are not visible from Python, so compression is told
from the first bytes. That is not a guess. 0x1f and 0xff would be protobuf tags of wire type 7, which does not exist; a
message that opens like zlib data (0x78, field 15) is taken as such only if all of it inflates and its checksum holds;
and zstd's four bytes would be the number 6069 in a field 5 that no request has. What gRPC senders call snappy is its
framing format (framing_format.txt of google/snappy).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import cramjam

from sampler_proxy.errors import MalformedRequest, RequestTooLarge

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP, _ZLIB, _ZSTD, _SNAPPY = b"\x1f\x8b", b"\x78", b"\x28\xb5\x2f\xfd", b"\xff\x06\x00\x00sNaPpY"

SIGNATURES = (_GZIP, _ZLIB, _ZSTD, _SNAPPY)
"""The first bytes of compressed messages; no message of an OTLP encoder begins so."""

ZSTD_WINDOW_LOG = 23
"""The largest window of zstd data, 8 MiB: what a decoder needs beside the data. RFC 9659 allows senders no more."""

MAX_FRAMES = 1000
"""Frames of zstd data in one message (RFC 8878, 3.1)."""

MAX_CHUNKS = 10_000
"""Chunks of snappy data in one message: writers fill each with 64 KiB, but for the last one before a flush."""

_GZIP_OR_ZLIB = 47  # zlib's window bits: 32 for "tell by the header" + 15
_CHUNK_BYTES = 65536  # what a chunk of snappy data may hold
_STEP = 64 * 1024
"""What is given to zstd at once: what it leaves over behind a frame is copied."""


class _Source(Protocol):
    """Compressed data that is inflated step by step."""

    more: bool
    """Whether there may be more plain data."""
    whole: bool
    """Whether all of it has been read, its checksums hold, and nothing follows."""

    def read(self, most: int) -> bytes:
        """Return up to `most` bytes more: fewer where there are no more; none where all are more, and only all can be
        had."""


class _Zlib:
    """gzip or zlib data."""

    def __init__(self, data: bytes) -> None:
        self._rest = data
        self._inflator = zlib.decompressobj(_GZIP_OR_ZLIB)
        self.more = True
        self.whole = False

    def read(self, most: int) -> bytes:
        try:
            plain = self._inflator.decompress(self._rest, most)
        except zlib.error:
            self.more = False
            return b""
        self._rest = self._inflator.unconsumed_tail
        self.more = not self._inflator.eof and len(plain) == most
        self.whole = self._inflator.eof and not self._inflator.unused_data
        return plain


class _Zstd:
    """zstd data, of one frame or several."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._step = b""
        self._frame: zstd.ZstdDecompressor | None = None
        self._frames = 0
        self.more = True
        self.whole = False

    def read(self, most: int) -> bytes:
        parts = []
        while most > 0 and self.more:
            if not self._step and (self._frame is None or self._frame.needs_input):
                self._step = self._data[self._at : self._at + _STEP]
                self._at += len(self._step)
                if not self._step:
                    self.more, self.whole = False, self._frame is None
                    break
            try:
                plain = self._decompress(most)
            except zstd.ZstdError:
                self.more = False
                break
            parts.append(plain)
            most -= len(plain)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decompress(self, most: int) -> bytes:
        if self._frame is None:
            self._frames += 1
            if self._frames > MAX_FRAMES:
                raise zstd.ZstdError
            self._frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
        plain: bytes = self._frame.decompress(self._step, most)
        self._step = b""
        if self._frame.eof:
            self._step, self._frame = self._frame.unused_data, None
        return plain


class _Snappy:
    """snappy data in chunks, which are inflated all at once: what they will hold, they say before."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size = _size_of_chunks(data)  # None: damaged
        self.more = self._size is not None
        self.whole = False

    def read(self, most: int) -> bytes:
        if self._size is None or self._size > most:
            return b""
        self.more = False
        try:
            plain = bytes(cramjam.snappy.decompress(self._data))
        except cramjam.DecompressionError:
            return b""
        self.whole = True
        return plain


def _size_of_chunks(data: bytes) -> int | None:
    """Return how many plain bytes the chunks of snappy data announce; None where they are damaged."""
    size, at = 0, 0
    for _ in range(MAX_CHUNKS):
        if at == len(data):
            return size
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        begin, at = at + 4, at + 4 + length
        if at > len(data) or 2 <= kind < 0x80:  # chunks that nobody may skip
            return None
        if kind == 0:
            announced = _varint(data[begin + 4 : min(begin + 9, at)])  # behind the checksum
            if announced is None or announced > _CHUNK_BYTES:
                return None
            size += announced
        elif kind == 1:
            size += max(0, length - 4)
    return None


def _varint(data: bytes) -> int | None:
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value
    return None


_SOURCES: tuple[tuple[bytes, str, Callable[[bytes], _Source]], ...] = (
    (_GZIP, "gzip", _Zlib),
    (_ZSTD, "zstd", _Zstd),
    (_SNAPPY, "snappy", _Snappy),
)


class Inflation:
    """One message, inflated in two steps: at most so much of it at first, and the rest somewhere else."""

    def __init__(self, data: bytes, max_bytes: int) -> None:
        """Take a message that begins with one of SIGNATURES, which inflates to `max_bytes` at most."""
        self._data = data
        self._max_bytes = max_bytes
        found = ((name, source) for signature, name, source in _SOURCES if data.startswith(signature))
        self._name, source = next(found, ("", _Zlib))
        self._source: _Source = source(data)
        self._plain = b""

    def begin(self, most: int) -> bool:
        """Inflate `most` bytes at most; return whether that was all. Called once, before `finish`, or not at all."""
        self._plain = self._source.read(most)
        more = self._source.more
        if more and isinstance(self._source, _Zstd):  # whose window is too large to wait with: it begins anew
            self._source, self._plain = _Zstd(self._data), b""
        return not more

    def finish(self) -> bytes:
        """Return the plain message; the data itself where it only looks like zlib. Takes twice `max_bytes` of memory at
        most.

        Raises RequestTooLarge, or MalformedRequest for data that is damaged, cut short or followed by more bytes.
        """
        if self._source.more and (room := self._max_bytes + 1 - len(self._plain)) > 0:
            more = self._source.read(room)
            self._plain = self._plain + more if self._plain else more
        if self._source.more or len(self._plain) > self._max_bytes:
            raise RequestTooLarge(f"more than {self._max_bytes} bytes after decompression")
        if self._source.whole:
            return self._plain
        if self._name:
            raise MalformedRequest(f"{self._name} data is damaged or incomplete")
        return self._data


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return the plain message in one step, as `Inflation.finish` does, and raise what it does."""
    return Inflation(data, max_bytes).finish()
