"""Counts every request, span and decision of a pipeline, in plain integers. Used under the pipeline's lock.

The ledger decides nothing. A rule is known by a number, which its name keeps until the process ends: counters go on
when rules are replaced.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from sampler_proxy import metrics

REASONS = ("root", "wait", "size", "early", "memory", "shutdown", "late")

cdef enum:
    MAX_RULE_NAMES = 1 << 16  # a Decision holds 16 bits of it


cdef class Ledger:
    def __cinit__(self):
        self.rule_ids = {}
        self.rule_names = []
        self.received_spans = {}
        self.received_requests = {}
        self.refused_requests = {}
        bounds = metrics.DECISION_DELAY_SECONDS.buckets
        self.delay_bucket_count = len(bounds)
        for i, bound in enumerate(bounds):
            self.delay_bounds_ns[i] = int(bound * 1e9)
        self.request_sizes = metrics.HistogramData(metrics.REQUEST_SIZE_BYTES)

    def __dealloc__(self):
        free(self.rules)

    def rule_id(self, name):
        """Return the number of a rule's name, a new one for a new name.

        Raises ValueError beyond 65 536 different names, and MemoryError.
        """
        if name not in self.rule_ids:
            if len(self.rule_names) == MAX_RULE_NAMES:
                raise ValueError(
                    "too many different rule names since the start: restart to forget those of old rule sets"
                )
            rules = realloc(self.rules, (len(self.rule_names) + 1) * sizeof(RuleCounters))
            if rules == NULL:
                raise MemoryError
            self.rules = <RuleCounters*>rules
            memset(&self.rules[len(self.rule_names)], 0, sizeof(RuleCounters))
            self.rule_ids[name] = len(self.rule_names)
            self.rule_names.append(name)
        return self.rule_ids[name]

    cdef int received(self, str transport, uint64_t size) except -1:
        """Count a request that was read whole, and its size in bytes; taken() or refused() follows."""
        self.received_requests[transport] = self.received_requests.get(transport, 0) + 1
        self.request_sizes.observe(size)
        return 0

    cdef int taken(self, str transport, Scanned scanned) except -1:
        """Count the spans of an accepted request, and what the scan has left out of it."""
        self.received_spans[transport] = self.received_spans.get(transport, 0) + scanned.spans
        self.invalid_trace_ids += scanned.invalid_trace_ids
        self.invalid_span_ids += scanned.invalid_span_ids
        self.unknown_fields[0] += scanned.unknown_of_request
        self.unknown_fields[1] += scanned.unknown_of_resource_spans
        self.unknown_fields[2] += scanned.unknown_of_scope_spans
        return 0

    cdef int taken_back(self, str transport, uint32_t spans) except -1:
        """Take back what taken() has counted: nobody had memory for these spans."""
        self.received_spans[transport] -= spans
        return 0

    cdef int refused(self, str reason) except -1:
        """Count a refused request."""
        self.refused_requests[reason] = self.refused_requests.get(reason, 0) + 1
        return 0

    def refused_unread(self, transport, reason):
        """Count a request that was refused before it was read whole."""
        self.received_requests[transport] = self.received_requests.get(transport, 0) + 1
        self.refused(reason)

    cdef void decided(self, uint16_t rule, bint kept, uint8_t reason, int64_t delay_ns) noexcept nogil:
        """Count a decided trace, and the time since its first span in the histogram of delays."""
        cdef int i = 0
        self.rules[rule].decided[REASON_COUNT * kept + reason] += 1
        while i < self.delay_bucket_count and delay_ns > self.delay_bounds_ns[i]:
            i += 1
        self.delays[i] += 1
        self.delay_sum_s += <double>delay_ns / 1e9

    cdef dict values(self, bint limited):
        """Return the value of every metric that is counted here.

        `limited`: a limit is set, so that zero is shown, too, for what the limit took from a rule.
        """
        cdef uint32_t i, j, k
        sampled_out = {}
        kept = {}
        decided = {}
        revived = {}
        limited_traces = {}
        limited_spans = {}
        for i in range(<uint32_t>len(self.rule_names)):
            name = self.rule_names[i]
            sampled_out[name,] = self.rules[i].sampled_out
            kept[name,] = self.rules[i].kept
            if self.rules[i].revived:
                revived[name,] = self.rules[i].revived
            if limited or self.rules[i].limited_traces:
                limited_traces[name,] = self.rules[i].limited_traces
                limited_spans[name,] = self.rules[i].limited_spans
            for j in range(2):
                for k in range(REASON_COUNT):
                    if self.rules[i].decided[REASON_COUNT * j + k]:
                        decided[name, "keep" if j else "drop", REASONS[k]] = self.rules[i].decided[REASON_COUNT * j + k]
        counts = tuple([self.delays[i] for i in range(self.delay_bucket_count + 1)])
        return {
            metrics.SPANS_RECEIVED: {(transport,): n for transport, n in self.received_spans.items()},
            metrics.SPANS_SAMPLED_OUT: sampled_out,
            metrics.SPANS_KEPT: kept,
            metrics.REQUESTS_RECEIVED: {(transport,): n for transport, n in self.received_requests.items()},
            metrics.REQUESTS_REFUSED: {(reason,): n for reason, n in self.refused_requests.items()},
            metrics.SPANS_REJECTED_INPUT: {("trace_id",): self.invalid_trace_ids, ("span_id",): self.invalid_span_ids},
            metrics.UNKNOWN_FIELDS_DROPPED: {
                ("request",): self.unknown_fields[0], ("resource_spans",): self.unknown_fields[1],
                ("scope_spans",): self.unknown_fields[2],
            },
            metrics.REQUEST_SIZE_BYTES: {(): self.request_sizes.value()},
            metrics.TRACES_DECIDED: decided,
            metrics.LIMITED_TRACES: limited_traces,
            metrics.LIMITED_SPANS: limited_spans,
            metrics.TRACES_ROOTLESS: {(): self.rootless},
            metrics.LATE_SPANS: {("drop",): self.late_spans[0], ("keep",): self.late_spans[1]},
            metrics.LATE_WOULD_KEEP: {(): self.late_would_keep},
            metrics.TRACES_REVIVED: revived,
            metrics.TRACES_UNEQUAL_THRESHOLD: {(): self.unequal_thresholds},
            metrics.DECISION_DELAY_SECONDS: {(): metrics.HistogramValue(counts, self.delay_sum_s)},
        }
