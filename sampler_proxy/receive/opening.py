"""Reads how a connection begins, and tells who should have it. No I/O: bytes in, a verdict out.

A client of HTTP/2 speaks first: 24 bytes that are always the same, then SETTINGS (RFC 9113, 3.4). gRPC core closes a
connection that begins otherwise without a word to anybody; but to send OTLP over HTTP/1.1 or TLS to a plaintext gRPC
port is one of the commonest mistakes in setting up OpenTelemetry, and who has made it wants to be told.

Core also ends every call whose `grpc-encoding` it does not know with INTERNAL before anybody hears of it, where gRPC's
specification (PROTOCOL-HTTP2, compression.md) asks for UNIMPLEMENTED and `grpc-accept-encoding`; and what this proxy
could inflate, core must not hear of by its name (recoding.py). A sender compresses all calls alike, so its first call
tells, unless a middleman puts the calls of many senders on one connection: it names itself in headers. Most clients
wait with that for the server's SETTINGS, so these are sent before core has seen anything; core sends its own later, as
a server may at any time. The client acknowledges both, but core would take the first acknowledgement for a violation:
it is taken out of what core is given.

A client that waits longer, for the server to acknowledge its SETTINGS or because it has nothing to call yet, must be
given to core before its first call: whoever holds the connection decides when (`acknowledged`).
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Decoder, HPACKError

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""A SETTINGS frame that leaves all at HTTP/2's defaults."""

CORE = "core"
"""The verdict on what gRPC core understands (or rejects with a word of its own, being invalid HTTP/2)."""

RECODING = "recoding"
"""The verdict on calls that may be in a compression that core does not know, and this proxy inflates."""

COMPRESSION = "compression"
"""The verdict on calls in a compression that neither knows."""

LATER = "later"
"""The verdict on a client that wants an answer before its first call, such as to a PING."""

FOREIGN = ("http1", "tls", "proxy_protocol", "other")
"""The verdicts on what is not HTTP/2."""

MAX_BYTES = 2 * 1024 * 1024
"""What a connection may send before it acknowledges our SETTINGS: 64 KiB of messages, which is HTTP/2's first window,
and the headers of the calls that a client begins meanwhile, which no window bounds."""

UNACKNOWLEDGED = "unacknowledged"
"""The verdict on a client that sends more than that."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_BYTES = len(_PREFACE)
"""How much of a connection `classify` needs at most."""

_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT ", b"TRACE ")
_PROXY = (b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n")  # versions 1 and 2 of haproxy.org's proxy-protocol.txt

_DATA, HEADERS, _PRIORITY, _SETTINGS, _WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 4, 8, 9
_WITHOUT_ANSWER = frozenset((_PRIORITY, _SETTINGS, _WINDOW_UPDATE))
"""Frames that may wait for core to read them. An unknown kind is for core to ignore."""
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _HAS_PRIORITY = 1, 1, 4, 8, 32
_HEAD = 9

_KNOWN_TO_CORE = frozenset((b"identity", b"gzip", b"deflate"))
RECODED = frozenset((b"zstd", b"snappy"))
"""Compressions that core does not know and this proxy inflates."""
_MIDDLEMEN = (b"via", b"forwarded", b"x-forwarded-", b"x-envoy-", b"x-request-id")
"""How the headers begin by which a proxy of HTTP/2 shows (RFC 9110, 7.6.3; RFC 7239; Envoy's)."""
_NAMED = frozenset((b"lz4", b"br", b"zlib", b"bzip2", b"lzma", b"xz"))
"""Compressions that may be named in logs: what a sender writes there may be anything."""


class Opening:
    """Collects what a client has sent so far, and judges it."""

    def __init__(self) -> None:
        self.greeted = False
        """Whether the preface has come whole: time to send SETTINGS."""
        self.acknowledged = False
        """Whether the client has acknowledged those SETTINGS."""
        self.encoding = ""
        """With the verdict COMPRESSION: what `unreadable` says of it, or "" for a message that is compressed though no
        encoding was named."""
        self._received = bytearray()
        self._read = 0  # bytes of `_received` that have been looked at
        self._block: bytes | None = None  # header block of the first call, while it is incomplete
        self._uncompressed = False  # whether the first call has named no compression
        self._verdict: str | None = None

    @property
    def verdict(self) -> str | None:
        """Return CORE, RECODING, COMPRESSION, LATER, UNACKNOWLEDGED or one of FOREIGN; None as long as it is open, with
        HTTP/2 until the client has acknowledged our SETTINGS."""
        if self.acknowledged or self._verdict in FOREIGN:
            return self._verdict
        return UNACKNOWLEDGED if len(self._received) > MAX_BYTES else None

    @property
    def received(self) -> bytes:
        """Return what the client has sent, without its acknowledgement of our SETTINGS."""
        return bytes(self._received)

    def receive(self, data: bytes) -> None:
        """Take more bytes; not once there is a verdict."""
        self._received += data
        if not self.greeted:
            self._verdict = classify(bytes(self._received[: len(_PREFACE)]))
            if self._verdict is not None or len(self._received) < len(_PREFACE):
                return
            self.greeted = True
            self._read = len(_PREFACE)
        while self.verdict is None and self._frame():
            pass

    def _frame(self) -> bool:
        """Look at the next frame; return whether it was complete. Of a message its first byte is enough."""
        head = self._received[self._read : self._read + _HEAD]
        if len(head) < _HEAD:
            return False
        end = self._read + _HEAD + int.from_bytes(head[:3], "big")
        kind, flags = head[3], head[4]
        if end > len(self._received):
            if kind == _DATA and self._verdict is None:
                self._verdict = self._judge(kind, flags & ~_END_STREAM, bytes(self._received[self._read + _HEAD :]))
            return False
        if kind == _SETTINGS and flags & _ACK and not self.acknowledged:
            self.acknowledged = True
            del self._received[self._read : end]
            return True
        if self._verdict is None:
            self._verdict = self._judge(kind, flags, bytes(self._received[self._read + _HEAD : end]))
        self._read = end
        return True

    def _judge(self, kind: int, flags: int, payload: bytes) -> str | None:
        """Return the verdict that a frame brings, or None."""
        if self._block is not None and kind == CONTINUATION:
            return self._headers(self._block + payload, flags)
        if kind == HEADERS and self._block is None and not self._uncompressed:
            payload = unpadded(payload, flags)
            return self._headers(payload[5:] if flags & _HAS_PRIORITY else payload, flags)
        if kind == _DATA and self._uncompressed:
            message = unpadded(payload, flags)
            if message.startswith(b"\x01"):  # the Compressed-Flag of a Length-Prefixed-Message
                return COMPRESSION
            return CORE if message or flags & _END_STREAM else None
        if kind in _WITHOUT_ANSWER:
            return None
        return CORE if self._uncompressed or self._block is not None else LATER

    def _headers(self, block: bytes, flags: int) -> str | None:
        if not flags & _END_HEADERS:
            self._block = block
            return None
        self._block = None
        try:
            fields = Decoder().decode(block, raw=True)
        except HPACKError:
            return CORE
        encoding = encoding_of(fields)
        if any(bytes(name).startswith(_MIDDLEMEN) for name, _ in fields):
            return RECODING
        self._uncompressed = encoding == b"identity"
        if self._uncompressed:
            return CORE if flags & _END_STREAM else None
        if encoding in RECODED:
            return RECODING
        self.encoding = unreadable(encoding)
        return COMPRESSION if self.encoding else CORE


def encoding_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the compression that a call's headers name; b"identity" where they name none."""
    return next((bytes(value) for name, value in fields if name == b"grpc-encoding"), b"identity")


def unreadable(encoding: bytes) -> str:
    """Return the name of a compression that nobody knows here, "unknown" for one that is not well known; "" for those
    that core knows, or this proxy inflates."""
    if encoding in _KNOWN_TO_CORE or encoding in RECODED:
        return ""
    return encoding.decode() if encoding in _NAMED else "unknown"


def classify(first: bytes) -> str | None:
    """Return what a connection begins with, one of FOREIGN; None for (the beginning of) HTTP/2, and for no bytes."""
    if first.startswith(_PREFACE) or _PREFACE.startswith(first):
        return None
    if first[0] == 0x16 and first[1:2] in (b"", b"\x03"):  # a handshake record of TLS (RFC 8446, 5.1)
        return "tls"
    for kind, beginnings in (("http1", _METHODS), ("proxy_protocol", _PROXY)):
        if any(first.startswith(beginning) or beginning.startswith(first) for beginning in beginnings):
            return kind
    return "other"


def unpadded(payload: bytes, flags: int) -> bytes:
    """Return a frame's payload without its padding (RFC 9113, 6.1)."""
    if not flags & _PADDED or not payload:
        return payload
    return payload[1 : max(1, len(payload) - payload[0])]
