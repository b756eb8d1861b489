from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    KEPT = 1
    INCOMPLETE = 2  # it was decided before it can have been whole
    LIMITED = 4  # its rule would have kept it, and the limit did not

cdef struct Decision:
    uint64_t[2] trace_id
    uint64_t threshold
    uint32_t when_s  # monotonic
    uint16_t rule  # its id in the ledger
    uint8_t reason
    uint8_t flags  # KEPT, INCOMPLETE, LIMITED

cdef class Decisions:
    cdef Decision* ring
    cdef uint32_t* table  # position in the ring + 1; 0: free
    cdef uint64_t mask, seed
    cdef uint32_t room, next
    cdef readonly uint32_t count
    cdef Decision* find(self, const uint64_t* trace_id) noexcept nogil
    cdef void remember(self, Decision* decision) noexcept nogil
    cdef void forget(self, uint32_t position) noexcept nogil
