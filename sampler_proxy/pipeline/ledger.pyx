"""Counts every request, span and decision of a pipeline, in plain integers. Used under the pipeline's lock.

The ledger decides nothing. A rule is known by a number, which its name keeps until the process ends: counters go on
when rules are replaced. So are transports and reasons of refusals. To count never fails, whatever memory there is: what
counts is declared noexcept, and allocates nothing.
"""
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from sampler_proxy import metrics

REASONS = ("root", "wait", "size", "early", "memory", "shutdown", "late")
REFUSALS = (
    "malformed", "draining", "too_large", "memory", "out_of_memory", "effort", "compression", "busy", "stalled",
    "in_flight", "internal",
)

cdef enum:
    MAX_RULE_NAMES = 1 << 16  # a Decision holds 16 bits of it


cdef int set_bounds(Histogram* histogram, bounds, double unit) except -1:
    """Begin a histogram: the metric's bounds, in units of what is observed."""
    histogram.bound_count = len(bounds)
    for i, bound in enumerate(bounds):
        histogram.bounds[i] = int(bound * unit)
    return 0


cdef void observe(Histogram* histogram, int64_t value) noexcept nogil:
    """Count a value. One that equals a bound belongs to that bound's bucket."""
    cdef int i = 0
    while i < histogram.bound_count and value > histogram.bounds[i]:
        i += 1
    histogram.counts[i] += 1
    histogram.sum += <double>value


cdef object value_of(Histogram* histogram, double unit):
    """Return a histogram as it is shown."""
    cdef list counts = []
    cdef int i
    for i in range(histogram.bound_count + 1):
        counts.append(histogram.counts[i])
    return metrics.HistogramValue(tuple(counts), histogram.sum / unit)


cdef uint32_t number_of(list names, name, uint32_t room) except? 0xFFFFFFFF:
    """Return the place of a name in a list; a new name is added at its end. ValueError where there is no room."""
    cdef uint32_t i
    for i in range(<uint32_t>len(names)):
        if names[i] == name:
            return i
    if len(names) == room:
        raise ValueError(f"more than {room} transports or reasons of a refusal")
    names.append(name)
    return <uint32_t>len(names) - 1


cdef class Ledger:
    def __cinit__(self):
        self.rule_ids = {}
        self.rule_names = []
        self.transports = []
        self.refusals = list(REFUSALS)
        set_bounds(&self.totals.delays_ns, metrics.DECISION_DELAY_SECONDS.buckets, 1e9)
        set_bounds(&self.totals.request_sizes, metrics.REQUEST_SIZE_BYTES.buckets, 1)

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
            self.rule_names.append(name)
            try:
                self.rule_ids[name] = len(self.rule_names) - 1
            except MemoryError:  # else the next name would get this one's number
                self.rule_names.pop()
                raise
        return self.rule_ids[name]

    def transport_id(self, name):
        """Return the number of a transport's name, a new one for a new name. Raises ValueError and MemoryError."""
        return number_of(self.transports, name, MAX_TRANSPORTS)

    cdef void received(self, uint32_t transport, uint64_t size) noexcept:
        """Count a request that was read whole, and its size in bytes: one that was taken, or refused."""
        self.totals.received_[transport].requests += 1
        observe(&self.totals.request_sizes, <int64_t>size)

    cdef void taken(self, uint32_t transport, Scanned scanned) noexcept:
        """Count the spans of an accepted request, and what the scan has left out of it."""
        self.totals.received_[transport].accepted += 1
        self.totals.received_[transport].spans += scanned.spans
        self.totals.invalid_trace_ids += scanned.invalid_trace_ids
        self.totals.invalid_span_ids += scanned.invalid_span_ids
        self.totals.legacy_spans += scanned.legacy_spans
        self.totals.unknown_fields[0] += scanned.unknown_of_request
        self.totals.unknown_fields[1] += scanned.unknown_of_resource_spans
        self.totals.unknown_fields[2] += scanned.unknown_of_scope_spans

    cdef void taken_back(self, uint32_t transport, uint32_t spans) noexcept:
        """Take back what taken() has counted: nobody had memory for these spans."""
        self.totals.received_[transport].spans -= spans

    cdef void refused(self, uint32_t transport, uint32_t reason) noexcept:
        """Count a refused request."""
        self.totals.received_[transport].refused[reason] += 1

    cdef uint64_t refused_for(self, uint32_t reason) noexcept:
        """Return how many requests were refused for a reason, over all transports."""
        cdef uint64_t found = 0
        cdef uint32_t i
        for i in range(MAX_TRANSPORTS):
            found += self.totals.received_[i].refused[reason]
        return found

    def refused_unread(self, transport, reason):
        """Count a request that was refused before it was read whole. Raises ValueError and MemoryError for a reason, or
        a transport, that is new; it has then counted nothing."""
        cdef uint32_t number = number_of(self.refusals, reason, MAX_REFUSALS)
        cdef uint32_t its = number_of(self.transports, transport, MAX_TRANSPORTS)
        self.totals.received_[its].requests += 1
        self.refused(its, number)

    cdef void decided(self, uint16_t rule, bint kept, uint8_t reason, int64_t delay_ns) noexcept nogil:
        """Count a decided trace, and the time since its first span in the histogram of delays."""
        self.rules[rule].decided[REASON_COUNT * kept + reason] += 1
        observe(&self.totals.delays_ns, delay_ns)

    cdef Ledger copy(self):
        """Return a copy, to be read without the lock."""
        cdef Ledger copied = Ledger()
        cdef size_t size = len(self.rule_names) * sizeof(RuleCounters)
        copied.rules = <RuleCounters*>malloc(size + 1)
        if copied.rules == NULL:
            raise MemoryError
        if size:
            memcpy(copied.rules, self.rules, size)
        copied.rule_names = list(self.rule_names)
        copied.transports = list(self.transports)
        copied.refusals = list(self.refusals)
        copied.totals = self.totals
        return copied

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
        return {
            metrics.SPANS_RECEIVED: {
                (name,): self.totals.received_[i].spans
                for i, name in enumerate(self.transports) if self.totals.received_[i].accepted
            },
            metrics.SPANS_SAMPLED_OUT: sampled_out,
            metrics.SPANS_KEPT: kept,
            metrics.REQUESTS_RECEIVED: {
                (name,): self.totals.received_[i].requests
                for i, name in enumerate(self.transports) if self.totals.received_[i].requests
            },
            metrics.REQUESTS_REFUSED: {
                (transport, reason): self.totals.received_[i].refused[j]
                for i, transport in enumerate(self.transports)
                for j, reason in enumerate(self.refusals) if self.totals.received_[i].refused[j]
            },
            metrics.SPANS_REJECTED_INPUT: {
                ("trace_id",): self.totals.invalid_trace_ids, ("span_id",): self.totals.invalid_span_ids,
                ("deprecated_field",): self.totals.legacy_spans,
            },
            metrics.UNKNOWN_FIELDS_DROPPED: {
                ("request",): self.totals.unknown_fields[0], ("resource_spans",): self.totals.unknown_fields[1],
                ("scope_spans",): self.totals.unknown_fields[2],
            },
            metrics.REQUEST_SIZE_BYTES: {(): value_of(&self.totals.request_sizes, 1)},
            metrics.TRACES_DECIDED: decided,
            metrics.LIMITED_TRACES: limited_traces,
            metrics.LIMITED_SPANS: limited_spans,
            metrics.TRACES_ROOTLESS: {(): self.totals.rootless},
            metrics.LATE_SPANS: {("drop",): self.totals.late_spans[0], ("keep",): self.totals.late_spans[1]},
            metrics.LATE_WOULD_KEEP: {(): self.totals.late_would_keep},
            metrics.TRACES_REVIVED: revived,
            metrics.TRACES_UNEQUAL_THRESHOLD: {(): self.totals.unequal_thresholds},
            metrics.DECISION_DELAY_SECONDS: {(): value_of(&self.totals.delays_ns, 1e9)},
        }
