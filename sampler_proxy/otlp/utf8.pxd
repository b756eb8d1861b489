"""Declares the check of strings for UTF-8, and their repair."""
from sampler_proxy.otlp.protobuf cimport Message, cbytes

cdef bint valid_utf8(cbytes p, cbytes end) noexcept nogil
cdef bint strings_are_valid(Message message, cbytes p, cbytes end) noexcept nogil
cdef bytes repaired(Message message, const unsigned char* data, unsigned int size)
