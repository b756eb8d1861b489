# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What changes in a message, written down while it is walked through, and carried out in one go.

An item is a field that changes or may change; the messages around it are items too, from the outside in, so that items stand in the
order of the bytes. When it is known what each becomes, sizes are added up from the inside out, and the message is written from
the front: what lies between items is copied as it stands. Each byte is looked at once, however deep it is nested.
"""
from cpython.object cimport PyObject
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from sampler_proxy._proto cimport varint_size, write_varint
from sampler_proxy._verdicts cimport CHANGED

cdef enum:
    MAX_KEPT_ROOM = 1 << 22


cdef bytes marker_of(uint64_t redactions):
    """The attribute of a span that says how much of it was redacted, as a field of it."""
    cdef uint8_t[16] number
    cdef bytes value = b"\x18" + (<const uint8_t*>number)[:write_varint(number, redactions) - number]
    cdef bytes content = b"\x0a\x16sampler_proxy.redacted\x12" + bytes([len(value)]) + value
    return b"\x4a" + bytes([len(content)]) + content


cdef class Edits:
    def __cinit__(self, dict counts not None, observer, bint marker):
        self.counts = counts
        self.observer = observer
        self.marker = marker

    def __dealloc__(self):
        free(self.items)
        free(self.out)

    cdef void begin(self) noexcept:
        """Forget what was written."""
        self.item_count = 0
        self.used = 0
        if self.room > MAX_KEPT_ROOM:
            free(self.out)
            self.out = NULL
            self.room = 0
        if self.item_room * sizeof(Item) > MAX_KEPT_ROOM:
            free(self.items)
            self.items = NULL
            self.item_room = 0

    cdef int32_t record(self, Frame* frame) except? -2:
        """The item of a message."""
        cdef int32_t parent
        cdef Item* item
        if frame.item < 0:
            parent = -1 if frame.up == NULL else self.record(frame.up)
            self.more_items()
            item = &self.items[self.item_count]
            memset(item, 0, sizeof(Item))
            item.start = frame.start
            item.length_at = frame.length_at
            item.body = frame.body
            item.end = frame.end
            item.parent = parent
            item.kind = NEST
            item.message = <uint8_t>frame.message
            frame.item = <int32_t>self.item_count
            self.item_count += 1
        return frame.item

    cdef int more_items(self) except -1:
        cdef void* grown
        if self.item_count == self.item_room:
            grown = realloc(self.items, (2 * <uint64_t>self.item_room + 256) * sizeof(Item))
            if grown == NULL:
                raise MemoryError
            self.items = <Item*>grown
            self.item_room = 2 * self.item_room + 256
        return 0

    cdef Item* push(self, Frame* frame, cbytes start, cbytes length_at, cbytes body, cbytes end, int how) except NULL:
        cdef int32_t parent = self.record(frame)
        cdef Item* item
        self.more_items()
        item = &self.items[self.item_count]
        memset(item, 0, sizeof(Item))
        item.start = start
        item.length_at = length_at
        item.body = body
        item.end = end
        item.parent = parent
        item.kind = <uint8_t>how
        item.message = <uint8_t>frame.message
        self.item_count += 1
        return item

    cdef int drop(self, Frame* frame, cbytes start, cbytes end, PyObject* label, Entry* key, uint32_t field) except -1:
        cdef Item* item
        if self.item_count and frame.item >= 0:  # many beside each other are one
            item = &self.items[self.item_count - 1]
            if item.kind == DROP and item.parent == frame.item and item.end == start and item.label == label and item.key == key:
                item.end = end
                item.count += 1
                return 0
        item = self.push(frame, start, end, end, end, DROP)
        item.count = 1
        item.label = label
        item.key = key
        item.field = <uint8_t>min(field, 255)
        return 0

    cdef int close(self, Frame* frame) except -1:
        """Have a message say how many attributes it has lost."""
        cdef Item* item
        if frame.deleted and count_field(frame.message):
            item = self.push(frame, frame.end, frame.end, frame.end, frame.end, ADD_COUNT)
            item.count = <uint32_t>min(<uint64_t>frame.count + frame.deleted, <uint64_t>0xFFFFFFFF)
            self.items[frame.item].count = frame.deleted
        return 0

    cdef int reserve(self, uint64_t more) except -1:
        cdef void* grown
        if self.used + more > self.room:
            grown = realloc(self.out, 2 * self.used + more + 4096)
            if grown == NULL:
                raise MemoryError
            self.out = <uint8_t*>grown
            self.room = 2 * self.used + more + 4096
        return 0

    cdef int finish_doc(self, Doc* doc, bint marked) except -1:
        cdef Item* items = self.items
        cdef Item* item
        cdef uint32_t i
        cdef int64_t grown, content
        cdef uint64_t redactions = 0
        cdef cbytes cursor
        cdef uint8_t* out
        cdef bytes marker
        if doc.first == doc.last:
            return 0
        # From the inside out: what changes, and by how much.
        i = doc.last
        while i > doc.first:
            i -= 1
            item = &items[i]
            grown = 0
            if item.kind == NEST:
                if item.changed and item.parent >= 0:
                    content = (item.end - item.body) + item.delta
                    grown = (item.length_at - item.start) + varint_size(content) + content - (item.end - item.start)
            elif item.kind == REPLACE:
                item.changed = item.entry.state == CHANGED
                if item.changed:
                    grown = (item.length_at - item.start) + varint_size(item.entry.out_size) + item.entry.out_size - (
                        item.end - item.start)
            elif item.kind == AS_STRING:
                item.changed = item.entry.state == CHANGED
                if item.changed:
                    grown = 1 + <int64_t>varint_size(item.entry.out_size) + item.entry.out_size - (item.end - item.start)
            elif item.kind == MASK:
                item.changed = True
                grown = 8 - (item.end - item.start)
            elif item.kind == DROP:
                item.changed = True
                grown = -(item.end - item.start)
            elif item.kind == COUNT:
                item.changed = items[item.parent].count > 0
                if item.changed:
                    grown = -(item.end - item.start)
            else:
                item.changed = True
                grown = 1 + <int64_t>varint_size(item.count)
            if item.changed and item.parent >= 0:
                items[item.parent].changed = True
                items[item.parent].delta += grown
        item = &items[doc.first]
        if not item.changed:
            return 0
        doc.changed = True
        doc.offset = self.used
        self.reserve((item.end - item.body) + item.delta)
        out = self.out + self.used
        cursor = item.body
        for i in range(doc.first + 1, doc.last):
            item = &items[i]
            if not item.changed:
                continue
            memcpy(out, cursor, item.start - cursor)
            out += item.start - cursor
            cursor = item.end
            if item.kind == NEST:
                memcpy(out, item.start, item.length_at - item.start)
                out = write_varint(out + (item.length_at - item.start), (item.end - item.body) + item.delta)
                cursor = item.body
            elif item.kind == REPLACE:
                memcpy(out, item.start, item.length_at - item.start)
                out += item.length_at - item.start
            elif item.kind == AS_STRING:
                out[0] = 0x0A
                out += 1
            elif item.kind == MASK:
                memcpy(out, b"\x12\x06\x0a\x04****", 8)
                out += 8
            elif item.kind == ADD_COUNT:
                out[0] = <uint8_t>(count_field(<Message>item.message) << 3)
                out = write_varint(out + 1, item.count)
            if item.kind == REPLACE or item.kind == AS_STRING:
                out = write_varint(out, item.entry.out_size)
                memcpy(out, item.entry.out, item.entry.out_size)
                out += item.entry.out_size
                for label, number in <tuple>item.entry.counts:
                    redactions += number
                    self.count(<PyObject*>label, number)
                    if self.observer is not None:
                        self.observe(i, label, number)
            elif item.kind == MASK or item.kind == DROP:
                redactions += item.count
                self.count(item.label, item.count)
                if self.observer is not None:
                    self.observe(i, <object>item.label, item.count)
        item = &items[doc.first]
        memcpy(out, cursor, item.end - cursor)
        out += item.end - cursor
        doc.out_size = <uint32_t>(out - self.out - doc.offset)
        assert doc.out_size == (item.end - item.body) + item.delta
        self.used += doc.out_size
        if marked and self.marker and redactions:
            marker = marker_of(redactions)
            self.reserve(len(marker))
            memcpy(self.out + self.used, <const char*>marker, len(marker))
            self.used += <uint64_t>len(marker)
            doc.out_size += <uint32_t>len(marker)
        return 0

    cdef int count(self, PyObject* label, uint64_t more) except -1:
        cdef object key = <object>label
        self.counts[key] = self.counts.get(key, 0) + more
        return 0

    cdef int observe(self, uint32_t index, object label, uint64_t number) except -1:
        cdef Item* item = &self.items[index]
        key = None
        if item.key != NULL:
            key = item.key.out[:item.key.out_size] if item.key.state == CHANGED else item.key.text[:item.key.size]
        self.observer(item.message, item.field, key, label, number)
        return 0
