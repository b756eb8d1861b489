"""Tells how much memory the system lets this process have, and says where the configured bounds do not fit into it.

A limit of the address space (`ulimit -v`, `-d`) is felt when memory is asked for: the pipeline then lowers its bound,
and goes on. Beyond the limit of a control group (a container's) the kernel kills the process without a word. So either
is compared with the bounds at start.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from sampler_proxy.config.model import Config, OtlpExport
from sampler_proxy.export.pass_queue import SHARE
from sampler_proxy.units import MIB, format_size

PROCESS_BYTES = 128 << 20
"""What the process needs beside its bounds: itself, and requests that are being received."""

PERIOD_S = 60.0
"""How often it is said at most that the bound of the buffer has been lowered."""

log = structlog.get_logger()


def limits(root: Path = Path("/")) -> Iterator[tuple[str, int]]:
    """Find the limits, each with its name: bytes that are left for the bounds and what is received, with this process
    as it is now. `root`: where /proc and /sys are; Linux has them, others only the limits of the address space."""
    mapped = 0
    with suppress(OSError, ValueError):
        mapped = int((root / "proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for name, number in (("ulimit -v", resource.RLIMIT_AS), ("ulimit -d", resource.RLIMIT_DATA)):
        soft, _ = resource.getrlimit(number)
        if soft != resource.RLIM_INFINITY:
            yield name, max(soft - mapped, 0) + PROCESS_BYTES // 2
    for file in _group_files(root):
        with suppress(OSError, ValueError):  # "max": there is none
            yield "the limit of its control group", int(file.read_text())


def _group_files(root: Path) -> Iterator[Path]:
    """Return the files with the limits of this process's control group and those above it, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        # Within a container the path may be one of the host's, and only the top is there.
        yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(top))


def warn(config: Config, found: Iterator[tuple[str, int]] | None = None) -> None:
    """Log one line where the tightest limit is below what the bounds add up to."""
    others = config.buffer.decision_memory_bytes + sum(export.queue.max_bytes for export in config.export)
    passes_on = config.passthrough == "all" and any(isinstance(export, OtlpExport) for export in config.export)
    share = 1 + 1 / SHARE if passes_on else 1  # of the buffer, with what is passed on
    need = int(config.buffer.max_bytes * share) + others + PROCESS_BYTES
    where, limit = min(limits() if found is None else found, key=lambda one: one[1], default=("", need))
    if limit >= need:
        return
    fits = int((limit - others - PROCESS_BYTES) / share)
    fits -= fits % MIB
    smaller = f"set buffer.max_bytes to {format_size(fits)} or less" if fits >= MIB else "lower the bounds"
    log.warning(
        f"memory: {where} leaves room for {format_size(limit // MIB * MIB)}, and buffer, decision memory, queues and "
        f"the process itself may take {format_size(-(-need // MIB) * MIB)}: {smaller}, or allow this process more"
    )


class _Bounded(Protocol):
    @property
    def max_bytes(self) -> int: ...
    @property
    def configured_max_bytes(self) -> int: ...


class BoundWatch:
    """Says that a pipeline has lowered its bound."""

    def __init__(self, pipeline: _Bounded, clock: Callable[[], float] = time.monotonic) -> None:
        """Make it; `clock` tells seconds, monotonic."""
        self._pipeline = pipeline
        self._clock = clock
        self._told = pipeline.configured_max_bytes
        self._next_s = 0.0

    def look(self) -> None:
        """Log the bound where it is lower than the one that was logged, once a minute at most."""
        bound = self._pipeline.max_bytes
        if bound >= self._told or self._clock() < self._next_s:
            return
        self._told, self._next_s = bound, self._clock() + PERIOD_S
        log.error(
            f"out of memory: the buffer is bounded by {bound // MIB}MiB from now on, until a restart, instead of "
            f"{format_size(self._pipeline.configured_max_bytes)}; set buffer.max_bytes to that, or allow this process "
            "more memory"
        )
