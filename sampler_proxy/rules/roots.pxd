"""Declares the root of a trace, and what finds it."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Fragment, Group, SpanWalk
from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.rules.effort cimport Effort
from sampler_proxy.rules.slices cimport Slice

cdef enum RootKind:
    NOT_SOUGHT
    NO_ROOT  # it has not come
    PARENTLESS  # it has no parent
    LOCAL  # its parent is in another process, and not among the spans of the trace
    ELSEWHERE  # of late spans: it was among the spans before them

cdef struct Root:
    # The root of a trace. With PARENTLESS and LOCAL its place:
    RootKind kind
    Group* group
    cbytes body  # `size` bytes
    uint32_t size
    uint64_t start, end  # ns since the epoch

cdef struct Kin:
    # A span, as far as its place in the trace goes.
    Root place
    uint64_t span_id, parent_id  # as big-endian numbers
    bint remote  # the parent is in another process

cdef bytes span_id_of(Root* root)


cdef class RootFinder:
    cdef uint64_t seed
    cdef Kin* kin  # the spans of the trace that was read last, in order of arrival
    cdef uint32_t count
    cdef uint64_t* ids  # their ids, by linear probing; 0: free
    cdef uint64_t mask  # slots in use - 1: at least twice the spans, so that probing ends
    cdef Effort effort
    cdef bint beyond  # of the trace that find() was asked about last, not all spans have been read
    cdef uint64_t room  # of `ids`, in slots; that of `kin` is half of it
    cdef int find(self, Fragment* trace, Root* root) except -1
    cdef bint is_whole(self, Fragment* trace, Root* root) except -1
    cdef bint holds(self, Slice* parent_id) noexcept nogil
    cdef int read(self, Fragment* trace) except -1
    cdef int reserve(self, uint64_t spans) except -1
    cdef bint knows(self, uint64_t span_id) noexcept nogil
