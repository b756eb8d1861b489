"""Finds the filters (`only`) of a policy that hold: for each span by itself, and for a header for some, and for every
one, of its spans."""
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from sampler_proxy.otlp.fragments cimport SpanWalk, next_span, spans_of
from sampler_proxy.redact.effort cimport walked
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.span_matcher cimport Facts

cdef enum:
    MAX_KEPT_MASKS = 1 << 19  # for the next trace
    STEPS_OF_MATCH = 16
    BYTES_OF_STEP = 16  # that are read of a span


cdef class SpanFilters:
    def __cinit__(self, filters not None, uint64_t seed):
        self.matcher = SpanMatcher(Plan(filters.conditions, filters.filters, comparisons=filters.comparisons), seed)
        self.header_masks = {}

    def __dealloc__(self):
        free(self.masks)

    cdef int match_trace(self, Fragment* trace, Effort effort) except -1:
        """Find out for each span of a trace which filters hold."""
        cdef Fragment* fragment = trace
        cdef SpanWalk walk = spans_of(trace)
        cdef Facts facts
        cdef uint64_t count = 0
        cdef uint64_t* mask
        cdef uint64_t some = 0
        cdef uint64_t every = 0
        cdef void* grown
        while fragment != NULL:
            count += fragment.spans
            fragment = fragment.next
        if count > self.room:
            grown = realloc(self.masks, count * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            self.masks = <uint64_t*>grown
            self.room = count
        mask = self.masks
        memset(self.masks, 0, count * sizeof(uint64_t))
        self.header_masks.clear()
        self.matcher.begin()
        while next_span(&walk):
            if walk.begins_group:
                self.matcher.load_headers(walk.group, walk.begins_resource)
                some = 0
                every = ~<uint64_t>0
            walked(effort, STEPS_OF_MATCH + walk.size // BYTES_OF_STEP)
            self.matcher.read_span(walk.body, walk.size, &facts)
            self.matcher.match(mask, &facts, True)
            some |= mask[0]
            every &= mask[0]
            mask += 1
            if walk.ends_group:
                self.add_to_headers(walk.group.scope.envelope, some, every)
        return 0

    cdef void release(self) noexcept:
        """Forget the trace; a large buffer is freed."""
        self.header_masks.clear()
        if self.room > MAX_KEPT_MASKS:
            free(self.masks)
            self.masks = NULL
            self.room = 0

    cdef int add_to_headers(self, Envelope* scope, uint64_t some, uint64_t every) except -1:
        """Add what holds of a group's spans to its scope and resource."""
        for envelope in (<size_t>scope, <size_t>scope.parent):
            others = self.header_masks.get(envelope, (0, ~<uint64_t>0))
            self.header_masks[envelope] = (others[0] | some, others[1] & every)
        return 0

    cdef int select_header(self, Envelope* envelope, ValueCache cache) except -1:
        """Select the view of a header: what its spans share is redacted as the strictest of them has it."""
        some, every = self.header_masks[<size_t>envelope]
        cache.select_view(some, every)
        return 0
