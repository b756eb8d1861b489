# cython: language_level=3
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy._conditions cimport ConditionList, Programs, Regexes, Value
from sampler_proxy.fragments cimport Fragment, Header


cdef uint32_t to_hex(const uint8_t* p, uint32_t size, uint8_t* out) noexcept nogil

cdef struct Key:
    # One attribute key that some condition names, and the conditions to test where it is met: runs in Plan.order.
    const uint8_t* text
    uint32_t size
    uint32_t hash
    uint32_t span_start, span_end
    uint32_t resource_start, resource_end
    uint32_t scope_start, scope_end



cdef struct Record:
    # One valid span of the request.
    const uint8_t* body
    uint32_t size
    uint32_t header
    int32_t next  # of the same trace; -1: last

cdef struct Slot:
    # One trace of the request.
    uint64_t[2] trace_id
    int32_t first, last  # records
    uint32_t spans, payload, groups, last_header
    uint64_t min_start, max_end, randomness, threshold, root_start, root_id
    int32_t root
    uint16_t flags

cdef struct Text:
    const uint8_t* p
    uint32_t size

cdef struct Facts:
    # What a span says of itself; its last fields, as protobuf has it.
    Text trace_id, span_id, parent_id, name, tracestate, message
    uint64_t start, end
    int32_t kind, status


cdef class Plan:
    cdef readonly uint32_t serial
    cdef readonly ConditionList conditions
    cdef readonly Programs filters
    cdef Key* keys
    cdef uint32_t key_count
    cdef uint32_t* table  # key index + 1, by hash; 0: free
    cdef uint32_t table_mask
    cdef uint64_t key_sizes  # bit min(size, 63) is set where some key has that size
    cdef uint32_t* order
    cdef uint32_t intrinsic_start, intrinsic_end  # of spans, in order
    cdef uint32_t scope_start, scope_end  # scope name and version, in order
    cdef uint64_t* missing  # what holds of a span without anything: the IS_NIL conditions
    cdef uint32_t words  # of condition bits
    cdef uint32_t filter_words
    cdef bytes key_bytes
    cdef int fill(self, list wanted, dict keys, list names) except -1
    cdef Key* find(self, const uint8_t* text, uint32_t size) noexcept nogil



cdef class Scanner:
    cdef readonly Plan plan
    cdef Regexes regexes
    cdef uint64_t* base  # condition bits: what the resource says
    cdef uint64_t* in_scope  # and the scope
    cdef uint64_t* bits  # and the span
    cdef Record* records
    cdef uint32_t record_count, record_room
    cdef Slot* slots
    cdef uint64_t* slot_bits
    cdef uint32_t slot_count
    cdef uint32_t* table  # slot + 1
    cdef uint32_t table_mask
    cdef Header* headers
    cdef uint32_t header_count, header_room
    cdef uint8_t* header_bytes
    cdef uint64_t header_used, header_bytes_room
    cdef Fragment** fragments
    cdef uint32_t invalid_trace_ids, invalid_span_ids
    cdef uint64_t cost
    cdef int request(self, const uint8_t* p, const uint8_t* end) noexcept nogil
    cdef int header(self, const uint8_t* p, const uint8_t* end, int32_t parent, uint32_t* spans) noexcept nogil
    cdef bint envelope(self, const uint8_t* p, const uint8_t* end, int depth, int32_t parent) noexcept nogil
    cdef int resource_spans(self, const uint8_t* p, const uint8_t* end) noexcept nogil
    cdef int scope_spans(self, const uint8_t* p, const uint8_t* end, int32_t resource) noexcept nogil
    cdef void note(self, uint64_t* bits, uint32_t number, Value* value) noexcept nogil
    cdef bint attribute(self, const uint8_t* p, const uint8_t* end, int depth, int place, uint64_t* bits) noexcept nogil
    cdef bint merged_attribute(self, const uint8_t* p, const uint8_t* end, uint32_t start, uint32_t stop, uint64_t* bits) noexcept nogil
    cdef int reserve(self, uint32_t spans) noexcept nogil
    cdef uint32_t slot_hash(self, uint64_t high, uint64_t low) noexcept nogil
    cdef Slot* slot_of(self, uint64_t high, uint64_t low) noexcept nogil
    cdef bint span(self, const uint8_t* body, uint32_t size, uint32_t header) noexcept nogil
    cdef bint status(self, const uint8_t* p, const uint8_t* end, Facts* facts) noexcept nogil
    cdef void file(self, const uint8_t* body, uint32_t size, uint32_t header, Facts* facts) noexcept nogil
    cdef void judge(self, Slot* slot, Facts* facts) noexcept nogil
    cdef int cut(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef Fragment* fragment(self, Slot* slot, uint64_t* matched) noexcept nogil
