"""Renames compressions in a client's HTTP/2 stream, so that gRPC core takes calls whose messages this proxy inflates
itself. No I/O: bytes in, bytes out.

Core looks at the name only: messages it hands on as they came (inflate.py). So of the frames of a client (RFC 9113)
just the header blocks are written anew, with gzip for a compression that core has never heard of; the rest passes as it
is. New blocks use no table of HPACK (RFC 7541), whatever the client's did.

A call in a compression that nobody knows here, on the connection of others, becomes one of the method UNKNOWN.

Of a client that connects and calls later, the first call decides whether anything is written anew. Where not, its
header blocks reach core as they are from the first one on, so that both have the same table.
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
    may_need_recoding,
    unpadded,
    unreadable,
)

UNKNOWN = b"/sampler_proxy.Compression/Unknown"

MAX_BLOCK_BYTES = 16 * 1024
"""Of one header block, as it comes and once it is decoded: what core takes by default."""

MAX_PIECES = 64
"""Frames of one header block."""

AT_ONCE_BYTES = 128 * 1024
"""So much is written anew at once, and what is left waits: a block of a few bytes that names what is in HPACK's table
becomes thousands of times as long."""

_END_HEADERS, _PADDED, _HAS_PRIORITY = 4, 8, 32
_HEAD = 9
_FRAME_BYTES = 16384  # what every receiver takes (RFC 9113, 4.2)


class NotHttp2(Exception):
    """Bytes that are no HTTP/2, or headers beyond the bound: the connection is of no use."""


class Recoder:
    """One client's stream, from its preface on. Used by one thread at a time. `undecided`: the first call decides
    whether it is recoded."""

    def __init__(self, undecided: bool = False) -> None:
        self._undecided = undecided
        self._off = False
        self._frames: list[bytes] = []  # of the block, as they came
        self._decoder = Decoder(max_header_list_size=MAX_BLOCK_BYTES)
        self._passing = PREFACE_BYTES  # bytes that pass as they are
        self._held = bytearray()  # the beginning of a frame whose header block, or head, is not complete
        self._block: bytes | None = None  # of a call whose headers have come in part
        self._call = b"", 0  # its stream, and the flags of its first frame
        self._pieces = 0  # frames of the block
        self.more = False
        """Whether there is more to write anew of what has been received: receive(b"") goes on."""

    def receive(self, data: bytes) -> bytes:
        """Take what the client has sent, and return what core is to be given of it. Raises NotHttp2."""
        if self._off:
            return data
        if not self._held and len(data) <= self._passing:
            self._passing -= len(data)
            return data
        out = bytearray(data[: self._passing])
        left, self._passing = memoryview(bytes(self._held) + data[self._passing :]), 0
        self.more = False
        while len(left) >= _HEAD:
            if len(out) >= AT_ONCE_BYTES:
                self.more = True
                break
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
                out += self._headers(kind, bytes(left[:_HEAD]), bytes(left[_HEAD:end]))
                if self._off:
                    out += left[end:]
                    self._held.clear()
                    return bytes(out)
            else:
                break
            left = left[end:]
        self._held = bytearray(left)
        return bytes(out)

    def _headers(self, kind: int, head: bytes, payload: bytes) -> bytes:
        """Return what stands for a frame of a header block: nothing, before the last one."""
        flags, stream = head[4], head[5:]
        if self._undecided:
            self._frames.append(head + payload)
        if kind == HEADERS:
            payload = unpadded(payload, flags)
            self._block, self._call = payload[5:] if flags & _HAS_PRIORITY else payload, (stream, flags)
            self._pieces = 1
        else:
            self._block = (self._block or b"") + payload
            self._pieces += 1
        if stream != self._call[0] or len(self._block) > MAX_BLOCK_BYTES or self._pieces > MAX_PIECES:
            raise NotHttp2
        if not flags & _END_HEADERS:
            return b""
        try:
            fields = self._decoder.decode(self._block, raw=True)
        except HPACKError:
            raise NotHttp2 from None
        self._block = None
        if self._undecided:
            self._undecided, self._off = False, not may_need_recoding(fields)
            if self._off:
                return b"".join(self._frames)
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
