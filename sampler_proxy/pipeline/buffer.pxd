from libc.stdint cimport int64_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelopes, Fragment

cdef enum:
    SET_ASIDE = 0xFFFFFFFF  # Trace.asked: it is chosen, and waits for what becomes of it

cdef struct Trace:
    Fragment* first  # owned, as are those behind it
    Fragment* last
    Trace* older  # by arrival of the first span; of those that are set aside, in no order
    Trace* newer
    Trace* rooted_before  # by arrival of the root
    Trace* rooted_after
    int64_t first_ns
    int64_t root_ns  # -1: no root yet
    uint64_t cost  # of the fragments
    uint32_t spans
    uint32_t asked  # spans when an early decision was last looked for

cdef struct Place:
    uint64_t hash
    Trace* trace  # NULL: free

cdef class Buffer:
    cdef readonly Envelopes envelopes
    cdef uint64_t seed
    cdef Place* places
    cdef uint64_t mask
    cdef Trace* oldest
    cdef Trace* newest
    cdef Trace* first_rooted
    cdef Trace* last_rooted
    cdef Trace* aside
    cdef uint64_t held  # by fragments and traces
    cdef readonly uint64_t traces
    cdef readonly uint64_t spans
    cdef readonly int64_t wait_ns, wait_after_root_ns
    cdef uint64_t nbytes_(self) noexcept
    cdef uint64_t empty_cost(self) noexcept
    cdef Trace* find(self, const uint64_t* trace_id) noexcept nogil
    cdef int grow(self) except -1
    cdef Trace* add(self, Trace* trace, Fragment* fragment, int64_t now_ns) except NULL
    cdef Trace* due(self, int64_t now_ns, bint* has_root) noexcept nogil
    cdef void unlink(self, Trace* trace) noexcept nogil
    cdef void set_aside(self, Trace* trace) noexcept nogil
    cdef void remove(self, Trace* trace) noexcept
