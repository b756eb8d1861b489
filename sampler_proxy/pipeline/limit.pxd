"""Declares the limit and its candidates. `limit.pyi` is the manual."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Candidate:
    # A trace that its rule keeps, waiting in the window; after close() the outcome, too.
    void* trace  # the caller's; never dereferenced here
    uint64_t randomness
    uint64_t threshold  # the rule's; after close() the one with which the trace leaves
    double size  # in the limit's unit
    uint32_t position  # of the rule in the file; the first has precedence
    uint16_t rule  # the rule's id in the ledger
    uint8_t reason  # trigger of the decision, as the ledger numbers it
    uint8_t flags  # of the decision: decisions.pxd
    uint8_t by_threshold  # its rule keeps it by a threshold, so that late spans may still revive the trace
    uint8_t admitted
    uint8_t gone  # it has left the closed window before its turn
    uint32_t number  # its place in the window when that was open

cdef struct RuleDemand:
    # The candidates of one rule in the closed window.
    uint32_t start, end  # a run of Limit.closed
    double demand, granted  # sum of their sizes; guaranteed part of the budget

cdef class Limit:
    cdef readonly double per_second, floor
    cdef readonly str unit
    cdef Candidate* waiting  # candidates of the open window
    cdef readonly uint32_t count  # of these
    cdef uint32_t room
    cdef Candidate* closed  # candidates of the last closed window; from `next` on not collected yet
    cdef uint32_t closed_count, closed_room, next
    cdef uint32_t* places  # of the closed window's candidates, by their numbers
    cdef uint32_t place_count  # of these
    cdef int64_t opened_ns, paid_ns  # start of the open window; time up to which debts are paid
    cdef double debt, extra  # owed by the next windows; granted to the next one; both in the limit's unit
    cdef double spare  # unspent budget of windows that were closed early
    cdef int reserve(self) except -1
    cdef void add(self, Candidate* candidate, int64_t now_ns) noexcept nogil
    cdef void pay(self, int64_t now_ns) noexcept nogil
    cdef void charge(self, double size, int64_t now_ns) noexcept nogil
    cdef void hasten(self, int64_t now_ns) noexcept nogil
    cdef Candidate* candidate_of(self, void* trace, uint32_t number) noexcept nogil
    cdef Candidate* closed_candidate_of(self, void* trace, uint32_t number) noexcept nogil
    cdef void* withdraw(self, Candidate* found) noexcept nogil
    cdef void strike_out(self, Candidate* found) noexcept nogil
    cdef bint due(self, int64_t now_ns) noexcept nogil
    cdef int close(self, int64_t now_ns) except -1
    cdef uint32_t sum_demands(self, RuleDemand* rules) noexcept nogil
    cdef Candidate* collect(self) noexcept nogil
    cdef bint collected(self) noexcept nogil
    cdef bint empty(self) noexcept nogil
    cdef uint64_t nbytes(self) noexcept nogil
