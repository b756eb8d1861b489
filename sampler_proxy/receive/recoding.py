"""Renames compressions in a client's HTTP/2 stream, so that gRPC core takes calls whose messages this proxy inflates
itself. No I/O: bytes in, bytes out.

Core looks at the name only: messages it hands on as they came (inflate.py). So of the frames of a client (RFC 9113)
just the header blocks are written anew, with gzip for a compression that core has never heard of; the rest passes as it
is. New blocks use no table of HPACK (RFC 7541), whatever the client's did.

A call in a compression that nobody knows here, on the connection of others, becomes one of the method UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Decoder, HPACKError

from sampler_proxy.receive.opening import (
    CONTINUATION,
    HEADERS,
    PREFACE_BYTES,
    RECODED,
    encoding_of,
    unpadded,
    unreadable,
)

UNKNOWN = b"/sampler_proxy.Compression/Unknown"

MAX_BLOCK_BYTES = 64 * 1024
"""Of one header block, as it comes and once it is decoded. Core takes 16 KiB by default."""

_END_HEADERS, _PADDED, _HAS_PRIORITY = 4, 8, 32
_HEAD = 9
_FRAME_BYTES = 16384  # what every receiver takes (RFC 9113, 4.2)


class NotHttp2(Exception):
    """Bytes that are no HTTP/2, or headers beyond the bound: the connection is of no use."""


class Recoder:
    """One client's stream, from its preface on. Used by one thread at a time."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MAX_BLOCK_BYTES)
        self._passing = PREFACE_BYTES  # bytes that pass as they are
        self._held = bytearray()  # the beginning of a frame whose header block, or head, is not complete
        self._block: bytes | None = None  # of a call whose headers have come in part
        self._call = b"", 0  # its stream, and the flags of its first frame

    def receive(self, data: bytes) -> bytes:
        """Take what the client has sent, and return what core is to be given of it. Raises NotHttp2."""
        if not self._held and len(data) <= self._passing:
            self._passing -= len(data)
            return data
        out = bytearray(data[: self._passing])
        left, self._passing = memoryview(bytes(self._held) + data[self._passing :]), 0
        while len(left) >= _HEAD:
            size, kind = int.from_bytes(left[:3], "big"), left[3]
            end = _HEAD + size
            if (kind == CONTINUATION) != (self._block is not None):
                raise NotHttp2
            if kind not in (HEADERS, CONTINUATION):
                out += left[:end]
                self._passing = max(0, end - len(left))
            elif size > MAX_BLOCK_BYTES:
                raise NotHttp2
            elif len(left) >= end:
                out += self._headers(kind, left[4], bytes(left[5:_HEAD]), bytes(left[_HEAD:end]))
            else:
                break
            left = left[end:]
        self._held = bytearray(left)
        return bytes(out)

    def _headers(self, kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
        """Return what stands for a frame of a header block: nothing, before the last one."""
        if kind == HEADERS:
            payload = unpadded(payload, flags)
            self._block, self._call = payload[5:] if flags & _HAS_PRIORITY else payload, (stream, flags)
        else:
            self._block = (self._block or b"") + payload
        if stream != self._call[0] or len(self._block) > MAX_BLOCK_BYTES:
            raise NotHttp2
        if not flags & _END_HEADERS:
            return b""
        try:
            fields = self._decoder.decode(self._block, raw=True)
        except HPACKError:
            raise NotHttp2 from None
        self._block = None
        return _frames(stream, self._call[1], _literals(_renamed(fields)))


def _renamed(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the fields of a call with a compression that core knows."""
    renamed = [(bytes(name), bytes(value)) for name, value in fields]
    encoding = encoding_of(renamed)
    if encoding in RECODED:
        instead = {b"grpc-encoding": b"gzip"}
    elif unreadable(encoding):
        instead = {b"grpc-encoding": b"gzip", b":path": UNKNOWN}
    else:
        return renamed
    return [(name, instead.get(name, value)) for name, value in renamed]


def _literals(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode fields as literals without indexing, with new names (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(text: bytes) -> bytes:
    """Encode a string without Huffman's code; its length is an integer with a prefix of 7 bits (5.1 and 5.2)."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    head, size = bytearray((127,)), size - 127
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    head.append(size)
    return bytes(head) + text


def _frames(stream: bytes, flags: int, block: bytes) -> bytes:
    """Return a header block as a frame HEADERS, and CONTINUATION for what does not fit."""
    flags &= ~(_PADDED | _HAS_PRIORITY | _END_HEADERS)
    out = bytearray()
    kind = HEADERS
    for at in range(0, len(block), _FRAME_BYTES):
        piece = block[at : at + _FRAME_BYTES]
        last = _END_HEADERS if at + _FRAME_BYTES >= len(block) else 0
        out += len(piece).to_bytes(3, "big") + bytes((kind, flags | last)) + stream + piece
        kind, flags = CONTINUATION, 0
    return bytes(out)
