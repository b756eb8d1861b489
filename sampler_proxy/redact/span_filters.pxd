"""Declares the answers of a policy's filters (`only`), a bit each."""
cimport cython
from libc.stdint cimport uint64_t

from sampler_proxy.otlp.fragments cimport Envelope, Fragment
from sampler_proxy.redact.effort cimport Effort
from sampler_proxy.redact.value_cache cimport ValueCache
from sampler_proxy.rules.span_matcher cimport SpanMatcher


@cython.final
cdef class SpanFilters:
    cdef SpanMatcher matcher
    cdef uint64_t* masks  # of the trace's spans, in order
    cdef uint64_t room  # of masks
    cdef dict header_masks  # address of an envelope -> (for some, and for every one, of the spans under it)
    cdef int match_trace(self, Fragment* trace, Effort effort) except -1
    cdef void release(self) noexcept
    cdef int add_to_headers(self, Envelope* scope, uint64_t some, uint64_t every) except -1
    cdef int select_header(self, Envelope* envelope, ValueCache cache) except -1
