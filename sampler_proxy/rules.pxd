# cython: language_level=3
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from sampler_proxy._conditions cimport Condition, ConditionList, Programs, Regexes
from sampler_proxy._wire cimport Plan
from sampler_proxy.fragments cimport Fragment

cdef class RuleSet:
    cdef readonly Plan plan
    cdef readonly tuple names
    cdef readonly uint32_t count
    cdef ConditionList trace_conditions
    cdef Programs programs
    cdef Regexes regexes
    cdef uint64_t* thresholds
    cdef uint16_t* ids  # of the rules in the ledger
    cdef uint64_t* matched  # filter words of the trace that is being decided
    cdef signed char* known  # its trace conditions: -1 not asked yet
    cdef uint32_t first_match(self, Fragment* first) noexcept
    cdef bint trace_condition(self, uint32_t number, Fragment* first) noexcept

cdef uint64_t randomness_of(Fragment* first) noexcept nogil
