"""Declares the memory of decisions: a ring of entries, found by a hash table. `decisions.pyi` is the manual."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    KEPT = 1
    INCOMPLETE = 2  # decided before the trace can have been whole
    LIMITED = 4  # dropped by the limit, though its rule would have kept it
    ROOTLESS = 16  # no root was among its spans
    HELD_BACK = 8  # a rule before was kept from it by what the trace holds: RuleSet.held_back

cdef struct Decision:
    uint64_t[2] trace_id
    uint64_t threshold
    uint64_t min_start, max_end  # of the usable times of its spans so far, ns since the epoch; 0, 0: there are none
    uint32_t when_s  # monotonic time of the decision
    uint16_t rule  # the rule's id in the ledger
    uint8_t reason  # as the ledger numbers them
    uint8_t flags  # KEPT, INCOMPLETE, LIMITED, HELD_BACK, ROOTLESS

cdef class Decisions:
    cdef Decision* ring  # `room` entries, overwritten round robin
    cdef uint32_t* table  # position in the ring + 1; 0: free
    cdef uint64_t mask, seed  # number of the table's slots, a power of two, less 1; seed of its hash
    cdef uint32_t room, next  # entries; position of the next one to be written
    cdef readonly uint32_t count
    cdef Decision* find(self, const uint64_t* trace_id) noexcept nogil
    cdef void remember(self, Decision* decision) noexcept nogil
    cdef void evict(self, uint32_t position) noexcept nogil
