"""Declares the chi-square test of trace ids. `id_randomness.pyi` is the manual."""
from libc.stdint cimport uint32_t, uint64_t

cdef class Uniformity:
    cdef uint32_t[256] high  # histogram of the highest byte in the open block
    cdef uint32_t[256] second  # and of the byte below
    cdef uint32_t[256] small_high  # the same in the open small block
    cdef uint32_t[256] small_second
    cdef uint32_t count  # values in the open block
    cdef bint small_failed  # some small block of the open block has failed
    cdef readonly bint random  # result of the last whole block, or of a small one since
    cdef void record(self, uint64_t randomness) noexcept nogil
    cdef void evaluate_small_block(self) noexcept nogil
