"""Decides whether to send the same bytes again, and when: OTLP's table of statuses, RetryInfo, exponential backoff.

Source: OTLP specification, "Failures" and "OTLP/gRPC Throttling". That table is about statuses which the back end has
written into trailers. gRPC makes up a status, too, where none came: for a reset stream, a lost connection, an answer
in plain HTTP. Such a status is no verdict on the bytes, whatever its code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

MAX_RETRY_AFTER_NS = 300 * 10**9
"""The longest RetryInfo that is believed: a back end that names a longer one is asked again after this."""


class Retryability(Enum):
    """The way to go on after a refusal."""

    RETRY = "retry"  # send the same bytes again, later
    SPLIT = "split"  # something in these bytes is refused: send parts of them
    DROP = "drop"  # nothing like these bytes is wanted


_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_ABOUT_THE_BYTES = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # without RetryInfo: larger than the server's limit
        grpc.StatusCode.INTERNAL,  # what gRPC's own servers (Go, Python) answer to a message that they cannot parse
        grpc.StatusCode.UNKNOWN,  # what they answer when the handler fails in a way that has no status
    }
)

# The beginnings of the texts of grpcio's C core, 1.70 to 1.85, for statuses that it made up because the call ended
# without one: it offers no other way to tell. A back end that writes the same into its trailers has its bytes sent
# again, which does no harm.
_MADE_UP = re.compile(
    r"Stream removed|Received RST_STREAM|Received http2 header with status: (?P<http>[0-9]{3})|No status received"
    r"|RST_STREAM|GOAWAY|Socket closed|Transport closed|Connection (?:reset|refused|dropped)|recvmsg:|Broken pipe"
    r"|Endpoint closing|Error parsing '(?:grpc-status|content-type|:status)'"
)

_HTTP_TOO_LARGE = 413  # of all that a middleman says, only this is about the bytes


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A status that the back end did not write. `http`: the status of an answer in plain HTTP, None where there was no
    answer at all (RST_STREAM, GOAWAY, a lost connection)."""

    http: int | None


def made_up(details: str | None) -> MadeUp | None:
    """Recognize a status that did not come from the back end by its text; None: it came in trailers."""
    found = _MADE_UP.match(details or "")
    return found and MadeUp(int(found["http"]) if found["http"] else None)


def classify(code: grpc.StatusCode, retry_after_ns: int | None, details: str | None = None) -> Retryability:
    """Classify a status, given the delay of the RetryInfo that came with it (None: none came) and its text, which is
    read only to tell whether the back end wrote the status."""
    if (origin := made_up(details)) is not None:
        return Retryability.SPLIT if origin.http == _HTTP_TOO_LARGE else Retryability.RETRY
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_ns is not None):
        return Retryability.RETRY
    return Retryability.SPLIT if code in _ABOUT_THE_BYTES else Retryability.DROP


def retry_after_ns(trailers: Iterable[tuple[str, str | bytes]] | None) -> int | None:
    """Return the delay of the RetryInfo in `trailers`, from 0 to MAX_RETRY_AFTER_NS; None where none can be read."""
    for key, value in trailers or ():
        info = RetryInfo()
        try:
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                if not any(detail.Unpack(info) for detail in Status.FromString(value).details):
                    continue
            elif key == "google.rpc.retryinfo-bin" and isinstance(value, bytes):
                info.ParseFromString(value)
            else:
                continue
        except DecodeError:
            continue
        delay_ns: int = info.retry_delay.seconds * 10**9 + info.retry_delay.nanos
        return min(max(delay_ns, 0), MAX_RETRY_AFTER_NS)
    return None


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: before try n + 1, anything from 0 to `initial_ns` · 2ⁿ, at most `max_ns`.
    `random` gives numbers from [0, 1)."""

    initial_ns: int
    max_ns: int
    random: Callable[[], float]

    def delay_ns(self, failures: int) -> int:
        """Draw the next pause; `failures` counts the tries that failed before the one that just did."""
        return int(self.random() * min(self.max_ns, self.initial_ns << min(failures, 62)))
