"""Translates how long connections live into channel arguments of gRPC core (grpc/doc/keepalive.md; gRFCs A8 and A9)."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_MS = 2**31 - 1
"""What core takes for ever."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Says how long a connection lives, in nanoseconds; None: as long as its client likes."""

    time_ns: int = 7200 * _SECOND_NS
    """A connection of which nothing has come for so long is asked whether it is there (a PING of HTTP/2)."""
    timeout_ns: int = 20 * _SECOND_NS
    """It is closed if nothing comes for so long then."""
    max_connection_idle_ns: int | None = None
    """Its client is sent away (GOAWAY) when it has had no call for so long;"""
    max_connection_age_ns: int | None = None
    """when it is so old, a tenth more or less, so that not all come back at once;"""
    max_connection_age_grace_ns: int | None = None
    """and is closed so long after that, whatever calls it has."""

    def options(self) -> tuple[tuple[str, int], ...]:
        """Return the channel arguments."""
        return (
            ("grpc.keepalive_time_ms", _ms(self.time_ns)),
            ("grpc.keepalive_timeout_ms", _ms(self.timeout_ns)),
            ("grpc.http2.ping_timeout_ms", _ms(self.timeout_ns)),  # else core of today waits for a minute all the same
            ("grpc.max_connection_idle_ms", _ms(self.max_connection_idle_ns)),
            ("grpc.max_connection_age_ms", _ms(self.max_connection_age_ns)),
            ("grpc.max_connection_age_grace_ms", _ms(self.max_connection_age_grace_ns)),
            # By default connections without calls are not asked, and others twice at most until a message comes.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        )


def _ms(ns: int | None) -> int:
    return _MAX_MS if ns is None else min(max(1, ns // 1_000_000), _MAX_MS)
