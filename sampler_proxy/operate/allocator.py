"""Tunes the C allocator for a process that fills and empties a large buffer with small blocks all the time.

glibc gives each thread a heap (arena) of its own, which grows by one page and one system call at a time; the gRPC
thread would spend a tenth of its time there while it fills the buffer. A single heap that grows and shrinks in large
steps avoids that. Such a heap shrinks from its end only, where something is always in use; what is free in between is
given back to the system when much of it has become free for good. Other C libraries have none of this, and are left
alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from sampler_proxy.units import MIB

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def tune() -> bool:
    """Set the allocator's parameters; call it before there are threads. False where the C library has none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_ARENA_MAX: 1,
        _M_TOP_PAD: 4 * MIB,
        _M_TRIM_THRESHOLD: 64 * MIB,
        # Larger blocks get pages of their own; requests should rather reuse the pages of earlier ones.
        _M_MMAP_THRESHOLD: 8 * MIB,
    }
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())


TRIM_FROM = 32 * MIB
"""So much, and half of what was in use, must have become free."""

TRIM_EVERY_NS = 3 * 10**9
"""The memory is given back at most so often, and when no less has been in use for so long a time."""


class Trimmer:
    """Tells when free memory is worth giving back. Asked about once a second; `used` tells the bytes that spans hold,
    `clock` monotonic nanoseconds."""

    def __init__(self, used: Callable[[], int], clock: Callable[[], int]) -> None:
        self._used = used
        self._clock = clock
        self._peak = 0  # since the last time
        self._low, self._low_ns = 0, clock()  # the least since then, while it fell, and when that was

    def due(self) -> bool:
        """Tell whether `trim` should be called now, and take it as done."""
        now_ns, used = self._clock(), self._used()
        self._peak = max(self._peak, used)
        if self._peak - used < max(TRIM_FROM, self._peak // 2):
            self._low, self._low_ns = used, now_ns
            return False
        if used < self._low - TRIM_FROM // 2:  # still falling
            self._low, self._low_ns = used, now_ns
        if now_ns - self._low_ns < TRIM_EVERY_NS:
            return False
        self._peak, self._low_ns = used, now_ns
        return True


def trim() -> bool:
    """Give free memory back to the system (malloc_trim of glibc); whoever allocates waits meanwhile. False where the C
    library cannot."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is None:
        return False
    malloc_trim(ctypes.c_size_t(0))
    return True
