"""Finds invalid UTF-8 in messages, and repairs it with U+FFFD.

The scan does not look at strings that no rule reads, but the official parser refuses a whole batch for one bad string.
So what is about to leave is checked here, and repaired where need be, so that its neighbours do not suffer. The
functions walk every string of a message, nested ones included.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.protobuf cimport (
    LEN, M_NONE, MAX_DEPTH, FieldCursor, Message, cbytes, child, cursor, damaged, is_text, load64, next_field,
    varint_size, write_varint,
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


cdef cbytes REPLACEMENT = <cbytes><const char*>b"\xef\xbf\xbd"  # U+FFFD


cdef uint32_t _character(cbytes p, cbytes end, bint* valid) noexcept nogil:
    """Return the bytes of the next character, or of the bad part there, which U+FFFD replaces: the longest beginning of
    a character, else one byte (Unicode, "U+FFFD Substitution of Maximal Subparts")."""
    cdef uint8_t lead = p[0]
    cdef uint32_t size, known
    cdef uint8_t low = 0x80
    cdef uint8_t high = 0xBF
    valid[0] = lead < 0x80
    if lead < 0xC2 or lead > 0xF4:
        return 1
    size = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if lead == 0xE0:
        low = 0xA0
    elif lead == 0xED:
        high = 0x9F
    elif lead == 0xF0:
        low = 0x90
    elif lead == 0xF4:
        high = 0x8F
    known = 1
    while known < size and p + known < end and low <= p[known] <= high:
        known += 1
        low = 0x80
        high = 0xBF
    valid[0] = known == size
    return known


cdef uint64_t _repair_text(cbytes p, cbytes end, uint8_t* out) noexcept nogil:
    """Return the size of a text with U+FFFD for each bad part, and write it unless `out` is NULL."""
    cdef uint64_t size = 0
    cdef uint32_t step
    cdef bint valid
    while p < end:
        step = _character(p, end, &valid)
        if out != NULL:
            memcpy(out + size, p if valid else REPLACEMENT, step if valid else 3)
        size += step if valid else 3
        p += step
    return size


cdef struct Changes:
    # The fields that change, in the order in which they begin, and the sizes that their contents get.
    uint64_t* sizes  # `count` of `room`
    cbytes* contents
    uint64_t count, room
    bint no_memory


cdef bint _add_change(Changes* changes, cbytes content) noexcept nogil:
    """Add a field, of a size that is not known yet."""
    cdef void* grown
    if changes.count == changes.room:
        grown = realloc(changes.sizes, (2 * changes.room + 64) * sizeof(uint64_t))
        if grown == NULL:
            return False
        changes.sizes = <uint64_t*>grown
        grown = realloc(changes.contents, (2 * changes.room + 64) * sizeof(cbytes))
        if grown == NULL:
            return False
        changes.contents = <cbytes*>grown
        changes.room = 2 * changes.room + 64
    changes.contents[changes.count] = content
    changes.count += 1
    return True


cdef uint64_t _measure(Message message, cbytes p, cbytes end, Changes* changes) noexcept nogil:
    """Return the size of a repaired message, and add the fields in it that change."""
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef Message nested
    cdef uint64_t size = <uint64_t>(end - p)
    cdef uint64_t number, content
    while next_field(&field):
        if field.wire != LEN:
            continue
        nested = child(message, field.number)
        if nested == M_NONE and (not is_text(message, field.number) or valid_utf8(field.content, field.p)):
            continue
        number = changes.count
        if not _add_change(changes, field.content):
            changes.no_memory = True
            return size
        if nested != M_NONE:
            content = _measure(nested, field.content, field.p, changes)
            if changes.no_memory:
                return size
            if changes.count == number + 1:  # nothing in it changes
                changes.count = number
                continue
        else:
            content = _repair_text(field.content, field.p, NULL)
        changes.sizes[number] = content
        size += varint_size(content) + content - <uint64_t>(field.p - field.value)
    return size


cdef uint8_t* _write(Message message, cbytes p, cbytes end, Changes* changes, uint8_t* out) noexcept nogil:
    """Write a repaired message; `changes.count` is the number of the next change, and goes on."""
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef cbytes run = p  # the first byte that is not written yet
    cdef uint64_t size
    cdef Message nested
    while next_field(&field):
        if field.wire != LEN or changes.count == changes.room or changes.contents[changes.count] != field.content:
            continue
        nested = child(message, field.number)
        size = changes.sizes[changes.count]
        changes.count += 1
        memcpy(out, run, field.value - run)
        out = write_varint(out + (field.value - run), size)
        if nested != M_NONE:
            out = _write(nested, field.content, field.p, changes, out)
        else:
            out += _repair_text(field.content, field.p, out)
        run = field.p
    memcpy(out, run, end - run)
    return out + (end - run)


cdef bytes repaired(Message message, const uint8_t* data, uint32_t size):
    """Return a valid message with what is not UTF-8 in its strings replaced by U+FFFD, everything else, order included,
    as before; None where there is nothing to repair. Two passes, one that measures and one that writes: each byte is
    looked at twice at most, and written once, however deep it is nested."""
    cdef Changes changes
    cdef uint64_t total
    cdef bytes out
    memset(&changes, 0, sizeof(Changes))
    try:
        total = _measure(message, data, data + size, &changes)
        if changes.no_memory:
            raise MemoryError
        if changes.count == 0:
            return None
        out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
        changes.room = changes.count
        changes.count = 0
        _write(message, data, data + size, &changes, <uint8_t*><char*>out)
        return out
    finally:
        free(changes.sizes)
        free(changes.contents)
