"""How the sender calls: one request, one answer, by gRPC or HTTP, each the cheapest way that Python has.

A sender is called with a message; it returns when that was taken, and raises Refused or Failed. One thread uses it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TYPES = {"http": "application/x-protobuf", "http/json": "application/json"}
# What OTLP calls retryable, and RESOURCE_EXHAUSTED, which is so only with RetryInfo.
_RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
_RETRYABLE_STATUSES = {"429", "502", "503", "504"}
_PAUSE_S = 0.1
_TIMEOUT_S = 60
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))

Sender = Callable[[bytes], None]


class Refused(Exception):
    """An answer that said: later. The argument is how long to wait, in seconds."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(pause_s)
        self.pause_s = pause_s


class Failed(Exception):
    """An answer that said no; the argument is its status."""


def retry_after_s(error: Any) -> float | None:
    """How long to wait before a refused call is sent again; None if it must not be."""
    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            delay = RetryInfo.FromString(value).retry_delay
            return float(delay.seconds + delay.nanos / 1e9)
    return _PAUSE_S if error.code().name in _RETRYABLE else None


def connect_grpc(endpoint: str, connections: int, in_flight: int, method: str = METHOD) -> list[Sender]:
    """Return so many senders, over so many channels, which are connected."""
    channels = [grpc.insecure_channel(endpoint, _OPTIONS) for _ in range(connections)]
    for channel in channels:
        grpc.channel_ready_future(channel).result(timeout=30)
    return [_grpc_sender(channels[n % len(channels)], method) for n in range(in_flight)]


def _grpc_sender(channel: grpc.Channel, method: str) -> Sender:
    call = channel.unary_unary(method)

    def send(message: bytes) -> None:
        try:
            call(message, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            pause_s = retry_after_s(error)
            raise Failed(error.code().name) if pause_s is None else Refused(pause_s) from None

    return send


class HttpSender:
    """A connection of HTTP/1.1 that is kept open. It reads no more of an answer than it has to: status, length."""

    def __init__(self, endpoint: str, content_type: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._socket = socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST /v1/traces HTTP/1.1\r\nHost: {endpoint}\r\nContent-Type: {content_type}\r\nContent-Length: "
        ).encode()

    def __call__(self, message: bytes) -> None:
        head = b"%s%d\r\n\r\n" % (self._head, len(message))
        sent = self._socket.sendmsg((head, message))
        if sent < len(head) + len(message):
            self._socket.sendall(memoryview(message)[sent - len(head) :])
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head = answer[:end].lower()
        left = end + 4 + int(_field(head, b"content-length") or 0) - len(answer)
        while left > 0:
            left -= len(self._receive())
        status = head[9:12].decode()
        if status in _RETRYABLE_STATUSES:
            raise Refused(float(_field(head, b"retry-after") or _PAUSE_S))
        if status != "200":
            raise Failed(status)

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise Failed("the connection was closed")
        return data


def _field(head: bytes, name: bytes) -> bytes:
    """Return the value of a field of a head in small letters; nothing where it has none."""
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


def connect(protocol: str, endpoint: str, connections: int, in_flight: int, method: str = METHOD) -> list[Sender]:
    """Return so many connected senders; `method` is for gRPC. Over HTTP/1.1 each has a connection of its own."""
    if protocol == "grpc":
        return connect_grpc(endpoint, connections, in_flight, method)
    return [HttpSender(endpoint, TYPES[protocol]) for _ in range(in_flight)]
