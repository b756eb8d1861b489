"""Reads the fields of a trace itself from its fragments: its duration, its root's name and service, its id.

Values point into fragments, envelopes or the caller's buffer; they live as long as those. Fragments have been scanned,
so that their bytes are valid. The service of a resource is read once, and its place is noted in the envelope: with the
GIL held, as all that touches envelopes.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from sampler_proxy.otlp.fragments cimport (
    Envelope, Fragment, HAS_TIMES, SERVICE_MISSING, SERVICE_NOT_READ, groups_of, payload_of, root_of,
)
from sampler_proxy.otlp.protobuf cimport FieldCursor, LEN, MAX_DEPTH, cbytes, cursor, next_field
from sampler_proxy.rules.conditions cimport (
    ROOT_NAME, ROOT_SERVICE, TRACE_DURATION, V_BEYOND, V_INT, V_NIL, V_STRING, Value, read_any_value,
)
from sampler_proxy.rules.slices cimport to_hex

cdef enum:
    SPAN_NAME = 5  # number of the field in Span


cdef void read_trace_field(int field, Fragment* trace, uint8_t* trace_hex, Value* value) noexcept:
    """Read one of the trace fields, as far as the trace has arrived; V_NIL where it is missing. `trace_hex`: 32 bytes,
    into which a trace id is written."""
    cdef Fragment* root
    memset(value, 0, sizeof(Value))
    if field == TRACE_DURATION:
        _read_duration(trace, value)
    elif field == ROOT_NAME or field == ROOT_SERVICE:
        root = root_of(trace)
        if root == NULL:
            return
        if field == ROOT_NAME:
            _read_text(payload_of(root) + root.root_offset, root.root_size, SPAN_NAME, value)
        else:
            _read_cached_service(groups_of(root)[root.root_group].scope.envelope.parent, value)
    else:
        value.type = V_STRING
        value.size = to_hex(<cbytes>trace.trace_id, 16, trace_hex)
        value.text = trace_hex


cdef void _read_duration(Fragment* trace, Value* value) noexcept:
    """Read the duration of a trace: last end - first start. The first fragment has absorbed the times of the others."""
    cdef uint64_t duration
    if trace.flags & HAS_TIMES:
        duration = trace.max_end - trace.min_start
        value.type = V_INT if duration <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
        value.integer = <long long>duration
        value.real = <double>duration


cdef void _read_cached_service(Envelope* resource, Value* value) noexcept:
    """Read the `service.name` of a resource by its place in the envelope, which is found on first use."""
    if resource.service == SERVICE_NOT_READ:
        _read_service(resource, value)
        resource.service = SERVICE_MISSING
        if value.type == V_STRING:
            resource.service = <uint32_t>(value.text - <cbytes>resource.data)
            resource.service_size = value.size
    value.type = V_NIL
    if resource.service != SERVICE_MISSING:
        value.type = V_STRING
        value.text = resource.data + resource.service
        value.size = resource.service_size


cdef void _read_service(Envelope* resource, Value* value) noexcept nogil:
    """Read the last `service.name` of a resource's header (ResourceSpans.resource.attributes); V_NIL without one."""
    cdef FieldCursor header = cursor(resource.data, resource.data + resource.size, MAX_DEPTH)
    cdef FieldCursor field
    cdef Value key
    value.type = V_NIL
    while next_field(&header):
        if header.wire != LEN or header.number != 1:
            continue
        field = cursor(header.content, header.p, MAX_DEPTH)
        while next_field(&field):
            if field.wire != LEN or field.number != 1:
                continue
            _read_text(field.content, field.size, 1, &key)
            if key.size == 12 and memcmp(key.text, b"service.name", 12) == 0:
                _read_merged_value(field.content, field.p, value)


cdef void _read_text(cbytes p, uint32_t size, uint32_t number, Value* value) noexcept nogil:
    """Read the last length-delimited field of this number in a valid message, as a string; "" where there is none."""
    cdef FieldCursor field = cursor(p, p + size, MAX_DEPTH)
    value.type = V_STRING
    value.text = p
    value.size = 0
    while next_field(&field):
        if field.wire == LEN and field.number == number:
            value.text = field.content
            value.size = field.size


cdef void _read_merged_value(cbytes p, cbytes end, Value* value) noexcept nogil:
    """Read the value of a valid KeyValue. A value in several parts is merged: the last part that holds something counts
    (arrays apart, which no caller reads)."""
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef Value part
    value.type = V_NIL
    while next_field(&field):
        if field.wire == LEN and field.number == 2:
            read_any_value(field.content, field.p, MAX_DEPTH, &part)
            if part.type != V_NIL:
                value[0] = part
