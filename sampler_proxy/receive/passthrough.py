"""Takes requests of the signals that are passed on as they are, for every protocol alike.

Read is the outermost level of a request only: enough to refuse what is no protobuf, and to tell what may be joined. A
request that is taken is answered at once, with the empty response that says so.
"""

from __future__ import annotations

from typing import Protocol

from sampler_proxy.errors import RequestError
from sampler_proxy.otlp.joining import joinable
from sampler_proxy.receive.grpc_server import Handler

TAKEN = b""


class Way(Protocol):
    """The queues that requests of a signal go to, which come by one transport. From any thread."""

    def take(self, request: bytes, joinable: bool, metadata: bytes) -> None:
        """Take a request, which came with `metadata` (otlp/metadata.py). Raises RequestError where that is not
        possible."""

    def count_refused(self, reason: str) -> None:
        """Count a request that was refused."""


def handler(way: Way) -> Handler:
    """Make the handler of a signal's requests, for any threads."""
    take = way.take

    def handle(request: bytes, metadata: bytes = b"", /) -> bytes:
        try:
            take(request, joinable(request), metadata)
        except RequestError as error:
            way.count_refused(error.reason)
            raise
        return TAKEN

    return handle
