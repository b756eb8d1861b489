"""Declares the stamper, which makes kept spans ready to leave. `stamp.pyi` is the manual."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelope, Envelopes, Fragment, KeptTrace
from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.walker cimport Redacted, Redactor

cdef struct Stamp:
    # What a decision writes into each span of a trace.
    uint64_t threshold, randomness
    bint sampled_out

cdef struct SpanState:
    # What becomes of a span's tracestate.
    uint64_t threshold  # with which the span leaves
    bint consistent  # its own threshold with the trace's randomness
    uint32_t removed  # bytes of the fields that go


cdef enum:
    MAX_STATE = 512  # bytes of a tracestate that are read


cdef class Stamper:
    cdef bint decision, adjusted_count  # the attributes that are switched on
    cdef Envelopes envelopes
    cdef Redactor redactor  # None: nothing is redacted
    cdef uint8_t* out  # finished spans of the trace
    cdef uint64_t used, room
    cdef uint64_t effort  # that the redaction of the last trace has cost, in microseconds, about
    # The tracestate that was rewritten last, since that of the next span is most often the same, and what it became.
    cdef uint8_t[MAX_STATE] state
    cdef uint32_t state_size  # 0: there is none
    cdef Stamp state_stamp
    cdef bytes rewritten
    cdef readonly uint64_t strings_mended  # spans in which some string was repaired
    cdef readonly uint64_t inconsistent  # spans whose own threshold was erased
    cdef KeptTrace finish(
        self, Fragment* trace, uint64_t threshold, uint64_t randomness, bytes attributes, uint32_t rule,
        bint sampled_out,
    )
    cdef int stamp_trace(
        self, KeptTrace kept, Fragment* trace, Redacted* redacted, Stamp* stamp, bytes attributes
    ) except -1
    cdef int add_group(self, KeptTrace kept, Envelope* scope, uint64_t begin, uint32_t spans) except -1
    cdef int span(
        self, cbytes body, uint32_t size, bint look, Stamp* stamp, bytes attributes, bytes plain_state
    ) except -1
    cdef bytes leaving_state(self, cbytes body, cbytes end, Stamp* stamp, bytes plain_state, SpanState* found)
    cdef int append_span(
        self, cbytes body, cbytes end, uint32_t removed, bytes state, bytes attributes, bytes count
    ) except -1
    cdef int reserve(self, uint64_t more) except -1
    cdef bytes decision_attributes(self, str rule, str reason, bint incomplete, bint sampled_out)
