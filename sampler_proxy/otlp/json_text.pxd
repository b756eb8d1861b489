"""Reads the parts of JSON (RFC 8259) from text: strings, words, and values that nobody wants. Header only.

Precondition of every function: the text ends with a NUL behind `end`, as a bytes object does. No part of JSON holds
one, so reading byte by byte stops there at the latest; reads of several bytes look at `end` first.

A function that refuses the text returns False (or NULL), and has noted in the reader why and where: at `end` exactly
where the text is cut short.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sampler_proxy.otlp.json_numbers cimport Number, read_number
from sampler_proxy.otlp.protobuf cimport cbytes, load64

cdef enum Error:
    E_NONE = 0
    E_NO_MEMORY
    E_TOO_LARGE
    E_VALUE
    E_KEY
    E_COLON
    E_COMMA
    E_NUMBER
    E_CONTROL
    E_UTF8
    E_ESCAPE
    E_SURROGATE
    E_TRAILING
    E_DEEP
    E_OBJECT
    E_ARRAY
    E_STRING
    E_BOOL
    E_INTEGER
    E_DOUBLE
    E_RANGE
    E_ENUM
    E_HEX
    E_BASE64
    E_TWICE
    E_ONEOF
    E_NULL

cdef enum:
    WORDS_OF_STACK = 8
    MAX_UNKNOWN_DEPTH = 64 * WORDS_OF_STACK  # levels of a value that nobody wants

cdef struct Reader:
    # A place in a text, and what is wrong there.
    cbytes p
    cbytes end
    cbytes where
    Error error


cdef inline bint fail(Reader* text, Error error, cbytes where) noexcept nogil:
    """Note what is wrong, and where."""
    text.error = error
    text.where = where
    return False


cdef inline void skip_space(Reader* text) noexcept nogil:
    """Go on to what is no white space."""
    cdef cbytes p = text.p
    while p[0] <= 32 and (p[0] == 32 or p[0] == 10 or p[0] == 13 or p[0] == 9):
        p += 1
    text.p = p


cdef extern from *:
    int trailing_zeros "__builtin_ctzll"(uint64_t) noexcept nogil


cdef inline cbytes plain_end(cbytes p, cbytes end) noexcept nogil:
    """Return the first byte at or behind p that ends a run of ASCII in a string: a quote, a backslash, a control
    character, a byte from 0x80, or the end of the text."""
    cdef uint64_t word, found
    while end - p >= 8:
        word = load64(p)
        # A byte's high bit is set where the byte is one of these; above the first such byte, perhaps elsewhere too.
        found = (
            word
            | (word - 0x2020202020202020ULL)
            | ((word ^ 0x2222222222222222ULL) - 0x0101010101010101ULL)
            | ((word ^ 0x5C5C5C5C5C5C5C5CULL) - 0x0101010101010101ULL)
        ) & 0x8080808080808080ULL
        if found:
            return p + (trailing_zeros(found) >> 3)
        p += 8
    while 32 <= p[0] < 128 and p[0] != 34 and p[0] != 92:
        p += 1
    return p


cdef inline cbytes character_end(cbytes p) noexcept nogil:
    """Return the position behind a character of two to four bytes (RFC 3629); NULL where it is none."""
    cdef uint8_t lead = p[0]
    if lead < 0xC2 or lead > 0xF4 or (p[1] & 0xC0) != 0x80:
        return NULL
    if lead < 0xE0:
        return p + 2
    if (p[2] & 0xC0) != 0x80:
        return NULL
    if lead < 0xF0:
        if (lead == 0xE0 and p[1] < 0xA0) or (lead == 0xED and p[1] >= 0xA0):
            return NULL
        return p + 3
    if (p[3] & 0xC0) != 0x80 or (lead == 0xF0 and p[1] < 0x90) or (lead == 0xF4 and p[1] >= 0x90):
        return NULL
    return p + 4


cdef inline int hex_digit(uint8_t digit) noexcept nogil:
    """Return the value of a hexadecimal digit; -1 for anything else."""
    if 48 <= digit <= 57:
        return digit - 48
    digit |= 32
    return digit - 87 if 97 <= digit <= 102 else -1


cdef inline int64_t code_unit(Reader* text, cbytes p) noexcept nogil:
    """Return the code unit of the escape at p, which begins with a backslash and u; -1 where the digits are wrong."""
    cdef int64_t unit = 0
    cdef int i, digit
    for i in range(2, 6):
        digit = hex_digit(p[i])
        if digit < 0:
            fail(text, E_ESCAPE, p + i if p + i == text.end else p)
            return -1
        unit = unit << 4 | digit
    return unit


cdef inline cbytes read_escape(Reader* text, cbytes p, uint8_t** out) noexcept nogil:
    """Read the escape at p, and write its character (up to 4 bytes, in UTF-8). Returns the position behind it."""
    cdef int64_t unit, low
    cdef uint8_t c = p[1]
    if c != 117:  # u
        if c == 34 or c == 92 or c == 47:
            out[0][0] = c
        elif c == 98:
            out[0][0] = 8
        elif c == 102:
            out[0][0] = 12
        elif c == 110:
            out[0][0] = 10
        elif c == 114:
            out[0][0] = 13
        elif c == 116:
            out[0][0] = 9
        else:
            fail(text, E_ESCAPE, p + 1 if p + 1 == text.end else p)
            return NULL
        out[0] += 1
        return p + 2
    unit = code_unit(text, p)
    if unit < 0:
        return NULL
    if 0xD800 <= unit < 0xE000:
        if p + 6 == text.end or (p[6] == 92 and p + 7 == text.end):
            fail(text, E_SURROGATE, text.end)
            return NULL
        if unit >= 0xDC00 or p[6] != 92 or p[7] != 117:
            fail(text, E_SURROGATE, p)
            return NULL
        low = code_unit(text, p + 6)
        if low < 0:
            return NULL
        if not 0xDC00 <= low < 0xE000:
            fail(text, E_SURROGATE, p)
            return NULL
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
        p += 6
    if unit < 0x80:
        out[0][0] = <uint8_t>unit
        out[0] += 1
        return p + 6
    if unit < 0x800:
        out[0][0] = <uint8_t>(0xC0 | unit >> 6)
        out[0] += 1
    else:
        if unit < 0x10000:
            out[0][0] = <uint8_t>(0xE0 | unit >> 12)
        else:
            out[0][0] = <uint8_t>(0xF0 | unit >> 18)
            out[0] += 1
            out[0][0] = <uint8_t>(0x80 | (unit >> 12 & 0x3F))
        out[0] += 1
        out[0][0] = <uint8_t>(0x80 | (unit >> 6 & 0x3F))
        out[0] += 1
    out[0][0] = <uint8_t>(0x80 | (unit & 0x3F))
    out[0] += 1
    return p + 6


cdef struct Token:
    # What stands between the quotes of a string, valid UTF-8 with valid escapes.
    cbytes text
    uint64_t size
    bint escaped


cdef inline bint read_string(Reader* text, Token* token) noexcept nogil:
    """Read the string whose quote is at `text.p`, and validate it."""
    cdef cbytes p = text.p + 1
    cdef cbytes next
    cdef uint8_t[8] ignored
    cdef uint8_t* out
    token.text = p
    token.escaped = False
    while True:
        p = plain_end(p, text.end)
        if p[0] == 34:
            token.size = <uint64_t>(p - token.text)
            text.p = p + 1
            return True
        if p[0] == 92:
            token.escaped = True
            out = ignored
            p = read_escape(text, p, &out)
            if p == NULL:
                return False
        elif p[0] >= 128:
            next = character_end(p)
            if next == NULL:
                return fail(text, E_UTF8, p)
            p = next
        else:
            return fail(text, E_CONTROL, p)


cdef inline uint64_t unescape(Reader* text, const Token* token, uint8_t* out) noexcept nogil:
    """Write what an escaped string says, in no more than its size and 4 bytes; return how many bytes that are."""
    cdef cbytes p = token.text
    cdef cbytes end = p + token.size
    cdef cbytes run
    cdef uint8_t* start = out
    while p < end:
        run = p
        while p < end and p[0] != 92:
            p += 1
        memcpy(out, run, p - run)
        out += p - run
        if p < end:
            p = read_escape(text, p, &out)
    return <uint64_t>(out - start)


cdef inline bint read_word(Reader* text, const char* word, uint32_t size) noexcept nogil:
    """Read true, false or null."""
    cdef uint32_t i
    for i in range(size):
        if text.p[i] != <uint8_t>word[i]:
            return fail(text, E_VALUE, text.end if text.p + i == text.end else text.p)
    text.p += size
    return True


cdef inline bint _skip_scalar(Reader* text) noexcept nogil:
    """Skip a value that is neither an object nor an array."""
    cdef Token token
    cdef Number number
    cdef cbytes p
    if text.p[0] == 34:
        return read_string(text, &token)
    if text.p[0] == 116:
        return read_word(text, b"true", 4)
    if text.p[0] == 102:
        return read_word(text, b"false", 5)
    if text.p[0] == 110:
        return read_word(text, b"null", 4)
    if text.p[0] != 45 and not 48 <= text.p[0] <= 57:
        return fail(text, E_VALUE, text.p)
    p = read_number(text.p, &number)
    if p == NULL:
        return fail(text, E_NUMBER, text.p)
    text.p = p
    return True


cdef inline bint read_colon(Reader* text) noexcept nogil:
    """Read the colon behind a key, and the white space around it."""
    skip_space(text)
    if text.p[0] != 58:
        return fail(text, E_COLON, text.p)
    text.p += 1
    skip_space(text)
    return True


cdef inline bint _skip_key(Reader* text) noexcept nogil:
    """Skip a key and its colon."""
    cdef Token token
    if text.p[0] != 34:
        return fail(text, E_KEY, text.p)
    return read_string(text, &token) and read_colon(text)


cdef inline bint skip_value(Reader* text) noexcept nogil:
    """Skip a value and validate it. Iterative: the open objects and arrays are bits of a small stack."""
    cdef uint64_t[WORDS_OF_STACK] objects
    cdef uint32_t depth = 0
    cdef uint64_t bit
    cdef uint8_t c
    while True:
        c = text.p[0]
        if c == 123 or c == 91:  # { or [
            if depth == MAX_UNKNOWN_DEPTH:
                return fail(text, E_DEEP, text.p)
            bit = <uint64_t>1 << (depth & 63)
            objects[depth >> 6] = (objects[depth >> 6] if depth & 63 else 0) & ~bit | (bit if c == 123 else 0)
            depth += 1
            text.p += 1
            skip_space(text)
            if text.p[0] != c + 2:
                if c == 123 and not _skip_key(text):
                    return False
                continue
            depth -= 1
            text.p += 1
        elif not _skip_scalar(text):
            return False
        while True:  # behind a value
            if depth == 0:
                return True
            skip_space(text)
            bit = objects[(depth - 1) >> 6] >> ((depth - 1) & 63) & 1
            if text.p[0] == 44:
                text.p += 1
                skip_space(text)
                if bit and not _skip_key(text):
                    return False
                break
            if text.p[0] != (125 if bit else 93):
                return fail(text, E_COMMA, text.p)
            depth -= 1
            text.p += 1
