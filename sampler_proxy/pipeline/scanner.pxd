"""Declares the scanner, and its working memory by span and trace. `scanner.pyi` is the manual."""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Fragment, Header
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.span_matcher cimport Facts, SpanMatcher

cdef struct Record:
    # One valid span of the request.
    const uint8_t* body
    uint32_t size
    uint32_t header  # index of its scope's
    int32_t next  # of the same trace; -1: last

cdef struct Slot:
    # One trace of the request, or a part of it: MAX_FRAGMENT_PAYLOAD and the span that passes it. From `min_start` on
    # as in Fragment.
    uint64_t[2] trace_id
    int32_t first, last  # records
    uint32_t spans, payload, groups
    uint32_t last_header  # of the last record
    uint64_t min_start, max_end, randomness, threshold, root_start, root_end, root_id
    int32_t root  # record; -1: none
    uint16_t flags

cdef class Scanner:
    cdef readonly Plan plan
    cdef SpanMatcher matcher
    cdef uint64_t seed  # of the table's hash
    cdef uint16_t remote_parent  # what a fragment notes of a span with a parent in another process; 0: nothing
    cdef Record* records
    cdef uint32_t record_count
    cdef uint32_t record_room  # of records, slots and slot_bits
    cdef Slot* slots
    cdef uint64_t* slot_bits  # plan.filter_words by slot: filters that some span matches
    cdef uint32_t slot_count
    cdef uint32_t* table  # linear probing: slot + 1, by trace id; 0: free
    cdef uint32_t table_mask
    cdef Header* headers
    cdef uint32_t header_count, header_room
    cdef const uint8_t* metadata  # the encoded Resource with the request's metadata; NULL: it has none
    cdef uint32_t metadata_size
    cdef int32_t above_resources  # the metadata's header; -1: none
    cdef uint8_t* header_bytes
    cdef uint64_t header_used, header_bytes_room
    cdef Fragment** fragments
    cdef uint32_t invalid_trace_ids, invalid_span_ids
    cdef uint32_t unknown_of_request, unknown_of_resource_spans, unknown_of_scope_spans  # fields that were left out
    cdef uint32_t legacy_count  # fields LEGACY_SCOPE_SPANS of the ResourceSpans that is being scanned
    cdef uint32_t legacy_spans  # spans in such fields that were left out, beside those of field 2
    cdef uint64_t cost
    cdef int scan_request(self, const uint8_t* p, const uint8_t* end) noexcept nogil
    cdef int add_metadata(self, const uint8_t* p, uint32_t size) noexcept nogil
    cdef int scan_header(
        self, const uint8_t* p, const uint8_t* end, int32_t parent, bint is_scope, uint32_t* spans
    ) noexcept nogil
    cdef int add_header(self) noexcept nogil
    cdef int copy_to_header(self, const uint8_t* p, uint64_t size) noexcept nogil
    cdef int scan_resource_spans(self, const uint8_t* p, const uint8_t* end) noexcept nogil
    cdef uint32_t count_fields(
        self, const uint8_t* p, const uint8_t* end, uint32_t number, uint32_t within
    ) noexcept nogil
    cdef int scan_inside(
        self, const uint8_t* p, const uint8_t* end, int32_t resource, uint32_t number, uint32_t count
    ) noexcept nogil
    cdef int scan_scope_spans(self, const uint8_t* p, const uint8_t* end, int32_t resource) noexcept nogil
    cdef int reserve(self, uint32_t spans) noexcept nogil
    cdef uint32_t slot_hash(self, uint64_t high, uint64_t low) noexcept nogil
    cdef Slot* slot_of(self, uint64_t high, uint64_t low) noexcept nogil
    cdef int scan_span(self, const uint8_t* body, uint32_t size, uint32_t header) noexcept nogil
    cdef void add_span(self, const uint8_t* body, uint32_t size, uint32_t header, Facts* facts) noexcept nogil
    cdef void add_tracestate(self, Slot* slot, Facts* facts) noexcept nogil
    cdef int cut_fragments(self) noexcept nogil
    cdef void clear_table(self) noexcept nogil
    cdef void shrink(self) noexcept nogil
    cdef Fragment* cut_fragment(self, Slot* slot, uint64_t* matched) noexcept nogil
    cdef void copy_spans(self, Slot* slot, Fragment* fragment) noexcept nogil
