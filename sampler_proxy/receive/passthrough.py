"""Takes requests of the signals that are passed on as they are, for every protocol alike.

Read is the outermost level of a request only: enough to refuse what is no protobuf, and to tell what may be joined. A
request that is taken is answered at once, with the empty response that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sampler_proxy.errors import RequestError
from sampler_proxy.otlp.joining import joinable
from sampler_proxy.otlp.signals import Signal
from sampler_proxy.receive.grpc_server import Handler

TAKEN = b""


class Taking(Protocol):
    """Where requests go. From any thread."""

    def take(self, signal: Signal, transport: str, request: bytes, joinable: bool) -> None:
        """Take a request. Raises RequestError where that is not possible."""

    def count_refused(self, signal: Signal, transport: str, reason: str) -> None:
        """Count a request that was refused."""


def handler(signal: Signal, transport: str, to: Taking) -> Handler:
    """Make the way in of a signal by a transport, for any threads."""
    take: Callable[[Signal, str, bytes, bool], None] = to.take

    def handle(request: bytes) -> bytes:
        try:
            take(signal, transport, request, joinable(request))
        except RequestError as error:
            to.count_refused(signal, transport, error.reason)
            raise
        return TAKEN

    return handle
