"""Invalid UTF-8: find it, and replace it by U+FFFD.

The scan does not look at strings that no rule reads, but the official parser refuses a whole batch for one bad string. So what is
about to leave is checked here, and mended where need be, so that it does not take its neighbours with it. Both functions
want a structurally valid message (the scan has seen to that) and walk every string of it, nested ones included.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport (
    FieldCursor, LEN, M_NONE, MAX_DEPTH, Message, cbytes, child, cursor, damaged, is_text, next_field, load64, read_length, read_tag, skip_value, varint_size, write_varint,
)


cdef bint valid_utf8(cbytes p, cbytes end) noexcept nogil:
    """RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF."""
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


cdef bint text_is_valid(Message message, cbytes p, cbytes end) noexcept nogil:
    """Whether every `string` field in the message is UTF-8. False too for a message that is structurally damaged."""
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef Message nested
    while next_field(&field):
        if field.wire != LEN:
            continue
        nested = child(message, field.number)
        if nested != M_NONE:
            if not text_is_valid(nested, field.content, field.p):
                return False
        elif is_text(message, field.number) and not valid_utf8(field.content, field.p):
            return False
    return not damaged(&field)


cdef bytes mended(Message message, const uint8_t* data, uint32_t size):
    """The message with what is not UTF-8 in its strings replaced by U+FFFD; everything else, order included, as it was. None where
    there is nothing to mend. Each byte is looked at once, however deep it is nested, and what stays is copied in long runs."""
    cdef cbytes p = data
    cdef cbytes end = data + size
    cdef cbytes run = data  # what is not in `out` yet, and stays as it is, begins here
    cdef cbytes body
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef Message nested
    cdef bytes content
    cdef uint8_t[10] prefix
    cdef bytearray out = None
    while p < end:
        p = read_tag(p, end, &field, &wire)
        assert p != NULL
        if wire != LEN:
            p = skip_value(p, end, field, wire, MAX_DEPTH)
            assert p != NULL
            continue
        body = p
        p = read_length(p, end, &length)
        assert p != NULL
        nested = child(message, field)
        content = None
        if nested != M_NONE:
            content = mended(nested, p, length)
        elif is_text(message, field) and not valid_utf8(p, p + length):
            content = p[:length].decode("utf-8", "replace").encode()
        p += length
        if content is not None:
            if out is None:
                out = bytearray()
            out += run[:body - run]
            out += (<const uint8_t*>prefix)[:write_varint(prefix, len(content)) - prefix]
            out += content
            run = p
    if out is None:
        return None
    out += run[:end - run]
    return bytes(out)
