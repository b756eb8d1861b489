from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.rules.conditions cimport Regexes, Value
from sampler_proxy.rules.plan cimport Plan, Run
from sampler_proxy.otlp.fragments cimport Envelope

cdef struct Text:
    const uint8_t* p
    uint32_t size

cdef struct Facts:
    # What a span says of itself; its last fields, as protobuf has it.
    Text trace_id, span_id, parent_id, name, tracestate, message
    uint64_t start, end
    int32_t kind, status

cdef struct Level:
    # What is known so far: the answers of conditions and comparisons, and the values of slots.
    uint64_t* bits
    Value* values

cdef struct Scratch:
    Scratch* next  # the bytes follow

cdef struct Answered:
    # A string that was met, and what the conditions on it answered.
    uint32_t run  # the end of its key's run in Plan.order; 0: no entry
    uint32_t size
    uint64_t answers  # a bit for each of the run
    uint8_t[80] text

cdef class Judge:
    cdef readonly Plan plan
    cdef Regexes regexes
    cdef uint64_t* all_bits
    cdef Value* all_values
    cdef Level before  # anything has been read: what is missing, and what the trace says
    cdef Level of_resource
    cdef Level of_scope
    cdef Level of_span
    cdef Level bound  # to one event and one link
    cdef uint64_t* met  # for a hash of a span's bits: whether there is an entry, the bits, the filters' answers
    cdef uint64_t met_mask
    cdef Answered* texts  # by a hash
    cdef Text* events
    cdef uint32_t event_count, event_room
    cdef Text* links
    cdef uint32_t link_count, link_room
    cdef Scratch* scratch[3]  # by lifetime: OF_HEADERS, OF_ONE_SPAN, OF_ONE_BINDING
    cdef uint8_t[32] span_hex
    cdef uint8_t[32] parent_hex
    cdef uint8_t[64] link_trace_hex
    cdef uint8_t[64] link_span_hex
    cdef void begin(self) noexcept nogil
    cdef void drop(self, int lifetime) noexcept nogil
    cdef void begin_resource(self) noexcept nogil
    cdef void begin_scope(self) noexcept nogil
    cdef void copy(self, Level* target, Level* source) noexcept nogil
    cdef void note(self, Level* level, uint32_t number, Value* value) noexcept nogil
    cdef bint envelope(self, const uint8_t* p, const uint8_t* end, int depth, bint scope) noexcept nogil
    cdef void load(self, Envelope* header, bint scope) noexcept nogil
    cdef bint attribute(self, const uint8_t* p, const uint8_t* end, int depth, int place, Level* level) noexcept nogil
    cdef void note_text(self, Level* level, Run run, Value* value) noexcept nogil
    cdef bint merged_attribute(self, const uint8_t* p, const uint8_t* end, uint32_t start, uint32_t stop, Level* level) noexcept nogil
    cdef bint read_span(self, const uint8_t* body, uint32_t size, Facts* facts) noexcept nogil
    cdef bint remember(self, Text** texts, uint32_t* count, uint32_t* room, const uint8_t* p, uint32_t size) noexcept nogil
    cdef bint status(self, const uint8_t* p, const uint8_t* end, Facts* facts) noexcept nogil
    cdef void judge(self, uint64_t* matched, Facts* facts, bint everything) noexcept nogil
    cdef uint64_t* answers(self) noexcept nogil
    cdef void intrinsics(self, Facts* facts) noexcept nogil
    cdef void compare(self, Level* level, int32_t depends, bint everything) noexcept nogil
    cdef void judge_bound(self, uint64_t* matched, Facts* facts, int32_t depends, bint everything) noexcept nogil
    cdef void bind(self, Facts* facts, int64_t event, int64_t link, bint everything) noexcept nogil
    cdef void bind_event(self, Text* event, Facts* facts) noexcept nogil
    cdef void bind_link(self, Text* link) noexcept nogil
    cdef void argument(self, uint32_t number, Facts* facts, Value* result) noexcept nogil

cdef uint32_t to_hex(const uint8_t* p, uint32_t size, uint8_t* out) noexcept nogil
cdef bint has_bytes(Text* text) noexcept nogil
