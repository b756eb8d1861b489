from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Chosen:
    # A trace that its rule keeps, and what became of it in its window.
    void* trace  # the caller's
    uint64_t randomness
    uint64_t threshold  # the rule's; after judge() that with which it leaves
    double size  # what the limit counts of it
    uint32_t position  # of its rule in the file
    uint16_t rule  # its id in the ledger
    uint8_t reason
    uint8_t flags
    bint admitted

cdef class Limit:
    cdef readonly double per_second, floor
    cdef readonly str unit
    cdef Chosen* waiting  # in the window that is open
    cdef readonly uint32_t count
    cdef uint32_t room
    cdef Chosen* judged  # of the last window that was closed: from `next` on they have not been collected
    cdef uint32_t judged_count, judged_room, next
    cdef int64_t opened_ns, paid_ns
    cdef double debt, extra
    cdef double spare  # that windows which were closed early have left
    cdef int add(self, Chosen* chosen, int64_t now_ns) except -1
    cdef void pay(self, int64_t now_ns) noexcept nogil
    cdef void charge(self, double size, int64_t now_ns) noexcept nogil
    cdef void hasten(self, int64_t now_ns) noexcept nogil
    cdef bint withdraw(self, void* trace, Chosen* into) noexcept nogil
    cdef bint due(self, int64_t now_ns) noexcept nogil
    cdef int close(self, int64_t now_ns) except -1
    cdef Chosen* collect(self) noexcept nogil
    cdef void give_back(self) noexcept nogil
    cdef bint collected(self) noexcept nogil
    cdef bint empty(self) noexcept nogil
    cdef uint64_t nbytes(self) noexcept nogil
