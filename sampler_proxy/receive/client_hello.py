"""Reads how a connection to a TLS port begins, and tells who should have it. No I/O: bytes in, a verdict out.

gRPC core speaks TLS itself, from 1.2 on. Which versions a client offers stands in its ClientHello (RFC 8446, 4.1.2), in
plain text; of two versions that both sides speak the newer one is taken, so that a client which offers TLS 1.3 gets it.
"""

from __future__ import annotations

from sampler_proxy.receive.opening import CORE, PREFACE_BYTES, classify

PLAINTEXT, TOO_OLD = "plaintext", "tls_version"
KINDS = (PLAINTEXT, TOO_OLD)
"""The verdicts on who does not speak TLS, or only versions that are too old."""

_PROTOCOL_VERSION_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # fatal, protocol_version (RFC 8446, 6)

MAX_BYTES = 1 << 16
"""What a ClientHello may have; it is some hundred bytes, or two thousand with post-quantum keys."""

MAX_RECORDS = 16
"""Records over which it may be spread: one, with every client that is known."""

_RECORD_HEAD, _HANDSHAKE_HEAD = 5, 4
_HANDSHAKE, _CLIENT_HELLO = 0x16, 1
_SUPPORTED_VERSIONS, _TLS_1_3 = 43, b"\x03\x04"


class TlsOpening:
    """Collects what a client has sent so far, and judges it; stands where an `Opening` stands on a plaintext port."""

    greeted = acknowledged = False
    encoding = ""

    def __init__(self, min_version: str) -> None:
        self._min_version = min_version
        self._received = bytearray()
        self.verdict: str | None = None
        """The verdict: CORE or one of KINDS; None as long as it is open."""

    @property
    def received(self) -> bytes:
        """The bytes that the client has sent."""
        return bytes(self._received)

    def receive(self, data: bytes) -> None:
        """Take what the client has sent further."""
        self._received += data
        if self.verdict is None:
            self.verdict = self._judge()

    def _judge(self) -> str | None:
        if classify(bytes(self._received[:PREFACE_BYTES])) != "tls":
            return PLAINTEXT
        hello = _handshake(self._received) if len(self._received) < MAX_BYTES else b""
        if hello is None:
            return None
        if self._min_version == "1.3" and not _offers_1_3(hello):
            return TOO_OLD
        return CORE


def _handshake(data: bytearray) -> bytes | None:
    """Return the first message of a handshake without its head; None where it has not come whole. What is no handshake
    is an empty one."""
    message, at = b"", 0
    for _ in range(MAX_RECORDS):
        if len(data) < at + _RECORD_HEAD:
            return None
        end = at + _RECORD_HEAD + int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE:
            return b""
        message += data[at + _RECORD_HEAD : end]
        if len(message) >= _HANDSHAKE_HEAD:
            length = int.from_bytes(message[1:4], "big")
            if message[0] != _CLIENT_HELLO or length > MAX_BYTES:
                return b""
            if len(message) >= _HANDSHAKE_HEAD + length:
                return bytes(message[_HANDSHAKE_HEAD : _HANDSHAKE_HEAD + length])
        if len(data) < end:
            return None
        at = end
    return b""


def _offers_1_3(hello: bytes) -> bool:
    """Tell whether a ClientHello names TLS 1.3 among the versions that its client speaks (RFC 8446, 4.2.1)."""
    at = 2 + 32  # legacy_version, random
    for size in (1, 2, 1):  # session id, cipher suites, compression methods: each behind its length
        at += size + int.from_bytes(hello[at : at + size], "big")
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, length = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _SUPPORTED_VERSIONS:
            versions = hello[at + 5 : at + 4 + length]
            return any(versions[i : i + 2] == _TLS_1_3 for i in range(0, len(versions), 2))
        at += 4 + length
    return False


_TEXT = b"This port takes TLS. At the sender, write https:// in OTEL_EXPORTER_OTLP_ENDPOINT.\n"


def answer(kind: str, received: bytes) -> bytes:
    """Return what to tell a client that is refused as `kind`, in its protocol; nothing where that is not known.
    `received`: how it began. A client of HTTP/2 is told nothing: one that is greeted comes back at once, and one whose
    connection is closed after a pause."""
    if kind == TOO_OLD:
        return _PROTOCOL_VERSION_ALERT
    if kind == PLAINTEXT and classify(received) == "http1":
        return bad_request(_TEXT)
    return b""


def bad_request(text: bytes) -> bytes:
    """Return an answer over HTTP/1.1 that says what is wrong, and ends the connection."""
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(text), text)
    )
