"""Declares the reader of the key of a trace. `trace_key.pyi` is the manual."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Fragment
from sampler_proxy.rules.conditions cimport Value
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.rate cimport MAX_KEY_TEXT
from sampler_proxy.rules.roots cimport Root
from sampler_proxy.rules.span_matcher cimport SpanMatcher

cdef class TraceKeyReader:
    cdef Plan plan
    cdef SpanMatcher matcher
    cdef uint64_t seed
    # Of the trace that was read last:
    cdef uint64_t[2] key
    cdef uint8_t[MAX_KEY_TEXT] text
    cdef uint32_t text_size
    cdef void read(self, Fragment* trace, Root* root) noexcept nogil
    cdef void summarize(self) noexcept nogil
    cdef void write(self, Value* value, uint32_t room) noexcept nogil
