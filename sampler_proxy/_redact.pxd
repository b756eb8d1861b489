# cython: language_level=3
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy._judge cimport Judge
from sampler_proxy._proto cimport Message, cbytes
from sampler_proxy.fragments cimport Envelope, Envelopes, Fragment

cdef struct Entry:
    # A value, or an attribute's key, that was met, and what became of it. In the cache or on the list of the retired.
    uint64_t hash
    uint64_t place  # the view and the lane it was met in; part of what is compared
    Entry* next  # of the retired
    cbytes text  # in `data`, or where it was met
    uint8_t* out  # what replaces it; owned
    PyObject* counts  # what that counts as; owned
    PyObject* label  # of a key: what its rule counts as; the view's
    uint32_t size, out_size
    uint16_t lane  # of a key: the lane of its value
    uint8_t kind  # and how values in that lane are gone about
    uint8_t state
    bint met  # again since the last sweep
    uint8_t data[1]

cdef struct Slot:
    uint64_t hash
    Entry* entry

cdef struct Pending:
    Entry* entry
    PyObject* view
    uint64_t offset  # among the joined
    uint16_t lane
    bint alone

cdef struct Item:
    # Something in a message that changes, or may change. In the order of the bytes, what contains before what is contained.
    cbytes start, length_at, body, end  # of the field
    int64_t delta  # by how much its content grows
    Entry* entry
    Entry* key  # of the attribute it belongs to
    PyObject* label
    int32_t parent  # what contains it; -1: the document
    uint32_t count  # dropped attributes: as it came, or (of a message) how many more there are now
    uint8_t kind
    uint8_t message, field
    bint changed

cdef struct Doc:
    # A span, or a header: as it came, and as it leaves.
    cbytes data
    uint64_t offset  # of what replaces it in Redactor.out
    uint32_t size, out_size
    uint32_t first, last  # items
    bint changed

cdef struct HeaderDoc:
    Doc doc
    Envelope* envelope
    Envelope* leaving  # one reference, until the trace is finished
    bint is_scope
    uint32_t parent  # of a scope: the resource's

cdef struct Frame:
    # A message that is being walked through; on the stack.
    Frame* up
    cbytes start, length_at, body, end
    int32_t item  # -1: nothing of it has been recorded
    uint32_t deleted  # attributes
    uint32_t count  # dropped_attributes_count, as it came
    Message message

cdef class Redactor:
    cdef readonly object policy
    cdef readonly dict counts  # (detector, action) -> how often
    cdef object observer  # None, or told of each redaction
    cdef Envelopes envelopes
    cdef Judge judge  # of the filters; None: there are none
    cdef uint64_t* span_masks  # of the trace's spans, in order: the filters that hold
    cdef dict views, masks
    cdef View view
    cdef set entity_keys
    cdef uint64_t seed
    cdef Slot* slots
    cdef uint64_t cached_bytes
    cdef uint32_t hand
    cdef Entry* retired
    cdef Entry oversize
    cdef bytes masked
    cdef Pending* pending
    cdef uint32_t pending_count, pending_room
    cdef uint64_t pending_bytes
    cdef Item* items
    cdef uint32_t item_count, item_room
    cdef Doc* spans  # of the trace, in order
    cdef uint32_t span_count, span_room, spans_done
    cdef HeaderDoc* headers
    cdef uint32_t header_count, header_room, headers_done
    cdef uint32_t* groups  # for each, its scope's header
    cdef uint32_t group_count, group_room
    cdef uint8_t* out
    cdef uint64_t used, room
    cdef int redact(self, Fragment* first) except -1
    cdef int finished(self) except -1
    cdef cbytes span(self, uint32_t index, uint32_t* size) noexcept
    cdef Envelope* envelope(self, uint32_t group) noexcept
    cdef int walk_trace(self, Fragment* first) except -1
    cdef int select(self, Fragment* first) except -1
    cdef int use(self, uint64_t mask) except -1
    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF
    cdef int walk_header(self, uint32_t index) except -1
    cdef int note_entities(self, cbytes p, cbytes end) except -1
    cdef int walk(self, Frame* frame) except -1
    cdef int attribute(self, Frame* frame, int place, int lane, int kind, Entry* owner) except -1
    cdef int value(self, Frame* frame, int lane, int kind, Entry* key) except -1
    cdef int number(self, Frame* frame, cbytes start, cbytes end, int64_t number, int lane, int kind, Entry* key) except -1
    cdef int text(self, Frame* frame, cbytes start, cbytes length_at, cbytes end, cbytes p, uint32_t size, int lane, int kind,
                  Entry* key, int how, uint32_t field) except -1
    cdef int more_items(self) except -1
    cdef int finish_headers(self) except -1
    cdef int observe(self, uint32_t index, object label, uint64_t number) except -1
    cdef int32_t record(self, Frame* frame) except? -2
    cdef Item* push(self, Frame* frame, cbytes start, cbytes length_at, cbytes body, cbytes end, int how) except NULL
    cdef int drop(self, Frame* frame, cbytes start, cbytes end, PyObject* label, Entry* key, uint32_t field) except -1
    cdef int close(self, Frame* frame) except -1
    cdef Entry* find(self, uint64_t place, cbytes p, uint32_t size, bint* fresh) except NULL
    cdef Entry* key_entry(self, int place, cbytes p, uint32_t size) except NULL
    cdef Entry* value_entry(self, int lane, int kind, cbytes p, uint32_t size) except NULL
    cdef int pend(self, Entry* entry, int lane, bint alone) except -1
    cdef void retire(self, Entry* entry) noexcept
    cdef void free_retired(self) noexcept
    cdef void forget(self) noexcept
    cdef int flush(self) except -1
    cdef int resolve(self) except -1
    cdef int resolve_view(self, View view) except -1
    cdef int settle(self, Entry* entry, object result) except -1
    cdef int finish_doc(self, Doc* doc, bint marked) except -1
    cdef int count(self, PyObject* label, uint64_t more) except -1
    cdef int reserve(self, uint64_t more) except -1

cdef class View:
    cdef object view
    cdef object key, sift, apply
    cdef uint64_t serial
    cdef int name_kind
