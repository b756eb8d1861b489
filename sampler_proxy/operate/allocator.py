"""Settings of the C allocator for a process that fills and empties a large buffer with small blocks all the time.

glibc gives each thread a heap of its own, which grows by one page and one system call at a time; a buffer that the
gRPC thread fills would spend a tenth of its time there. One heap for all that grows in steps, and is given back in
large ones, does not. Other C libraries have no such settings, and are left alone.
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
    """To be called before there are threads. False where there is nothing to set."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_ARENA_MAX: 1,
        _M_TOP_PAD: 4 * _MIB,
        _M_TRIM_THRESHOLD: 64 * _MIB,
        # Above it, a block has pages of its own: requests should rather reuse those of the last ones.
        _M_MMAP_THRESHOLD: 8 * _MIB,
    }
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
