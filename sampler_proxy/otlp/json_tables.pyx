"""Builds the tables that JSON is read by, from the descriptors of the official classes. They are never freed.

Both names of a field are known, the one in lowerCamelCase and that of the .proto (protobuf, "ProtoJSON Format"). The
bytes fields that OTLP/JSON writes in hexadecimal digits are told by name: trace and span ids, wherever they stand (OTLP
specification, "JSON Protobuf Encoding").
"""
from libc.stdlib cimport calloc
from libc.string cimport memcmp

from sampler_proxy.otlp.protobuf cimport FIXED32, FIXED64, LEN, VARINT, write_varint

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default as default_pool

_HAS_IS_REPEATED = hasattr(FieldDescriptor, "is_repeated")

IDS = ("trace_id", "span_id", "parent_span_id")

# Map fields, groups and the well-known types with a JSON of their own are not in OTLP: they have no kind here.
KINDS = {
    FieldDescriptor.TYPE_MESSAGE: (K_MESSAGE, LEN),
    FieldDescriptor.TYPE_STRING: (K_STRING, LEN),
    FieldDescriptor.TYPE_BYTES: (K_BYTES, LEN),
    FieldDescriptor.TYPE_BOOL: (K_BOOL, VARINT),
    FieldDescriptor.TYPE_ENUM: (K_ENUM, VARINT),
    FieldDescriptor.TYPE_INT32: (K_INT32, VARINT),
    FieldDescriptor.TYPE_UINT32: (K_UINT32, VARINT),
    FieldDescriptor.TYPE_INT64: (K_INT64, VARINT),
    FieldDescriptor.TYPE_UINT64: (K_UINT64, VARINT),
    FieldDescriptor.TYPE_SINT32: (K_SINT32, VARINT),
    FieldDescriptor.TYPE_SINT64: (K_SINT64, VARINT),
    FieldDescriptor.TYPE_FIXED32: (K_FIXED32, FIXED32),
    FieldDescriptor.TYPE_SFIXED32: (K_SFIXED32, FIXED32),
    FieldDescriptor.TYPE_FIXED64: (K_FIXED64, FIXED64),
    FieldDescriptor.TYPE_SFIXED64: (K_SFIXED64, FIXED64),
    FieldDescriptor.TYPE_FLOAT: (K_FLOAT, FIXED32),
    FieldDescriptor.TYPE_DOUBLE: (K_DOUBLE, FIXED64),
}

cdef list _texts = []  # what the names point to
cdef dict _addresses = {}  # of the tables, by the full name of message or enumeration
cdef uint32_t _table_count = 0


cdef cbytes _kept(str text):
    """Keep a text for good; return it with NUL at its end."""
    cdef bytes encoded = text.encode()
    _texts.append(encoded)
    return <cbytes><const char*>encoded


cdef int _add(Names* names, str text, uint32_t value) except -1:
    """Add a name; the same name again is left out."""
    cdef cbytes kept = _kept(text)
    cdef uint32_t size = <uint32_t>len(text.encode())
    cdef uint32_t at = slot_of(kept, size)
    while names.slots[at].text != NULL:
        if names.slots[at].size == size and memcmp(names.slots[at].text, kept, size) == 0:
            return 0
        at = (at + 1) & (NAME_SLOTS - 1)
    names.slots[at] = Name(kept, size, value)
    return 0


cdef Names* _names_of(object enumeration) except NULL:
    """Return the names of an enumeration's values."""
    cdef Names* names
    if enumeration.full_name in _addresses:
        return <Names*><size_t>_addresses[enumeration.full_name]
    if len(enumeration.values) > NAME_SLOTS // 2:
        raise NotImplementedError(f"{enumeration.full_name} has too many values")
    names = <Names*>calloc(1, sizeof(Names))
    if names == NULL:
        raise MemoryError
    for value in enumeration.values:
        _add(names, value.name, <uint32_t>(value.number & 0xFFFFFFFF))
    _addresses[enumeration.full_name] = <size_t>names
    return names


cdef int _fill(Field* field, object descriptor, uint32_t index, dict oneofs) except -1:
    """Fill in a field from its descriptor."""
    kind, wire = KINDS[descriptor.type]
    field.kind = kind
    if field.kind == K_BYTES and descriptor.name in IDS:
        field.kind = K_ID
    field.json_name = _kept(descriptor.json_name)
    field.index = index
    # Its successor `is_repeated` came with protobuf 6, `label` warns since 7.
    field.repeated = descriptor.is_repeated if _HAS_IS_REPEATED else descriptor.label == FieldDescriptor.LABEL_REPEATED
    field.presence = descriptor.has_presence
    if field.repeated and field.kind >= K_BOOL:
        wire = LEN  # packed, as proto3 has it
    field.tag_size = <uint32_t>(write_varint(field.tag, descriptor.number << 3 | wire) - field.tag)
    oneof = descriptor.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:
        field.oneof = <uint32_t>1 << <uint32_t>oneofs.setdefault(oneof.name, len(oneofs))
    if field.kind == K_ENUM:
        field.names = _names_of(descriptor.enum_type)
    elif field.kind == K_MESSAGE:
        field.message = _table_of(descriptor.message_type)
    return 0


cdef Table* _table_of(object descriptor) except NULL:
    """Return the table of a message type, and build it with all below it before its first use."""
    global _table_count
    cdef Table* table
    cdef uint32_t index
    cdef dict oneofs = {}
    if descriptor.full_name in _addresses:
        return <Table*><size_t>_addresses[descriptor.full_name]
    count = len(descriptor.fields)
    if count > 64 or len(descriptor.oneofs) > 32 or _table_count == MAX_TABLES or descriptor.GetOptions().map_entry:
        raise NotImplementedError(f"{descriptor.full_name} is no message that OTLP/JSON can be read by")
    table = <Table*>calloc(1, sizeof(Table))
    if table == NULL:
        raise MemoryError
    table.fields = <Field*>calloc(count + 1, sizeof(Field))
    if table.fields == NULL:
        raise MemoryError
    table.number = _table_count
    _table_count += 1
    _addresses[descriptor.full_name] = <size_t>table  # before its fields: messages contain themselves
    for index, field in enumerate(descriptor.fields):
        _add(&table.names, field.json_name, index)
        _add(&table.names, field.name, index)
        _fill(&table.fields[index], field, index, oneofs)
    return table


cdef Table* table_of(str message) except NULL:
    """Return the table of a message by its full name. Raises KeyError for a type whose module nobody has imported, and
    NotImplementedError for one that is not OTLP's."""
    if message in _addresses:
        return <Table*><size_t>_addresses[message]
    return _table_of(default_pool().FindMessageTypeByName(message))
