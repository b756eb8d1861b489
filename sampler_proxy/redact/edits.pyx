"""Notes the changes of a message while the message is walked, and carries them out in one go.

An item is a field that changes or may change; the messages around it are items too, from the outside in, so that items
stand in the order of the bytes. When it is known what each becomes, sizes are added up from the inside out, and the
message is written from the front: what lies between items is copied as it stands. Each byte is looked at once, however
deep it is nested.

Items are larger than most fields. A document with too many of them raises `TooManyItems` while it is walked, and is
reduced to what holds no text.
"""
from cpython.object cimport PyObject
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.protobuf cimport (
    LEN, M_RESOURCE_SPANS, M_SPAN, MAX_DEPTH, VARINT, cursor, next_field, varint_size, wire_type, write_varint,
)
from sampler_proxy.redact.effort cimport LARGE_COPY, walked
from sampler_proxy.redact.value_cache cimport CHANGED

from sampler_proxy.redact.lanes import MASK_TEXT, OVERSIZE

assert MASK_TEXT == b"****"  # as items that MASK have it, here and in the walker

cdef enum:
    MAX_KEPT_ROOM = 1 << 22  # bytes of a buffer that are kept for the next trace
    STEPS_OF_CHANGE = 8
    BYTES_OF_STEP = 64  # that are copied


class TooManyItems(Exception):
    """More than MAX_ITEMS in one document."""


cdef uint8_t* copy(uint8_t* out, cbytes p, size_t size) noexcept:
    """Copy bytes, many of them without the GIL, and return what is behind the copy."""
    if size < LARGE_COPY:
        memcpy(out, p, size)
    else:
        with nogil:
            memcpy(out, p, size)
    return out + size


cdef bytes marker_of(uint64_t redactions):
    """Encode the attribute that says how much of a span was redacted, as a field of the span."""
    cdef uint8_t[16] number
    cdef bytes value = b"\x18" + (<const uint8_t*>number)[:write_varint(number, redactions) - number]
    cdef bytes content = b"\x0a\x16sampler_proxy.redacted\x12" + bytes([len(value)]) + value
    return b"\x4a" + bytes([len(content)]) + content


cdef bytes as_field(int field, uint64_t number):
    """Encode a varint field with a number below 16."""
    cdef uint8_t[16] out
    out[0] = <uint8_t>(field << 3)
    return (<const uint8_t*>out)[:write_varint(out + 1, number) - out]


cdef bytes reduced_span(cbytes p, cbytes end):
    """Reduce a span to ids, trace state, times, kind, flags, status code, and counts of attributes, events and links,
    which grow by those that go. The name, if there is one, is a mask."""
    cdef list kept = [b""] * 17  # by field; of a count the number
    cdef uint64_t[17] gone  # by the field of their count
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef FieldCursor inner
    cdef uint32_t number
    cdef uint64_t total
    memset(gone, 0, sizeof(gone))
    while next_field(&field):
        number = field.number
        if number > 16 or wire_type(M_SPAN, number) != <int>field.wire:
            continue
        if number == 9 or number == 11 or number == 13:
            gone[number + 1] += 1
        elif number == 10 or number == 12 or number == 14:
            kept[number] = field.integer & 0xFFFFFFFF
        elif number == 15:  # in several parts it merges
            inner = cursor(field.content, field.p, MAX_DEPTH)
            while next_field(&inner):
                if inner.number == 3 and inner.wire == VARINT:
                    kept[15] = as_field(3, inner.integer)
        elif number <= 4 and number != 3 and field.size not in (0, 16 if number == 1 else 8):
            continue
        else:  # of several the last counts
            kept[number] = field.start[:field.p - field.start]
    if kept[5]:
        kept[5] = b"\x2a" + bytes([len(MASK_TEXT)]) + MASK_TEXT
    if kept[15]:
        kept[15] = b"\x7a" + bytes([len(kept[15])]) + kept[15]
    for number in (10, 12, 14):
        total = min((kept[number] or 0) + gone[number], 0xFFFFFFFF)
        kept[number] = as_field(number, total) if total else b""
    return b"".join(kept)


cdef bytes reduced_header(Message message, cbytes p, cbytes end):
    """Reduce a header to the resource, or scope, with nothing but the count of its attributes."""
    cdef uint32_t attributes = 1 if message == M_RESOURCE_SPANS else 3  # field
    cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
    cdef FieldCursor inner
    cdef uint64_t number = 0
    cdef uint64_t gone = 0
    cdef bytes count
    while next_field(&field):
        if field.number != 1 or field.wire != LEN:
            continue
        inner = cursor(field.content, field.p, MAX_DEPTH)
        while next_field(&inner):
            if inner.number == attributes + 1 and inner.wire == VARINT:
                number = inner.integer
            elif inner.number == attributes and inner.wire == LEN:
                gone += 1
    count = as_field(<int>attributes + 1, min((number & 0xFFFFFFFF) + gone, 0xFFFFFFFF))
    return b"\x0a" + bytes([len(count)]) + count


cdef class Edits:
    def __cinit__(self, dict counts not None, observer, bint marker, Effort effort not None):
        self.effort = effort
        self.counts = counts
        self.observer = observer
        self.marker = marker

    def __dealloc__(self):
        free(self.items)
        free(self.out)

    # Recording.

    cdef void begin(self) noexcept:
        """Discard items and changed documents; large buffers are freed."""
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
        """Return the number of a message's item, recorded if it is not yet."""
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
        """Make room for one more item."""
        cdef void* grown
        if self.item_count >= self.limit:
            raise TooManyItems
        if self.item_count == self.item_room:
            grown = realloc(self.items, (2 * <uint64_t>self.item_room + 256) * sizeof(Item))
            if grown == NULL:
                raise MemoryError
            self.items = <Item*>grown
            self.item_room = 2 * self.item_room + 256
        return 0

    cdef Item* push(self, Frame* frame, cbytes start, cbytes length_at, cbytes body, cbytes end, int how) except NULL:
        """Record a field of a message. The pointer is valid until the next item."""
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
        """Record that a field goes. `key`: of the attribute it belongs to; NULL: none."""
        cdef Item* item
        if self.item_count and frame.item >= 0:  # many beside each other are one
            item = &self.items[self.item_count - 1]
            if item.kind == DROP and item.parent == frame.item and item.end == start and (
                item.label == label and item.key == key
            ):
                item.end = end
                item.count += 1
                return 0
        item = self.push(frame, start, end, end, end, DROP)
        item.count = 1
        item.label = label
        item.key = key
        item.field = <uint8_t>min(field, 255)
        return 0

    cdef void undo(self, Frame* frame, uint32_t item_count) noexcept:
        """Discard what has been recorded since there were so many items, all of it in this message or around it."""
        self.item_count = item_count
        frame.deleted = frame.count = 0
        while frame != NULL:
            if frame.item >= <int64_t>item_count:
                frame.item = -1
            frame = frame.up

    cdef int close(self, Frame* frame) except -1:
        """Have a message say how many attributes it has lost."""
        cdef Item* item
        if frame.deleted and count_field(frame.message):
            item = self.push(frame, frame.end, frame.end, frame.end, frame.end, ADD_COUNT)
            item.count = <uint32_t>min(<uint64_t>frame.count + frame.deleted, <uint64_t>0xFFFFFFFF)
            self.items[frame.item].count = frame.deleted
        return 0

    # Carrying out.

    cdef int reserve(self, uint64_t more) except -1:
        """Make room for so many bytes more in the output, which is there even where they are none: it is copied to."""
        cdef void* grown
        if self.used + more >= self.room:
            grown = realloc(self.out, 2 * self.used + more + 4096)
            if grown == NULL:
                raise MemoryError
            self.out = <uint8_t*>grown
            self.room = 2 * self.used + more + 4096
        return 0

    cdef int finish_doc(self, Doc* doc, bint marked) except -1:
        """Carry out what was recorded of a document, of which nothing is pending. `marked`: it may get the marker."""
        cdef uint64_t redactions = 0
        if doc.first == doc.last:
            return 0
        self.measure(doc)
        if not self.items[doc.first].changed:
            return 0
        self.write(doc, &redactions)
        if marked and self.marker and redactions:
            self.append(doc, marker_of(redactions))
        return 0

    cdef void measure(self, Doc* doc) noexcept:
        """Find out, from the inside out, which items change, and by how many bytes they grow."""
        cdef Item* items = self.items
        cdef Item* item
        cdef int64_t grown, content
        cdef uint32_t i = doc.last
        while i > doc.first:
            i -= 1
            item = &items[i]
            if item.kind == REPLACE or item.kind == AS_STRING:
                item.changed = item.entry.state == CHANGED
            elif item.kind == COUNT:  # what it counts is said at the end of the message
                item.changed = items[item.parent].count > 0
            elif item.kind != NEST:
                item.changed = True
            if not item.changed or item.parent < 0:
                continue
            if item.kind == NEST:
                content = (item.end - item.body) + item.delta
                grown = (item.length_at - item.start) + varint_size(content) + content - (item.end - item.start)
            elif item.kind == REPLACE:
                grown = (item.length_at - item.start) + varint_size(item.entry.out_size) + item.entry.out_size - (
                    item.end - item.start)
            elif item.kind == AS_STRING:
                content = item.entry.out_size
                grown = 1 + <int64_t>varint_size(content) + content - (item.end - item.start)
            elif item.kind == MASK:
                grown = 8 - (item.end - item.start)
            elif item.kind == ADD_COUNT:
                grown = 1 + <int64_t>varint_size(item.count)
            else:
                grown = -(item.end - item.start)
            items[item.parent].changed = True
            items[item.parent].delta += grown

    cdef int write(self, Doc* doc, uint64_t* redactions) except -1:
        """Write a changed document, from the front, and count its redactions."""
        cdef Item* item = &self.items[doc.first]
        cdef cbytes copied = item.body  # all before it has been
        cdef uint8_t* out
        cdef uint32_t i
        doc.changed = True
        doc.offset = self.used
        self.reserve((item.end - item.body) + item.delta)
        out = self.out + self.used
        for i in range(doc.first + 1, doc.last):
            item = &self.items[i]
            if not item.changed:
                continue
            walked(self.effort, STEPS_OF_CHANGE)
            out = copy(out, copied, item.start - copied)
            copied = item.end
            if item.kind == NEST:  # its tag and new length; its fields follow
                memcpy(out, item.start, item.length_at - item.start)
                out = write_varint(out + (item.length_at - item.start), (item.end - item.body) + item.delta)
                copied = item.body
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
            self.count_item(item, redactions)
        item = &self.items[doc.first]
        out = copy(out, copied, item.end - copied)
        doc.out_size = <uint32_t>(out - self.out - doc.offset)
        assert doc.out_size == (item.end - item.body) + item.delta
        self.used += doc.out_size
        walked(self.effort, doc.out_size // BYTES_OF_STEP)
        return 0

    cdef int append(self, Doc* doc, bytes more) except -1:
        """Add bytes to the document that was written last."""
        self.reserve(len(more))
        memcpy(self.out + self.used, <const char*>more, len(more))
        self.used += <uint64_t>len(more)
        doc.out_size += <uint32_t>len(more)
        return 0

    cdef int reduce(self, Doc* doc, Message message) except -1:
        """Reduce a document with too many items to what holds no text."""
        cdef cbytes end = doc.data + doc.size
        cdef bytes left = reduced_span(doc.data, end) if message == M_SPAN else reduced_header(message, doc.data, end)
        walked(self.effort, doc.size // 8)
        self.item_count = doc.first
        doc.changed = True
        doc.offset = self.used
        doc.out_size = 0
        self.append(doc, left)
        self.counts[OVERSIZE] = self.counts.get(OVERSIZE, 0) + 1
        if self.observer is not None:
            self.observer(message, 0, None, OVERSIZE, 1)
        if message == M_SPAN and self.marker:
            self.append(doc, marker_of(1))
        return 0

    cdef int count_item(self, Item* item, uint64_t* redactions) except -1:
        """Count the redactions of a changed item."""
        if item.kind == REPLACE or item.kind == AS_STRING:
            for label, number in <tuple>item.entry.counts:
                redactions[0] += number
                self.count(item, label, number)
        elif item.kind == MASK or item.kind == DROP:
            redactions[0] += item.count
            self.count(item, <object>item.label, item.count)
        return 0

    cdef int add_counts(self, tuple more) except -1:
        """Count the redactions of what is not carried out again."""
        for label, number in more:
            self.counts[label] = self.counts.get(label, 0) + number
        return 0

    cdef int count(self, Item* item, object label, uint64_t more) except -1:
        """Count redactions of one label, and tell the observer of them."""
        self.counts[label] = self.counts.get(label, 0) + more
        if self.observer is not None:
            key = None
            if item.key != NULL:
                key = item.key.out[:item.key.out_size] if item.key.state == CHANGED else item.key.text[:item.key.size]
            self.observer(item.message, item.field, key, label, more)
        return 0
