"""Reads the numbers of JSON (RFC 8259), which end where no digit, point, sign or exponent follows.

Precondition: behind the text stands something that belongs to no number, such as a NUL.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from sampler_proxy.otlp.json_tables cimport (
    K_FIXED32, K_FIXED64, K_INT64, K_SFIXED64, K_SINT32, K_SINT64, K_UINT32, K_UINT64, Kind,
)
from sampler_proxy.otlp.protobuf cimport cbytes

cdef struct Number:
    # mantissa * 10 ** exponent, and a little more where `inexact`.
    uint64_t mantissa
    int64_t exponent
    bint negative
    bint inexact


cdef inline cbytes read_number(cbytes p, Number* number) noexcept nogil:
    """Read a number as RFC 8259 writes it; return the position behind it, or NULL for what is none."""
    cdef int64_t exponent = 0
    cdef bint below = False
    cdef uint8_t digit
    number.mantissa = 0
    number.exponent = 0
    number.inexact = False
    number.negative = p[0] == 45
    p += number.negative
    if not 48 <= p[0] <= 57 or (p[0] == 48 and 48 <= p[1] <= 57):
        return NULL
    while True:
        digit = p[0] - <uint8_t>48
        if digit > 9:
            if p[0] != 46 or below or not 48 <= p[1] <= 57:
                break
            below = True
        elif number.mantissa <= (0xFFFFFFFFFFFFFFFFULL - digit) // 10 and not number.inexact:
            number.mantissa = 10 * number.mantissa + digit
            number.exponent -= below
        else:  # the 21st digit or so
            number.inexact |= digit != 0
            number.exponent += not below
        p += 1
    if p[0] == 46:
        return NULL
    if p[0] | 32 == 101:  # e
        p += 1
        below = p[0] == 45
        p += p[0] == 45 or p[0] == 43
        if not 48 <= p[0] <= 57:
            return NULL
        while 48 <= p[0] <= 57:
            if exponent < <int64_t>1 << 50:
                exponent = 10 * exponent + p[0] - 48
            p += 1
        number.exponent += -exponent if below else exponent
    return p


cdef inline bint whole_number(const Number* number, uint64_t* size) noexcept nogil:
    """Tell whether a number is an integer of 64 bits, its sign apart, and give that."""
    cdef int64_t exponent = number.exponent
    size[0] = number.mantissa
    if number.inexact:
        return False  # too large, or not whole
    if size[0] == 0:
        return True
    while exponent < 0:
        if size[0] % 10:
            return False
        size[0] //= 10
        exponent += 1
    while exponent > 0:
        if size[0] > 0xFFFFFFFFFFFFFFFFULL // 10:
            return False
        size[0] *= 10
        exponent -= 1
    return True


cdef inline bint in_range(Kind kind, const Number* number, uint64_t* bits) noexcept nogil:
    """Tell whether a number is an integer of the kind, and make it the bits that are written."""
    cdef uint64_t size
    cdef uint64_t most = 0x7FFFFFFF
    if not whole_number(number, &size):
        return False
    if kind == K_INT64 or kind == K_SINT64 or kind == K_SFIXED64:
        most = 0x7FFFFFFFFFFFFFFFULL
    elif kind == K_UINT64 or kind == K_FIXED64:
        most = 0xFFFFFFFFFFFFFFFFULL
    elif kind == K_UINT32 or kind == K_FIXED32:
        most = 0xFFFFFFFF
    if number.negative and size:
        if kind == K_UINT64 or kind == K_FIXED64 or kind == K_UINT32 or kind == K_FIXED32 or size > most + 1:
            return False
        size = 0 - size
    elif size > most:
        return False
    if kind == K_SINT32 or kind == K_SINT64:
        size = (size << 1) ^ (0 - (size >> 63))
    bits[0] = size
    return True


cdef cbytes read_double(cbytes p, double* value) noexcept nogil
