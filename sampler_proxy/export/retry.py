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

from sampler_proxy.export.reasons import HTTP, HTTP_CREDENTIALS, LOST, NO_MEMORY, why_refused, why_unreachable

MAX_RETRY_AFTER_NS = 300 * 10**9
"""The longest RetryInfo that is believed: a back end that names a longer one is asked again after this."""


DEFAULT_LIMIT_BYTES = 4 << 20
"""The largest message that gRPC servers take unless told otherwise."""


TOO_LARGE = "larger than it takes"


class Fault(Enum):
    """A kind of failure, by what to do about it."""

    OVERLOAD = "overload"  # not now: the same bytes, later
    EXHAUSTED = "exhausted"  # the same, unless smaller requests pass: then it is the size
    TIMEOUT = "timeout"  # no answer in time: the same bytes, later
    LOST = "lost"  # a reset, a lost connection: the same bytes, later
    UNREACHABLE = "unreachable"  # nothing was taken, of whatever bytes: later, and these cannot be the reason
    MEMORY = "memory"  # this side's: later, and neither the bytes nor the destination can be the reason
    CREDENTIALS = "credentials"  # later, when they are right
    SIZE = "size"  # larger than is taken: in smaller parts
    BYTES = "bytes"  # something in these bytes is refused: find it
    UNWANTED = "unwanted"  # nothing like these bytes is wanted, ever

    @property
    def passes_by_itself(self) -> bool:
        """Tell whether the same bytes are worth another try."""
        return self not in (Fault.SIZE, Fault.BYTES, Fault.UNWANTED)

    @property
    def clears_the_bytes(self) -> bool:
        """Tell whether any other bytes would have met the same."""
        return self in (Fault.UNREACHABLE, Fault.MEMORY)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The outcome of a try: taken."""

    rejected: int = 0  # spans (log records, data points) that the destination noted and dropped: a partial success


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of a try: not taken. `limit_bytes`: with SIZE, the largest request that is taken, as far as known."""

    fault: Fault
    code: str  # a short name, for metrics; may be empty where it would say nothing
    why: str  # a sentence, for people; none of a back end's own words
    retry_after_ns: int | None = None  # the destination has asked for so much silence
    limit_bytes: int | None = None

    @property
    def not_served(self) -> bool:
        """Tell whether the destination, or a proxy in between, has no such service: it takes other signals at most."""
        return self.code in ("UNIMPLEMENTED", "HTTP 404")

    @property
    def verdict(self) -> str:
        """The reason of a rejection."""
        return f"{self.code}, {self.why}" if self.code else self.why


OUT_OF_MEMORY = Failed(Fault.MEMORY, "out_of_memory", NO_MEMORY)
"""The outcome of a try for which this process had no memory; made before it is needed."""


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error means that this process got no memory: for a thread Python puts it in other words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


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
_HTTP_CREDENTIALS = (401, 403, 407)

_CREDENTIALS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

# Of the same library, for a call that found no connection.
_UNREACHABLE = re.compile(
    r"failed to connect|errors resolving|DNS resolution failed|empty address list|connections to all backends"
)


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A status that the back end did not write. `http`: the status of an answer in plain HTTP, None where there was no
    answer at all (RST_STREAM, GOAWAY, a lost connection)."""

    http: int | None


def made_up(details: str | None) -> MadeUp | None:
    """Recognize a status that did not come from the back end by its text; None: it came in trailers."""
    found = _MADE_UP.match(details or "")
    return found and MadeUp(int(found["http"]) if found["http"] else None)


# What gRPC's own servers (C core, Go, Java) say about a message that is too large, mostly with their limit: the one
# text of a back end that is looked at.
_TOO_LARGE = re.compile(
    r".{0,100}?message.{0,30}? (?:larger than max(?: \(?(?:[0-9]{1,12} vs\. )?(?P<max>[0-9]{1,12}))?"
    r"|exceeds maximum size (?P<size>[0-9]{1,12}))",
    re.DOTALL | re.IGNORECASE,
)


def classify(
    code: grpc.StatusCode, details: str | None, nbytes: int, retry_after_ns: int | None, *, secure: bool = False
) -> Failed:
    """Classify the answer to a request of `nbytes`: by its status, its text as far as gRPC itself has written it, and
    the delay of the RetryInfo that came with it (None: none came). `secure`: it was sent by TLS."""
    if (origin := made_up(details)) is not None:
        return _without_verdict(code, origin)
    name, why = code.name, why_refused(code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if retry_after_ns is not None:
            return Failed(Fault.OVERLOAD, name, why, retry_after_ns)
        found = _TOO_LARGE.match(details or "")
        if found or nbytes > DEFAULT_LIMIT_BYTES:
            limit = int(found["max"] or found["size"] or 0) if found else DEFAULT_LIMIT_BYTES
            return Failed(Fault.SIZE, name, TOO_LARGE, limit_bytes=limit if 0 < limit < nbytes else None)
        return Failed(Fault.EXHAUSTED, name, why)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failed(Fault.TIMEOUT, name, why, retry_after_ns)
    if code is grpc.StatusCode.UNAVAILABLE and _UNREACHABLE.match(details or ""):
        return Failed(Fault.UNREACHABLE, name, why_unreachable(details or "", secure))
    if code in _RETRYABLE:
        return Failed(Fault.OVERLOAD, name, why, retry_after_ns)
    if code in _CREDENTIALS:
        return Failed(Fault.CREDENTIALS, name, why)
    return Failed(Fault.BYTES if code in _ABOUT_THE_BYTES else Fault.UNWANTED, name, why)


def _without_verdict(code: grpc.StatusCode, origin: MadeUp) -> Failed:
    if origin.http is None:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failed(Fault.TIMEOUT, code.name, why_refused(code))
        return Failed(Fault.LOST, code.name, LOST)
    name = f"HTTP {origin.http}"
    if origin.http == _HTTP_TOO_LARGE:
        return Failed(Fault.SIZE, name, TOO_LARGE)
    if origin.http in _HTTP_CREDENTIALS:
        return Failed(Fault.CREDENTIALS, name, HTTP_CREDENTIALS)
    return Failed(Fault.OVERLOAD, name, HTTP)


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
        """Draw the next pause; `failures` counts the tries that failed before the one that just did; none before the
        first of a parcel, which may have met a fault that is not its own."""
        return int(self.random() * min(self.max_ns, self.initial_ns << min(max(failures, 0), 62)))
