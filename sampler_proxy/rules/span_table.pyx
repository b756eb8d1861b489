"""Reads the spans of a trace into a table, for what cannot be answered span by span: structure, aggregates, pipelines.

A trace is read again from its fragments' bytes, at decision time and only if a query needs it. A row is a distinct span
id. What arrives twice under one id has been sent twice, or in two states: it matches what any of the copies matches, so
that no error hides behind another copy; an aggregate takes its values from the last; the first says who its parent is.
Rows are found by span id through a hash index (linear probing under a
secret seed). Reading is linear in the number of spans; the memory is used again for the next trace.

The table is read and asked under the pipeline's lock, so that both are bounded together: what is beyond MAX_EFFORT is
not in the table. That is some 25 000 spans of 440 bytes, fewer with many aggregates or large headers.
"""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from sampler_proxy.otlp.fragments cimport SpanWalk, next_span, spans_of
from sampler_proxy.otlp.protobuf cimport hash_two, load64
from sampler_proxy.rules.effort cimport grant, is_spent
from sampler_proxy.rules.programs cimport set_bit
from sampler_proxy.rules.roots cimport LOCAL
from sampler_proxy.rules.slices cimport has_bytes
from sampler_proxy.rules.span_matcher cimport has_remote_parent

cdef enum:
    MAX_EFFORT = 10_000  # units, for reading one trace and all queries on it
    MAX_ROWS = 1 << 17  # more than MAX_EFFORT lets in
    MAX_KEPT_CAPACITY = 1 << 16  # rows


cdef class SpanTable:
    def __cinit__(self, Plan plan not None, uint64_t seed):
        self.plan = plan
        self.seed = seed
        self.matcher = SpanMatcher(plan, seed)
        self.matcher.sound = True
        self.effort = &self.matcher.regexes.effort
        self.matched = <uint64_t*>calloc(plan.filter_words + 1, sizeof(uint64_t))
        if self.matched == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.rows)
        free(self.bits)
        free(self.arguments)
        free(self.matched)
        free(self.index)

    cdef void set_trace_condition(self, uint32_t number, bint holds) noexcept:
        """Set whether a trace condition holds of the trace that is read next."""
        cdef uint32_t condition = self.plan.condition_count + self.plan.arithmetic.comparison_count + number
        set_bit(self.matcher.defaults.bits, condition, holds)

    cdef int read(self, Fragment* trace, RootFinder roots, Root* root) except -1:
        """Fill the table from a trace's adopted fragments, which must outlive its use. `roots` has found `root` last,
        if the plan reads roots. `beyond` is set where spans, or parts of them, were left out."""
        cdef SpanWalk walk = spans_of(trace)
        cdef Fragment* fragment = trace
        cdef Facts facts
        cdef uint64_t spans = 0
        cdef uint32_t i
        while fragment != NULL:
            spans += fragment.spans
            fragment = fragment.next
        self.clear(min(spans, <uint64_t>MAX_ROWS))
        self.matcher.begin()
        self.matcher.partly = False
        self.beyond = False
        grant(self.effort, MAX_EFFORT)
        while next_span(&walk):
            if is_spent(self.effort) or self.count == MAX_ROWS:
                self.beyond = True
                break
            if walk.begins_group:
                self.matcher.load_headers(walk.group, walk.begins_resource)
            self.matcher.read_again(walk.body, walk.size, &facts)
            if self.plan.reads_roots:
                self.matcher.is_root = not has_bytes(&facts.parent_id) or (
                    root.kind == LOCAL and has_remote_parent(&facts) and not roots.holds(&facts.parent_id)
                )
            self.add(&facts)
        self.beyond |= self.matcher.partly
        for i in range(self.count):
            if self.rows[i].has_parent:
                self.rows[i].parent = self.find(self.rows[i].parent_id)
        return 0

    cdef int clear(self, uint64_t spans) except -1:
        """Empty the table, and make an index for so many spans."""
        self.count = 0
        if self.capacity > MAX_KEPT_CAPACITY:  # the last trace was a very large one
            free(self.rows)
            free(self.bits)
            free(self.arguments)
            self.rows = NULL
            self.bits = NULL
            self.arguments = NULL
            self.capacity = 0
        memset(self.matched, 0, 8 * self.plan.filter_words)
        self.index_mask = 63
        while self.index_mask < 2 * spans:
            self.index_mask = 2 * self.index_mask + 1
        free(self.index)
        self.index = <int32_t*>calloc(<uint64_t>self.index_mask + 1, sizeof(int32_t))
        if self.index == NULL:
            raise MemoryError
        return 0

    cdef int reserve(self) except -1:
        """Make room for one more row."""
        cdef uint32_t capacity = 2 * self.capacity + 64
        cdef void* grown
        if self.count < self.capacity:
            return 0
        grown = realloc(self.rows, capacity * sizeof(Row))
        if grown == NULL:
            raise MemoryError
        self.rows = <Row*>grown
        grown = realloc(self.bits, <uint64_t>capacity * self.plan.filter_words * sizeof(uint64_t) + 8)
        if grown == NULL:
            raise MemoryError
        self.bits = <uint64_t*>grown
        grown = realloc(self.arguments, <uint64_t>capacity * self.plan.arithmetic.argument_count * sizeof(Value) + 8)
        if grown == NULL:
            raise MemoryError
        self.arguments = <Value*>grown
        self.capacity = capacity
        return 0

    cdef int add(self, Facts* facts) except -1:
        """Add the span that the matcher has read, or join it with the row of its id."""
        cdef Row* row
        cdef uint32_t known
        cdef uint32_t i, at
        cdef uint64_t span_id = load64(facts.span_id.p)
        cdef uint64_t* bits
        self.reserve()
        self.effort.steps += 4 + self.plan.filter_words + 2 * self.plan.arithmetic.argument_count
        bits = self.bits + <uint64_t>self.count * self.plan.filter_words
        memset(bits, 0, 8 * self.plan.filter_words)
        self.matcher.match(bits, facts, True)
        for i in range(self.plan.filter_words):
            self.matched[i] |= bits[i]
        at = <uint32_t>hash_two(span_id, 0, self.seed) & self.index_mask
        while self.index[at]:
            known = <uint32_t>self.index[at] - 1
            if self.rows[known].span_id == span_id:
                for i in range(self.plan.filter_words):
                    self.bits[<uint64_t>known * self.plan.filter_words + i] |= bits[i]
                self.read_arguments(known, facts)
                return 0
            at = (at + 1) & self.index_mask
        row = &self.rows[self.count]
        row.span_id = span_id
        row.parent = -1  # until all rows are there
        _set_parent_id(row, facts)
        self.read_arguments(self.count, facts)
        self.count += 1
        self.index[at] = <int32_t>self.count
        return 0

    cdef void read_arguments(self, uint32_t row, Facts* facts) noexcept nogil:
        """Set a row's arguments of aggregates to those of the span that the matcher has read."""
        cdef uint64_t first = <uint64_t>row * self.plan.arithmetic.argument_count
        cdef uint32_t i
        for i in range(self.plan.arithmetic.argument_count):
            self.matcher.evaluate_argument(i, facts, &self.arguments[first + i])

    cdef int32_t find(self, uint64_t span_id) noexcept nogil:
        """Return the row of a span id; -1 if there is none."""
        cdef uint32_t at = <uint32_t>hash_two(span_id, 0, self.seed) & self.index_mask
        while self.index[at]:
            if self.rows[self.index[at] - 1].span_id == span_id:
                return self.index[at] - 1
            at = (at + 1) & self.index_mask
        return -1

    cdef bint matches(self, uint32_t row, uint32_t filter) noexcept nogil:
        """Tell whether a row's span matches a filter."""
        return self.bits[<uint64_t>row * self.plan.filter_words + (filter >> 6)] >> (filter & 63) & 1


cdef void _set_parent_id(Row* row, Facts* facts) noexcept nogil:
    """Note the parent's id. Zeros only are no id; an id that has not 8 bytes belongs to no span, but siblings share it,
    so that a hash (FNV-1a, from 0) stands for it."""
    cdef uint32_t i
    row.parent_id = 0
    row.has_parent = False
    for i in range(facts.parent_id.size):
        if facts.parent_id.p[i]:
            row.has_parent = True
    if not row.has_parent:
        return
    if facts.parent_id.size == 8:
        row.parent_id = load64(facts.parent_id.p)
    else:
        for i in range(facts.parent_id.size):
            row.parent_id = (row.parent_id ^ facts.parent_id.p[i]) * 0x100000001B3ULL
