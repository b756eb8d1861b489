"""Reads the fields of a trace itself from its fragments: its duration; its root's name, service and duration; its id.

Values point into fragments, envelopes or the caller's buffer; they live as long as those. Fragments have been scanned,
so that their bytes are valid; of a span or header the first MAX_READ_AGAIN bytes are read. The service of a resource
is read once, and its place is noted in the envelope: with the GIL held, as all that touches envelopes.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from sampler_proxy.otlp.fragments cimport (
    Envelope, Fragment, HAS_TIMES, SERVICE_MISSING, SERVICE_NOT_READ,
)
from sampler_proxy.otlp.protobuf cimport FieldCursor, LEN, MAX_DEPTH, cbytes, cursor, next_field
from sampler_proxy.rules.conditions cimport (
    ROOT_DURATION, ROOT_NAME, ROOT_SERVICE, SOUND, TRACE_DURATION, V_BEYOND, V_INT, V_NIL, V_STRING, Value,
    read_any_value,
)
from sampler_proxy.rules.roots cimport LOCAL, NO_ROOT, PARENTLESS
from sampler_proxy.rules.slices cimport to_hex
from sampler_proxy.rules.span_matcher cimport MAX_READ_AGAIN

cdef enum:
    SPAN_NAME = 5  # number of the field in Span


cdef void read_trace_field(int field, Fragment* trace, Root* root, uint8_t* trace_hex, Value* value) noexcept:
    """Read one of the trace fields, as far as the trace has arrived; V_NIL where it is missing. `root`: of the trace,
    sought for the fields of reads_root(). `trace_hex`: 32 bytes, into which a trace id is written.

    As long as no root has come, the duration of the root is that of the trace: what has come may be slow already.
    """
    memset(value, 0, sizeof(Value))
    if field == TRACE_DURATION or (field == ROOT_DURATION and root.kind == NO_ROOT):
        if trace.flags & HAS_TIMES:  # the first fragment has absorbed the times of the others
            _set_duration(trace.min_start, trace.max_end, value)
    elif reads_root(field):
        if root.kind != PARENTLESS and root.kind != LOCAL:
            return
        if field == ROOT_NAME:
            _read_text(root.body, min(root.size, MAX_READ_AGAIN), SPAN_NAME, value)
        elif field == ROOT_SERVICE:
            _read_cached_service(root.group.scope.envelope.parent, value)
        elif root.start and root.end >= root.start:  # as has_duration() of spans says
            _set_duration(root.start, root.end, value)
    else:
        value.type = V_STRING
        value.size = to_hex(<cbytes>trace.trace_id, 16, trace_hex)
        value.text = trace_hex


cdef void _set_duration(uint64_t start, uint64_t end, Value* value) noexcept nogil:
    """Set a value to the time between two."""
    cdef uint64_t duration = end - start
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
        field = cursor(header.content, header.content + min(header.size, MAX_READ_AGAIN), MAX_DEPTH)
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
            read_any_value(field.content, field.p, SOUND, &part)
            if part.type != V_NIL:
                value[0] = part
