"""Declares every exception of this project, as one tree.

A `RequestError` carries the status for each protocol and whether the sender may try again (OTLP specification,
"Failures"; the numbers are those of `grpc.StatusCode` and of HTTP). Messages carry kinds and offsets, never payload:
attribute values reach neither logs nor error texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class SamplerProxyError(Exception):
    """The root of the tree."""


def printable(text: str) -> str:
    """Escape what others chose, such as a name, for a line of text: no line break, nothing that a terminal obeys."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A fault of a configuration file, or a warning. `line` and `column` count from 1; 0 means the file as a whole. The
    message may quote names: each of its lines is made of printable characters and tabs."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        position = f":{self.line}:{self.column}" if self.line else ""
        return f"{printable(self.path)}{position}: {self.message}"


MAX_FAULTS = 1000
"""Faults of one file that are kept; how many more there are is the last one's message."""


class ConfigError(SamplerProxyError):
    """A configuration that cannot be used; carries the faults found, in file order, the first MAX_FAULTS of them."""

    def __init__(self, faults: list[Fault]) -> None:
        faults = sorted(faults)
        if more := len(faults[MAX_FAULTS:]):
            first = faults[MAX_FAULTS]
            message = f"and {more} more faults from here on: mend those above first"
            faults[MAX_FAULTS:] = [Fault(first.path, first.line, first.column, message)]
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class TraceQLError(SamplerProxyError):
    """An expression that is not TraceQL, or not TraceQL that can select a trace here.

    `offset` is the index (in characters, from 0) into the expression; `message` names the fault and what to write
    instead.
    """

    def __init__(self, message: str, offset: int) -> None:
        self.message = message
        self.offset = offset
        super().__init__(message)


class StartError(SamplerProxyError):
    """A start that failed (a port is taken, a file cannot be written); the message says which and why."""


class TraceFileError(SamplerProxyError):
    """A file of traces that cannot be read as such; the message begins with FILE or FILE:LINE."""


class EffortSpent(SamplerProxyError):
    """The scan of a request that has cost what it was allowed to, and may cost more: it is to be scanned elsewhere."""


class RequestError(SamplerProxyError):
    """A request that is refused whole, before anything of it was taken.

    `reason` is the label of `requests_refused_total`; `retry_after_ns` is None when the same bytes must not be sent
    again.
    """

    reason: ClassVar[str]
    grpc_status: ClassVar[int]
    http_status: ClassVar[int]

    def __init__(self, message: str, retry_after_ns: int | None = None) -> None:
        self.retry_after_ns = retry_after_ns
        super().__init__(message)


class MalformedRequest(RequestError):
    """Bytes that are not the request they were sent as."""

    reason = "malformed"
    grpc_status = 3  # INVALID_ARGUMENT
    http_status = 400


class RequestTooLarge(RequestError):
    """More bytes, after decompression, than one request may have."""

    reason = "too_large"
    grpc_status = 8  # RESOURCE_EXHAUSTED; without RetryInfo, that is: not retryable
    http_status = 413


class RequestTooCostly(RequestError):
    """More work than reading a request of this size may take."""

    reason = "effort"
    grpc_status = 8  # RESOURCE_EXHAUSTED; without RetryInfo: the same bytes would cost the same again
    http_status = 413


class Overloaded(RequestError):
    """The buffer is full and deciding early made no room."""

    reason = "memory"
    grpc_status = 14  # UNAVAILABLE
    http_status = 503


class QueueFull(RequestError):
    """The queue in front of a destination has no room for what is passed on as it is."""

    reason = "queue_full"
    grpc_status = 14  # UNAVAILABLE
    http_status = 503


class OutOfMemory(RequestError):
    """The system gave no memory for the request. What had been taken of it before is counted, and stays."""

    reason = "out_of_memory"
    grpc_status = 14  # UNAVAILABLE
    http_status = 503


class Unauthenticated(RequestError):
    """A request without credentials that are known here."""

    reason = "unauthenticated"
    grpc_status = 16  # UNAUTHENTICATED
    http_status = 401


class TooManyInFlight(RequestError):
    """More requests at once than a credential may have."""

    reason = "credential_busy"
    grpc_status = 14  # UNAVAILABLE
    http_status = 429


class Draining(RequestError):
    """The service is stopping; another replica, or the next process, will take the request."""

    reason = "draining"
    grpc_status = 14  # UNAVAILABLE
    http_status = 503
