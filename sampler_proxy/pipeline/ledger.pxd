"""Declares the ledger: every counter of a pipeline, and the reasons of decisions."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Scanned

cdef enum:  # the trigger of a decision; from MEMORY on, the trace cannot be known to be whole
    ROOT
    WAIT
    SIZE
    EARLY
    MEMORY
    SHUTDOWN
    LATE  # decided anew by late spans; never counted as a decision
    REASON_COUNT

cdef enum:  # why a request is refused, as far as the pipeline itself does so; other reasons are numbered as they come
    MALFORMED
    DRAINING
    TOO_LARGE
    NO_ROOM
    OUT_OF_MEMORY
    EFFORT

cdef enum:
    BUCKETS = 32  # room; metrics.py defines fewer
    MAX_TRANSPORTS = 8
    MAX_REFUSALS = 32

cdef struct Histogram:
    uint64_t[BUCKETS] counts  # the bucket behind the bounds has no bound
    int64_t[BUCKETS] bounds
    int bound_count
    double sum

cdef struct TransportCounters:
    uint64_t requests, accepted, spans  # all that were read or refused; of these, those taken; their spans
    uint64_t[MAX_REFUSALS] refused  # by reason

cdef struct RuleCounters:
    uint64_t sampled_out, kept  # spans
    uint64_t[2 * REASON_COUNT] decided  # traces, at REASON_COUNT * kept + reason
    uint64_t limited_traces, limited_spans  # dropped by the limit, though the rule would have kept them
    uint64_t revived  # traces whose late spans this rule has had kept

cdef struct Totals:
    TransportCounters[MAX_TRANSPORTS] received_
    uint64_t invalid_trace_ids, invalid_span_ids, legacy_spans
    uint64_t[3] unknown_fields  # of requests, of ResourceSpans, of ScopeSpans
    uint64_t[2] late_spans  # dropped, kept
    uint64_t late_would_keep, unequal_thresholds, rootless
    Histogram delays_ns, request_sizes

cdef int set_bounds(Histogram* histogram, bounds, double unit) except -1
cdef void observe(Histogram* histogram, int64_t value) noexcept nogil
cdef object value_of(Histogram* histogram, double unit)

cdef class Ledger:
    cdef dict rule_ids
    cdef list rule_names
    cdef RuleCounters* rules  # by a rule's id; rule_id() may move the array
    cdef list transports, refusals  # their names, by number
    cdef Totals totals
    cdef void received(self, uint32_t transport, uint64_t size) noexcept
    cdef void taken(self, uint32_t transport, Scanned scanned) noexcept
    cdef void taken_back(self, uint32_t transport, uint32_t spans) noexcept
    cdef void refused(self, uint32_t transport, uint32_t reason) noexcept
    cdef uint64_t refused_for(self, uint32_t reason) noexcept
    cdef void decided(self, uint16_t rule, bint kept, uint8_t reason, int64_t delay_ns) noexcept nogil
    cdef Ledger copy(self)
    cdef dict values(self, bint limited)
