"""Declares the reader of the fields of a trace itself."""
from libc.stdint cimport uint8_t

from sampler_proxy.otlp.fragments cimport Fragment
from sampler_proxy.rules.conditions cimport ROOT_DURATION, ROOT_NAME, ROOT_SERVICE, Value
from sampler_proxy.rules.roots cimport Root

cdef void read_trace_field(int field, Fragment* trace, Root* root, uint8_t* trace_hex, Value* value) noexcept


cdef inline bint reads_root(int field) noexcept nogil:
    """Tell whether a trace field is read from the root."""
    return field == ROOT_NAME or field == ROOT_SERVICE or field == ROOT_DURATION
