"""Declares the lock of a pipeline. `turn_lock.pyi` is the manual."""
from libc.stdint cimport int64_t

from cpython.pythread cimport PyThread_type_lock

from sampler_proxy.pipeline.ledger cimport Histogram

cdef class TurnLock:
    cdef PyThread_type_lock turn  # of the one that gets `held` next
    cdef PyThread_type_lock held
    cdef int64_t since_ns  # when it was taken last
    cdef Histogram holds_ns
    cdef int take(self) except -1
    cdef int leave(self) except -1
