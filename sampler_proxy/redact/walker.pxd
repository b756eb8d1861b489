"""Declares the walk over kept spans, and a trace as it leaves. `walker.pyi` is the manual."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelope, Envelopes, Fragment
from sampler_proxy.otlp.protobuf cimport FieldCursor, Message, cbytes
from sampler_proxy.redact.edits cimport Doc, Edits, Frame
from sampler_proxy.redact.effort cimport Effort
from sampler_proxy.redact.headers cimport HeaderDoc, Headers
from sampler_proxy.redact.span_filters cimport SpanFilters
from sampler_proxy.redact.value_cache cimport Entry, ValueCache

cdef struct Redacted:
    # A trace as it leaves, read from the front: its spans in the order in which it came, and the header of each group.
    # The redactor's memory, valid until Redactor.release().
    const Doc* span  # the next one
    const uint32_t* group  # number of the next group's header
    const HeaderDoc* headers
    const uint8_t* out  # the changed documents


cdef inline cbytes next_redacted_span(Redacted* trace, uint32_t* size) noexcept nogil:
    """Return the next span. There are as many as in the trace."""
    cdef const Doc* doc = trace.span
    trace.span += 1
    if doc.changed:
        size[0] = doc.out_size
        return trace.out + doc.offset
    size[0] = doc.size
    return doc.data


cdef inline Envelope* next_redacted_scope(Redacted* trace) noexcept nogil:
    """Return the scope of the next group of spans; the reference is the redactor's."""
    cdef Envelope* scope = trace.headers[trace.group[0]].leaving
    trace.group += 1
    return scope


@cython.final
cdef class Redactor:
    cdef readonly object policy
    cdef Effort effort  # of the last trace
    cdef ValueCache cache
    cdef Edits edits
    cdef Headers headers
    cdef SpanFilters filters  # None: there are none
    cdef Doc* spans  # of the trace, in order
    cdef uint32_t span_count, span_room
    cdef uint32_t* groups  # of the trace, in order: the number of the scope's header
    cdef uint32_t group_count, group_room
    cdef uint32_t spans_done  # of which nothing is pending
    cdef uint64_t spent(self) noexcept
    cdef Redacted redact(self, Fragment* trace) except *
    cdef void release(self) noexcept
    cdef int walk_headers(self, Fragment* trace) except -1
    cdef int redact_header(self, HeaderDoc* header, Envelope* parent, bint is_scope) except -1
    cdef int walk_spans(self, Fragment* trace) except -1
    cdef int walk_span(self, cbytes body, uint32_t size) except -1
    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF
    cdef int walk_doc(self, Doc* doc, Message message) except -1
    cdef int walk(self, Frame* frame) except -1
    cdef int text(
        self, Frame* frame, cbytes start, cbytes length_at, cbytes content, uint32_t size, uint32_t number
    ) except -1
    cdef Entry* key(self, int place, cbytes p, uint32_t size) except NULL
    cdef int attribute(self, Frame* frame, int place) except -1
    cdef int attribute_value(self, Frame* frame, Frame* inner, Entry* entry) except -1
    cdef Entry* strictest(self, Frame* frame, int place, Entry* entry) except NULL
    cdef int value(self, Frame* frame) except -1
    cdef int scalar(self, Frame* frame, cbytes start, cbytes end, uint32_t number, uint64_t bits) except -1
    cdef int integer(self, Frame* frame, cbytes start, cbytes end, int64_t number) except -1
    cdef int content(
        self, Frame* frame, int lane, cbytes start, cbytes end, cbytes p, uint32_t size, uint32_t number
    ) except -1
    cdef int resolve(self) except -1
