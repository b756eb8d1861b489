"""Declares the matcher of spans: the fields of a span, and the answers to a plan by level."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelope, Group
from sampler_proxy.rules.answer_cache cimport FilterCache, TextCache
from sampler_proxy.rules.conditions cimport RegexCache, Value
from sampler_proxy.rules.plan cimport Consumers, Plan
from sampler_proxy.rules.slices cimport Scratch, Slice, SliceList

cdef struct Facts:
    # A span's own fields; of a repeated one the last, as in protobuf.
    Slice trace_id, span_id, parent_id, name, tracestate, message
    uint64_t start, end  # ns since the epoch
    int32_t kind, status
    uint32_t flags  # Span.flags

cdef enum:
    # opentelemetry-proto's SpanFlags: whether the parent is in another process is known, and so it is.
    REMOTE_PARENT = 0x100 | 0x200

    # Bytes of a header, or of a span, that are read where a trace is read again, under the pipeline's lock.
    MAX_READ_AGAIN = 1 << 20


cdef inline bint has_duration(Facts* facts) noexcept nogil:
    """Return whether a span's times are usable: a start of 0 is none, and no end lies before the start."""
    return facts.start and facts.end >= facts.start


cdef inline bint has_remote_parent(Facts* facts) noexcept nogil:
    """Return whether a span, which has a parent, says that it is in another process."""
    return facts.flags & REMOTE_PARENT == REMOTE_PARENT


cdef struct Level:
    # The answers and values read so far.
    uint64_t* bits  # plan.words: one for each condition, comparison and trace condition
    Value* values  # of slots

cdef struct Binding:
    # A place among the events, links or pairs of them of a span.
    int32_t depends  # ON_EVENT, ON_LINK
    uint32_t event, link, events, links
    uint32_t left  # that may be tried

cdef class SpanMatcher:
    cdef readonly Plan plan
    cdef RegexCache regexes
    cdef TextCache text_cache
    cdef FilterCache filter_cache
    cdef uint64_t* all_bits  # of the six levels
    cdef Value* all_values
    cdef Level defaults  # before anything has been read: missing attributes, and the answers for the trace
    cdef Level of_resource
    cdef Level of_scope
    cdef Level of_span
    cdef Level of_event  # of the span with one event, for all links
    cdef Level bound  # of the span with one event and one link
    # Which keys have been met already, to notice one that comes again: by place and key the `mark` of the resource,
    # scope, span, event or link that it was last met on. Marks are never used twice.
    cdef uint64_t* met_on
    cdef uint64_t[5] marks  # of what is being read, by place
    cdef uint64_t mark  # the last one given
    cdef SliceList events  # of the span, the first MAX_SLICES; only where the plan asks for them
    cdef SliceList links
    cdef Scratch* scratch[4]  # copied values, by lifetime: OF_HEADERS and so on
    cdef bint sound  # what is read has been validated before: set by who reads traces again
    cdef bint partly  # of something read, not all has been looked at; never reset here
    cdef bint is_root  # the span is; set by who knows its trace, for plans that ask
    cdef uint8_t[32] span_hex
    cdef uint8_t[32] parent_hex
    cdef uint8_t[64] link_trace_hex
    cdef uint8_t[64] link_span_hex
    cdef void begin(self) noexcept nogil
    cdef void copy_level(self, Level* target, Level* source) noexcept nogil
    cdef void begin_resource(self) noexcept nogil
    cdef void begin_scope(self) noexcept nogil
    cdef bint read_header(self, const uint8_t* p, const uint8_t* end, int depth, bint scope) noexcept nogil
    cdef void read_header_again(self, Envelope* header, bint scope) noexcept nogil
    cdef void load_header(self, Envelope* header, bint scope) noexcept nogil
    cdef void load_headers(self, Group* group, bint with_resource) noexcept nogil
    cdef bint read_attribute(
        self, const uint8_t* p, const uint8_t* end, int depth, int place, Level* level
    ) noexcept nogil
    cdef bint read_merged_attribute(
        self, const uint8_t* p, const uint8_t* end, Consumers consumers, Level* level, bint again
    ) noexcept nogil
    cdef void record(self, Level* level, uint32_t number, Value* value) noexcept nogil
    cdef void record_all(self, Level* level, Consumers consumers, Value* value) noexcept nogil
    cdef void begin_keys(self, int place) noexcept nogil
    cdef void record_again(self, Level* level, Consumers consumers, Value* value) noexcept nogil
    cdef void record_text(self, Level* level, Consumers consumers, Value* value) noexcept nogil
    cdef bint read_span(self, const uint8_t* body, uint32_t size, Facts* facts) noexcept nogil
    cdef bint read_again(self, const uint8_t* body, uint32_t size, Facts* facts) noexcept nogil
    cdef bint add_slice(self, SliceList* slices, const uint8_t* p, uint32_t size) noexcept nogil
    cdef bint read_status(self, const uint8_t* p, const uint8_t* end, Facts* facts) noexcept nogil
    cdef void match(self, uint64_t* matched, Facts* facts, bint deferred) noexcept nogil
    cdef uint64_t* filter_answers(self) noexcept nogil
    cdef void record_intrinsics(self, Facts* facts) noexcept nogil
    cdef void record_comparisons(self, Level* level, int32_t depends, bint deferred) noexcept nogil
    cdef Binding bindings(self, int32_t depends) noexcept nogil
    cdef bint next_binding(self, Binding* binding, Facts* facts, bint deferred) noexcept nogil
    cdef void match_bound(self, uint64_t* matched, Facts* facts, int32_t depends, bint deferred) noexcept nogil
    cdef void bind_event(self, Level* level, uint32_t number, Facts* facts) noexcept nogil
    cdef void bind_link(self, Level* level, uint32_t number) noexcept nogil
    cdef void evaluate_argument(self, uint32_t number, Facts* facts, Value* result) noexcept nogil
