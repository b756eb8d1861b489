"""Declares the resources and scopes above a trace's spans: each is redacted once, however many groups of spans share
it."""
cimport cython
from libc.stdint cimport uint32_t

from sampler_proxy.otlp.fragments cimport Envelope, Envelopes
from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.edits cimport Doc, Edits

cdef struct HeaderDoc:
    Doc doc
    Envelope* envelope  # as it came; the trace's
    Envelope* leaving  # as it leaves; one reference, until release()
    bint is_scope
    uint32_t parent  # of a scope: the resource's number


@cython.final
cdef class Headers:
    cdef Envelopes envelopes
    cdef HeaderDoc* docs  # of the trace, a resource before its scopes
    cdef uint32_t count, room
    cdef set entity_keys  # that the entity references of the last resource name
    cdef bint all_named  # they name more than are kept: every key counts as named
    cdef HeaderDoc* add(self, Envelope* envelope, bint is_scope, uint32_t parent) except NULL
    cdef int read_entities(self, cbytes p, cbytes end) except -1
    cdef bint names(self, cbytes p, uint32_t size) except -1
    cdef int intern_all(self, Edits edits) except -1
    cdef void release(self) noexcept
