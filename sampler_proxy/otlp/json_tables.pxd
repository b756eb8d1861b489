"""Declares the tables that JSON is read by: for each message type its fields, by both of their JSON names."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes

cdef enum Kind:
    # How a field's value is written; VARINT and the fixed ones as the 64 bits that read_number has made of it.
    K_MESSAGE = 0
    K_STRING
    K_BYTES  # Base64
    K_ID  # hexadecimal digits, as OTLP/JSON has them
    K_BOOL
    K_ENUM
    K_INT32
    K_UINT32
    K_INT64
    K_UINT64
    K_SINT32
    K_SINT64
    K_FIXED32
    K_SFIXED32
    K_FIXED64
    K_SFIXED64
    K_FLOAT
    K_DOUBLE

cdef enum:
    NAME_SLOTS = 256  # of a table; a message has 64 fields at most, and each of them two names
    MAX_TABLES = 250

cdef struct Name:
    # A key or the name of an enumerator. Owned by the table.
    cbytes text
    uint32_t size
    uint32_t value  # index of the field, or the enumerator's number

cdef struct Names:
    # A hash table with linear probing, never more than half full.
    Name[NAME_SLOTS] slots

cdef struct Field:
    cbytes json_name  # for messages; NUL at its end
    Table* message  # of K_MESSAGE
    Names* names  # of K_ENUM
    uint8_t[8] tag
    uint32_t tag_size
    uint32_t index
    uint32_t oneof  # a bit for the oneof that it shares with others; 0: none
    Kind kind
    bint repeated
    bint presence  # a value that is the type's default is written, too

cdef struct Table:
    Names names
    Field* fields
    uint32_t number  # below MAX_TABLES; one of its own


cdef inline uint32_t slot_of(cbytes text, uint64_t size) noexcept nogil:
    """Return where the search for a name begins; `size` is not 0."""
    return <uint32_t>(size * 37 + text[0] * 5 + text[size - 1] * 11 + text[size >> 1] * 19) & (NAME_SLOTS - 1)


cdef Table* table_of(str message) except NULL
