from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport M_EVENT, M_LINK, M_RESOURCE, M_SCOPE, M_SPAN, Message, cbytes
from sampler_proxy.redact.value_cache cimport Entry

cdef enum:
    # Of one span or header: with more it is reduced. And so many are enough to be gone about.
    MAX_ITEMS = 1 << 16

cdef enum How:
    # What becomes of an item.
    NEST  # a message with items in it
    REPLACE  # a text, in a field of its own type
    AS_STRING  # any AnyValue's content, by a string
    MASK  # the value of a KeyValue, whole
    DROP
    COUNT  # dropped_attributes_count as it came
    ADD_COUNT  # and as it leaves, at the end of its message

cdef struct Item:
    # Something in a message that changes, or may change. In the order of the bytes, what contains before what is
    # contained.
    cbytes start, length_at, body, end  # of the field
    int64_t delta  # by how much its content grows
    Entry* entry
    Entry* key  # of the attribute it belongs to
    PyObject* label
    int32_t parent  # what contains it; -1: the document
    uint32_t count  # what is masked or dropped with it; of a message, and of its count: dropped attributes
    uint8_t kind
    uint8_t message, field
    bint changed

cdef struct Doc:
    # A span, or a header: as it came, and as it leaves.
    cbytes data
    uint64_t offset  # of what replaces it in Edits.out
    uint32_t size, out_size
    uint32_t first, last  # items
    bint changed

cdef struct Frame:
    # A message that is being walked through; on the stack.
    Frame* up
    cbytes start, length_at, body, end
    int32_t item  # -1: nothing of it has been recorded
    uint32_t deleted  # attributes
    uint32_t count  # dropped_attributes_count, as it came
    Message message


cdef inline uint32_t count_field(Message message) noexcept nogil:
    """Where it says how many attributes were dropped; 0: nowhere."""
    if message == M_SPAN:
        return 10
    if message == M_RESOURCE:
        return 2
    if message == M_SCOPE or message == M_EVENT:
        return 4
    return 5 if message == M_LINK else 0


cdef class Edits:
    cdef dict counts  # (detector, action) -> how often
    cdef object observer  # None, or told of each redaction
    cdef bint marker  # spans are to carry how much of them was redacted
    cdef Item* items
    cdef uint32_t item_count, item_room
    cdef uint32_t limit  # of item_count, while a document is walked
    cdef uint8_t* out  # what documents have become, one behind the other
    cdef uint64_t used, room
    cdef void begin(self) noexcept
    cdef int more_items(self) except -1
    cdef int observe(self, uint32_t index, object label, uint64_t number) except -1
    cdef int32_t record(self, Frame* frame) except? -2
    cdef Item* push(self, Frame* frame, cbytes start, cbytes length_at, cbytes body, cbytes end, int how) except NULL
    cdef int drop(self, Frame* frame, cbytes start, cbytes end, PyObject* label, Entry* key, uint32_t field) except -1
    cdef void undo(self, Frame* frame, uint32_t item_count) noexcept
    cdef int close(self, Frame* frame) except -1
    cdef int reduce(self, Doc* doc, Message message) except -1
    cdef int mark(self, Doc* doc, uint64_t redactions) except -1
    cdef int finish_doc(self, Doc* doc, bint marked) except -1
    cdef int count(self, PyObject* label, uint64_t more) except -1
    cdef int reserve(self, uint64_t more) except -1
