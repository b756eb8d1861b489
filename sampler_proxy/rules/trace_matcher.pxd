"""Declares the evaluation of queries on the spans of a trace."""
from libc.stdint cimport uint8_t, uint32_t

from sampler_proxy.rules.span_table cimport SpanTable

cdef class Node:
    cdef uint32_t weight  # half nanoseconds that selecting costs for each row, more or less
    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL

cdef Node build_query(node, list arguments)
cdef bint selects_any(Node query, SpanTable table) except -1
