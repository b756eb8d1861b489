"""Answers calls that gRPC core could not even refuse rightly: those in a compression that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived
from h2.exceptions import ProtocolError, StreamClosedError
from hpack import Encoder

from sampler_proxy.receive.grpc_status import Refusal

ACCEPTED = "identity,deflate,gzip"
"""The compressions that core offers, as it names them itself (grpc-accept-encoding)."""


class _PlainEncoder(Encoder):
    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        return super().encode(headers, huffman)


class UnreadableCalls:
    """One HTTP/2 connection of which every call is refused at its headers. No I/O: bytes in, bytes out."""

    def __init__(self, refusal: Refusal, on_call: Callable[[], None]) -> None:
        """Make it; `on_call` is called for each call. A server's SETTINGS have been sent and acknowledged before."""
        self._refusal = refusal
        self._on_call = on_call
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        # Plain text in a packet capture, like core's own answers.
        self._connection.encoder = _PlainEncoder()
        self._connection.initiate_connection()
        self.ended = False
        """Whether the client has gone away, or has broken HTTP/2."""

    def receive(self, data: bytes) -> bytes:
        """Take what the client has sent, and return what to send to it."""
        try:
            for event in self._connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    self._refuse(event.stream_id)
                elif isinstance(event, DataReceived):
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, ConnectionTerminated):
                    self.ended = True
        except ProtocolError:  # GOAWAY is among what there is to send
            self.ended = True
        return self._connection.data_to_send()

    def _refuse(self, stream: int) -> None:
        """Answer with Trailers-Only, and ask the client not to send the rest (RFC 9113, 8.1: NO_ERROR)."""
        self._on_call()
        answer = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", str(self._refusal.code)),
            ("grpc-message", self._refusal.message),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        with suppress(StreamClosedError):  # the client has sent all, or has cancelled, in the same bytes
            self._connection.send_headers(stream, answer, end_stream=True)
            self._connection.reset_stream(stream, ErrorCodes.NO_ERROR)
