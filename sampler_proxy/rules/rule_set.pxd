"""Declares a rule set in native form. `rule_set.pyi` is the manual."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Fragment
from sampler_proxy.rules.conditions cimport ConditionList, RegexCache
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.programs cimport Programs
from sampler_proxy.rules.roots cimport Root, RootFinder
from sampler_proxy.rules.span_table cimport SpanTable

cdef enum:
    EARLY_BITS = 1  # a rule that may decide early, by the filter bits in the fragments
    EARLY_QUERY = 2  # the same, but it has to read the spans again

cdef enum:
    LATE_TOLD = 1  # late spans may tell that the rule holds
    LATE_EXCLUDES = 2  # unless something that an earlier span of their trace may have had

cdef enum:
    NO_RULE = 0xFFFFFFFE

cdef enum:
    TRACES
    SPANS
    BYTES

cdef struct TraceAnswers:
    # What is known of one trace, as far as rules have asked. Only for one trace at a time: the arrays are the rule
    # set's, and the next trace to begin takes them over, as it does the table.
    Fragment* trace
    uint64_t* matched  # bit by filter: some span matches
    signed char* answers  # by question (trace conditions, then queries): 1, 0, or -1 if not asked yet
    bint table_read  # RuleSet.table has the trace's spans

cdef class RuleSet:
    cdef readonly Plan plan
    cdef readonly tuple names
    cdef readonly uint32_t count  # of rules
    cdef ConditionList trace_conditions
    cdef list queries  # of trace_matcher.Node
    cdef uint32_t question_count  # trace conditions and queries
    cdef Programs programs  # of the rules, then the guards of the queries
    cdef RegexCache regexes  # of the trace conditions
    cdef SpanTable table
    cdef RootFinder roots
    cdef Root root  # of the trace that was begun last, as far as it has been sought
    cdef bint root_is_elsewhere  # the spans are late ones, and their trace had a root before
    cdef Fragment* whole  # is_whole() has found this trace's root; NULL: it is not known to be unchanged
    cdef readonly list controllers  # rate.Controller, by rule
    cdef list comparing  # (rule, numbers of its conditions on attributes), for rules that have any
    cdef list readers  # by rule: the TraceKeyReader of a keyed controller, else None
    cdef uint8_t* always  # by rule: it keeps everything
    cdef uint8_t* units  # by rule: what its rate counts
    cdef uint16_t* ids  # by rule: its number in the ledger
    cdef uint64_t* early_filters  # bit by filter: a rule that may decide early asks for it and nothing else
    cdef uint8_t* early  # by rule: EARLY_BITS or EARLY_QUERY; 0 where early_filters say it all
    cdef uint32_t early_count  # rules behind this one never decide early
    cdef bint early_queries  # some rule has EARLY_QUERY
    cdef uint8_t* late  # by rule: LATE_TOLD, LATE_EXCLUDES; 0: late spans do not tell whether it holds
    cdef uint8_t* revivable  # by rule: a rule before it keeps everything, and late spans may tell that it holds
    cdef bint excluding  # some rule has LATE_EXCLUDES
    cdef readonly bint beyond  # of the trace asked about last, not all has been looked at: its answer is what is known
    cdef readonly uint64_t partly_read  # traces of which first_match() has said so
    cdef uint64_t steps  # of effort, that nobody else counts
    cdef bint held_back  # by first_match(): see there
    cdef uint32_t first_exclusion  # number of the first rule's exclusions among the programs
    cdef uint64_t* matched  # room for TraceAnswers.matched
    cdef signed char* answers  # room for TraceAnswers.answers
    cdef uint8_t[32] trace_hex  # the trace id, for values that point to it
    cdef int allocate(self) except -1
    cdef int set_keeps(self, keeps, uint64_t seed) except -1
    cdef int find_early_rules(self, list programs, monotone) except -1
    cdef int find_comparing(self, compiled) except -1
    cdef int find_late_rules(self, compiled) except -1
    cdef uint64_t effort_(self) noexcept
    cdef void note_beyond(self) noexcept
    cdef void note_root_beyond(self) noexcept
    cdef uint32_t first_match(self, Fragment* trace) except? 0xFFFFFFFF
    cdef uint32_t position_of(self, uint16_t rule) noexcept nogil
    cdef uint32_t first_late(self, Fragment* late, uint32_t before, bint* held_back, bint rootless) except? 0xFFFFFFFF
    cdef bint is_whole(self, Fragment* trace) except -1
    cdef int find_root(self, Fragment* trace) except -1
    cdef bint matches_early(self, Fragment* trace, bint with_queries) except -1
    cdef uint64_t threshold(
        self, uint32_t rule, Fragment* trace, uint32_t spans, uint64_t randomness, int64_t now_ns
    ) noexcept
    cdef int begin_trace(self, Fragment* trace, TraceAnswers* answers) except -1
    cdef void clear_answers(self, Fragment* trace, TraceAnswers* answers) noexcept
    cdef bint run(self, uint32_t program, TraceAnswers* answers) except -1
    cdef bint answer(self, uint32_t question, TraceAnswers* answers) except -1
    cdef bint query(self, uint32_t number, TraceAnswers* answers) except -1
    cdef int read_table(self, TraceAnswers* answers) except -1

cdef uint64_t randomness_of(Fragment* trace) noexcept nogil
cdef double size_of(uint8_t unit, Fragment* trace, uint32_t spans) noexcept nogil
