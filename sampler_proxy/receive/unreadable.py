"""Answers calls that gRPC core could not even refuse rightly: those in a compression that nobody knows here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hpack import Encoder

from sampler_proxy.receive.grpc_status import NO_COMPRESSION, UNKNOWN_COMPRESSION, Refusal
from sampler_proxy.receive.opening import encoding_of, unreadable

ACCEPTED = "identity,deflate,gzip,zstd,snappy"
"""The compressions that are read (grpc-accept-encoding)."""

MAX_UNDECIDED = 100
"""Calls whose message is waited for, to see whether it is compressed."""

MAX_SETTINGS = 100
"""Settings of a client that are kept; HTTP/2 has seven, and h2 keeps whatever else comes."""


class _PlainEncoder(Encoder):
    """Writes headers that can be read in a packet capture, like core's own: without Huffman's code."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        return super().encode(headers, huffman)


class UnreadableCalls:
    """One HTTP/2 connection of which every call that cannot be read is refused. No I/O: bytes in, bytes out.

    A call that can be read ends the connection: GOAWAY says that it has not been processed, and its client sends it
    again over another connection (RFC 9113, 6.8). So a middleman that puts the calls of many senders on one connection
    loses none of the others' to one sender.
    """

    def __init__(self, on_call: Callable[[str], None]) -> None:
        """Make it; `on_call(reason)` is called for each call that is refused: "unknown_compression", or "compression"
        where its message is compressed though it names none. SETTINGS that leave all at its defaults have been
        sent and acknowledged before."""
        self._on_call = on_call
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._connection.encoder = _PlainEncoder()
        # As many calls as the client likes: so it was told. Each is refused at its first bytes.
        unlimited = {SettingCodes.MAX_CONCURRENT_STREAMS: 2**31 - 1, SettingCodes.MAX_HEADER_LIST_SIZE: 65536}
        self._connection.local_settings = Settings(client=False, initial_values=unlimited)
        self._connection.initiate_connection()
        self._undecided: set[int] = set()
        self._last = 0  # the last call that was refused
        self.ended = False
        """Whether the connection is of no more use, once what `receive` has returned is sent."""

    def receive(self, data: bytes) -> bytes:
        """Take what the client has sent, and return what to send to it. Not once it has ended."""
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
                if self.ended:
                    break
            if len(self._connection.remote_settings) > MAX_SETTINGS or len(self._undecided) > MAX_UNDECIDED:
                self._end()
        except ProtocolError:  # h2 has put a GOAWAY among what there is to send
            self.ended = True
        return self._connection.data_to_send()

    def end(self) -> bytes:
        """Send the client elsewhere with what has not been refused; return what to send to it."""
        self._end()
        return self._connection.data_to_send()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._connection.close_connection(last_stream_id=self._last)

    def _handle(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            encoding = encoding_of(event.headers)
            if unreadable(encoding):
                self._refuse(event.stream_id, UNKNOWN_COMPRESSION)
            elif encoding == b"identity":
                self._undecided.add(event.stream_id)
            else:
                self._end()
        elif isinstance(event, DataReceived):
            self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self._undecided and event.data:
                if event.data[0] == 1:  # the Compressed-Flag of a Length-Prefixed-Message
                    self._refuse(event.stream_id, NO_COMPRESSION)
                else:
                    self._end()
        elif isinstance(event, StreamEnded):
            if event.stream_id in self._undecided:
                self._end()
        elif isinstance(event, StreamReset):
            self._undecided.discard(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            self.ended = True

    def _refuse(self, stream: int, refusal: Refusal) -> None:
        """Answer with Trailers-Only, and ask the client not to send the rest (RFC 9113, 8.1: NO_ERROR)."""
        self._on_call("unknown_compression" if refusal is UNKNOWN_COMPRESSION else "compression")
        self._undecided.discard(stream)
        self._last = max(self._last, stream)
        answer = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", str(refusal.code)),
            ("grpc-message", refusal.message),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        with suppress(StreamClosedError):  # the client has sent all, or has cancelled, in the same bytes
            self._connection.send_headers(stream, answer, end_stream=True)
            self._connection.reset_stream(stream, ErrorCodes.NO_ERROR)
