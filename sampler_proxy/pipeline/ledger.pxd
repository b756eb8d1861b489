from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:  # what triggered a decision; those from MEMORY on come before a trace can be known to be whole
    ROOT
    WAIT
    SIZE
    EARLY
    MEMORY
    SHUTDOWN
    REASON_COUNT

cdef enum:
    DELAY_BUCKETS = 32

cdef struct RuleCounters:
    uint64_t sampled_out, kept  # spans
    uint64_t[2 * REASON_COUNT] decided  # traces, at REASON_COUNT * kept + reason
    uint64_t limited_traces, limited_spans  # that the rule would have kept, and the limit did not

cdef class Ledger:
    cdef dict rule_ids
    cdef list rule_names
    cdef RuleCounters* rules  # by a rule's id; they move when there are more
    cdef dict received_spans, received_requests, refused_requests
    cdef uint64_t invalid_trace_ids, invalid_span_ids
    cdef uint64_t[2] late_spans  # dropped, kept
    cdef uint64_t late_would_keep, unequal_thresholds
    cdef uint64_t[DELAY_BUCKETS] delays
    cdef int64_t[DELAY_BUCKETS] delay_bounds_ns
    cdef int delay_bucket_count
    cdef double delay_sum_s
    cdef object request_sizes
    cdef int received(self, str transport, uint64_t size) except -1
    cdef int taken(self, str transport, uint32_t spans, uint32_t invalid_trace_ids, uint32_t invalid_span_ids) except -1
    cdef int refused(self, str reason) except -1
    cdef void decided(self, uint16_t rule, bint kept, uint8_t reason, int64_t delay_ns) noexcept nogil
    cdef dict values(self, bint limited)
