"""Tests whether trace ids look random: Pearson's chi-square test.

Sampling by ids that are not random keeps too much of one thing and nothing of another.
"""
from libc.string cimport memset

cdef enum:
    BLOCK = 1 << 14  # values per test
    # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6. Eight standard deviations above the
    # mean, chance goes beyond in one of 10^10 blocks.
    MAX_CHI_SQUARE = 440


cdef bint _is_uniform(const uint32_t* counts) noexcept nogil:
    """Compare a block's histogram of 256 values with the uniform distribution, by Pearson's chi-square test."""
    cdef double expected = BLOCK / 256
    cdef double deviation
    cdef double chi_square = 0
    cdef int i
    for i in range(256):
        deviation = counts[i] - expected
        chi_square += deviation * deviation / expected
    return chi_square <= MAX_CHI_SQUARE


cdef class Uniformity:
    def __cinit__(self):
        self.random = True

    cdef void record(self, uint64_t randomness) noexcept nogil:
        """Count one 56-bit randomness that was taken from a trace id; the last of a block evaluates the test."""
        self.high[randomness >> 48 & 0xFF] += 1
        self.second[randomness >> 40 & 0xFF] += 1
        self.count += 1
        if self.count == BLOCK:
            self.random = _is_uniform(self.high) and _is_uniform(self.second)
            memset(self.high, 0, sizeof(self.high))
            memset(self.second, 0, sizeof(self.second))
            self.count = 0

    def add(self, randomness):
        self.record(randomness)
