"""The memory of decisions: exact, bounded in bytes, first in first out. Each trace id stands in it at most once.

A ring of 32-byte entries and an open-addressing index over it (linear probing, deletion by shifting back, so no tombstones).
Its pages are reserved at once and used as they fill up.
"""
from libc.stdlib cimport calloc, free

from sampler_proxy.otlp.fragments cimport mix

cdef enum:
    SMALLEST = 1024


cdef class Decisions:
    def __cinit__(self, max_bytes, *, seed):
        # 32 bytes an entry, and at most 2 * 4/3 index slots of 4 bytes: below 43 in all.
        cdef uint64_t slots = SMALLEST
        self.room = <uint32_t>min(max(max_bytes // 43, SMALLEST), (1 << 32) - 2)
        while slots * 3 < <uint64_t>self.room * 4:
            slots *= 2
        self.mask = slots - 1
        self.seed = seed
        self.ring = <Decision*>calloc(self.room, sizeof(Decision))
        self.table = <uint32_t*>calloc(slots, sizeof(uint32_t))
        if self.ring == NULL or self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.ring)
        free(self.table)

    @property
    def nbytes(self):
        return self.count * sizeof(Decision) + (self.mask + 1) * sizeof(uint32_t)

    cdef Decision* find(self, const uint64_t* trace_id) noexcept nogil:
        """What was decided, or NULL; valid until the next remember()."""
        cdef uint64_t at = mix(trace_id, self.seed) & self.mask
        cdef Decision* decision
        while self.table[at]:
            decision = &self.ring[self.table[at] - 1]
            if decision.trace_id[0] == trace_id[0] and decision.trace_id[1] == trace_id[1]:
                return decision
            at = (at + 1) & self.mask
        return NULL

    cdef void remember(self, Decision* decision) noexcept nogil:
        """Copies the decision in; the oldest goes where there is no room. The trace must not be in it yet."""
        cdef uint64_t at
        if self.count == self.room:
            self.forget(self.next)
        else:
            self.count += 1
        self.ring[self.next] = decision[0]
        at = mix(decision.trace_id, self.seed) & self.mask
        while self.table[at]:
            at = (at + 1) & self.mask
        self.table[at] = self.next + 1
        self.next = self.next + 1 if self.next + 1 < self.room else 0

    cdef void forget(self, uint32_t position) noexcept nogil:
        cdef uint64_t hole = mix(self.ring[position].trace_id, self.seed) & self.mask
        cdef uint64_t at, home
        while self.table[hole] != position + 1:
            hole = (hole + 1) & self.mask
        at = (hole + 1) & self.mask
        while self.table[at]:
            home = mix(self.ring[self.table[at] - 1].trace_id, self.seed) & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                hole = at
            at = (at + 1) & self.mask
        self.table[hole] = 0
