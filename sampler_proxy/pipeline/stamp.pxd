from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.walker cimport Redactor
from sampler_proxy.otlp.fragments cimport Envelopes, Fragment, KeptTrace

cdef class Stamper:
    cdef bint decision, adjusted_count
    cdef Envelopes envelopes
    cdef Redactor redactor  # None: nothing is redacted
    cdef uint8_t* out
    cdef uint64_t used, room
    cdef readonly uint64_t strings_mended  # spans in which some string was
    cdef readonly uint64_t inconsistent  # spans whose own threshold was erased
    cdef KeptTrace finish(self, Fragment* first, uint64_t threshold, uint64_t randomness, bytes attributes, uint32_t rule)
    cdef int span(self, cbytes body, uint32_t size, bint look, uint64_t threshold, uint64_t randomness, bytes attributes,
                  bytes plain_state) except -1
    cdef int reserve(self, uint64_t more) except -1
    cdef bytes decision_attributes(self, str rule, str reason, bint incomplete)
