"""Writes what several parts of this room tell people: times, and the faults of a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import structlog

from sampler_proxy.errors import Fault

MAX_LOGGED = 50
"""Faults or warnings of one file that are logged one by one; of the rest the number is."""

log = structlog.get_logger()


def log_faults(level: Literal["error", "warning"], faults: Sequence[Fault]) -> None:
    """Log each fault with its position, MAX_LOGGED of them at most."""
    for fault in faults[:MAX_LOGGED]:
        getattr(log, level)(str(fault))
    if len(faults) > MAX_LOGGED:
        getattr(log, level)(f"and {len(faults) - MAX_LOGGED} more: `sampler-proxy check` prints them all")


def iso_time(seconds: float) -> str:
    """Format seconds since the epoch as UTC in ISO 8601, with milliseconds and a final Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
