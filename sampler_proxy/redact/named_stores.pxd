"""Finds the store that a message's attributes name: it says in which lane the statements among them are looked at."""
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from sampler_proxy.otlp.protobuf cimport LEN, FieldCursor, M_KEY_VALUE, MAX_DEPTH, cbytes, child, cursor, next_field
from sampler_proxy.redact.edits cimport Frame
from sampler_proxy.redact.effort cimport Effort, walked
from sampler_proxy.redact.value_cache cimport ValueCache


cdef inline bint names_store(cbytes p, uint32_t size) noexcept nogil:
    """Tell whether an attribute's key says that its value is the name of a store."""
    if size == 9:
        return memcmp(p, b"db.system", 9) == 0
    return memcmp(p, b"db.system.name", 14) == 0 if size == 14 else size == 7 and memcmp(p, b"db.type", 7) == 0


cdef inline bint may_not_name(cbytes p, uint32_t size) noexcept nogil:
    """Tell at a glance that a KeyValue, as nearly all encode it, has a key of another length."""
    return size > 1 and p[0] == 0x0A and p[1] < 0x80 and p[1] != 9 and p[1] != 14 and p[1] != 7


cdef inline int statement_lane(Frame* frame, ValueCache cache, Effort effort) except -1:
    """Return the lane of statements in a message: that of the store which the attributes in it name, or else those
    around it. Each message is looked through once."""
    cdef int unnamed = cache.view.statement
    while frame != NULL:
        if not frame.statements:
            frame.statements = named_store(frame, cache, effort)
        if frame.statements != unnamed:
            return frame.statements
        frame = frame.up
    return unnamed


cdef inline int named_store(Frame* frame, ValueCache cache, Effort effort) except -1:
    """Return the lane of statements for the store that the attributes of a message name; if these name none that is
    known, or several that differ, the lane that goes by the text."""
    cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
    cdef FieldCursor part, value
    cdef bint named
    cdef int unnamed = cache.view.statement
    cdef int lane = unnamed
    cdef int found
    while next_field(&field):
        walked(effort, 1)
        if field.wire != LEN or child(frame.message, field.number) != M_KEY_VALUE:
            continue
        if may_not_name(field.content, field.size):
            continue
        named = False
        part = cursor(field.content, field.p, MAX_DEPTH)
        while next_field(&part):
            if part.number == 1 and part.wire == LEN:
                named = names_store(part.content, part.size)
        if not named:
            continue
        part = cursor(field.content, field.p, MAX_DEPTH)
        while next_field(&part):
            if part.number != 2 or part.wire != LEN:
                continue
            value = cursor(part.content, part.p, MAX_DEPTH)
            while next_field(&value):
                if value.number == 1 and value.wire == LEN:
                    found = cache.system(value.content, value.size)
                    if lane != unnamed and found != unnamed and found != lane:
                        return unnamed
                    if found != unnamed:
                        lane = found
    return lane
