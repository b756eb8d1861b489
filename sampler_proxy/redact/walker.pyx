"""Walks kept spans, finds what must not leave, and has something else written in its place. walker.pyi is the manual.

A span is walked once. Each text in it is looked up in the value cache; a text known to be harmless costs a hash and a
comparison. New texts wait until a number of spans has been walked, and are then asked about in one go. Only what may
change is recorded (`Item`), with the messages around it; a span without items leaves as it came, and of another one the
items say what is copied and what is replaced. Nothing here decides: that is the policy's part.

Preconditions: spans and headers are valid messages (the scan has seen to that), and stay while they are walked: the
trace and its references to envelopes are the caller's. One trace at a time, with the GIL, which is given way about
every millisecond: other threads intern and release envelopes meanwhile, and read the counts. Nothing else here is
touched by them.
"""
from cpython.object cimport PyObject
from libc.math cimport fabs, floor
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.otlp.fragments cimport Group, SpanWalk, groups_of, next_span, spans_of
from sampler_proxy.otlp.protobuf cimport (
    LEN, M_ANY_VALUE, M_ENTITY_REF, M_EVENT, M_KEY_VALUE, M_NONE, M_RESOURCE, M_RESOURCE_SPANS, M_SCOPE,
    M_SCOPE_SPANS, M_SPAN, MAX_DEPTH, child, cursor, damaged, next_field, wire_type,
)
from sampler_proxy.redact.edits cimport AS_STRING, COUNT, MASK, MAX_ITEMS, REPLACE, Item, count_field, enter
from sampler_proxy.redact.effort cimport TRACE_BUDGET, walked
from sampler_proxy.redact.fields cimport id_fields, is_id, place_of, strictness
from sampler_proxy.redact.named_stores cimport statement_lane
from sampler_proxy.redact.value_cache cimport (
    ANY_TYPE, AS_IT_IS, BATCHED, BYTES, DELETED, IN_RESOURCE, IN_VALUE, MASKED, NAME, SAME, TEXT,
)

from sampler_proxy.redact import lanes
from sampler_proxy.redact.edits import TooManyItems

cdef enum:
    MAX_DOCS = 512  # spans whose new values are asked about in one go
    MAX_KEPT_ROOM = 1 << 22  # bytes of a buffer that are kept for the next trace
    # In a set of id fields, beside a bit for each field: some field stands several times.
    REPEATED = 1 << 8

cdef tuple UNKNOWN_FIELD_LABEL = lanes.UNKNOWN_FIELD
cdef PyObject* UNKNOWN_FIELD = <PyObject*>UNKNOWN_FIELD_LABEL


cdef void find_last_ids(Frame* frame, cbytes* last) noexcept nogil:
    """Find where the last of each id field ends, by its number."""
    cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
    while next_field(&field):
        if field.wire == LEN and field.number < 5:
            last[field.number] = field.p


cdef class Redactor:
    def __cinit__(
        self, policy not None, Envelopes envelopes not None, dict counts not None, observer=None, *, uint64_t seed=0
    ):
        self.policy = policy
        self.effort = Effort()
        self.cache = ValueCache(policy, seed, self.effort)
        self.edits = Edits(counts, observer, policy.marker, self.effort)
        self.headers = Headers(envelopes)
        self.filters = None if policy.filters is None else SpanFilters(policy.filters, seed)

    def __dealloc__(self):
        free(self.spans)
        free(self.groups)

    @property
    def nbytes(self):
        cdef uint64_t masks = 0 if self.filters is None else self.filters.room * sizeof(uint64_t)
        cdef uint64_t kept = self.span_room * sizeof(Doc) + self.group_room * sizeof(uint32_t) + masks
        kept += self.headers.room * sizeof(HeaderDoc) + self.edits.room + self.edits.item_room * sizeof(Item)
        return kept + self.cache.nbytes()

    # The effort.

    cdef uint64_t spent(self) noexcept:
        """Return what the last trace has taken, all of it, in units of about a microsecond."""
        return self.effort.spent()

    # A trace.

    cdef Redacted redact(self, Fragment* trace) except *:
        """Redact a trace, which stays as it is. The caller reads the result, and calls release()."""
        cdef Redacted redacted
        self.release()
        self.effort.begin()
        try:
            if self.filters is not None:
                self.filters.match_trace(trace, self.effort)
            self.walk_headers(trace)
            self.walk_spans(trace)
            self.resolve()
        except BaseException:
            self.release()
            self.cache.clear()
            raise
        redacted.span = self.spans
        redacted.group = self.groups
        redacted.headers = self.headers.docs
        redacted.out = self.edits.out
        return redacted

    cdef void release(self) noexcept:
        """Give back what redact() has returned; large buffers are freed."""
        self.headers.release()
        self.edits.begin()
        self.span_count = self.group_count = 0
        self.spans_done = 0
        if self.filters is not None:
            self.filters.release()
        if self.span_room * sizeof(Doc) > MAX_KEPT_ROOM:
            free(self.spans)
            self.spans = NULL
            self.span_room = 0
        if self.group_room * sizeof(uint32_t) > MAX_KEPT_ROOM:
            free(self.groups)
            self.groups = NULL
            self.group_room = 0

    # Headers.

    cdef int walk_headers(self, Fragment* trace) except -1:
        """Find out what becomes of the headers of a trace, and note them group by group."""
        cdef Fragment* fragment = trace
        cdef Group* group
        cdef void* grown
        cdef uint32_t i
        while fragment != NULL:
            if self.group_count + <uint64_t>fragment.groups > self.group_room:
                grown = realloc(self.groups, (2 * <uint64_t>self.group_room + fragment.groups) * sizeof(uint32_t))
                if grown == NULL:
                    raise MemoryError
                self.groups = <uint32_t*>grown
                self.group_room = 2 * self.group_room + fragment.groups
            group = groups_of(fragment)
            for i in range(fragment.groups):
                walked(self.effort, 1)
                self.groups[self.group_count] = self.header(group[i].scope.envelope, True)
                self.group_count += 1
            fragment = fragment.next
        return 0

    cdef uint32_t header(self, Envelope* envelope, bint is_scope) except? 0xFFFFFFFF:
        """Return the number of a header, redacted if nobody knows yet what becomes of it."""
        cdef Envelope* parent = envelope.parent  # a resource's: metadata, which leaves as it came, in requests' headers
        cdef uint32_t number
        # The number is another redactor's, or another trace's, where the header there is another one.
        if envelope.redacted < self.headers.count and self.headers.docs[envelope.redacted].envelope == envelope:
            return envelope.redacted
        if is_scope:
            parent = self.headers.docs[self.header(envelope.parent, False)].leaving
        number = self.headers.add(envelope)
        if self.filters is not None:
            self.filters.select_header(envelope, self.cache)
        # An observer is told of each trace's headers, so that each is walked.
        if self.edits.observer is not None or not self.headers.recall(
            &self.headers.docs[number], parent, self.cache.view.serial, self.edits
        ):
            self.redact_header(&self.headers.docs[number], parent, is_scope)
        return number

    cdef int redact_header(self, HeaderDoc* header, Envelope* parent, bint is_scope) except -1:
        """Redact a header, and have its envelope remember what it has become.

        One that is masked in part for want of budget is remembered only if it has taken most of the budget itself:
        else each trace under it would take as much; but what others have taken is no reason to mask it for longer.
        """
        cdef Envelope* envelope = header.envelope
        cdef dict counts = self.edits.counts
        cdef dict own = {}
        cdef uint64_t before = self.effort.spent()
        cdef Doc doc
        doc.data = envelope.data
        doc.size = envelope.size
        doc.changed = False
        self.effort.exhausted = False
        self.edits.counts = own
        try:
            if not is_scope:
                self.headers.read_entities(doc.data, doc.data + doc.size)
            self.walk_doc(&doc, M_SCOPE_SPANS if is_scope else M_RESOURCE_SPANS)
            self.cache.resolve()
            self.edits.finish_doc(&doc, False)
        finally:
            self.edits.counts = counts
        found = tuple(own.items()) or None
        if found is not None:
            self.edits.add_counts(found)
        self.headers.intern(header, parent, is_scope, &doc, self.edits)
        self.edits.begin()
        self.cache.free_unused(True)
        if self.edits.observer is None and (
            not self.effort.exhausted or self.effort.spent() - before >= TRACE_BUDGET // 2
        ):
            self.headers.envelopes.remember(
                envelope, header.leaving, found, self.headers.serial, self.cache.view.serial
            )
        return 0

    # Spans.

    cdef int walk_spans(self, Fragment* trace) except -1:
        """Walk every span of a trace; resolves whenever too much is pending."""
        cdef SpanWalk walk = spans_of(trace)
        cdef uint64_t mask
        while next_span(&walk):
            if self.filters is not None:
                mask = self.filters.masks[self.span_count]
                self.cache.select_view(mask, mask)
            self.walk_span(walk.body, walk.size)
            if self.cache.full or self.span_count - self.spans_done >= MAX_DOCS or self.edits.item_count >= MAX_ITEMS:
                self.resolve()
        return 0

    cdef int walk_span(self, cbytes body, uint32_t size) except -1:
        """Add a span to the documents of the trace, and walk it."""
        cdef void* grown
        cdef Doc* doc
        if self.span_count == self.span_room:
            grown = realloc(self.spans, (2 * self.span_room + 64) * sizeof(Doc))
            if grown == NULL:
                raise MemoryError
            self.spans = <Doc*>grown
            self.span_room = 2 * self.span_room + 64
        doc = &self.spans[self.span_count]
        doc.data = body
        doc.size = size
        doc.changed = False
        self.span_count += 1
        return self.walk_doc(doc, M_SPAN)

    cdef int walk_doc(self, Doc* doc, Message message) except -1:
        """Walk a span or a header as a document of its own; with too many items it is reduced."""
        cdef Frame frame
        memset(&frame, 0, sizeof(Frame))
        frame.body = doc.data
        frame.end = doc.data + doc.size
        frame.item = -1
        frame.message = message
        frame.lane = TEXT
        frame.kind = BATCHED
        doc.first = self.edits.item_count
        self.edits.limit = doc.first + MAX_ITEMS
        try:
            self.walk(&frame)
        except TooManyItems:
            self.edits.reduce(doc, message)
        doc.last = self.edits.item_count
        return 0

    # Messages.

    cdef int walk(self, Frame* frame) except -1:
        """Walk any message but attributes and their values."""
        cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
        cdef uint32_t counted = count_field(frame.message)
        cdef uint32_t before = self.edits.item_count
        cdef int place = place_of(frame.message)
        cdef uint32_t ids = id_fields(frame.message)
        cdef uint32_t seen = 0  # of the ids
        cdef cbytes[5] last
        cdef Message nested
        cdef Frame inner
        cdef Item* item
        while next_field(&field):
            walked(self.effort, 1)
            if field.number < 5 and field.wire == LEN and ids >> field.number & 1:
                # Of several the last is the id, and the others are texts: begin anew, knowing which is the last.
                if seen & REPEATED and field.p != last[field.number]:
                    self.text(frame, field.start, field.value, field.content, field.size, field.number)
                    continue
                if seen >> field.number & 1 and not seen & REPEATED:
                    with nogil:
                        find_last_ids(frame, last)
                    self.edits.undo(frame, before)
                    seen = REPEATED
                    field = cursor(frame.body, frame.end, MAX_DEPTH)
                    continue
                seen |= 1 << field.number
            if wire_type(frame.message, field.number) != <int>field.wire:
                self.edits.drop(frame, field.start, field.p, UNKNOWN_FIELD, NULL, field.number)
                continue
            if field.wire != LEN:
                if field.number == counted:
                    frame.count = <uint32_t>field.integer
                    item = self.edits.push(frame, field.start, field.value, field.p, field.p, COUNT)
                    item.count = frame.count
                continue
            nested = child(frame.message, field.number)
            if nested == M_NONE:
                if not is_id(frame.message, field.number, field.size):
                    self.text(frame, field.start, field.value, field.content, field.size, field.number)
                continue
            enter(&inner, frame, &field, nested)
            if nested == M_KEY_VALUE:
                self.attribute(&inner, place)
            elif nested == M_RESOURCE or nested == M_SCOPE:  # in several parts it merges, and the last count counts
                inner.deleted = frame.deleted
                inner.count = frame.count
                self.walk(&inner)
                frame.deleted = inner.deleted
                frame.count = inner.count
            else:
                self.walk(&inner)
        assert not damaged(&field)
        return self.edits.close(frame)

    cdef int text(
        self, Frame* frame, cbytes start, cbytes length_at, cbytes content, uint32_t size, uint32_t number
    ) except -1:
        """Look up a string field of a message, or a bytes field that is no id."""
        cdef Entry* entry
        cdef Item* item
        if frame.message == M_ENTITY_REF and number >= 3:
            entry = self.key(IN_RESOURCE, content, size)
        elif (frame.message == M_SPAN and number == 5) or (frame.message == M_EVENT and number == 2):
            entry = self.cache.value(NAME, self.cache.view.name_kind, content, size)
        else:
            entry = self.cache.value(TEXT, BATCHED, content, size)
        if entry.state != SAME:
            entry.pinned = True
            item = self.edits.push(frame, start, length_at, content, content + size, REPLACE)
            item.entry = entry
            item.field = <uint8_t>number
        return 0

    # Attributes.

    cdef Entry* key(self, int place, cbytes p, uint32_t size) except NULL:
        """Return the entry of an attribute's key at a Place; entity references name keys of resources only."""
        return self.cache.key(place, p, size, place == IN_RESOURCE and self.headers.names(p, size))

    cdef int attribute(self, Frame* frame, int place) except -1:
        """Walk a KeyValue. What its own key says goes before the lane and kind of the value that it lies in."""
        cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
        cdef bint exempt = frame.kind == AS_IT_IS
        cdef Frame inner
        cdef cbytes key = frame.body
        cdef uint32_t key_size = 0
        cdef int keys = 0
        cdef Entry* entry
        cdef Entry* known
        cdef Item* item
        while next_field(&field):
            walked(self.effort, 1)
            if field.number == 1 and field.wire == LEN:
                key = field.content
                key_size = field.size
                keys += 1
        assert not damaged(&field)
        entry = self.key(place, key, key_size)
        if not exempt:
            if keys > 1:
                entry = self.strictest(frame, place, entry)
            if entry.kind == DELETED:
                frame.up.deleted += 1
                return self.edits.drop(frame.up, frame.start, frame.end, entry.label, entry, 0)
            if entry.kind != BATCHED or entry.lane != TEXT:
                frame.lane = entry.lane
                frame.kind = entry.kind
                if entry.lane == self.cache.view.statement:
                    frame.lane = statement_lane(frame.up, self.cache, self.effort)
        field = cursor(frame.body, frame.end, MAX_DEPTH)
        while next_field(&field):
            walked(self.effort, 1)
            if wire_type(M_KEY_VALUE, field.number) != <int>field.wire:
                self.edits.drop(frame, field.start, field.p, UNKNOWN_FIELD, entry, field.number)
            elif field.wire != LEN:
                continue
            elif field.number == 2:
                enter(&inner, frame, &field, M_ANY_VALUE)
                self.attribute_value(frame, &inner, entry)
            elif not exempt:
                known = entry if keys == 1 else self.key(place, field.content, field.size)
                if known.state != SAME:
                    item = self.edits.push(frame, field.start, field.value, field.content, field.p, REPLACE)
                    item.entry = known
                    item.key = entry
                    item.field = 1
        return 0

    cdef int attribute_value(self, Frame* frame, Frame* inner, Entry* entry) except -1:
        """Mask the value of a KeyValue, or walk it."""
        cdef Item* item
        if frame.kind != MASKED:
            if inner.key == NULL:
                inner.key = entry
            return self.value(inner)
        if inner.end - inner.body == 6 and memcmp(inner.body, b"\x0a\x04****", 6) == 0:
            return 0
        item = self.edits.push(frame, inner.start, inner.length_at, inner.body, inner.end, MASK)
        item.count = 1
        item.label = entry.label
        item.key = entry
        item.field = 2
        return 0

    cdef Entry* strictest(self, Frame* frame, int place, Entry* entry) except NULL:
        """Choose among the keys of a KeyValue: the last one wins, but other readers may take another, so that the
        strictest rule applies."""
        cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
        cdef Entry* other
        while next_field(&field):
            if field.number == 1 and field.wire == LEN:
                other = self.key(place, field.content, field.size)
                if strictness(other.kind) > strictness(entry.kind):
                    entry = other
        return entry

    # Values.

    cdef int value(self, Frame* frame) except -1:
        """Walk an AnyValue, ArrayValue or KeyValueList."""
        cdef FieldCursor field = cursor(frame.body, frame.end, MAX_DEPTH)
        cdef Message nested
        cdef Frame inner
        cdef int lane
        while next_field(&field):
            walked(self.effort, 1)
            if wire_type(frame.message, field.number) != <int>field.wire:
                self.edits.drop(frame, field.start, field.p, UNKNOWN_FIELD, frame.key, field.number)
                continue
            if field.wire != LEN:
                if frame.kind != AS_IT_IS:
                    self.scalar(frame, field.start, field.p, field.number, field.integer)
                continue
            nested = child(frame.message, field.number)
            if nested == M_NONE:
                if frame.kind != AS_IT_IS:
                    lane = BYTES if field.number == 7 and frame.kind == BATCHED else frame.lane
                    self.content(frame, lane, field.start, field.p, field.content, field.size, field.number)
                continue
            enter(&inner, frame, &field, nested)
            if nested == M_KEY_VALUE:
                self.attribute(&inner, IN_VALUE)
            else:
                self.value(&inner)
        assert not damaged(&field)
        return 0

    cdef int scalar(self, Frame* frame, cbytes start, cbytes end, uint32_t number, uint64_t bits) except -1:
        """Look up a number in its decimal form; other numbers, and booleans, only where a rule is for any type."""
        cdef double real = 0
        cdef bytes shown
        if number == 4:
            memcpy(&real, &bits, 8)
            if floor(real) == real and fabs(real) < 9.2e18:
                return self.integer(frame, start, end, <int64_t>real)
        elif number != 2:
            return self.integer(frame, start, end, <int64_t>bits)
        if frame.kind != ANY_TYPE:
            return 0
        shown = repr(real).encode() if number == 4 else b"true" if bits else b"false"
        return self.content(frame, frame.lane, start, end, <cbytes><const char*>shown, <uint32_t>len(shown), number)

    cdef int integer(self, Frame* frame, cbytes start, cbytes end, int64_t number) except -1:
        """Look up an integer in its decimal form."""
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
        return self.content(frame, frame.lane, start, end, digits + at, 24 - at, 3)

    cdef int content(
        self, Frame* frame, int lane, cbytes start, cbytes end, cbytes p, uint32_t size, uint32_t number
    ) except -1:
        """Look up what an AnyValue holds, as a text. A text too large to be cached must lie in the message."""
        cdef Entry* entry = self.cache.value(lane, frame.kind, p, size)
        cdef Item* item
        if entry.state != SAME:
            entry.pinned = True
            item = self.edits.push(frame, start, start, end, end, AS_STRING)
            item.entry = entry
            item.key = frame.key
            item.field = <uint8_t>number
        return 0

    # Asking.

    cdef int resolve(self) except -1:
        """Find out what becomes of all that has been walked, and carry it out: afterwards nothing of it is pending."""
        cdef uint32_t i
        self.cache.resolve()
        for i in range(self.spans_done, self.span_count):
            self.edits.finish_doc(&self.spans[i], True)
        self.spans_done = self.span_count
        self.edits.item_count = 0
        self.cache.free_unused(True)
        return 0
