"""Inflates gzip or zlib data, up to a size and never beyond it: the guard against decompression bombs.

Why not leave it to gRPC core: grpcio 1.70 to 1.76 at least inflate a message without any bound, in slices of 1 KiB
(1 MB of gzip becomes 1 GB), and look at `grpc.max_receive_message_length` only before. Python's zlib stops there.

Core's flag for a compressed message and the `grpc-encoding` header are not visible from Python, so compression is told
from the first bytes. That is not a guess: 0x1f would be a protobuf tag of wire type 7, which does not exist, and a
message that opens like zlib data (0x78, field 15) is taken as such only if all of it inflates and its checksum holds.
"""

from __future__ import annotations

import zlib

from sampler_proxy.errors import MalformedRequest, RequestTooLarge

SIGNATURES = (b"\x1f\x8b", b"\x78")
"""The first bytes of compressed messages; no message of an OTLP encoder begins so."""

_GZIP_OR_ZLIB = 47  # zlib's window bits: 32 for "tell by the header" + 15


class Inflation:
    """One message, inflated in two steps: at most so much of it at first, and the rest somewhere else."""

    def __init__(self, data: bytes, max_bytes: int) -> None:
        """Take a message, which inflates to `max_bytes` at most."""
        self._data = self._rest = data
        self._max_bytes = max_bytes
        self._inflator = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._plain = b""
        self._damaged = False

    def begin(self, most: int) -> bool:
        """Inflate `most` bytes at most; return whether that was all. Called once, before `finish`, or not at all."""
        self._inflate(most)
        return self._damaged or self._inflator.eof or len(self._plain) < most

    def finish(self) -> bytes:
        """Return the plain message; the data itself where it only looks like zlib. Takes twice `max_bytes` of memory at
        most.

        Raises RequestTooLarge, or MalformedRequest for gzip data that is damaged, cut short or followed by more bytes.
        """
        if not self._damaged and not self._inflator.eof:
            self._inflate(self._max_bytes + 1 - len(self._plain))
        if len(self._plain) > self._max_bytes:
            raise RequestTooLarge(f"more than {self._max_bytes} bytes after decompression")
        if not self._damaged and self._inflator.eof and not self._inflator.unused_data:
            return self._plain
        if self._data.startswith(SIGNATURES[0]):
            raise MalformedRequest("gzip data is damaged or incomplete")
        return self._data

    def _inflate(self, most: int) -> None:
        if most <= 0:
            return  # to zlib, 0 is no bound
        try:
            more = self._inflator.decompress(self._rest, most)
        except zlib.error:
            self._damaged = True
        else:
            self._rest = self._inflator.unconsumed_tail
            self._plain = self._plain + more if self._plain else more


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return the plain message in one step, as `Inflation.finish` does, and raise what it does."""
    return Inflation(data, max_bytes).finish()
