"""Describes a call of the completion-queue engine until it has been answered."""

from __future__ import annotations

from typing import Any

from sampler_proxy.receive.inflate import Inflation


class Call:
    """Holds what is known of a call: the tag of its batches."""

    __slots__ = ("answered", "call", "mark", "message", "method", "peer", "size", "whole")

    def __init__(self, call: Any, method: bytes, peer: bytes) -> None:
        self.call = call
        self.method = method
        self.peer = peer
        self.whole = False  # whether its message waits to be handled
        self.message: bytes | Inflation = b""
        self.size = 0  # of the message, as it came
        self.answered = False  # whether it has been on the thread of large messages
        self.mark: tuple[int, int] | None = None  # for BytesInFlight
