"""Declares what readers of brackets and quotes ask about white space."""
from libc.stdint cimport uint8_t

from sampler_proxy.otlp.protobuf cimport cbytes


cdef inline bint is_space(uint8_t c) noexcept nogil:
    return c == 32 or 9 <= c <= 13


cdef inline Py_ssize_t after_space(cbytes p, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Return the first position from one on that holds no white space; the size: none does."""
    while at < size and is_space(p[at]):
        at += 1
    return at
