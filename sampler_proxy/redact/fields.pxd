"""Says of fields and lanes what the walk must know beforehand: where attributes stand, which ids are exempt, what is
stricter."""
from libc.stdint cimport uint32_t

from sampler_proxy.otlp.protobuf cimport M_EVENT, M_LINK, M_RESOURCE, M_SCOPE, M_SPAN, Message
from sampler_proxy.redact.value_cache cimport (
    DELETED, IN_EVENT, IN_LINK, IN_RESOURCE, IN_SCOPE, IN_SPAN, IN_VALUE, MASKED,
)


cdef inline int place_of(Message message) noexcept nogil:
    """Return the Place of the attributes in a message."""
    if message == M_SPAN:
        return IN_SPAN
    if message == M_RESOURCE:
        return IN_RESOURCE
    if message == M_SCOPE:
        return IN_SCOPE
    if message == M_EVENT:
        return IN_EVENT
    return IN_LINK if message == M_LINK else IN_VALUE


cdef inline uint32_t id_fields(Message message) noexcept nogil:
    """Return the set of fields that hold ids, a bit each."""
    return 0x16 if message == M_SPAN else (0x06 if message == M_LINK else 0)


cdef inline bint is_id(Message message, uint32_t field, uint32_t size) noexcept nogil:
    """Tell whether a field is exempt: trace state, and an id that has the size of one."""
    if message == M_SPAN:
        return field == 3 or (size == 16 if field == 1 else (field == 2 or field == 4) and (size == 8 or size == 0))
    if message == M_LINK:
        return field == 3 or (field == 1 and (size == 16 or size == 0)) or (field == 2 and (size == 8 or size == 0))
    return False


cdef inline int strictness(int kind) noexcept nogil:
    """Return the rank of a LaneKind: the stricter one is the larger."""
    return MASKED + 1 if kind == DELETED else kind
