"""Describes a call of the completion-queue engine until it has been answered."""

from __future__ import annotations

from typing import Any

from sampler_proxy.receive.credentials import Lease
from sampler_proxy.receive.grpc_server import Method
from sampler_proxy.receive.inflate import Inflation


class Call:
    """Holds what is known of a call: the tag of its batches. `peer`: its connection, as core names it; `large_handler`:
    for large messages, None where all are handled alike."""

    whole = False
    """Whether its message waits to be handled; only then these are known:"""
    message: bytes | Inflation = b""
    size = 0
    """Of the message, as it came."""
    answered = False
    """Whether it has been on the thread of large messages."""
    lease: Lease | None = None
    """That of its credential, None where none was wanted."""
    opened = False
    """Whether it has been answered in part: a streaming one."""
    mark: tuple[int, int] | None = None
    """For BytesInFlight."""

    def __init__(self, call: Any, peer: bytes, handler: Method, large_handler: Method | None) -> None:
        self.call = call
        self.peer = peer  # asked for at once: of a call that was broken off core knows it no more
        self.handler = handler
        self.large_handler = large_handler
