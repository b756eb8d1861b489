"""Turns refusals into gRPC statuses: code, message, trailers. The same for every engine.

A retryable refusal carries RetryInfo in two trailers, since clients differ in which they read:
`grpc-status-details-bin` (google.rpc.Status, what the OTLP specification asks for; Go, Java) and
`google.rpc.retryinfo-bin` (the only one that the Python SDK reads). A refusal without RetryInfo must not be retried, so
a code that clients retry only with it (RESOURCE_EXHAUSTED) gets none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from sampler_proxy.errors import RequestError

RETRY_AFTER_MAX_NS = 2_000_000_000
"""Python's exporter has 10 s in all and gives up rather than wait past them: a longer pause would lose spans."""


class Refusal(NamedTuple):
    """The answer to a refused call. `code` is the number of a `grpc.StatusCode`, never OK."""

    code: int
    message: str
    trailers: tuple[tuple[str, bytes], ...] = ()


def refusal(error: RequestError) -> Refusal:
    """Return the answer for an error, with RetryInfo where the error may be retried."""
    return _refusal(error.grpc_status, str(error), error.retry_after_ns)


@lru_cache(maxsize=64)  # under overload the same few refusals go out thousands of times a second
def _refusal(code: int, message: str, retry_after_ns: int | None) -> Refusal:
    if retry_after_ns is None:
        return Refusal(code, message)
    seconds, nanos = divmod(min(retry_after_ns, RETRY_AFTER_MAX_NS), 1_000_000_000)
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=code, message=message, details=[detail])
    return Refusal(
        code,
        message,
        (
            ("grpc-status-details-bin", status.SerializeToString()),
            ("google.rpc.retryinfo-bin", info.SerializeToString()),
        ),
    )


# The codes follow gRPC's own table (grpc/doc/statuscodes.md), "Request cardinality violation" among it,
# and gRPC's compression.md.
UNKNOWN_METHOD = Refusal(12, "no such method")
TRACES_ONLY = Refusal(12, "this proxy takes traces only: send metrics, logs and profiles elsewhere")
UNKNOWN_SERVICE = Refusal(5, "no such service: list them by grpc.health.v1.Health/List, or ask without a name")
NO_MESSAGE = Refusal(12, "a unary call has exactly one message")
UNKNOWN_COMPRESSION = Refusal(12, "unknown compression: this proxy reads gzip, deflate, zstd and snappy")
NO_COMPRESSION = Refusal(13, "the message is marked as compressed, but the call names no grpc-encoding")
INTERNAL = Refusal(13, "internal error")
TOO_MANY_CALLS = _refusal(14, "too many calls at once", 1_000_000_000)
TOO_MANY_BYTES = _refusal(14, "too many bytes of unfinished requests at once", 1_000_000_000)
STOPPING = _refusal(14, "the proxy is stopping", 1_000_000_000)
STALLED = _refusal(14, "the request's message did not arrive in time", None)
OUT_OF_MEMORY = _refusal(14, "the proxy is out of memory", 1_000_000_000)  # made in advance: there is none by then

_KINDS = (
    ("/opentelemetry.proto.collector.metrics.", "metrics"),
    ("/opentelemetry.proto.collector.logs.", "logs"),
    ("/opentelemetry.proto.collector.profiles.", "profiles"),
)


KINDS = (*(kind for _, kind in _KINDS), "other")
"""The kinds of methods that nobody handles."""


def not_served(method: str) -> tuple[str, Refusal]:
    """Return the kind of a method that nobody handles (a label of metrics, so one of a few), and its answer."""
    for prefix, kind in _KINDS:
        if method.startswith(prefix):
            return kind, TRACES_ONLY
    return "other", UNKNOWN_METHOD
