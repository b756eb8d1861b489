"""Declares the buffer and its traces: a hash table, and lists by age. `buffer.pyi` is the manual."""
cimport cython
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelopes, Fragment

cdef extern from *:
    # Bit fields, which Cython cannot declare: a Trace is counted in memory, and a flag of its own would make it larger.
    """
    typedef struct {
        unsigned mark : 30;
        unsigned only_remote : 1;
        unsigned in_limit_window : 1;
    } sampler_proxy_trace_state;
    """
    ctypedef struct TraceState "sampler_proxy_trace_state":
        # The trace's span count at the last early check that read its spans again; in the limit's window, the place of
        # its candidate among those of the window when that was, or is, open.
        uint32_t mark
        bint only_remote  # no root has come, but a span whose parent is in another process, and may never come
        bint in_limit_window  # kept by its rule, and a candidate in the limit's open or closed window

cdef struct Trace:
    Fragment* fragments  # the first of a chain, all owned; it has absorbed the times and filter words of the others
    Fragment* last_fragment
    Trace* older  # neighbour by arrival of the first span; in the limit's window, neighbour in no order
    Trace* newer
    Trace* rooted_before  # neighbour by root_ns
    Trace* rooted_after
    int64_t first_ns  # arrival of the first span
    int64_t root_ns  # when the wait after the root began; -1: it has not, or was broken off
    uint64_t cost  # bytes of the fragments
    uint32_t spans
    TraceState state

cdef struct TraceSlot:
    uint64_t hash
    Trace* trace  # NULL: free


@cython.final
cdef class Buffer:
    cdef readonly Envelopes envelopes
    cdef uint64_t seed  # of the hash table
    cdef TraceSlot* slots
    cdef uint64_t mask  # number of slots, a power of two, less 1
    cdef Trace* oldest  # both ends of the list by arrival of the first span
    cdef Trace* newest
    cdef Trace* first_rooted  # both ends of the list by root_ns
    cdef Trace* last_rooted
    cdef Trace* waiting  # list of the traces in the limit's window, in no order
    cdef uint64_t trace_bytes  # of fragments and traces
    cdef readonly uint64_t traces
    cdef readonly uint64_t spans
    cdef readonly int64_t wait_ns, wait_after_root_ns
    cdef uint64_t nbytes_(self) noexcept
    cdef uint64_t empty_cost(self) noexcept
    cdef Trace* find(self, const uint64_t* trace_id) noexcept nogil
    cdef int grow(self) except -1
    cdef Trace* add(self, Trace* trace, Fragment* fragment, int64_t now_ns) except NULL
    cdef Trace* due(self, int64_t now_ns, bint* has_root) noexcept nogil
    cdef void note_root(self, Trace* trace, uint16_t flags, int64_t now_ns) noexcept nogil
    cdef void break_off(self, Trace* trace) noexcept nogil
    cdef void unlink(self, Trace* trace) noexcept nogil
    cdef void move_to_window(self, Trace* trace) noexcept nogil
    cdef void remove(self, Trace* trace, bint fragments_stay) noexcept
