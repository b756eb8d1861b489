"""Tests whether trace ids look random: Pearson's chi-square test.

Sampling by ids that are not random keeps too much of one thing and nothing of another. A few hundred ids tell what is
grossly wrong, such as ids that are counted up, or one sender in ten that makes its own; many thousands tell the rest.
"""
from libc.string cimport memset

cdef enum:
    BLOCK = 1 << 14  # values per test
    SMALL_BLOCK = 1 << 8
    # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6. Eight standard deviations above the
    # mean, chance goes beyond in one of 10^10 blocks.
    MAX_CHI_SQUARE = 440
    # Of 256 values it is twice the number of pairs of equal ones, of which there are 128 by chance. There are many
    # small blocks, and the tail of such small counts is heavier, so that the bound is 17 standard deviations above the
    # mean: 320 pairs. That is reached where 20 of 256 values have the same byte beside those that are random.
    MAX_SMALL_CHI_SQUARE = 640


cdef double _chi_square(const uint32_t* counts, int values) noexcept nogil:
    """Compare a histogram of 256 bytes with the uniform distribution, by Pearson's chi-square."""
    cdef double expected = values / 256
    cdef double deviation
    cdef double chi_square = 0
    cdef int i
    for i in range(256):
        deviation = counts[i] - expected
        chi_square += deviation * deviation / expected
    return chi_square


cdef class Uniformity:
    def __cinit__(self):
        self.random = True

    cdef void record(self, uint64_t randomness) noexcept nogil:
        """Count one 56-bit randomness that was taken from a trace id; the last of a block evaluates the test."""
        cdef uint32_t high = randomness >> 48 & 0xFF
        cdef uint32_t second = randomness >> 40 & 0xFF
        self.high[high] += 1
        self.second[second] += 1
        self.small_high[high] += 1
        self.small_second[second] += 1
        self.count += 1
        if self.count % SMALL_BLOCK == 0:
            self.evaluate_small_block()
        if self.count == BLOCK:
            self.random = (
                not self.small_failed
                and _chi_square(self.high, BLOCK) <= MAX_CHI_SQUARE
                and _chi_square(self.second, BLOCK) <= MAX_CHI_SQUARE
            )
            memset(self.high, 0, sizeof(self.high))
            memset(self.second, 0, sizeof(self.second))
            self.count = 0
            self.small_failed = False

    cdef void evaluate_small_block(self) noexcept nogil:
        """Test the last values; one bad small block speaks for the whole block that it lies in."""
        if (
            _chi_square(self.small_high, SMALL_BLOCK) > MAX_SMALL_CHI_SQUARE
            or _chi_square(self.small_second, SMALL_BLOCK) > MAX_SMALL_CHI_SQUARE
        ):
            self.random = False
            self.small_failed = True
        memset(self.small_high, 0, sizeof(self.small_high))
        memset(self.small_second, 0, sizeof(self.small_second))

    def add(self, randomness):
        self.record(randomness)
