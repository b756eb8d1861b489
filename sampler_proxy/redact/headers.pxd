"""Declares the resources and scopes above a trace's spans: each is redacted once, however many groups of spans, and
traces, share it."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelope, Envelopes
from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.edits cimport Doc, Edits

cdef struct HeaderDoc:
    Envelope* envelope  # as it came; the trace's
    Envelope* leaving  # as it leaves; one reference, until release(); NULL: not known yet


@cython.final
cdef class Headers:
    cdef Envelopes envelopes
    cdef uint64_t serial  # of the redactor, in the forms of envelopes
    cdef HeaderDoc* docs  # of the trace, a resource before its scopes
    cdef uint32_t count, room
    cdef set entity_keys  # that the entity references of the last resource name
    cdef bint all_named  # they name more than are kept: every key counts as named
    cdef uint32_t add(self, Envelope* envelope) except? 0xFFFFFFFF
    cdef bint recall(self, HeaderDoc* header, Envelope* parent, uint64_t view, Edits edits) except -1
    cdef int intern(self, HeaderDoc* header, Envelope* parent, bint is_scope, Doc* doc, Edits edits) except -1
    cdef int read_entities(self, cbytes p, cbytes end) except -1
    cdef bint names(self, cbytes p, uint32_t size) except -1
    cdef void release(self) noexcept
