from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.rules.conditions cimport ConditionList, RegexCache, Value
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.programs cimport Programs
from sampler_proxy.rules.trace_matcher cimport Rows
from sampler_proxy.otlp.fragments cimport Fragment

cdef enum:
    EARLY_BITS = 1  # a rule that may decide early, by what stands in the fragments
    EARLY_QUERY = 2  # the same, but it has to read the spans again

cdef enum:
    TRACES
    SPANS
    BYTES

cdef class RuleSet:
    cdef readonly Plan plan
    cdef readonly tuple names
    cdef readonly uint32_t count
    cdef ConditionList trace_conditions
    cdef list queries  # of _rows.Node
    cdef uint32_t asked  # trace conditions and queries
    cdef Programs programs
    cdef RegexCache regexes
    cdef Rows rows
    cdef bint rows_read
    cdef readonly list controllers  # rate.Controller, by rule
    cdef list readers  # TraceKeyReader of those that are keyed, by rule
    cdef uint8_t* always  # by rule: it keeps everything
    cdef uint8_t* units  # what a rule's rate counts, by rule
    cdef uint16_t* ids  # of the rules in the ledger
    cdef uint64_t* early_filters  # bit by filter: a rule that may decide early asks for it and nothing else
    cdef uint8_t* early  # EARLY_BITS or EARLY_QUERY, by rule; 0 where early_filters say it all
    cdef uint32_t early_count  # rules behind this one never decide early
    cdef bint early_queries
    cdef uint64_t* matched  # filter words of the trace that is being decided
    cdef signed char* known  # its trace conditions and queries: -1 not asked yet
    cdef uint8_t[32] trace_hex
    cdef int ask_about(self, Fragment* first) except -1
    cdef uint64_t threshold(self, uint32_t rule, Fragment* first, uint32_t spans, uint64_t randomness, int64_t now_ns) noexcept
    cdef uint32_t first_match(self, Fragment* first) except? 0xFFFFFFFF
    cdef bint matches_early(self, Fragment* first, bint with_queries) except -1
    cdef bint run(self, uint32_t program, Fragment* first) except -1
    cdef bint ask(self, uint32_t number, Fragment* first) except -1
    cdef bint query(self, uint32_t number, Fragment* first) except -1
    cdef int read_rows(self, Fragment* first) except -1
    cdef void read_trace(self, int field, Fragment* first, Value* value) noexcept

cdef uint64_t randomness_of(Fragment* first) noexcept nogil
cdef double size_of(uint8_t unit, Fragment* first, uint32_t spans) noexcept nogil
