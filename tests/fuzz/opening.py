"""The beginnings of connections: one verdict, wherever the bytes are cut, and answers to calls that nobody can read.

The first byte chooses where the rest is cut, and whether it follows a client's preface and acknowledgement.
"""

from __future__ import annotations

from sampler_proxy.receive.opening import COMPRESSION, SETTINGS, Opening
from sampler_proxy.receive.unreadable import UnreadableCalls

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ACKNOWLEDGEMENT = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"


def one(data: bytes) -> None:
    choice, sent = (data[0], data[1:]) if data else (0, b"")
    if choice & 1:
        sent = PREFACE + SETTINGS + sent
    if choice & 2:
        sent = sent[:33] + ACKNOWLEDGEMENT + sent[33:]
    whole, parts = Opening(), Opening()
    if sent:
        whole.receive(sent)
    step = 1 + (choice >> 2)
    for at in range(0, len(sent), step):
        if parts.verdict is None:
            parts.receive(sent[at : at + step])
    # A beginning may be too short to tell, so that bytes of HTTP/1 that come one by one are judged by fewer of them.
    assert parts.verdict == whole.verdict or not whole.greeted
    assert parts.encoding == whole.encoding
    if whole.verdict == COMPRESSION:
        calls: list[None] = []
        unreadable = UnreadableCalls(lambda: calls.append(None))
        assert unreadable.receive(whole.received).startswith(b"\x00\x00")
