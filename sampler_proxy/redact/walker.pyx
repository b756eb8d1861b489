"""The walk over kept spans that finds what must not leave, and what is written in its place. `_redact.pyi` is the
manual.

A span is walked once. Each text in it is looked up among those met before; what is known to be harmless costs a hash
and a comparison. What is new waits until a number of spans has been walked, and is then asked about in one go. Only
what may change is written down (`Item`), with the messages around it; a span without such items leaves as it came, and
of another one the items say what is copied and what is replaced. Nothing here decides: that is the policy's
(`redact.py`).

Preconditions: spans and headers are valid messages (the scan has seen to that). Used under the pipeline's lock.
"""
from cpython.object cimport PyObject
from libc.math cimport fabs, floor
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.redact.edits cimport AS_STRING, COUNT, MASK, MAX_ITEMS, REPLACE, Doc, Frame, Item, Edits, count_field
from sampler_proxy.rules.span_matcher cimport Facts, Judge
from sampler_proxy.otlp.utf8 cimport mended
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.otlp.protobuf cimport (
    LEN, M_ANY_VALUE, M_ENTITY_REF, M_EVENT, M_KEY_VALUE, M_LINK, M_NONE, M_RESOURCE, M_RESOURCE_SPANS,
    M_SCOPE, M_SCOPE_SPANS, M_SPAN, MAX_DEPTH, Message, cbytes, child, read_length, read_tag, read_varint, skip_value,
    wire_type,
)
from sampler_proxy.redact.value_cache cimport (
    AS_IT_IS, BYTES, Entry, DELETED, BATCHED, ANY_TYPE, TRACE_BUDGET, MAX_KEY_BYTES, REQUEST_BUDGET, NAME, IN_VALUE, IN_EVENT, IN_LINK, IN_RESOURCE, IN_SCOPE, IN_SPAN, SAME, TEXT,
    ValueCache, MASKED,
)
from sampler_proxy.otlp.fragments cimport Group, groups_of, payload_of

from sampler_proxy.redact.edits import TooManyItems
from sampler_proxy.redact.lanes import UNKNOWN_FIELD

cdef enum:
    # Spans and bytes that are gone about in one go.
    MAX_DOCS = 512
    MAX_PENDING_BYTES = 1 << 14
    MAX_KEPT_ROOM = 1 << 22
    MAX_ENTITY_KEYS = 1024


cdef inline int place_of(Message message) noexcept nogil:
    if message == M_SPAN:
        return IN_SPAN
    if message == M_RESOURCE:
        return IN_RESOURCE
    if message == M_SCOPE:
        return IN_SCOPE
    if message == M_EVENT:
        return IN_EVENT
    return IN_LINK if message == M_LINK else IN_VALUE


cdef inline bint is_id(Message message, uint32_t field, uint32_t size) noexcept nogil:
    """Trace state, and ids that have the size of one."""
    if message == M_SPAN:
        return field == 3 or (size == 16 if field == 1 else (field == 2 or field == 4) and (size == 8 or size == 0))
    if message == M_LINK:
        return field == 3 or (field == 1 and (size == 16 or size == 0)) or (field == 2 and (size == 8 or size == 0))
    return False


cdef int last_ids(Message message, cbytes p, cbytes end, cbytes* last) except -1:
    """Behind which byte the last of each id field ends, by its number."""
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    while p < end:
        p = read_tag(p, end, &field, &wire)
        p = skip_value(p, end, field, wire, MAX_DEPTH)
        if wire == LEN and field < 5:
            last[field] = p
    return 0


cdef inline int strictness(int kind) noexcept nogil:
    return MASKED + 1 if kind == DELETED else kind


cdef class Redactor:
    def __cinit__(self, policy not None, Envelopes envelopes not None, dict counts not None, observer=None, *, uint64_t seed=0):
        self.policy = policy
        self.envelopes = envelopes
        self.cache = ValueCache(policy, seed)
        self.edits = Edits(counts, observer, policy.marker)
        self.masks = {}
        self.entity_keys = set()
        if policy.filters is not None:
            filters = policy.filters
            self.judge = Judge(Plan(filters.conditions, filters.filters, comparisons=filters.comparisons), seed)

    def __dealloc__(self):
        free(self.spans)
        free(self.headers)
        free(self.groups)
        free(self.span_masks)

    # A trace.

    cdef int redact(self, Fragment* first) except -1:
        self.finished()
        self.span_count = self.group_count = 0
        self.spans_done = self.headers_done = 0
        if self.sharing:
            self.cache.budget = min(self.cache.spent + TRACE_BUDGET, REQUEST_BUDGET)
        else:
            self.cache.spent = 0
            self.cache.budget = TRACE_BUDGET
        try:
            self.walk_trace(first)
            self.flush()
            self.finish_headers()
        except BaseException:
            self.finished()
            self.cache.clear()
            raise
        return 0

    cdef void share(self, bint on) noexcept:
        """Have the traces that follow share what they may cost, until it is switched off."""
        self.sharing = on
        self.cache.spent = 0

    cdef uint64_t effort(self) noexcept:
        """What the last trace has cost, in units of about a microsecond."""
        return self.cache.spent

    cdef int finished(self) except -1:
        """Give back what redact() left for the caller."""
        cdef uint32_t i
        for i in range(self.header_count):
            if self.headers[i].leaving != NULL:
                self.envelopes.release(self.headers[i].leaving)
                self.headers[i].leaving = NULL
        self.header_count = 0
        self.edits.begin()
        if self.span_room * sizeof(Doc) > MAX_KEPT_ROOM:
            free(self.spans)
            self.spans = NULL
            self.span_room = 0
        return 0

    cdef cbytes span(self, uint32_t index, uint32_t* size) noexcept:
        """A span of the trace as it leaves; until the next trace."""
        cdef Doc* doc = &self.spans[index]
        if doc.changed:
            size[0] = doc.out_size
            return self.edits.out + doc.offset
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
                    doc.first = self.edits.item_count
                    self.span_count += 1
                    if self.judge is not None:
                        self.cache.select_view(self.span_masks[self.span_count - 1], self.span_masks[self.span_count - 1])
                    self.walk_doc(doc, M_SPAN)
                    if (self.cache.pending_bytes >= MAX_PENDING_BYTES or self.span_count - self.spans_done >= MAX_DOCS
                            or self.edits.item_count >= MAX_ITEMS):
                        self.flush()
                    p += size
            fragment = fragment.next
        return 0

    cdef int walk_doc(self, Doc* doc, Message message) except -1:
        cdef Frame frame
        memset(&frame, 0, sizeof(Frame))
        frame.body = doc.data
        frame.end = doc.data + doc.size
        frame.item = -1
        frame.message = message
        self.edits.limit = doc.first + MAX_ITEMS
        try:
            self.walk(&frame)
        except TooManyItems:
            self.edits.reduce(doc, message)
        doc.last = self.edits.item_count
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
        cdef uint64_t some, every
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
                some = 0
                every = ~<uint64_t>0
                while p < end:
                    p = read_length(p + 1, end, &size)
                    self.judge.read_span(p, size, &facts)
                    self.judge.judge(&self.span_masks[count], &facts, True)
                    some |= self.span_masks[count]
                    every &= self.span_masks[count]
                    count += 1
                    p += size
                for envelope in (<size_t>group[i].scope.envelope, <size_t>resource):
                    others = self.masks.get(envelope, (0, ~<uint64_t>0))
                    self.masks[envelope] = (others[0] | some, others[1] & every)
            fragment = fragment.next
        return 0

    # Headers.

    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF:
        """The number of a header, walked through if it is new."""
        cdef uint32_t parent = 0
        cdef void* grown
        cdef HeaderDoc* header
        if envelope.redacted < self.header_count and self.headers[envelope.redacted].envelope == envelope:
            return envelope.redacted
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
        envelope.redacted = self.header_count
        header.is_scope = is_scope
        header.parent = parent
        header.doc.data = envelope.data
        header.doc.size = envelope.size
        self.header_count += 1
        self.walk_header(self.header_count - 1)
        return self.header_count - 1

    cdef int walk_header(self, uint32_t index) except -1:
        cdef HeaderDoc* header = &self.headers[index]
        if self.judge is not None:
            some, every = self.masks[<size_t>header.envelope]
            self.cache.select_view(some, every)
        header.doc.first = self.edits.item_count
        if not header.is_scope:
            self.note_entities(header.doc.data, header.doc.data + header.doc.size)
        return self.walk_doc(&header.doc, M_SCOPE_SPANS if header.is_scope else M_RESOURCE_SPANS)

    cdef int note_entities(self, cbytes p, cbytes end) except -1:
        """Note the keys that entity references of a resource name."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef cbytes q
        cdef cbytes r
        if self.entity_keys:
            self.entity_keys.clear()
        self.all_named = False
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
                    if (field == 3 or field == 4) and length <= MAX_KEY_BYTES:  # a longer one is masked in any case
                        if len(self.entity_keys) == MAX_ENTITY_KEYS:
                            self.all_named = True
                            return 0
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
                data = self.edits.out + header.doc.offset
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
        cdef uint32_t before = self.edits.item_count
        cdef int place = place_of(frame.message)
        cdef int lane
        cdef Message nested
        cdef Frame inner
        cdef Entry* entry
        cdef Item* item
        cdef uint32_t ids = 0x16 if frame.message == M_SPAN else (0x06 if frame.message == M_LINK else 0)  # their fields
        cdef uint32_t met = 0
        cdef cbytes[5] last
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
            if field < 5 and wire == LEN and ids >> field & 1:
                # Of several the last is the id, and the others are texts.
                if met >> 8 and p != last[field]:
                    self.text(frame, start, length_at, p, p - length, length, TEXT, BATCHED, NULL, REPLACE, field)
                    continue
                if met >> field & 1 and not met >> 8:
                    last_ids(frame.message, frame.body, frame.end, last)
                    self.edits.undo(frame, before)
                    met = 1 << 8
                    p = frame.body
                    continue
                met |= 1 << field
            if wire_type(frame.message, field) != <int>wire:
                self.edits.drop(frame, start, p, <PyObject*>UNKNOWN_FIELD, NULL, field)
                continue
            if wire != LEN:
                if field == counted:
                    read_varint(length_at, p, &number)
                    frame.count = <uint32_t>number
                    item = self.edits.push(frame, start, length_at, p, p, COUNT)
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
                    self.attribute(&inner, place, TEXT, BATCHED, NULL)
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
                    entry = self.key(IN_RESOURCE, p - length, length)
                    if entry.state != SAME:
                        item = self.edits.push(frame, start, length_at, p - length, p, REPLACE)
                        item.entry = entry
                        item.field = <uint8_t>field
                    continue
                lane = NAME if (frame.message == M_SPAN and field == 5) or (frame.message == M_EVENT and field == 2) else TEXT
                self.text(frame, start, length_at, p, p - length, length, lane, self.cache.view.name_kind if lane == NAME else BATCHED, NULL,
                          REPLACE, field)
        return self.edits.close(frame)

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
        cdef int keys = 0
        cdef Frame inner
        cdef Entry* entry
        cdef Entry* known
        cdef Item* item
        while p < frame.end:
            p = read_tag(p, frame.end, &field, &wire)
            assert p != NULL
            if wire == LEN:
                p = read_length(p, frame.end, &length)
                assert p != NULL
                if field == 1:
                    key = p
                    key_size = length
                    keys += 1
                p += length
            else:
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
                assert p != NULL
        entry = self.key(place, key, key_size)
        if keys > 1 and not exempt:
            entry = self.strictest(frame, place, entry)
        if not exempt:
            if entry.kind == DELETED:
                frame.up.deleted += 1
                return self.edits.drop(frame.up, frame.start, frame.end, entry.label, entry, 0)
            if entry.kind != BATCHED or entry.lane != TEXT:
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
                self.edits.drop(frame, start, p, <PyObject*>UNKNOWN_FIELD, entry, field)
            elif wire != LEN:
                continue
            elif field == 1:
                if exempt:
                    continue
                known = entry if keys == 1 else self.key(place, p - length, length)
                if known.state != SAME:
                    item = self.edits.push(frame, start, length_at, p - length, p, REPLACE)
                    item.entry = known
                    item.key = entry
                    item.field = 1
            elif kind == MASKED:
                if length == 6 and memcmp(p - 6, b"\x0a\x04****", 6) == 0:
                    continue
                item = self.edits.push(frame, start, length_at, p - length, p, MASK)
                item.count = 1
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

    cdef Entry* strictest(self, Frame* frame, int place, Entry* entry) except NULL:
        """Of the keys of a KeyValue: the last counts, but who can tell what others see."""
        cdef cbytes p = frame.body
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef Entry* other
        while p < frame.end:
            p = read_tag(p, frame.end, &field, &wire)
            if wire != LEN or field != 1:
                p = skip_value(p, frame.end, field, wire, MAX_DEPTH)
                continue
            p = read_length(p, frame.end, &length)
            other = self.key(place, p, length)
            if strictness(other.kind) > strictness(entry.kind):
                entry = other
            p += length
        return entry

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
                self.edits.drop(frame, start, p, <PyObject*>UNKNOWN_FIELD, key, field)
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
                    self.attribute(&inner, IN_VALUE, lane, kind, key)
                else:
                    self.value(&inner, lane, kind, key)
            elif kind == AS_IT_IS:
                continue
            elif wire == LEN:
                if field == 7 and kind == BATCHED:
                    self.text(frame, start, length_at, p, p - length, length, BYTES, BATCHED, key, AS_STRING, field)
                else:
                    self.text(frame, start, length_at, p, p - length, length, lane, kind, key, AS_STRING, field)
            elif field == 4:
                memcpy(&real, length_at, 8)
                if floor(real) == real and fabs(real) < 9.2e18:
                    self.number(frame, start, p, <int64_t>real, lane, kind, key)
                elif kind == ANY_TYPE:
                    shown = repr(real).encode()
                    self.text(frame, start, start, p, <cbytes><const char*>shown, <uint32_t>len(shown), lane, kind, key, AS_STRING, field)
            elif field == 2:
                if kind == ANY_TYPE:
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
        cdef Entry* entry = self.cache.value(lane, kind, p, size)
        cdef Item* item
        if entry.state != SAME:
            item = self.edits.push(frame, start, length_at, end, end, how)
            item.entry = entry
            item.key = key
            item.field = <uint8_t>field
        return 0

    cdef Entry* key(self, int place, cbytes p, uint32_t size) except NULL:
        cdef bint named = place == IN_RESOURCE and bool(self.entity_keys) and (self.all_named or p[:size] in self.entity_keys)
        return self.cache.key(place, p, size, named)

    # Finding out.

    cdef int flush(self) except -1:
        """See to all that has been walked: afterwards nothing of it is pending."""
        cdef uint32_t i
        self.cache.resolve()
        for i in range(self.headers_done, self.header_count):
            self.edits.finish_doc(&self.headers[i].doc, False)
        for i in range(self.spans_done, self.span_count):
            self.edits.finish_doc(&self.spans[i], True)
        self.headers_done = self.header_count
        self.spans_done = self.span_count
        self.edits.item_count = 0
        self.cache.free_unused()
        return 0

