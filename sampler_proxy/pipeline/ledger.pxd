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

cdef enum:
    DELAY_BUCKETS = 32  # room; metrics.py defines fewer

cdef struct RuleCounters:
    uint64_t sampled_out, kept  # spans
    uint64_t[2 * REASON_COUNT] decided  # traces, at REASON_COUNT * kept + reason
    uint64_t limited_traces, limited_spans  # dropped by the limit, though the rule would have kept them
    uint64_t revived  # traces whose late spans this rule has had kept

cdef class Ledger:
    cdef dict rule_ids
    cdef list rule_names
    cdef RuleCounters* rules  # by a rule's id; rule_id() may move the array
    cdef dict received_spans, received_requests, refused_requests  # by transport; the last by reason
    cdef uint64_t invalid_trace_ids, invalid_span_ids
    cdef uint64_t[3] unknown_fields  # of requests, of ResourceSpans, of ScopeSpans
    cdef uint64_t[2] late_spans  # dropped, kept
    cdef uint64_t late_would_keep, unequal_thresholds, rootless
    cdef uint64_t[DELAY_BUCKETS] delays  # histogram of decision delays; the bucket behind the bounds has no bound
    cdef int64_t[DELAY_BUCKETS] delay_bounds_ns
    cdef int delay_bucket_count
    cdef double delay_sum_s
    cdef object request_sizes
    cdef int received(self, str transport, uint64_t size) except -1
    cdef int taken(self, str transport, Scanned scanned) except -1
    cdef int taken_back(self, str transport, uint32_t spans) except -1
    cdef int refused(self, str reason) except -1
    cdef void decided(self, uint16_t rule, bint kept, uint8_t reason, int64_t delay_ns) noexcept nogil
    cdef dict values(self, bint limited)
