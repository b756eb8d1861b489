from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.rules.span_matcher cimport Judge
from sampler_proxy.otlp.protobuf cimport Message, cbytes
from sampler_proxy.redact.edits cimport Doc, Edits, Frame
from sampler_proxy.redact.value_cache cimport Entry, ValueCache
from sampler_proxy.otlp.fragments cimport Envelope, Envelopes, Fragment

cdef struct HeaderDoc:
    Doc doc
    Envelope* envelope
    Envelope* leaving  # one reference, until the trace is finished
    bint is_scope
    uint32_t parent  # of a scope: the resource's

cdef class Redactor:
    cdef readonly object policy
    cdef Envelopes envelopes
    cdef Judge judge  # of the filters; None: there are none
    cdef uint64_t* span_masks  # of the trace's spans, in order: the filters that hold
    cdef ValueCache cache
    cdef dict masks  # of the trace's headers: the filters that hold for some, and for every one, of the spans under them
    cdef set entity_keys  # that a resource's entity references name
    cdef bint all_named  # there are more than these
    cdef Edits edits
    cdef bint sharing
    cdef Doc* spans  # of the trace, in order
    cdef uint32_t span_count, span_room, spans_done
    cdef HeaderDoc* headers
    cdef uint32_t header_count, header_room, headers_done
    cdef uint32_t* groups  # for each, its scope's header
    cdef uint32_t group_count, group_room
    cdef int redact(self, Fragment* first) except -1
    cdef void share(self, bint on) noexcept
    cdef uint64_t effort(self) noexcept
    cdef int finished(self) except -1
    cdef cbytes span(self, uint32_t index, uint32_t* size) noexcept
    cdef Envelope* envelope(self, uint32_t group) noexcept
    cdef int walk_trace(self, Fragment* first) except -1
    cdef int walk_doc(self, Doc* doc, Message message) except -1
    cdef int select(self, Fragment* first) except -1
    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF
    cdef int walk_header(self, uint32_t index) except -1
    cdef int note_entities(self, cbytes p, cbytes end) except -1
    cdef int walk(self, Frame* frame) except -1
    cdef Entry* key(self, int place, cbytes p, uint32_t size) except NULL
    cdef int attribute(self, Frame* frame, int place, int lane, int kind, Entry* owner) except -1
    cdef Entry* strictest(self, Frame* frame, int place, Entry* entry) except NULL
    cdef int value(self, Frame* frame, int lane, int kind, Entry* key) except -1
    cdef int number(self, Frame* frame, cbytes start, cbytes end, int64_t number, int lane, int kind, Entry* key) except -1
    cdef int text(self, Frame* frame, cbytes start, cbytes length_at, cbytes end, cbytes p, uint32_t size, int lane, int kind,
                  Entry* key, int how, uint32_t field) except -1
    cdef int finish_headers(self) except -1
    cdef int flush(self) except -1
