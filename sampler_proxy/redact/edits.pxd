"""Declares the changes of a message, a list of items. Lifetimes: an item points into the trace and into the value
cache."""
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport FieldCursor, M_EVENT, M_LINK, M_RESOURCE, M_SCOPE, M_SPAN, Message, cbytes
from sampler_proxy.redact.effort cimport Effort
from sampler_proxy.redact.value_cache cimport Entry

cdef enum:
    # Of one span or header: one with more is reduced. So many pending ones are resolved, too.
    MAX_ITEMS = 1 << 16

cdef enum How:
    # What becomes of an item.
    NEST  # a message with items in it
    REPLACE  # a text, in a field of its own type
    AS_STRING  # any AnyValue's content, by a string
    MASK  # the value of a KeyValue, whole
    DROP
    COUNT  # dropped_attributes_count as it came
    ADD_COUNT  # dropped_attributes_count as it leaves, at the end of its message

cdef struct Item:
    # A field that changes, or may change. In the order of the bytes, a message before its fields.
    cbytes start, length_at, body, end  # of the field
    int64_t delta  # growth of its content
    Entry* entry  # of the text that is replaced
    Entry* key  # of the attribute around the field
    PyObject* label  # of what is masked or dropped
    int32_t parent  # the message around the field; -1: the document
    uint32_t count  # fields masked or dropped together; of a message, and of its count: dropped attributes
    uint8_t kind  # How
    uint8_t message, field
    bint changed

cdef struct Doc:
    # A span, or a header: as it came, and as it leaves.
    cbytes data
    uint64_t offset  # of its replacement in Edits.out
    uint32_t size, out_size
    uint32_t first, last  # items
    bint changed

cdef struct Frame:
    # A message that is being walked; on the stack.
    Frame* up  # the message around it
    cbytes start, length_at, body, end
    Entry* key  # of the attribute around it; NULL: none
    int32_t item  # -1: nothing of it has been recorded
    uint32_t deleted  # attributes
    uint32_t count  # dropped_attributes_count, as it came
    Message message
    uint16_t lane  # of the attribute's value that it is in; TEXT: of none
    uint16_t statements  # lane of the statements among its attributes, as they name a store; 0: not known yet
    uint8_t kind  # LaneKind of that lane


cdef inline void enter(Frame* frame, Frame* up, FieldCursor* field, Message message) noexcept nogil:
    """Begin a message: the field that the cursor has read in `up`, whose attribute, lane and kind it shares."""
    frame.up = up
    frame.start = field.start
    frame.length_at = field.value
    frame.body = field.content
    frame.end = field.p
    frame.key = up.key
    frame.item = -1
    frame.deleted = frame.count = 0
    frame.statements = 0
    frame.message = message
    frame.lane = up.lane
    frame.kind = up.kind


cdef inline uint32_t count_field(Message message) noexcept nogil:
    """Return the number of the field dropped_attributes_count; 0: the message has none."""
    if message == M_SPAN:
        return 10
    if message == M_RESOURCE:
        return 2
    if message == M_SCOPE or message == M_EVENT:
        return 4
    return 5 if message == M_LINK else 0


@cython.final
cdef class Edits:
    cdef dict counts  # (detector, action) -> number of redactions
    cdef object observer  # policy.Observer; None: there is none
    cdef bint marker  # a changed span gets the attribute sampler_proxy.redacted
    cdef Effort effort
    cdef Item* items
    cdef uint32_t item_count, item_room
    cdef uint32_t limit  # of item_count, while a document is walked
    cdef uint8_t* out  # the changed documents, one behind the other
    cdef uint64_t used, room
    cdef void begin(self) noexcept
    cdef int more_items(self) except -1
    cdef int32_t record(self, Frame* frame) except? -2
    cdef Item* push(self, Frame* frame, cbytes start, cbytes length_at, cbytes body, cbytes end, int how) except NULL
    cdef int drop(self, Frame* frame, cbytes start, cbytes end, PyObject* label, Entry* key, uint32_t field) except -1
    cdef void undo(self, Frame* frame, uint32_t item_count) noexcept
    cdef int close(self, Frame* frame) except -1
    cdef int reduce(self, Doc* doc, Message message) except -1
    cdef int append(self, Doc* doc, bytes more) except -1
    cdef int finish_doc(self, Doc* doc, bint marked) except -1
    cdef void measure(self, Doc* doc) noexcept
    cdef int write(self, Doc* doc, uint64_t* redactions) except -1
    cdef int count_item(self, Item* item, uint64_t* redactions) except -1
    cdef int add_counts(self, tuple more) except -1
    cdef int count(self, Item* item, object label, uint64_t more) except -1
    cdef int reserve(self, uint64_t more) except -1
