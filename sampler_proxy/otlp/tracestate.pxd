"""Declares the reader of `th` and `rv` in a tracestate."""
from libc.stdint cimport uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes

cdef enum:
    # What read_tracestate has found.
    HAS_TH = 1
    HAS_RV = 2

cdef int read_tracestate(cbytes p, uint32_t size, uint64_t* threshold, uint64_t* randomness) noexcept nogil
