from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.rules.conditions cimport Value
from sampler_proxy.rules.span_matcher cimport Facts, SpanMatcher
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.otlp.fragments cimport Fragment

cdef struct Row:
    uint64_t span_id, parent_id
    int32_t parent  # the row of its parent; -1: has none, or it has not arrived
    bint has_parent

cdef class Rows:
    cdef Plan plan
    cdef SpanMatcher matcher
    cdef Row* rows
    cdef uint64_t* bits  # plan.filter_words for each row
    cdef Value* arguments  # plan.arithmetic.argument_count for each row: numbers or V_NIL
    cdef uint64_t* matched  # filters that any span matches, those that arrived twice included
    cdef uint32_t count, room
    cdef int32_t* table  # row + 1 by span id
    cdef uint32_t table_mask
    cdef uint64_t seed  # of its hash
    cdef int read(self, Fragment* first) except -1
    cdef int reserve(self) except -1
    cdef int add(self, Facts* facts) except -1
    cdef int32_t find(self, uint64_t span_id) noexcept nogil
    cdef void tell(self, uint32_t trace_condition, bint holds) noexcept
    cdef bint matches(self, uint32_t row, uint32_t filter) noexcept nogil

cdef class Node:
    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL

cdef Node build(node, list arguments)
