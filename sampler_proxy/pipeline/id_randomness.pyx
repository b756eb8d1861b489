"""Whether trace ids look random: sampling by what is no chance keeps too much of one thing and nothing of another."""
from libc.string cimport memset

cdef enum:
    BLOCK = 1 << 14
    # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6. Eight of these above it, chance goes
    # beyond in one of 10^10 blocks.
    LARGEST = 440


cdef bint _even(const uint32_t* counts) noexcept nogil:
    cdef double expected = BLOCK / 256
    cdef double deviation
    cdef double total = 0
    cdef int i
    for i in range(256):
        deviation = counts[i] - expected
        total += deviation * deviation / expected
    return total <= LARGEST


cdef class Uniformity:
    def __cinit__(self):
        self.random = True

    cdef void note(self, uint64_t randomness) noexcept nogil:
        """One 56-bit randomness that was taken from a trace id."""
        self.high[randomness >> 48 & 0xFF] += 1
        self.next[randomness >> 40 & 0xFF] += 1
        self.count += 1
        if self.count == BLOCK:
            self.random = _even(self.high) and _even(self.next)
            memset(self.high, 0, sizeof(self.high))
            memset(self.next, 0, sizeof(self.next))
            self.count = 0

    def add(self, randomness):
        self.note(randomness)
