# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The walk over kept spans that finds what must not leave, and what is written in its place. `_redact.pyi` is the manual.

A span is walked once. Each text in it is looked up among those met before; what is known to be harmless costs a hash and a
comparison. What is new waits until a number of spans has been walked, and is then asked about in one go. Only what may
change is written down (`Item`), with the messages around it; a span without such items leaves as it came, and of another one the items
say what is copied and what is replaced. Nothing here decides: that is the policy's (`redact.py`).

Preconditions: spans and headers are valid messages (the scan has seen to that). Used under the pipeline's lock.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.math cimport fabs, floor
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy._judge cimport Facts, Judge
from sampler_proxy._mend cimport mended, valid_utf8
from sampler_proxy._plan cimport Plan
from sampler_proxy._proto cimport (
    LEN, M_ANY_VALUE, M_ENTITY_REF, M_EVENT, M_KEY_VALUE, M_LINK, M_NONE, M_RESOURCE, M_RESOURCE_SPANS,
    M_SCOPE, M_SCOPE_SPANS, M_SPAN, MAX_DEPTH, Message, cbytes, child, hash_bytes, read_length, read_tag, read_varint, skip_value,
    varint_size, wire_type, write_varint,
)
from sampler_proxy.fragments cimport Group, groups_of, payload_of

from sampler_proxy import redact as policies
from sampler_proxy import redact_values as values

cdef enum State:
    PENDING
    SAME  # leaves as it came
    CHANGED

cdef enum Kind:
    # How values in a lane are gone about: as redact_values.py numbers it.
    AS_IT_IS = 0
    JOINED = 1
    ALONE = 2
    LEAVES = 3
    DELETED = 4
    WHOLE = 5

cdef enum Lane:
    EXEMPT = 0
    TEXT = 1
    KEY = 2
    BYTES = 3
    NAME = 4

cdef enum Place:
    OF_SPAN = 0
    OF_RESOURCE = 1
    OF_SCOPE = 2
    OF_EVENT = 3
    OF_LINK = 4
    NESTED = 5
    KEYS = 1 << 16  # a place of keys is no lane

cdef enum How:
    # What becomes of an item.
    NEST  # a message with items in it
    REPLACE  # a text, in a field of its own type
    AS_STRING  # any AnyValue's content, by a string
    MASK  # the value of a KeyValue, whole
    DROP
    COUNT  # dropped_attributes_count as it came
    ADD_COUNT  # and as it leaves, at the end of its message

cdef enum:
    WAYS = 4
    BUCKETS = 1 << 13
    MAX_CACHED_BYTES = 1 << 23
    MAX_CACHED_VALUE = 2048
    # Spans and bytes that are gone about in one go.
    MAX_DOCS = 512
    MAX_PENDING_BYTES = 1 << 14
    MAX_VALUE = 64 * 1024  # as redact.py has it
    MAX_KEY = 4096
    MAX_KEPT_ROOM = 1 << 22
    NEAR_HEADERS = 16

cdef bytes SEPARATOR = values.SEPARATOR
cdef bytes CANARY = values.CANARY
cdef object UNKNOWN = values.UNKNOWN
cdef object OVERSIZE = ((values.OVERSIZE, 1),)
cdef object MASKED_OVERSIZE = values.OVERSIZE
assert policies.MAX_VALUE_BYTES == MAX_VALUE
assert (policies.EXEMPT, policies.TEXT, policies.KEY, policies.BYTES, policies.NAME) == (EXEMPT, TEXT, KEY, BYTES, NAME)
assert (values.AS_IT_IS, values.JOINED, values.ALONE, values.LEAVES, values.DELETED, values.WHOLE) == (
    AS_IT_IS, JOINED, ALONE, LEAVES, DELETED, WHOLE
)


cdef inline int place_of(Message message) noexcept nogil:
    if message == M_SPAN:
        return OF_SPAN
    if message == M_RESOURCE:
        return OF_RESOURCE
    if message == M_SCOPE:
        return OF_SCOPE
    if message == M_EVENT:
        return OF_EVENT
    return OF_LINK if message == M_LINK else NESTED


cdef inline uint32_t count_field(Message message) noexcept nogil:
    """Where it says how many attributes were dropped; 0: nowhere."""
    if message == M_SPAN:
        return 10
    if message == M_RESOURCE:
        return 2
    if message == M_SCOPE or message == M_EVENT:
        return 4
    return 5 if message == M_LINK else 0


cdef inline bint is_id(Message message, uint32_t field, uint32_t size) noexcept nogil:
    """Trace state, and ids that have the size of one."""
    if message == M_SPAN:
        return field == 3 or (size == 16 if field == 1 else (field == 2 or field == 4) and (size == 8 or size == 0))
    if message == M_LINK:
        return field == 3 or (field == 1 and (size == 16 or size == 0)) or (field == 2 and (size == 8 or size == 0))
    return False


cdef inline bint like_json(cbytes p, uint32_t size) noexcept nogil:
    cdef cbytes end = p + size
    while p < end and (p[0] == 32 or 9 <= p[0] <= 13):
        p += 1
    return p < end and (p[0] == b"{" or p[0] == b"[")


cdef bytes marker_of(uint64_t redactions):
    """The attribute of a span that says how much of it was redacted, as a field of it."""
    cdef uint8_t[16] number
    cdef bytes value = b"\x18" + (<const uint8_t*>number)[:write_varint(number, redactions) - number]
    cdef bytes content = b"\x0a\x16sampler_proxy.redacted\x12" + bytes([len(value)]) + value
    return b"\x4a" + bytes([len(content)]) + content


cdef class View:
    """A policy's view, with what is asked of it often at hand."""

    def __cinit__(self, view, uint64_t serial):
        self.view = view
        self.key = view.key
        self.sift = view.sift
        self.apply = view.apply
        self.serial = serial
        self.name_kind = view.lanes[NAME].kind


cdef class Redactor:
    def __cinit__(self, policy not None, Envelopes envelopes not None, dict counts not None, observer=None, *, uint64_t seed=0):
        self.policy = policy
        self.envelopes = envelopes
        self.seed = seed
        self.counts = counts
        self.observer = observer
        self.views = {}
        self.masks = {}
        self.entity_keys = set()
        self.masked = values.MASKED
        if policy.filters is not None:
            filters = policy.filters
            self.judge = Judge(Plan(filters.conditions, filters.filters, comparisons=filters.comparisons), seed)
        self.slots = <Slot*>calloc(BUCKETS * WAYS, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.oversize.state = CHANGED
        self.oversize.out = <uint8_t*><char*>self.masked
        self.oversize.out_size = <uint32_t>len(self.masked)
        self.oversize.counts = <PyObject*>OVERSIZE
        self.oversize.kind = WHOLE
        self.oversize.label = <PyObject*>MASKED_OVERSIZE
        self.use(policy.everything)

    def __dealloc__(self):
        if self.slots != NULL:
            self.forget()
        free(self.slots)
        free(self.pending)
        free(self.items)
        free(self.spans)
        free(self.headers)
        free(self.groups)
        free(self.span_masks)
        free(self.out)

    # A trace.

    cdef int redact(self, Fragment* first) except -1:
        self.finished()
        self.span_count = self.group_count = 0
        self.spans_done = self.headers_done = 0
        self.item_count = self.pending_count = 0
        self.pending_bytes = self.used = 0
        try:
            self.walk_trace(first)
            self.flush()
            self.finish_headers()
        except BaseException:
            self.finished()
            self.forget()
            raise
        return 0

    cdef int finished(self) except -1:
        """Give back what redact() left for the caller."""
        cdef uint32_t i
        for i in range(self.header_count):
            if self.headers[i].leaving != NULL:
                self.envelopes.release(self.headers[i].leaving)
                self.headers[i].leaving = NULL
        self.header_count = 0
        if self.room > MAX_KEPT_ROOM:
            free(self.out)
            self.out = NULL
            self.room = 0
        if self.span_room * sizeof(Doc) > MAX_KEPT_ROOM:
            free(self.spans)
            self.spans = NULL
            self.span_room = 0
        if self.item_room * sizeof(Item) > MAX_KEPT_ROOM:
            free(self.items)
            self.items = NULL
            self.item_room = 0
        return 0

    cdef cbytes span(self, uint32_t index, uint32_t* size) noexcept:
        """A span of the trace as it leaves; until the next trace."""
        cdef Doc* doc = &self.spans[index]
        if doc.changed:
            size[0] = doc.out_size
            return self.out + doc.offset
        size[0] = doc.size
        return doc.data

    cdef Envelope* envelope(self, uint32_t group) noexcept:
        """The header of a group as it leaves; the reference is ours."""
        return self.headers[self.groups[group]].leaving

    cdef int walk_trace(self, Fragment* first) except -1:
        cdef Fragment* fragment = first
        cdef Group* group
        cdef cbytes p
        cdef cbytes end
        cdef uint32_t size = 0
        cdef uint32_t i
        cdef void* grown
        cdef Doc* doc
        cdef Frame frame
        if self.judge is not None:
            self.select(first)
        while fragment != NULL:
            group = groups_of(fragment)
            p = payload_of(fragment)
            for i in range(fragment.groups):
                if self.group_count == self.group_room:
                    grown = realloc(self.groups, (2 * self.group_room + 64) * sizeof(uint32_t))
                    if grown == NULL:
                        raise MemoryError
                    self.groups = <uint32_t*>grown
                    self.group_room = 2 * self.group_room + 64
                self.groups[self.group_count] = self.header(group[i].scope.envelope, True)
                self.group_count += 1
                end = p + group[i].size
                while p < end:
                    p = read_length(p + 1, end, &size)
                    if self.span_count == self.span_room:
                        grown = realloc(self.spans, (2 * self.span_room + 64) * sizeof(Doc))
                        if grown == NULL:
                            raise MemoryError
                        self.spans = <Doc*>grown
                        self.span_room = 2 * self.span_room + 64
                    doc = &self.spans[self.span_count]
                    doc.data = p
                    doc.size = size
                    doc.changed = False
                    doc.first = self.item_count
                    self.span_count += 1
                    if self.judge is not None:
                        self.use(self.span_masks[self.span_count - 1])
                    memset(&frame, 0, sizeof(Frame))
                    frame.body = p
                    frame.end = p + size
                    frame.item = -1
                    frame.message = M_SPAN
                    self.walk(&frame)
                    self.spans[self.span_count - 1].last = self.item_count
                    if self.pending_bytes >= MAX_PENDING_BYTES or self.span_count - self.spans_done >= MAX_DOCS:
                        self.flush()
                    p += size
            fragment = fragment.next
        return 0

    # Which filters hold.

    cdef int select(self, Fragment* first) except -1:
        """Find out for each span which filters hold, and for each header for which there are spans under it."""
        cdef Fragment* fragment = first
        cdef Group* group
        cdef cbytes p
        cdef cbytes end
        cdef uint32_t size = 0
        cdef uint32_t i
        cdef uint32_t count = 0
        cdef void* grown
        cdef Envelope* resource
        cdef Facts facts
        while fragment != NULL:
            count += fragment.spans
            fragment = fragment.next
        grown = realloc(self.span_masks, (count + 1) * sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError
        self.span_masks = <uint64_t*>grown
        memset(self.span_masks, 0, count * sizeof(uint64_t))
        self.masks = {}
        self.judge.begin()
        count = 0
        fragment = first
        while fragment != NULL:
            group = groups_of(fragment)
            p = payload_of(fragment)
            resource = NULL
            for i in range(fragment.groups):
                if group[i].scope.envelope.parent != resource:
                    resource = group[i].scope.envelope.parent
                    self.judge.load(resource, False)
                self.judge.load(group[i].scope.envelope, True)
                end = p + group[i].size
                mask = 0
                while p < end:
                    p = read_length(p + 1, end, &size)
                    self.judge.read_span(p, size, &facts)
                    self.judge.judge(&self.span_masks[count], &facts, True)
                    mask |= self.span_masks[count]
                    count += 1
                    p += size
                for envelope in (<size_t>group[i].scope.envelope, <size_t>resource):
                    self.masks[envelope] = self.masks.get(envelope, 0) | mask
            fragment = fragment.next
        return 0

    cdef int use(self, uint64_t mask) except -1:
        """Go on with what applies where these filters hold."""
        cdef object view = self.views.get(mask)
        if view is None:
            found = self.policy.view(mask)
            # Several masks may have one view.
            view = next((known for known in self.views.values() if (<View>known).view is found), None)
            if view is None:
                view = View(found, len(self.views) + 1)
            self.views[mask] = view
        self.view = view
        return 0

    # Headers.

    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF:
        """The number of a header, walked through if it is new."""
        cdef uint32_t i
        cdef uint32_t parent = 0
        cdef void* grown
        cdef HeaderDoc* header
        i = self.header_count
        while i and i + NEAR_HEADERS > self.header_count:
            i -= 1
            if self.headers[i].envelope == envelope:
                return i
        if is_scope:
            parent = self.header(envelope.parent, False)
        if self.header_count == self.header_room:
            grown = realloc(self.headers, (2 * self.header_room + 16) * sizeof(HeaderDoc))
            if grown == NULL:
                raise MemoryError
            self.headers = <HeaderDoc*>grown
            self.header_room = 2 * self.header_room + 16
        header = &self.headers[self.header_count]
        memset(header, 0, sizeof(HeaderDoc))
        header.envelope = envelope
        header.is_scope = is_scope
        header.parent = parent
        header.doc.data = envelope.data
        header.doc.size = envelope.size
        self.header_count += 1
        self.walk_header(self.header_count - 1)
        return self.header_count - 1

    cdef int walk_header(self, uint32_t index) except -1:
        cdef Frame frame
        cdef HeaderDoc* header = &self.headers[index]
        if self.judge is not None:
            self.use(self.masks.get(<size_t>header.envelope, self.policy.everything))
        header.doc.first = self.item_count
        memset(&frame, 0, sizeof(Frame))
        frame.body = header.doc.data
        frame.end = header.doc.data + header.doc.size
        frame.item = -1
        frame.message = M_SCOPE_SPANS if header.is_scope else M_RESOURCE_SPANS
        if not header.is_scope:
            self.note_entities(frame.body, frame.end)
        self.walk(&frame)
        self.headers[index].doc.last = self.item_count
        return 0

    cdef int note_entities(self, cbytes p, cbytes end) except -1:
        """Note the keys that entity references of a resource name."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef cbytes q
        cdef cbytes r
        cdef cbytes stop
        if self.entity_keys:
            self.entity_keys.clear()
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if wire != LEN:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
                continue
            p = read_length(p, end, &length)
            q = p
            p += length
            if field != 1:
                continue
            while q < p:
                q = read_tag(q, p, &field, &wire)
                if wire != LEN:
                    q = skip_value(q, p, field, wire, MAX_DEPTH)
                    continue
                q = read_length(q, p, &length)
                r = q
                q += length
                if field != 3:
                    continue
                while r < q:
                    r = read_tag(r, q, &field, &wire)
                    if wire != LEN:
                        r = skip_value(r, q, field, wire, MAX_DEPTH)
                        continue
                    r = read_length(r, q, &length)
                    if field == 3 or field == 4:
                        self.entity_keys.add(<bytes>r[:length])
                    r += length
        return 0

    cdef int finish_headers(self) except -1:
        """Intern what has become of them."""
        cdef uint32_t i
        cdef HeaderDoc* header
        cdef Envelope* parent
        cdef cbytes data
        cdef uint32_t size
        cdef bytes whole
        for i in range(self.header_count):  # a resource comes before its scopes
            header = &self.headers[i]
            parent = self.headers[header.parent].leaving if header.is_scope else NULL
            data = header.doc.data
            size = header.doc.size
            if header.doc.changed:
                data = self.out + header.doc.offset
                size = header.doc.out_size
                # Envelopes were mended when they came; what has been cut may not fall between characters.
                whole = mended(M_SCOPE_SPANS if header.is_scope else M_RESOURCE_SPANS, data, size)
                if whole is not None:
                    data = <cbytes><const char*>whole
                    size = <uint32_t>len(whole)
            header.leaving = self.envelopes.intern(parent, data, size)
        return 0

    # Walking.

    cdef int walk(self, Frame* frame) except -1:
        """Any message but attributes and their values."""
        cdef cbytes p = frame.body
        cdef cbytes start
        cdef cbytes length_at
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint64_t number = 0
        cdef uint32_t counted = count_field(frame.message)
        cdef int place = place_of(frame.message)
        cdef int lane
        cdef Message nested
        cdef Frame inner
        cdef Entry* entry
        cdef Item* item
        while p < frame.end:
            start = p
            p = read_tag(p, frame.end, &field, &wire)
            assert p != NULL
            if wire == LEN:
                length_at = p
                p = read_length(p, frame.end, &length)
                assert p != NULL
                p += length
            else:
                length_at = p
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
                assert p != NULL
            if wire_type(frame.message, field) != <int>wire:
                self.drop(frame, start, p, <PyObject*>UNKNOWN, NULL, field)
                continue
            if wire != LEN:
                if field == counted:
                    read_varint(length_at, p, &number)
                    frame.count = <uint32_t>number
                    item = self.push(frame, start, length_at, p, p, COUNT)
                    item.count = frame.count
                continue
            nested = child(frame.message, field)
            if nested != M_NONE:
                inner.up = frame
                inner.start = start
                inner.length_at = length_at
                inner.body = p - length
                inner.end = p
                inner.item = -1
                inner.deleted = inner.count = 0
                inner.message = nested
                if nested == M_KEY_VALUE:
                    self.attribute(&inner, place, TEXT, JOINED, NULL)
                    continue
                if nested == M_RESOURCE or nested == M_SCOPE:  # in several parts it merges, and the last count counts
                    inner.deleted = frame.deleted
                    inner.count = frame.count
                self.walk(&inner)
                if nested == M_RESOURCE or nested == M_SCOPE:
                    frame.deleted = inner.deleted
                    frame.count = inner.count
            elif not is_id(frame.message, field, length):
                if frame.message == M_ENTITY_REF and field >= 3:
                    entry = self.key_entry(OF_RESOURCE, p - length, length)
                    if entry.state != SAME:
                        item = self.push(frame, start, length_at, p - length, p, REPLACE)
                        item.entry = entry
                        item.field = <uint8_t>field
                    continue
                lane = NAME if (frame.message == M_SPAN and field == 5) or (frame.message == M_EVENT and field == 2) else TEXT
                self.text(frame, start, length_at, p, p - length, length, lane, self.view.name_kind if lane == NAME else JOINED, NULL,
                          REPLACE, field)
        return self.close(frame)

    cdef int attribute(self, Frame* frame, int place, int lane, int kind, Entry* owner) except -1:
        """A KeyValue. `lane`: of what it lies in; what its own key says goes before."""
        cdef cbytes p = frame.body
        cdef cbytes start
        cdef cbytes length_at
        cdef cbytes key = p
        cdef uint32_t key_size = 0
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef bint exempt = kind == AS_IT_IS
        cdef Frame inner
        cdef Entry* entry
        cdef Entry* known
        cdef Item* item
        while p < frame.end:  # the last key counts, wherever it stands
            p = read_tag(p, frame.end, &field, &wire)
            assert p != NULL
            if wire == LEN:
                p = read_length(p, frame.end, &length)
                assert p != NULL
                if field == 1:
                    key = p
                    key_size = length
                p += length
            else:
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
                assert p != NULL
        entry = self.key_entry(place, key, key_size)
        if not exempt:
            if entry.kind == DELETED:
                frame.up.deleted += 1
                return self.drop(frame.up, frame.start, frame.end, entry.label, entry, 0)
            if entry.kind != JOINED or entry.lane != TEXT:
                lane = entry.lane
                kind = entry.kind
        p = frame.body
        while p < frame.end:
            start = p
            p = read_tag(p, frame.end, &field, &wire)
            if wire == LEN:
                length_at = p
                p = read_length(p, frame.end, &length)
                p += length
            else:
                length_at = p
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
            if wire_type(M_KEY_VALUE, field) != <int>wire:
                self.drop(frame, start, p, <PyObject*>UNKNOWN, entry, field)
            elif wire != LEN:
                continue
            elif field == 1:
                if exempt:
                    continue
                known = entry if p - length == key else self.key_entry(place, p - length, length)
                if known.state != SAME:
                    item = self.push(frame, start, length_at, p - length, p, REPLACE)
                    item.entry = known
                    item.key = entry
                    item.field = 1
            elif kind == WHOLE:
                if length == 6 and memcmp(p - 6, b"\x0a\x04****", 6) == 0:
                    continue
                item = self.push(frame, start, length_at, p - length, p, MASK)
                item.label = entry.label
                item.key = entry
                item.field = 2
            else:
                inner.up = frame
                inner.start = start
                inner.length_at = length_at
                inner.body = p - length
                inner.end = p
                inner.item = -1
                inner.deleted = inner.count = 0
                inner.message = M_ANY_VALUE
                self.value(&inner, lane, kind, owner if owner != NULL else entry)
        return 0

    cdef int value(self, Frame* frame, int lane, int kind, Entry* key) except -1:
        """An AnyValue, ArrayValue or KeyValueList."""
        cdef cbytes p = frame.body
        cdef cbytes start
        cdef cbytes length_at
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint64_t number = 0
        cdef double real
        cdef Message nested
        cdef Frame inner
        cdef bytes shown
        while p < frame.end:
            start = p
            p = read_tag(p, frame.end, &field, &wire)
            assert p != NULL
            length_at = p
            if wire == LEN:
                p = read_length(p, frame.end, &length)
                assert p != NULL
                p += length
            else:
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
                assert p != NULL
            if wire_type(frame.message, field) != <int>wire:
                self.drop(frame, start, p, <PyObject*>UNKNOWN, key, field)
                continue
            nested = child(frame.message, field) if wire == LEN else M_NONE
            if nested != M_NONE:
                inner.up = frame
                inner.start = start
                inner.length_at = length_at
                inner.body = p - length
                inner.end = p
                inner.item = -1
                inner.deleted = inner.count = 0
                inner.message = nested
                if nested == M_KEY_VALUE:
                    self.attribute(&inner, NESTED, lane, kind, key)
                else:
                    self.value(&inner, lane, kind, key)
            elif kind == AS_IT_IS:
                continue
            elif wire == LEN:
                if field == 7 and kind == JOINED:
                    self.text(frame, start, length_at, p, p - length, length, BYTES, JOINED, key, AS_STRING, field)
                else:
                    self.text(frame, start, length_at, p, p - length, length, lane, kind, key, AS_STRING, field)
            elif field == 4:
                memcpy(&real, length_at, 8)
                if floor(real) == real and fabs(real) < 9.2e18:
                    self.number(frame, start, p, <int64_t>real, lane, kind, key)
                elif kind == LEAVES:
                    shown = repr(real).encode()
                    self.text(frame, start, start, p, <cbytes><const char*>shown, <uint32_t>len(shown), lane, kind, key, AS_STRING, field)
            elif field == 2:
                if kind == LEAVES:
                    read_varint(length_at, p, &number)
                    shown = b"true" if number else b"false"
                    self.text(frame, start, start, p, <cbytes><const char*>shown, <uint32_t>len(shown), lane, kind, key, AS_STRING, field)
            else:
                read_varint(length_at, p, &number)
                self.number(frame, start, p, <int64_t>number, lane, kind, key)
        return 0

    cdef int number(self, Frame* frame, cbytes start, cbytes end, int64_t number, int lane, int kind, Entry* key) except -1:
        """An integer, in its decimal form."""
        cdef uint8_t[24] digits
        cdef uint64_t rest = <uint64_t>number if number >= 0 else 0 - <uint64_t>number
        cdef int at = 24
        while True:
            at -= 1
            digits[at] = <uint8_t>(48 + rest % 10)
            rest //= 10
            if not rest:
                break
        if number < 0:
            at -= 1
            digits[at] = 45
        return self.text(frame, start, start, end, digits + at, 24 - at, lane, kind, key, AS_STRING, 3)

    cdef int text(self, Frame* frame, cbytes start, cbytes length_at, cbytes end, cbytes p, uint32_t size, int lane, int kind,
                  Entry* key, int how, uint32_t field) except -1:
        """A field that holds a text, or is taken for one. Longer texts must lie in the message."""
        cdef Entry* entry = self.value_entry(lane, kind, p, size)
        cdef Item* item
        if entry.state != SAME:
            item = self.push(frame, start, length_at, end, end, how)
            item.entry = entry
            item.key = key
            item.field = <uint8_t>field
        return 0

    # Writing down.

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
        cdef Item* item = self.push(frame, start, end, end, end, DROP)
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

    # What is known.

    cdef Entry* find(self, uint64_t place, cbytes p, uint32_t size, bint* fresh) except NULL:
        cdef uint64_t key = hash_bytes(p, size, place, self.seed)
        cdef Slot* bucket = &self.slots[(key & (BUCKETS - 1)) * WAYS]
        cdef Entry* entry
        cdef int i
        for i in range(WAYS):
            entry = bucket[i].entry
            if bucket[i].hash == key and entry != NULL and entry.place == place and entry.size == size and (
                memcmp(entry.text, p, size) == 0
            ):
                entry.met = True
                fresh[0] = False
                return entry
        fresh[0] = True
        entry = <Entry*>malloc(sizeof(Entry) + (size if size <= MAX_CACHED_VALUE or place & KEYS else 0))
        if entry == NULL:
            raise MemoryError
        memset(entry, 0, sizeof(Entry))
        entry.hash = key
        entry.place = place
        entry.size = size
        if size > MAX_CACHED_VALUE and not place & KEYS:
            entry.text = p
            self.retire(entry)
            return entry
        memcpy(entry.data, p, size)
        entry.text = entry.data
        while self.cached_bytes + size + sizeof(Entry) > MAX_CACHED_BYTES:
            self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
            if self.slots[self.hand].entry != NULL:
                self.cached_bytes -= self.slots[self.hand].entry.size + sizeof(Entry)
                self.retire(self.slots[self.hand].entry)
                self.slots[self.hand].entry = NULL
        for i in range(WAYS):
            if bucket[i].entry == NULL:
                break
        else:
            # What has not been met again goes; if all have been, some one, and the others have to prove themselves anew.
            for i in range(WAYS):
                if not bucket[i].entry.met:
                    break
            else:
                i = <int>(self.hand & (WAYS - 1))
                self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
                bucket[0].entry.met = bucket[1].entry.met = bucket[2].entry.met = bucket[3].entry.met = False
            self.cached_bytes -= bucket[i].entry.size + sizeof(Entry)
            self.retire(bucket[i].entry)
        bucket[i].hash = key
        bucket[i].entry = entry
        self.cached_bytes += size + sizeof(Entry)
        return entry

    cdef Entry* key_entry(self, int place, cbytes p, uint32_t size) except NULL:
        """What a key says of its value, and what becomes of itself."""
        cdef bint fresh = False
        cdef Entry* entry
        cdef object lane
        cdef bint named
        if size > MAX_KEY:
            return &self.oversize
        named = place == OF_RESOURCE and bool(self.entity_keys) and p[:size] in self.entity_keys
        entry = self.find(self.view.serial << 20 | KEYS | <uint64_t>named << 8 | <uint64_t>place, p, size, &fresh)
        if fresh:
            entry.lane = self.view.key(place, p[:size], named)
            lane = self.view.view.lanes[entry.lane]
            entry.kind = lane.kind
            entry.label = <PyObject*>lane.label
            if entry.kind == AS_IT_IS:
                entry.state = SAME
            else:
                self.pend(entry, KEY, like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    cdef Entry* value_entry(self, int lane, int kind, cbytes p, uint32_t size) except NULL:
        cdef bint fresh = False
        cdef Entry* entry
        if size > MAX_VALUE:
            return &self.oversize
        entry = self.find(self.view.serial << 20 | <uint64_t>lane, p, size, &fresh)
        if fresh:
            self.pend(entry, lane, kind != JOINED or like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    cdef int pend(self, Entry* entry, int lane, bint alone) except -1:
        cdef void* grown
        cdef Pending* pending
        entry.state = PENDING
        if self.pending_count == self.pending_room:
            grown = realloc(self.pending, (2 * <uint64_t>self.pending_room + 256) * sizeof(Pending))
            if grown == NULL:
                raise MemoryError
            self.pending = <Pending*>grown
            self.pending_room = 2 * self.pending_room + 256
        pending = &self.pending[self.pending_count]
        pending.entry = entry
        pending.view = <PyObject*>self.view
        pending.lane = <uint16_t>lane
        pending.alone = alone
        self.pending_count += 1
        self.pending_bytes += entry.size
        return 0

    cdef void retire(self, Entry* entry) noexcept:
        """Items may still point to it."""
        entry.next = self.retired
        self.retired = entry

    cdef void free_retired(self) noexcept:
        cdef Entry* entry
        while self.retired != NULL:
            entry = self.retired
            self.retired = entry.next
            free(entry.out)
            Py_XDECREF(entry.counts)
            free(entry)

    cdef void forget(self) noexcept:
        cdef uint32_t i
        for i in range(BUCKETS * WAYS):
            if self.slots[i].entry != NULL:
                self.retire(self.slots[i].entry)
                self.slots[i].entry = NULL
        self.cached_bytes = 0
        self.free_retired()
        self.item_count = self.pending_count = 0
        self.pending_bytes = 0

    # Finding out.

    cdef int flush(self) except -1:
        """See to all that has been walked: afterwards nothing of it is pending."""
        cdef uint32_t i
        self.resolve()
        for i in range(self.headers_done, self.header_count):
            self.finish_doc(&self.headers[i].doc, False)
        for i in range(self.spans_done, self.span_count):
            self.finish_doc(&self.spans[i], True)
        self.headers_done = self.header_count
        self.spans_done = self.span_count
        self.item_count = 0
        self.free_retired()
        return 0

    cdef int resolve(self) except -1:
        cdef View view
        if self.pending_count:
            if self.judge is None:
                self.resolve_view(self.view)
            else:
                for view in set(self.views.values()):
                    self.resolve_view(view)
        self.pending_count = 0
        self.pending_bytes = 0
        return 0

    cdef int resolve_view(self, View view) except -1:
        cdef Pending* pending
        cdef uint64_t total = 0
        cdef uint64_t low, high
        cdef uint32_t i
        cdef bytes joined
        cdef uint8_t* out
        cdef uint32_t gap = <uint32_t>len(SEPARATOR)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if not pending.alone and pending.view == <PyObject*>view:
                pending.offset = total
                total += pending.entry.size + gap
        if total:
            joined = PyBytes_FromStringAndSize(NULL, total + len(CANARY))
            out = <uint8_t*>PyBytes_AS_STRING(joined)
            for i in range(self.pending_count):
                pending = &self.pending[i]
                if not pending.alone and pending.view == <PyObject*>view:
                    memcpy(out, pending.entry.text, pending.entry.size)
                    out += pending.entry.size
                    memcpy(out, PyBytes_AS_STRING(SEPARATOR), gap)
                    out += gap
            memcpy(out, PyBytes_AS_STRING(CANARY), len(CANARY))
            regions = view.sift(joined)
            if regions is not None:
                regions.append((total, total))
                following = iter(regions)
                low, high = next(following)
                for i in range(self.pending_count):
                    pending = &self.pending[i]
                    if not pending.alone and pending.view == <PyObject*>view:
                        while high < pending.offset:
                            low, high = next(following)
                        pending.alone = low <= pending.offset + pending.entry.size
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if pending.view == <PyObject*>view:
                if pending.alone:
                    self.settle(pending.entry, view.apply(pending.lane, pending.entry.text[:pending.entry.size]))
                else:
                    pending.entry.state = SAME
        return 0

    cdef int settle(self, Entry* entry, object result) except -1:
        cdef bytes replacement
        if result is None:
            entry.state = SAME
            return 0
        replacement, counts = result
        entry.out = <uint8_t*>malloc(len(replacement) + 1)
        if entry.out == NULL:
            raise MemoryError
        memcpy(entry.out, <const char*>replacement, len(replacement))
        entry.out_size = <uint32_t>len(replacement)
        Py_INCREF(counts)
        entry.counts = <PyObject*>counts
        entry.state = CHANGED
        return 0

    # Writing.

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
                redactions += 1
                self.count(item.label, 1)
                if self.observer is not None:
                    self.observe(i, <object>item.label, 1)
        item = &items[doc.first]
        memcpy(out, cursor, item.end - cursor)
        out += item.end - cursor
        doc.out_size = <uint32_t>(out - self.out - doc.offset)
        assert doc.out_size == (item.end - item.body) + item.delta
        self.used += doc.out_size
        if marked and self.policy.marker and redactions:
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
        if item.key == &self.oversize:
            key = self.masked
        elif item.key != NULL:
            key = item.key.out[:item.key.out_size] if item.key.state == CHANGED else item.key.text[:item.key.size]
        self.observer(item.message, item.field, key, label, number)
        return 0
