"""What changes in a message, written down while it is walked through, and carried out in one go.

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
    LEN, MAX_DEPTH, M_RESOURCE_SPANS, M_SPAN, VARINT, read_length, read_tag, read_varint, skip_value, varint_size, wire_type,
    write_varint,
)
from sampler_proxy.redact.value_cache cimport CHANGED

from sampler_proxy.redact.lanes import MASK_TEXT, OVERSIZE

cdef enum:
    MAX_KEPT_ROOM = 1 << 22


cdef bytes marker_of(uint64_t redactions):
    """The attribute of a span that says how much of it was redacted, as a field of it."""
    cdef uint8_t[16] number
    cdef bytes value = b"\x18" + (<const uint8_t*>number)[:write_varint(number, redactions) - number]
    cdef bytes content = b"\x0a\x16sampler_proxy.redacted\x12" + bytes([len(value)]) + value
    return b"\x4a" + bytes([len(content)]) + content


class TooManyItems(Exception):
    """More than MAX_ITEMS in one document."""


cdef bytes as_field(int field, uint64_t number):
    cdef uint8_t[16] out
    out[0] = <uint8_t>(field << 3)
    return (<const uint8_t*>out)[:write_varint(out + 1, number) - out]


cdef bytes reduced_span(cbytes p, cbytes end):
    """Ids, trace state, times, kind, flags, status code, and counts of attributes, events and links, by which they have
    grown. The name, if there is one, is a mask."""
    cdef list kept = [b""] * 17
    cdef uint64_t[17] gone  # by the field of their count
    cdef cbytes[17] last  # of several the last counts
    cdef cbytes[17] behind
    cdef cbytes start
    cdef cbytes body
    cdef cbytes q
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef uint64_t number = 0
    memset(last, 0, sizeof(last))
    memset(gone, 0, sizeof(gone))
    while p < end:
        start = p
        p = read_tag(p, end, &field, &wire)
        body = p
        p = skip_value(p, end, field, wire, MAX_DEPTH)
        if field > 16 or wire_type(M_SPAN, field) != <int>wire:
            continue
        if field == 9 or field == 11 or field == 13:
            gone[field + 1] += 1
        elif field == 10 or field == 12 or field == 14:
            read_varint(body, p, &number)
            kept[field] = number & 0xFFFFFFFF
        elif field == 15:  # in several parts it merges
            q = read_length(body, p, &length)
            while q < p:
                q = read_tag(q, p, &field, &wire)
                if field == 3 and wire == VARINT:
                    q = read_varint(q, p, &number)
                    kept[15] = as_field(3, number)
                else:
                    q = skip_value(q, p, field, wire, MAX_DEPTH)
        elif field <= 4 and field != 3 and p - read_length(body, p, &length) not in (0, 16 if field == 1 else 8):
            continue
        else:
            last[field] = start
            behind[field] = p
    for field in range(1, 17):
        if field == 5:
            if last[5] != NULL:
                kept[5] = b"\x2a" + bytes([len(MASK_TEXT)]) + MASK_TEXT
        elif field == 10 or field == 12 or field == 14:
            number = min((kept[field] or 0) + gone[field], 0xFFFFFFFF)
            kept[field] = as_field(field, number) if number else b""
        elif field == 15:
            if kept[15]:
                kept[15] = b"\x7a" + bytes([len(kept[15])]) + kept[15]
        elif last[field] != NULL:
            kept[field] = last[field][:behind[field] - last[field]]
    return b"".join(kept)


cdef bytes reduced_header(Message message, cbytes p, cbytes end):
    """The resource, or scope, with nothing but the count of its attributes."""
    cdef int attributes = 1 if message == M_RESOURCE_SPANS else 3
    cdef cbytes q
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef uint64_t number = 0
    cdef uint64_t gone = 0
    cdef bytes count
    while p < end:
        p = read_tag(p, end, &field, &wire)
        if field != 1 or wire != LEN:
            p = skip_value(p, end, field, wire, MAX_DEPTH)
            continue
        q = read_length(p, end, &length)
        p = q + length
        while q < p:
            q = read_tag(q, p, &field, &wire)
            if field == <uint32_t>attributes + 1 and wire == VARINT:
                q = read_varint(q, p, &number)
                continue
            gone += field == <uint32_t>attributes and wire == LEN
            q = skip_value(q, p, field, wire, MAX_DEPTH)
    count = as_field(attributes + 1, min((number & 0xFFFFFFFF) + gone, 0xFFFFFFFF))
    return b"\x0a" + bytes([len(count)]) + count


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

    cdef void undo(self, Frame* frame, uint32_t item_count) noexcept:
        """Forget what has been recorded since there were so many items, all of it in this message or around it."""
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
            self.mark(doc, redactions)
        return 0

    cdef int mark(self, Doc* doc, uint64_t redactions) except -1:
        cdef bytes marker = marker_of(redactions)
        self.reserve(len(marker))
        memcpy(self.out + self.used, <const char*>marker, len(marker))
        self.used += <uint64_t>len(marker)
        doc.out_size += <uint32_t>len(marker)
        return 0

    cdef int reduce(self, Doc* doc, Message message) except -1:
        """Of a document with too many items: leave what holds no text."""
        cdef cbytes end = doc.data + doc.size
        cdef bytes left = reduced_span(doc.data, end) if message == M_SPAN else reduced_header(message, doc.data, end)
        self.item_count = doc.first
        self.reserve(len(left))
        memcpy(self.out + self.used, <const char*>left, len(left))
        doc.changed = True
        doc.offset = self.used
        doc.out_size = <uint32_t>len(left)
        self.used += <uint64_t>len(left)
        self.count(<PyObject*>OVERSIZE, 1)
        if self.observer is not None:
            self.observer(message, 0, None, OVERSIZE, 1)
        if message == M_SPAN and self.marker:
            self.mark(doc, 1)
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
