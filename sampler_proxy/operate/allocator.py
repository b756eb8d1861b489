"""Tunes the C allocator for a process that fills and empties a large buffer with small blocks all the time.

glibc gives each thread a heap (arena) of its own, which grows by one page and one system call at a time; the gRPC
thread would spend a tenth of its time there while it fills the buffer. A single heap that grows and shrinks in large
steps avoids that. Other C libraries have no such settings, and are left alone.
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MIB = 1 << 20


def tune() -> bool:
    """Set the allocator's parameters; call it before there are threads. False where the C library has none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_ARENA_MAX: 1,
        _M_TOP_PAD: 4 * _MIB,
        _M_TRIM_THRESHOLD: 64 * _MIB,
        # Larger blocks get pages of their own; requests should rather reuse the pages of earlier ones.
        _M_MMAP_THRESHOLD: 8 * _MIB,
    }
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
