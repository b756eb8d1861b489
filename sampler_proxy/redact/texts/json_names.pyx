"""Finds the names in JSON that may announce values: a glance that costs little, since JSON is mostly harmless."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr

from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.texts.brackets cimport after_space, is_space


def names_in_json(bytes text not None, frozenset of_names not None, frozenset of_values not None):
    cdef cbytes p = <cbytes>PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t start = 0  # of a string, behind its quote
    cdef Py_ssize_t end, behind, other
    cdef const void* quote = memchr(p, b"\"", size)
    cdef set found = set()
    cdef list named = []  # values under keys of names
    cdef bytes key = b""
    cdef bint named_values = False
    cdef uint8_t before = 0  # the quote, but for white space
    while quote != NULL:
        end = <cbytes>quote - p
        behind = after_space(p, end + 1, size)
        if start and behind < size:
            if p[behind] == b":":
                key = p[start:end]
                found.add(key)
                named_values = named_values or key in of_values
                behind = after_space(p, behind + 1, size)
                if behind < size and p[behind] == b"[" and b"eader" in key:
                    return None
            elif start < end and p[start] == b"-":
                if start + 1 < end and 97 <= (p[start + 1] | 32) <= 122:  # an option of one letter: of a command line
                    return None
                found.add(p[start:end].lstrip(b"-").partition(b"=")[0])
            elif before == b":":
                if key in of_names:
                    named.append(p[start:end])
            elif memchr(p + start, b"=", end - start) != NULL:
                found.add(p[start:end].partition(b"=")[0])
            elif before == b"[" and p[behind] == b",":
                other = after_space(p, behind + 1, size)
                if other < size and p[other] == b"\"":
                    quote = memchr(p + other + 1, b"\"", size - other - 1)
                    other = size if quote == NULL else after_space(p, <cbytes>quote - p + 1, size)
                    if other < size and p[other] == b"]":  # a pair
                        found.add(p[start:end])
        start = end + 1
        before = before_space(p, end)
        quote = memchr(p + start, b"\"", size - start)
    if named_values:
        found.update(named)
    return found


cdef inline uint8_t before_space(cbytes p, Py_ssize_t at) noexcept nogil:
    """Return the last byte before a position that is no white space; 0: none is."""
    while at > 0 and is_space(p[at - 1]):
        at -= 1
    return p[at - 1] if at else 0
