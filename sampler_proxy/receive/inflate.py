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


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return the plain message; `data` itself where it only looks like zlib. Takes twice `max_bytes` of memory at most.

    Raises RequestTooLarge, or MalformedRequest for gzip data that is damaged, cut short or followed by more bytes.
    """
    inflator = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = inflator.decompress(data, max_bytes + 1)
    except zlib.error:
        whole = False
    else:
        if len(plain) > max_bytes:
            raise RequestTooLarge(f"more than {max_bytes} bytes after decompression")
        whole = inflator.eof and not inflator.unused_data
    if whole:
        return plain
    if data.startswith(SIGNATURES[0]):
        raise MalformedRequest("gzip data is damaged or incomplete")
    return data
