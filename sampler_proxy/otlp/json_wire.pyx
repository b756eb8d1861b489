"""Transcodes OTLP/JSON to protobuf. json_wire.pyi is the manual.

A recursive descent by the tables of json_tables.pyx, at most MAX_DEPTH messages deep. Messages are written as they are
read: in front of each stands room for its length, as much as the last message of its type needed, and where that was
not right, the message is moved once by the difference. Messages of one type are alike, so few are moved; at the worst
a byte is moved once for each message that it is in.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.float cimport FLT_MAX
from libc.math cimport INFINITY, NAN, isinf
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from sampler_proxy.otlp.json_numbers cimport Number, in_range, read_double, read_number
from sampler_proxy.otlp.json_output cimport TAG_AND_LENGTH, State, Step, close, reserve, resize, write_tag
from sampler_proxy.otlp.json_tables cimport (
    K_BOOL, K_BYTES, K_DOUBLE, K_ENUM, K_FIXED32, K_FIXED64, K_FLOAT, K_ID, K_INT64, K_MESSAGE, K_SFIXED32,
    K_SFIXED64, K_SINT64, K_STRING, K_UINT32, K_UINT64, NAME_SLOTS, Field, Kind, Name, Names,
    Table, slot_of, table_of,
)
from sampler_proxy.otlp.json_text cimport (
    E_ARRAY, E_BASE64, E_BOOL, E_COLON, E_COMMA, E_CONTROL, E_DEEP, E_DOUBLE, E_ENUM, E_ESCAPE, E_HEX, E_INTEGER, E_KEY,
    E_NO_MEMORY, E_NONE, E_NULL, E_NUMBER, E_OBJECT, E_ONEOF, E_RANGE, E_STRING, E_SURROGATE, E_TOO_LARGE, E_TRAILING,
    E_TWICE, E_UTF8, E_VALUE, Error, Reader, Token, fail, hex_digit, read_colon, read_string, read_word, skip_space,
    skip_value, unescape,
)
from sampler_proxy.otlp.protobuf cimport MAX_DEPTH, cbytes, write_varint

from sampler_proxy.errors import MalformedRequest, RequestTooLarge

cdef enum:
    SMALLEST_ROOM = 256
    SHORT_PATH = 160  # characters of a path that are told

cdef extern from "Python.h":
    PyObject* _new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL

cdef dict _WHAT = {
    E_VALUE: "not a JSON value",
    E_KEY: "a key in double quotes is wanted here",
    E_COLON: "a colon is wanted here",
    E_COMMA: "a comma or a closing bracket is wanted here",
    E_NUMBER: "not a number as JSON has them",
    E_CONTROL: "a control character in a string",
    E_UTF8: "not UTF-8",
    E_ESCAPE: "an escape that JSON does not have",
    E_SURROGATE: "half of a surrogate pair",
    E_TRAILING: "something behind the end of the document",
    E_DEEP: "nested too deeply",
    E_OBJECT: "not an object",
    E_ARRAY: "not an array",
    E_STRING: "not a string",
    E_BOOL: "neither true nor false",
    E_DOUBLE: "not a number",
    E_RANGE: "a number that is too large",
    E_ENUM: "neither a name nor a 32-bit integer",
    E_HEX: "not hexadecimal digits, two for each byte",
    E_BASE64: "not Base64",
    E_TWICE: "given twice",
    E_ONEOF: "given beside a field that excludes it",
    E_NULL: "null in an array",
}
cdef dict _INTEGERS = {
    K_UINT32: "an unsigned 32-bit", K_FIXED32: "an unsigned 32-bit", K_UINT64: "an unsigned 64-bit",
    K_FIXED64: "an unsigned 64-bit", K_INT64: "a 64-bit", K_SINT64: "a 64-bit", K_SFIXED64: "a 64-bit",
}

cdef const Name* _find(const Names* names, cbytes text, uint64_t size) noexcept nogil:
    """Return the name that a text is; NULL if it is none."""
    cdef uint32_t at
    if size == 0:
        return NULL
    at = slot_of(text, size)
    while names.slots[at].text != NULL:
        if names.slots[at].size == size and memcmp(names.slots[at].text, text, size) == 0:
            return &names.slots[at]
        at = (at + 1) & (NAME_SLOTS - 1)
    return NULL


cdef bint _read_plain(State* s, Token* token) noexcept nogil:
    """Read a string and undo its escapes: `token.text` then lies in the room behind what is written, so far behind that
    as much can be written without touching what has not been read. A NUL or a quote stands behind it."""
    cdef uint8_t* out
    if not read_string(&s.text, token):
        return False
    if token.escaped:
        if not reserve(s, TAG_AND_LENGTH + token.size + TAG_AND_LENGTH):
            return False
        out = s.out + TAG_AND_LENGTH
        token.size = unescape(&s.text, token, out)
        out[token.size] = 0
        token.text = out
    return True


cdef bint _string(State* s, const Field* field) noexcept nogil:
    """Transcode a string."""
    cdef Token token
    if s.text.p[0] != 34:
        return fail(&s.text, E_STRING, s.text.p)
    if not _read_plain(s, &token):
        return False
    if token.size == 0 and not field.presence and not field.repeated:
        return True
    if not write_tag(s, field, token.size):
        return False
    s.out = write_varint(s.out, token.size)
    memmove(s.out, token.text, token.size)
    s.out += token.size
    return True


cdef bint _id(State* s, const Field* field) noexcept nogil:
    """Transcode an id, hexadecimal digits."""
    cdef cbytes at = s.text.p
    cdef Token token
    cdef uint64_t i
    cdef int high, low
    if at[0] != 34:
        return fail(&s.text, E_STRING, at)
    if not _read_plain(s, &token):
        return False
    if token.size & 1:
        return fail(&s.text, E_HEX, at)
    if token.size == 0 and not field.presence and not field.repeated:
        return True
    if not write_tag(s, field, token.size):
        return False
    s.out = write_varint(s.out, token.size >> 1)
    for i in range(token.size >> 1):
        high = hex_digit(token.text[2 * i])
        low = hex_digit(token.text[2 * i + 1])
        if high < 0 or low < 0:
            return fail(&s.text, E_HEX, at)
        s.out[i] = <uint8_t>(high << 4 | low)
    s.out += token.size >> 1
    return True


cdef inline int _sextet(uint8_t c) noexcept nogil:
    """Return the value of a character of either Base64 alphabet (RFC 4648, sections 4 and 5); -1 for any other."""
    if 65 <= c <= 90:
        return c - 65
    if 97 <= c <= 122:
        return c - 71
    if 48 <= c <= 57:
        return c + 4
    if c == 43 or c == 45:
        return 62
    return 63 if c == 47 or c == 95 else -1


cdef bint _bytes(State* s, const Field* field) noexcept nogil:
    """Transcode bytes, Base64. Padding may be there or not; bits that are left over are dropped."""
    cdef cbytes at = s.text.p
    cdef Token token
    cdef uint64_t size, i
    cdef uint32_t bits = 0
    cdef uint32_t held = 0
    cdef int sextet
    if at[0] != 34:
        return fail(&s.text, E_STRING, at)
    if not _read_plain(s, &token):
        return False
    size = token.size
    while size and token.text[size - 1] == 61 and token.size - size < 2:
        size -= 1
    if (size & 3) == 1 or (size < token.size and token.size > ((size + 3) & ~<uint64_t>3)):
        return fail(&s.text, E_BASE64, at)
    if size == 0 and not field.presence and not field.repeated:
        return True
    if not write_tag(s, field, token.size):
        return False
    s.out = write_varint(s.out, size * 3 >> 2)
    for i in range(size):
        sextet = _sextet(token.text[i])
        if sextet < 0:
            return fail(&s.text, E_BASE64, at)
        held = (held << 6 | <uint32_t>sextet) & 0xFFFF
        bits += 6
        if bits >= 8:
            bits -= 8
            s.out[0] = <uint8_t>(held >> bits)
            s.out += 1
    return True


cdef bint _read_double(State* s, double* value) noexcept nogil:
    """Read a double, a number or a string."""
    cdef cbytes at = s.text.p
    cdef cbytes stop
    cdef Token token
    if at[0] == 34:
        if not _read_plain(s, &token):
            return False
        if token.size == 3 and memcmp(token.text, b"NaN", 3) == 0:
            value[0] = NAN
            return True
        if token.size == 8 and memcmp(token.text, b"Infinity", 8) == 0:
            value[0] = INFINITY
            return True
        if token.size == 9 and memcmp(token.text, b"-Infinity", 9) == 0:
            value[0] = -INFINITY
            return True
        if read_double(token.text, value) != token.text + token.size:
            return fail(&s.text, E_DOUBLE, at)
    else:
        stop = read_double(at, value)
        if stop == NULL:
            return fail(&s.text, E_DOUBLE, at)
        s.text.p = stop
    if isinf(value[0]):
        return fail(&s.text, E_RANGE, at)
    return True


cdef bint _read_integer(State* s, const Field* field, uint64_t* bits, bint* unknown) noexcept nogil:
    """Read an integer or an enumerator, a number or a string; `unknown`: the name is of no enumerator."""
    cdef cbytes at = s.text.p
    cdef cbytes stop
    cdef Token token
    cdef Number number
    cdef const Name* name
    cdef Error error = E_ENUM if field.kind == K_ENUM else E_INTEGER
    if at[0] == 34:
        if not _read_plain(s, &token):
            return False
        if field.kind == K_ENUM:
            name = _find(field.names, token.text, token.size)
            if name != NULL:
                bits[0] = <uint64_t><int64_t><int32_t>name.value
                return True
        stop = read_number(token.text, &number)
        if stop != token.text + token.size:  # or NULL
            if field.kind != K_ENUM:
                return fail(&s.text, error, at)
            unknown[0] = True
            return True
    else:
        stop = read_number(at, &number)
        if stop == NULL:
            return fail(&s.text, error, at)
        s.text.p = stop
    if not in_range(field.kind, &number, bits):
        return fail(&s.text, error, at)
    return True


cdef bint _read_scalar(State* s, const Field* field, uint64_t* bits, bint* unknown) noexcept nogil:
    """Read a value of a fixed number of bits, as _write_scalar takes it."""
    cdef double value = 0
    cdef float single
    cdef cbytes at = s.text.p
    cdef uint32_t half
    if field.kind == K_BOOL:
        bits[0] = at[0] == 116
        if at[0] != 116 and at[0] != 102:
            return fail(&s.text, E_BOOL, at)
        return read_word(&s.text, b"true" if bits[0] else b"false", 4 if bits[0] else 5)
    if field.kind == K_DOUBLE or field.kind == K_FLOAT:
        if not _read_double(s, &value):
            return False
        memcpy(bits, &value, 8)
        if field.kind == K_FLOAT:
            if value == value and not isinf(value) and not -FLT_MAX <= value <= FLT_MAX:
                return fail(&s.text, E_RANGE, at)
            single = <float>value
            memcpy(&half, &single, 4)
            bits[0] = half
        return True
    return _read_integer(s, field, bits, unknown)


cdef inline void _write_scalar(State* s, Kind kind, uint64_t bits) noexcept nogil:
    """Write a value behind its tag; there is room."""
    if kind == K_FIXED64 or kind == K_SFIXED64 or kind == K_DOUBLE:
        memcpy(s.out, &bits, 8)
        s.out += 8
    elif kind == K_FIXED32 or kind == K_SFIXED32 or kind == K_FLOAT:
        memcpy(s.out, &bits, 4)
        s.out += 4
    else:
        s.out = write_varint(s.out, bits)


cdef bint _value(State* s, const Field* field) noexcept nogil:
    """Transcode one value of a field, its tag included."""
    cdef uint64_t bits, begin
    cdef uint8_t length
    cdef bint unknown = False
    if field.kind == K_STRING:
        return _string(s, field)
    if field.kind == K_MESSAGE:
        length = s.lengths[field.message.number]
        if not write_tag(s, field, length):
            return False
        s.out += length
        begin = <uint64_t>(s.out - s.start)
        if not _message(s, field.message) or not close(s, begin, &length):
            return False
        s.lengths[field.message.number] = length
        return True
    if field.kind == K_ID:
        return _id(s, field)
    if field.kind == K_BYTES:
        return _bytes(s, field)
    if not _read_scalar(s, field, &bits, &unknown):
        return False
    if unknown or (bits == 0 and not field.presence):
        return True
    if not write_tag(s, field, 0):
        return False
    _write_scalar(s, field.kind, bits)
    return True


cdef bint _array(State* s, const Field* field) noexcept nogil:
    """Transcode the array of a repeated field; numbers are packed."""
    cdef Step* step = &s.path[s.depth - 1]
    cdef bint packed = K_BOOL <= field.kind
    cdef bint unknown = False
    cdef uint64_t bits
    cdef uint64_t begin = 0
    cdef uint8_t length = 1
    if s.text.p[0] != 91:
        return fail(&s.text, E_ARRAY, s.text.p)
    s.text.p += 1
    skip_space(&s.text)
    if s.text.p[0] == 93:
        s.text.p += 1
        return True
    if packed:
        if not write_tag(s, field, 0):
            return False
        s.out += length
        begin = <uint64_t>(s.out - s.start)
    while True:
        step.index += 1
        if s.text.p[0] == 110 or s.text.p[0] == 93:  # null or ]
            return fail(&s.text, E_NULL if s.text.p[0] == 110 else E_VALUE, s.text.p)
        if not packed:
            if not _value(s, field):
                return False
        else:
            unknown = False
            if not _read_scalar(s, field, &bits, &unknown) or not reserve(s, TAG_AND_LENGTH):
                return False
            if not unknown:
                _write_scalar(s, field.kind, bits)
        skip_space(&s.text)
        if s.text.p[0] == 93:
            s.text.p += 1
            break
        if s.text.p[0] != 44:
            return fail(&s.text, E_COMMA, s.text.p)
        s.text.p += 1
        skip_space(&s.text)
    return close(s, begin, &length) if packed else True


cdef bint _message(State* s, const Table* table) noexcept nogil:
    """Transcode an object to the fields of a message."""
    cdef uint64_t seen = 0
    cdef uint32_t oneofs = 0
    cdef const Name* name
    cdef const Field* field
    cdef Step* step
    cdef Token token
    if s.text.p[0] != 123:
        return fail(&s.text, E_OBJECT, s.text.p)
    if s.depth == MAX_DEPTH:
        return fail(&s.text, E_DEEP, s.text.p)
    step = &s.path[s.depth]
    step.field = NULL
    s.depth += 1
    s.text.p += 1
    skip_space(&s.text)
    if s.text.p[0] == 125:
        s.text.p += 1
        s.depth -= 1
        return True
    while True:
        if s.text.p[0] != 34:
            return fail(&s.text, E_KEY, s.text.p)
        if not _read_plain(s, &token):
            return False
        name = _find(&table.names, token.text, token.size)
        if not read_colon(&s.text):
            return False
        if name == NULL:
            if not skip_value(&s.text):
                return False
        else:
            field = &table.fields[name.value]
            step.field = field
            step.index = -1
            if seen >> field.index & 1:
                return fail(&s.text, E_TWICE, s.text.p)
            seen |= <uint64_t>1 << field.index
            if s.text.p[0] == 110:
                if not read_word(&s.text, b"null", 4):
                    return False
            elif oneofs & field.oneof:
                return fail(&s.text, E_ONEOF, s.text.p)
            else:
                oneofs |= field.oneof
                if not (_array(s, field) if field.repeated else _value(s, field)):
                    return False
            step.field = NULL
        skip_space(&s.text)
        if s.text.p[0] == 125:
            s.text.p += 1
            s.depth -= 1
            return True
        if s.text.p[0] != 44:
            return fail(&s.text, E_COMMA, s.text.p)
        s.text.p += 1
        skip_space(&s.text)


cdef bint _document(State* s, const Table* table) noexcept nogil:
    """Transcode a whole text."""
    skip_space(&s.text)
    if not _message(s, table):
        return False
    skip_space(&s.text)
    if s.text.p != s.text.end:
        return fail(&s.text, E_TRAILING, s.text.p)
    if <uint64_t>(s.out - s.start) > s.most:
        return fail(&s.text, E_TOO_LARGE, s.text.p)
    return True


cdef str _refusal(const State* s, uint64_t offset):
    """Say where a document is wrong, and how."""
    cdef list steps = []
    cdef const Field* field = NULL
    cdef uint32_t level
    for level in range(s.depth):
        if s.path[level].field == NULL:
            break
        field = s.path[level].field
        name = (<bytes><const char*>field.json_name).decode()
        steps.append(f"{name}[{s.path[level].index}]" if s.path[level].index >= 0 else name)
    path = ".".join(steps) or "the document"
    if len(path) > SHORT_PATH:
        path = f"{path[:SHORT_PATH // 2]}...{path[-SHORT_PATH // 2:]}"
    if s.text.where == s.text.end:
        what = "the text is cut short"
    elif s.text.error == E_INTEGER:
        what = f"not {_INTEGERS.get(field.kind, 'a 32-bit')} integer"
    else:
        what = _WHAT[s.text.error]
    return f"{path}: {what} (byte {offset})"


def to_wire(bytes text not None, str message not None, uint64_t most_bytes=64 << 20):
    cdef State s
    cdef const Table* table = table_of(message)
    cdef cbytes begin = <cbytes><const char*>text
    cdef Py_ssize_t room = max(SMALLEST_ROOM, PyBytes_GET_SIZE(text) // 2)
    cdef bint whole
    memset(s.lengths, 1, sizeof(s.lengths))
    s.text = Reader(begin, begin + PyBytes_GET_SIZE(text), NULL, E_NONE)
    s.most = most_bytes
    s.depth = 0
    s.block = _new_bytes(NULL, room)
    s.start = s.out = <uint8_t*>PyBytes_AS_STRING(<object>s.block)
    s.room_end = s.start + room
    try:
        with nogil:
            whole = _document(&s, table)
        if whole:
            resize(&s.block, s.out - s.start)
            return <bytes>s.block
    finally:
        Py_XDECREF(s.block)
    if s.text.error == E_NO_MEMORY:
        raise MemoryError
    if s.text.error == E_TOO_LARGE:
        raise RequestTooLarge(f"more than {most_bytes} bytes as protobuf")
    raise MalformedRequest(_refusal(&s, <uint64_t>(s.text.where - begin)))
