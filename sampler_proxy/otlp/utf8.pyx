"""Finds invalid UTF-8 in messages, and repairs it with U+FFFD.

The scan does not look at strings that no rule reads, but the official parser refuses a whole batch for one bad string.
So what is about to leave is checked here, and repaired where need be, so that its neighbours do not suffer. The
functions walk every string of a message, nested ones included.
"""
from libc.stdint cimport uint8_t, uint32_t

from sampler_proxy.otlp.protobuf cimport (
    LEN, M_NONE, MAX_DEPTH, FieldCursor, Message, cbytes, child, cursor, damaged, is_text, load64, next_field,
    write_varint,
)


cdef bint valid_utf8(cbytes p, cbytes end) noexcept nogil:
    """Return whether bytes are UTF-8 by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF."""
    cdef uint8_t lead
    while p < end:
        while end - p >= 8 and not load64(p) & 0x8080808080808080ULL:
            p += 8
        if p >= end:
            return True
        lead = p[0]
        if lead < 0x80:
            p += 1
        elif lead < 0xC2:
            return False
        elif lead < 0xE0:
            if end - p < 2 or (p[1] & 0xC0) != 0x80:
                return False
            p += 2
        elif lead < 0xF0:
            if end - p < 3 or (p[1] & 0xC0) != 0x80 or (p[2] & 0xC0) != 0x80:
                return False
            if (lead == 0xE0 and p[1] < 0xA0) or (lead == 0xED and p[1] >= 0xA0):
                return False
            p += 3
        elif lead < 0xF5:
            if end - p < 4 or (p[1] & 0xC0) != 0x80 or (p[2] & 0xC0) != 0x80 or (p[3] & 0xC0) != 0x80:
                return False
            if (lead == 0xF0 and p[1] < 0x90) or (lead == 0xF4 and p[1] >= 0x90):
                return False
            p += 4
        else:
            return False
    return True


cdef bint strings_are_valid(Message message, cbytes p, cbytes end) noexcept nogil:
    """Return whether every `string` field of a message is UTF-8. False too for one that is structurally damaged."""
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef Message nested
    while next_field(&field):
        if field.wire != LEN:
            continue
        nested = child(message, field.number)
        if nested != M_NONE:
            if not strings_are_valid(nested, field.content, field.p):
                return False
        elif is_text(message, field.number) and not valid_utf8(field.content, field.p):
            return False
    return not damaged(&field)


cdef bytes repaired(Message message, const uint8_t* data, uint32_t size):
    """Return a valid message with what is not UTF-8 in its strings replaced by U+FFFD, everything else, order included,
    as before; None where there is nothing to repair. Each byte is looked at once, however deep it is nested, and
    unchanged parts are copied in long runs."""
    cdef FieldCursor field = cursor(data, data + size, MAX_DEPTH)
    cdef cbytes run = data  # the first byte that is not in `out` yet
    cdef Message nested
    cdef bytes content
    cdef uint8_t[10] length
    cdef bytearray out = None
    while next_field(&field):
        if field.wire != LEN:
            continue
        nested = child(message, field.number)
        content = None
        if nested != M_NONE:
            content = repaired(nested, field.content, field.size)
        elif is_text(message, field.number) and not valid_utf8(field.content, field.p):
            content = field.content[:field.size].decode("utf-8", "replace").encode()
        if content is not None:
            if out is None:
                out = bytearray()
            out += run[:field.value - run]
            out += (<const uint8_t*>length)[:write_varint(length, len(content)) - length]
            out += content
            run = field.p
    assert not damaged(&field)
    if out is None:
        return None
    out += run[:data + size - run]
    return bytes(out)
