"""Declares the reader of the fields of a trace itself."""
from libc.stdint cimport uint8_t

from sampler_proxy.otlp.fragments cimport Fragment
from sampler_proxy.rules.conditions cimport Value

cdef void read_trace_field(int field, Fragment* trace, uint8_t* trace_hex, Value* value) noexcept
