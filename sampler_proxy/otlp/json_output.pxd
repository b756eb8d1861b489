"""Holds what the transcoder of OTLP/JSON has written, and its place in the document. Header only.

A function that finds no room returns False, and has noted why in the reader, as those of json_text.pxd do.
"""
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from sampler_proxy.otlp.json_tables cimport MAX_TABLES, Field
from sampler_proxy.otlp.json_text cimport E_NO_MEMORY, E_TOO_LARGE, Reader, fail
from sampler_proxy.otlp.protobuf cimport MAX_DEPTH, varint_size, write_varint

cdef extern from "Python.h":
    # Frees the block and raises MemoryError where it cannot be grown.
    int resize "_PyBytes_Resize"(PyObject** block, Py_ssize_t size) except -1

cdef enum:
    TAG_AND_LENGTH = 16  # bytes, at least what a tag and a length, or a tag and a number, may take

cdef struct Step:
    # One message on the way from the document's to where the reader is.
    const Field* field  # that is being read; NULL: none that is known
    int64_t index  # of its element; -1: it is not repeated, or its array has not begun

cdef struct State:
    Reader text
    uint8_t* start
    uint8_t* out  # what has been written ends here
    uint8_t* room_end
    PyObject* block  # the bytes object that is written into; owned
    uint64_t most
    uint32_t depth  # of `path`
    Step[MAX_DEPTH] path
    uint8_t[MAX_TABLES] lengths  # by table: bytes that the length of the last message took


cdef inline bint grow(State* s, uint64_t size) noexcept nogil:
    """Make room for `size` bytes more, and for what may come of the rest of the text: an eighth as much again at least,
    so that few steps are taken, a half at most."""
    cdef uint64_t used = <uint64_t>(s.out - s.start)
    cdef uint64_t room
    if used > s.most:
        return fail(&s.text, E_TOO_LARGE, s.text.p)
    room = used + size
    room += max(room >> 3, min(room >> 1, <uint64_t>(s.text.end - s.text.p)))
    with gil:
        try:
            resize(&s.block, <Py_ssize_t>room)
        except MemoryError:
            return fail(&s.text, E_NO_MEMORY, s.text.p)
        s.start = <uint8_t*>PyBytes_AS_STRING(<object>s.block)
    s.out = s.start + used
    s.room_end = s.start + room
    return True


cdef inline bint reserve(State* s, uint64_t size) noexcept nogil:
    """Make sure that there is room for `size` bytes more."""
    return True if size <= <uint64_t>(s.room_end - s.out) else grow(s, size)


cdef inline bint write_tag(State* s, const Field* field, uint64_t size) noexcept nogil:
    """Write a field's tag, and make sure that there is room for `size` bytes behind it."""
    if not reserve(s, TAG_AND_LENGTH + size):
        return False
    memcpy(s.out, field.tag, 8)
    s.out += field.tag_size
    return True


cdef inline bint close(State* s, uint64_t begin, uint8_t* length) noexcept nogil:
    """Write the length of what has been written since `begin`, which `length[0]` bytes of room stand before; it becomes
    what was needed."""
    cdef uint64_t size = <uint64_t>(s.out - s.start) - begin
    cdef uint32_t needed = varint_size(size)
    cdef uint8_t* body
    if needed != length[0]:
        if not reserve(s, needed):
            return False
        body = s.start + begin
        memmove(body - length[0] + needed, body, size)
        s.out = s.out - length[0] + needed
        begin = begin - length[0] + needed
        length[0] = <uint8_t>needed
    write_varint(s.start + begin - needed, size)
    return True
