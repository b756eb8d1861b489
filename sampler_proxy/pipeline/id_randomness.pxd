from libc.stdint cimport uint32_t, uint64_t

cdef class Uniformity:
    cdef uint32_t[256] high  # by the highest byte
    cdef uint32_t[256] next  # by the one below
    cdef uint32_t count
    cdef readonly bint random
    cdef void note(self, uint64_t randomness) noexcept nogil
