"""The beginnings of connections: one verdict, wherever the bytes are cut, and answers to calls that nobody can read.
Calls are recoded alike wherever they are cut, and what is recoded once is not changed by it again.

The first byte chooses where the rest is cut, and whether it follows a client's preface and acknowledgement.
"""

from __future__ import annotations

from sampler_proxy.receive.opening import COMPRESSION, SETTINGS, Opening
from sampler_proxy.receive.recoding import NotHttp2, Recoder
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
        calls: list[str] = []
        unreadable = UnreadableCalls(calls.append)
        assert unreadable.receive(whole.received).startswith(b"\x00\x00")
    recoded = _recoded([PREFACE + sent])
    assert _recoded([PREFACE, *(sent[at : at + step] for at in range(0, len(sent), step))]) == recoded
    assert recoded is None or _recoded([recoded]) == recoded


def _recoded(parts: list[bytes]) -> bytes | None:
    """What core would be given; None for what is no HTTP/2."""
    recoder = Recoder()
    try:
        return b"".join(map(recoder.receive, parts))
    except NotHttp2:
        return None
