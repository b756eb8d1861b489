"""Tells which requests may be joined to one. joining.pyi is the manual."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from sampler_proxy.otlp.protobuf cimport LEN, MAX_DEPTH, FieldCursor, cbytes, cursor, damaged, next_field

from sampler_proxy.errors import MalformedRequest


def joinable(bytes request not None):
    cdef cbytes begin = <cbytes>PyBytes_AS_STRING(request)
    cdef FieldCursor field = cursor(begin, begin + PyBytes_GET_SIZE(request), MAX_DEPTH)
    cdef bint elements_only = True
    with nogil:
        while next_field(&field):
            if field.number != 1 or field.wire != LEN:
                elements_only = False
    if damaged(&field):
        raise MalformedRequest("the request is not a valid protobuf message")
    return elements_only
