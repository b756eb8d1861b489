"""Declares the table of the spans of a trace: parents, filter bits and arguments by row."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Fragment
from sampler_proxy.rules.conditions cimport Value
from sampler_proxy.rules.effort cimport Effort
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.roots cimport Root, RootFinder
from sampler_proxy.rules.span_matcher cimport Facts, SpanMatcher

cdef struct Row:
    uint64_t span_id  # as loaded from the 8 bytes
    uint64_t parent_id  # the same; a hash of it where it has no 8 bytes
    int32_t parent  # the row of the parent; -1: there is none, or it has not arrived
    bint has_parent

cdef class SpanTable:
    cdef Plan plan
    cdef SpanMatcher matcher
    cdef Effort* effort  # the matcher's
    cdef bint beyond  # the table does not hold all of the trace, or not all queries on it were answered
    cdef Row* rows  # the first `count` of `capacity`, in order of arrival
    cdef uint64_t* bits  # plan.filter_words for each row: what any span of its id matches
    cdef Value* arguments  # plan.arithmetic.argument_count for each row, of the last span of its id: numbers or V_NIL
    cdef uint64_t* matched  # filters that any span matches, those that arrived twice included
    cdef uint32_t count, capacity
    cdef int32_t* index  # row + 1, by span id; 0: free
    cdef uint32_t index_mask  # slots of the index - 1: at least twice the spans, so that probing ends
    cdef uint64_t seed  # of the index's hash
    cdef void set_trace_condition(self, uint32_t number, bint holds) noexcept
    cdef int read(self, Fragment* trace, RootFinder roots, Root* root) except -1
    cdef int clear(self, uint64_t spans) except -1
    cdef int reserve(self) except -1
    cdef int add(self, Facts* facts) except -1
    cdef void read_arguments(self, uint32_t row, Facts* facts) noexcept nogil
    cdef int32_t find(self, uint64_t span_id) noexcept nogil
    cdef bint matches(self, uint32_t row, uint32_t filter) noexcept nogil
