"""Remembers decisions: exact, bounded in bytes, evicting first in, first out. A trace id stands in it at most once.

A ring buffer of 48-byte entries, and a hash table of their positions with open addressing: linear probing, deletion by
backward shift, so no tombstones (the same algorithm over other entries: buffer.pyx, rules/key_table.pyx). Both have
their final size from the start; the operating system gives them pages as they fill up.
"""
from libc.stdlib cimport calloc, free

from sampler_proxy.otlp.fragments cimport mix

cdef enum:
    MIN_ENTRIES = 1024  # whatever max_bytes says


cdef class Decisions:
    def __cinit__(self, max_bytes, *, seed):
        # 48 bytes an entry, and at most 2 * 4/3 index slots of 4 bytes: below 59 in all.
        cdef uint64_t slots = MIN_ENTRIES
        self.room = <uint32_t>min(max(max_bytes // 59, MIN_ENTRIES), (1 << 32) - 2)
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
        """Look up the decision on a trace; NULL: unknown or evicted. The pointer is valid until the next remember()."""
        cdef uint64_t at = mix(trace_id, self.seed) & self.mask
        cdef Decision* decision
        while self.table[at]:
            decision = &self.ring[self.table[at] - 1]
            if decision.trace_id[0] == trace_id[0] and decision.trace_id[1] == trace_id[1]:
                return decision
            at = (at + 1) & self.mask
        return NULL

    cdef void remember(self, Decision* decision) noexcept nogil:
        """Copy a decision in, evicting the oldest where there is no room. The trace must not stand in it yet."""
        cdef uint64_t at
        if self.count == self.room:
            self.evict(self.next)
        else:
            self.count += 1
        self.ring[self.next] = decision[0]
        at = mix(decision.trace_id, self.seed) & self.mask
        while self.table[at]:
            at = (at + 1) & self.mask
        self.table[at] = self.next + 1
        self.next = self.next + 1 if self.next + 1 < self.room else 0

    cdef void evict(self, uint32_t position) noexcept nogil:
        """Take the entry at a position of the ring out of the hash table; the caller overwrites the entry itself."""
        cdef uint64_t hole = mix(self.ring[position].trace_id, self.seed) & self.mask
        cdef uint64_t at, home
        while self.table[hole] != position + 1:
            hole = (hole + 1) & self.mask
        # Backward shift: an entry that probed past the hole moves into it and leaves the next hole.
        at = (hole + 1) & self.mask
        while self.table[at]:
            home = mix(self.ring[self.table[at] - 1].trace_id, self.seed) & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                hole = at
            at = (at + 1) & self.mask
        self.table[hole] = 0
