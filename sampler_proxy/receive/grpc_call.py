"""Describes a call of the completion-queue engine until it has been answered."""

from __future__ import annotations

from typing import Any

from sampler_proxy.receive.inflate import Inflation


class Call:
    """Holds what is known of a call: the tag of its batches."""

    message: bytes | Inflation = b""
    size = 0
    """Of the message, as it came."""
    whole = False
    """Whether its message waits to be handled."""
    answered = False
    """Whether it has been on the thread of large messages."""
    mark: tuple[int, int] | None = None
    """For BytesInFlight."""

    def __init__(self, call: Any, method: bytes, peer: bytes) -> None:
        self.call = call
        self.method = method
        self.peer = peer
