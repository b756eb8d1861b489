"""Reads protobuf with checked bounds, by the OTLP trace messages as a table. Header only: all of it is inlined.

Messages are read with a cursor (FieldCursor, below); the other readers are what it is made of. Each of them takes (p,
end) with p <= end, reads nothing at or behind `end`, and returns the position after what it read, or NULL when the
bytes are damaged; after NULL the out-parameters are unspecified. What is damaged is what the official parser (upb)
refuses:

- a tag is a varint of at most 5 bytes and 32 bits, its field number is not 0 (except in a group), its wire type is 0-5;
- a length is a varint of at most 5 bytes, and does not pass the end of the enclosing message;
- a varint value has at most 10 bytes; bits above the 64th are dropped;
- groups are skipped, must be closed by their own field number, and count against the nesting limit;
- a known field with an unexpected wire type is an unknown field.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef const uint8_t* cbytes

cdef enum:
    VARINT = 0
    FIXED64 = 1
    LEN = 2
    SGROUP = 3
    EGROUP = 4
    FIXED32 = 5
    MAX_DEPTH = 100

# Message types of opentelemetry/proto/{collector/trace,trace,resource,common}/v1.
cdef enum Message:
    M_NONE = 0
    M_RESOURCE_SPANS
    M_SCOPE_SPANS
    M_RESOURCE
    M_SCOPE
    M_SPAN
    M_EVENT
    M_LINK
    M_STATUS
    M_KEY_VALUE
    M_ANY_VALUE
    M_ARRAY
    M_KVLIST
    M_ENTITY_REF


cdef inline Message child(Message message, uint32_t field) noexcept nogil:
    """Return the message type of a length-delimited field; M_NONE for text, bytes and unknown fields."""
    if message == M_KEY_VALUE:
        return M_ANY_VALUE if field == 2 else M_NONE
    if message == M_ANY_VALUE:
        return M_ARRAY if field == 5 else (M_KVLIST if field == 6 else M_NONE)
    if message == M_SPAN:
        if field == 9:
            return M_KEY_VALUE
        if field == 11:
            return M_EVENT
        if field == 13:
            return M_LINK
        return M_STATUS if field == 15 else M_NONE
    if message == M_EVENT:
        return M_KEY_VALUE if field == 3 else M_NONE
    if message == M_LINK:
        return M_KEY_VALUE if field == 4 else M_NONE
    if message == M_ARRAY:
        return M_ANY_VALUE if field == 1 else M_NONE
    if message == M_KVLIST:
        return M_KEY_VALUE if field == 1 else M_NONE
    if message == M_RESOURCE:
        return M_KEY_VALUE if field == 1 else (M_ENTITY_REF if field == 3 else M_NONE)
    if message == M_SCOPE:
        return M_KEY_VALUE if field == 3 else M_NONE
    if message == M_RESOURCE_SPANS:
        return M_RESOURCE if field == 1 else (M_SCOPE_SPANS if field == 2 else M_NONE)
    if message == M_SCOPE_SPANS:
        return M_SCOPE if field == 1 else (M_SPAN if field == 2 else M_NONE)
    return M_NONE


cdef inline bint is_text(Message message, uint32_t field) noexcept nogil:
    """Return whether a length-delimited field is a protobuf `string`, which must be UTF-8."""
    if message == M_KEY_VALUE or message == M_ANY_VALUE:
        return field == 1
    if message == M_SPAN:
        return field == 5 or field == 3
    if message == M_EVENT or message == M_STATUS:
        return field == 2
    if message == M_LINK or message == M_RESOURCE_SPANS or message == M_SCOPE_SPANS:
        return field == 3
    if message == M_SCOPE:
        return field == 1 or field == 2
    if message == M_ENTITY_REF:
        return 1 <= field <= 4
    return False


cdef inline int wire_type(Message message, uint32_t field) noexcept nogil:
    """Return the wire type of a known field; -1 for any other."""
    if field > 16:
        return -1
    cdef uint32_t bit = <uint32_t>1 << field
    if message == M_KEY_VALUE:
        return LEN if bit & 0x6 else (VARINT if bit & 0x8 else -1)
    if message == M_ANY_VALUE:
        return LEN if bit & 0xE2 else (VARINT if bit & 0x10C else (FIXED64 if field == 4 else -1))
    if message == M_SPAN:
        if bit & 0xAA3E:
            return LEN
        return VARINT if bit & 0x5440 else (FIXED64 if bit & 0x180 else (FIXED32 if field == 16 else -1))
    if message == M_EVENT:
        return LEN if bit & 0xC else (FIXED64 if field == 1 else (VARINT if field == 4 else -1))
    if message == M_LINK:
        return LEN if bit & 0x1E else (VARINT if field == 5 else (FIXED32 if field == 6 else -1))
    if message == M_STATUS:
        return LEN if field == 2 else (VARINT if field == 3 else -1)
    if message == M_ARRAY or message == M_KVLIST:
        return LEN if field == 1 else -1
    if message == M_RESOURCE:
        return LEN if bit & 0xA else (VARINT if field == 2 else -1)
    if message == M_SCOPE:
        return LEN if bit & 0xE else (VARINT if field == 4 else -1)
    if message == M_ENTITY_REF:
        return LEN if bit & 0x1E else -1
    if message == M_RESOURCE_SPANS or message == M_SCOPE_SPANS:
        return LEN if bit & 0xE else -1
    return -1


cdef inline uint64_t scramble(uint64_t state) noexcept nogil:
    """Finish a hash: every bit of the result depends on every bit. A product alone carries nothing downwards, and ids,
    names and addresses often differ in their last bytes only, which are the highest."""
    state = (state ^ (state >> 32)) * 0xC4CEB9FE1A85EC53ULL
    return state ^ (state >> 32)


cdef inline uint64_t load64(cbytes p) noexcept nogil:
    """Load 8 bytes, little-endian, from any address."""
    cdef uint64_t value
    memcpy(&value, p, 8)
    return value


cdef extern from *:
    # Turns the bytes round: a big-endian number from load64.
    uint64_t bswap64 "__builtin_bswap64"(uint64_t) noexcept nogil


cdef extern from *:
    """
    static inline unsigned long long sampler_proxy_fold(unsigned long long a, unsigned long long b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (unsigned long long)product ^ (unsigned long long)(product >> 64);
    }
    """
    uint64_t fold "sampler_proxy_fold"(uint64_t a, uint64_t b) noexcept nogil


cdef inline uint64_t hash_two(uint64_t a, uint64_t b, uint64_t seed) noexcept nogil:
    """Hash two numbers that senders choose, folding a product of 128 bits. The seed is drawn at start, so that nobody
    outside can choose what collides: both factors are secret. (A multiplication by a constant would not do: differences
    in the highest bits pass through it unchanged, whatever was added before.)"""
    return scramble(fold(a ^ seed ^ 0x9E3779B97F4A7C15ULL, b ^ scramble(seed ^ 0xC2B2AE3D27D4EB4FULL)))


cdef inline uint64_t hash_bytes(cbytes p, uint64_t size, uint64_t number, uint64_t seed) noexcept nogil:
    """Hash a number and bytes, as strongly as hash_two."""
    cdef uint64_t secret = scramble(seed ^ 0xC2B2AE3D27D4EB4FULL)
    cdef uint64_t state = fold(number ^ seed ^ 0x9E3779B97F4A7C15ULL, size ^ secret)
    cdef uint64_t a = 0
    cdef uint64_t b = 0
    while size >= 16:
        state = fold(load64(p) ^ secret, load64(p + 8) ^ state)
        p += 16
        size -= 16
    if size >= 8:
        a = load64(p)
        memcpy(&b, p + 8, size - 8)
    elif size:
        memcpy(&a, p, size)
    return scramble(fold(a ^ secret, b ^ state))


cdef inline cbytes read_varint(cbytes p, cbytes end, uint64_t* out) noexcept nogil:
    """Read a varint of at most 10 bytes."""
    cdef uint64_t value
    cdef int shift
    if p >= end:
        return NULL
    if p[0] < 0x80:
        out[0] = p[0]
        return p + 1
    value = p[0] & 0x7F
    p += 1
    shift = 7
    while shift < 70:
        if p >= end:
            return NULL
        value |= (<uint64_t>(p[0] & 0x7F)) << shift if shift < 64 else 0
        if p[0] < 0x80:
            out[0] = value
            return p + 1
        p += 1
        shift += 7
    return NULL


cdef inline cbytes read_short(cbytes p, cbytes end, uint64_t* out) noexcept nogil:
    """Read a varint of at most 5 bytes: a tag or a length."""
    cdef uint64_t value
    cdef int shift
    if p >= end:
        return NULL
    if p[0] < 0x80:
        out[0] = p[0]
        return p + 1
    value = p[0] & 0x7F
    p += 1
    shift = 7
    while shift < 35:
        if p >= end:
            return NULL
        value |= (<uint64_t>(p[0] & 0x7F)) << shift
        if p[0] < 0x80:
            out[0] = value
            return p + 1
        p += 1
        shift += 7
    return NULL


cdef inline cbytes read_group_tag(cbytes p, cbytes end, uint32_t* field, uint32_t* wire) noexcept nogil:
    """Read a tag inside a group that is skipped, where the official parser lets a field number of 0 pass."""
    cdef uint64_t tag
    p = read_short(p, end, &tag)
    if p == NULL or tag >> 32:
        return NULL
    wire[0] = <uint32_t>(tag & 7)
    if wire[0] > 5:
        return NULL
    field[0] = <uint32_t>(tag >> 3)
    return p


cdef inline cbytes read_tag(cbytes p, cbytes end, uint32_t* field, uint32_t* wire) noexcept nogil:
    """Read a tag: field number and wire type."""
    p = read_group_tag(p, end, field, wire)
    return p if p != NULL and field[0] else NULL


cdef inline cbytes read_length(cbytes p, cbytes end, uint32_t* length) noexcept nogil:
    """Read the length of a length-delimited field; on success p + length <= end."""
    cdef uint64_t value
    p = read_short(p, end, &value)
    if p == NULL or value > <uint64_t>(end - p):
        return NULL
    length[0] = <uint32_t>value
    return p


cdef inline cbytes skip_group(cbytes p, cbytes end, uint32_t group, int depth) noexcept nogil:
    """Skip a group whose start tag has been read. Iterative: the open groups are a small stack."""
    cdef uint32_t[MAX_DEPTH + 1] opened
    cdef int level = 0
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef uint64_t ignored
    if depth <= 0:
        return NULL
    opened[0] = group
    while True:
        p = read_group_tag(p, end, &field, &wire)
        if p == NULL:
            return NULL
        if wire == EGROUP:
            if field != opened[level]:
                return NULL
            if level == 0:
                return p
            level -= 1
        elif wire == SGROUP:
            level += 1
            if level >= min(depth, MAX_DEPTH):
                return NULL
            opened[level] = field
        elif wire == VARINT:
            p = read_varint(p, end, &ignored)
        elif wire == LEN:
            p = read_length(p, end, &length)
            if p != NULL:
                p += length
        else:
            length = 8 if wire == FIXED64 else 4
            p = p + length if <uint64_t>(end - p) >= length else NULL
        if p == NULL:
            return NULL


cdef inline cbytes skip_value(cbytes p, cbytes end, uint32_t field, uint32_t wire, int depth) noexcept nogil:
    """Skip the value of a field whose tag has been read, with at most `depth` levels of nesting."""
    cdef uint64_t ignored
    cdef uint32_t length
    if wire == VARINT:
        return read_varint(p, end, &ignored)
    if wire == LEN:
        p = read_length(p, end, &length)
        return p + length if p != NULL else NULL
    if wire == FIXED64:
        return p + 8 if end - p >= 8 else NULL
    if wire == FIXED32:
        return p + 4 if end - p >= 4 else NULL
    if wire == SGROUP:
        return skip_group(p, end, field, depth)
    return NULL


cdef struct FieldCursor:
    # A place in a message, and the field that next_field has read there.
    cbytes p  # behind the field; NULL: the message is damaged
    cbytes end  # of the message
    cbytes start  # of the field's tag
    cbytes value  # behind the tag: the length of a LEN field, the value of another
    cbytes content  # of a LEN field: `size` bytes, up to `p`
    uint32_t number
    uint32_t wire
    uint32_t size  # of the content of a LEN field
    uint64_t integer  # the value of a VARINT or FIXED64 field
    int depth  # levels of nesting allowed inside the message


cdef inline FieldCursor cursor(cbytes p, cbytes end, int depth) noexcept nogil:
    """Return a cursor in front of the first field of the message [p, end); p is not NULL.

        cdef FieldCursor field = cursor(p, end, depth)
        while next_field(&field):
            if field.number == 1 and field.wire == LEN:
                ...  # field.content, field.size
        return not damaged(&field)

    Bytes that have been validated before are read with MAX_DEPTH, and without the last line: nothing in them is
    damaged. A cursor is a local variable whose address goes to these functions only; then the compiler keeps its
    members in registers, and drops those that are not read.
    """
    cdef FieldCursor field
    field.p = p
    field.end = end
    field.start = field.value = field.content = p
    field.number = field.wire = field.size = 0
    field.integer = 0
    field.depth = depth
    return field


cdef inline bint next_field(FieldCursor* field) noexcept nogil:
    """Read the next field, without looking into nested messages. Returns False at the end, and where the message is
    damaged.

    What the last field of another wire type has left in `content`, `size` and `integer` stays there.
    """
    cdef cbytes p = field.p
    cdef cbytes end = field.end
    if p == end:
        return False
    field.start = p
    # Most fields are short and have a number below 16: one byte of tag, one of length.
    if end - p >= 2 and (p[0] & 0x87) == LEN and p[0] >= 8 and p[1] < 0x80 and p[1] <= end - p - 2:
        field.number = p[0] >> 3
        field.wire = LEN
        field.value = p + 1
        field.content = p + 2
        field.size = p[1]
        field.p = p + 2 + p[1]
        return True
    p = read_tag(p, end, &field.number, &field.wire)
    if p != NULL:
        field.value = p
        if field.wire == LEN:
            p = read_length(p, end, &field.size)
            if p != NULL:
                field.content = p
                p += field.size
        elif field.wire == VARINT:
            p = read_varint(p, end, &field.integer)
        elif field.wire == FIXED64:
            if end - p >= 8:
                field.integer = load64(p)
                p += 8
            else:
                p = NULL
        else:
            p = skip_value(p, end, field.number, field.wire, field.depth)
    field.p = p
    if p == NULL:
        field.end = NULL  # no call after this one reads on
    return p != NULL


cdef inline bint damaged(FieldCursor* field) noexcept nogil:
    """Return whether next_field has stopped at damage."""
    return field.p == NULL


cdef inline uint32_t varint_size(uint64_t value) noexcept nogil:
    """Return how many bytes a varint takes."""
    cdef uint32_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* write_varint(uint8_t* p, uint64_t value) noexcept nogil:
    """Write varint_size(value) bytes, for which the caller has made room; returns the position behind them."""
    while value >= 0x80:
        p[0] = <uint8_t>(value | 0x80)
        p += 1
        value >>= 7
    p[0] = <uint8_t>value
    return p + 1
