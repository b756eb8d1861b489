from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.rules.span_matcher cimport Facts, Judge
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.otlp.fragments cimport Fragment, Header

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

cdef class Scanner:
    cdef readonly Plan plan
    cdef Judge judge
    cdef uint64_t seed  # of the table's hash
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
    cdef int resource_spans(self, const uint8_t* p, const uint8_t* end) noexcept nogil
    cdef int scope_spans(self, const uint8_t* p, const uint8_t* end, int32_t resource) noexcept nogil
    cdef int reserve(self, uint32_t spans) noexcept nogil
    cdef uint32_t slot_hash(self, uint64_t high, uint64_t low) noexcept nogil
    cdef Slot* slot_of(self, uint64_t high, uint64_t low) noexcept nogil
    cdef bint span(self, const uint8_t* body, uint32_t size, uint32_t header) noexcept nogil
    cdef void file(self, const uint8_t* body, uint32_t size, uint32_t header, Facts* facts) noexcept nogil
    cdef int cut(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef void shrink(self) noexcept nogil
    cdef Fragment* fragment(self, Slot* slot, uint64_t* matched) noexcept nogil
