"""Declares the outlets: the destinations of kept traces, with their backlogs."""
from libc.stdint cimport uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport KeptTrace
from sampler_proxy.pipeline.ledger cimport Ledger

cdef class Outlets:
    cdef list outlets
    cdef list archives  # the outlets that take traces which were sampled out, too
    cdef bint archiving  # there are any
    cdef dict routes  # id of a rule -> list of the outlets that its kept traces go to; where there is none: all
    cdef Ledger ledger
    cdef uint64_t backlog_bytes, backlog_spans  # of kept traces that some destination has not taken yet
    cdef int deliver(self, KeptTrace kept) except -1
    cdef bint flush(self) except -1
    cdef bint blocked(self) except -1
    cdef int withdraw(self, KeptTrace kept) except -1
    cdef list taking(self, uint32_t rule, bint sampled_out)
    cdef int left(self, KeptTrace kept) noexcept
    cdef list waiting(self, bytes trace_id)
