"""Scans an ExportTraceServiceRequest: one pass over its bytes, cut into fragments. scanner.pyi is the manual.

Preconditions: the request stays alive and unchanged during the call (a bytes object does). Every read is bounds-checked
against the enclosing message. After MalformedRequest nothing is held. The GIL is released for the whole pass; a regular
expression that meets a value for the first time takes it back for that question.

Long: the pass keeps its place and its tables in one state, which two modules would hand to each other for each span.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.fragments cimport (
    HAS_RANDOMNESS, HAS_REMOTE_PARENT, HAS_ROOT, HAS_TIMES, HAS_TRACESTATE, PARTLY_READ, UNEQUAL_THRESHOLDS, Group,
    Scanned, filter_words, fragment_cost, groups_of, mix, payload_of,
)
from sampler_proxy.otlp.protobuf cimport (
    LEN, M_RESOURCE, M_RESOURCE_SPANS, M_SCOPE, MAX_DEPTH, FieldCursor, bswap64, cbytes, cursor, damaged, load64,
    next_field, varint_size, write_varint,
)
from sampler_proxy.otlp.tracestate cimport HAS_RV, HAS_TH, read_tracestate
from sampler_proxy.otlp.utf8 cimport strings_are_valid
from sampler_proxy.rules.conditions cimport SOUND
from sampler_proxy.rules.effort cimport STEPS_PER_UNIT, grant, is_spent
from sampler_proxy.rules.slices cimport has_bytes
from sampler_proxy.rules.span_matcher cimport has_duration, has_remote_parent

from sampler_proxy.errors import EffortSpent, MalformedRequest, RequestTooCostly

cdef enum:
    ERROR = -1  # damaged
    NO_MEMORY = -2
    TOO_COSTLY = -3  # the effort is spent
    LEGACY_SCOPE_SPANS = 1000  # ResourceSpans.instrumentation_library_spans, whose layout is that of a ScopeSpans
    SMALLEST_SPAN = 30  # bytes of a valid one: two ids, three tags and lengths
    # Units of effort that the scan of a request may cost: ordinary ones take 1 to 4 for a kilobyte.
    BASE_EFFORT = 50_000
    BYTES_PER_UNIT = 10
    # Bytes of spans at which a trace's next span begins another fragment, so that the limits on traces also apply to
    # what one request holds of a trace.
    MAX_FRAGMENT_PAYLOAD = 1 << 20
    # What is kept for the next request, at most: some 20 MB, and a multiple of what SDKs and Collectors send.
    MAX_KEPT_ROOM = 1 << 17
    MAX_KEPT_HEADER_BYTES = 1 << 22


cdef class Scanner:
    """Scans requests for one plan, on one thread; what it allocates is kept for the next request."""

    def __cinit__(self, Plan plan not None, *, seed=0, local_roots=True):
        self.plan = plan
        self.remote_parent = HAS_REMOTE_PARENT if local_roots else 0
        self.matcher = SpanMatcher(plan, seed)
        self.seed = seed

    def __dealloc__(self):
        free(self.records)
        free(self.slots)
        free(self.slot_bits)
        free(self.table)
        free(self.headers)
        free(self.header_bytes)

    @property
    def regex_misses(self):
        return self.matcher.regexes.misses

    @property
    def effort(self):
        return self.matcher.regexes.effort.steps // STEPS_PER_UNIT

    def scan(self, const uint8_t[::1] request not None, uint64_t effort=0, bytes metadata=None):
        cdef Scanned scanned = Scanned()
        cdef cbytes p = &request[0] if request.shape[0] else NULL
        cdef uint64_t size = <uint64_t>request.shape[0]
        cdef uint64_t budget = BASE_EFFORT + size // BYTES_PER_UNIT
        cdef int64_t result = 0
        if size >= 1 << 31:
            raise MalformedRequest("the request has 2 GiB or more")
        self.record_count = self.slot_count = self.header_count = self.header_used = self.cost = 0
        self.matcher.begin()
        grant(&self.matcher.regexes.effort, min(effort, budget) if effort else budget)
        self.invalid_trace_ids = self.invalid_span_ids = self.legacy_spans = 0
        self.unknown_of_request = self.unknown_of_resource_spans = self.unknown_of_scope_spans = 0
        self.metadata = NULL
        self.above_resources = -1
        if metadata and self.add_metadata(<cbytes><const char*>metadata, <uint32_t>len(metadata)):
            raise MemoryError
        if size:
            with nogil:
                result = self.scan_request(p, p + size)
                if result == 0 and is_spent(&self.matcher.regexes.effort):
                    result = TOO_COSTLY  # of the last span, not all has been answered
                if result == 0 and self.slot_count:
                    result = self.cut_fragments()
                self.clear_table()  # whatever came of it
                self.shrink()
        if result == NO_MEMORY:
            raise MemoryError
        if result == TOO_COSTLY:
            if 0 < effort < budget:
                raise EffortSpent
            raise RequestTooCostly(
                "the request takes too much work: simplify the rules' regular expressions, or send smaller batches"
            )
        if result == ERROR:
            raise MalformedRequest("the request is not a valid ExportTraceServiceRequest message")
        scanned.invalid_trace_ids = self.invalid_trace_ids
        scanned.invalid_span_ids = self.invalid_span_ids
        scanned.legacy_spans = self.legacy_spans
        scanned.unknown_of_request = self.unknown_of_request
        scanned.unknown_of_resource_spans = self.unknown_of_resource_spans
        scanned.unknown_of_scope_spans = self.unknown_of_scope_spans
        scanned.spans = self.record_count
        scanned.cost = self.cost
        if self.slot_count:
            scanned.count = self.slot_count
            scanned.fragments = self.fragments
            self.fragments = NULL
            scanned.header_count = self.header_count
            scanned.headers = self.headers
            scanned.header_bytes = self.header_bytes
            self.headers = NULL
            self.header_bytes = NULL
            self.header_room = self.header_bytes_room = 0
        return scanned

    cdef int scan_request(self, cbytes p, cbytes end) noexcept nogil:
        """Scan a request into records, slots and headers. Returns 0, ERROR, NO_MEMORY or TOO_COSTLY, as do the
        functions below."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef int result
        while next_field(&field):
            if field.number == 1 and field.wire == LEN:
                result = self.scan_resource_spans(field.content, field.p)
                if result:
                    return result
            else:
                self.unknown_of_request += 1
        return ERROR if damaged(&field) else 0

    cdef int add_metadata(self, cbytes p, uint32_t size) noexcept nogil:
        """Have all resources lie under metadata, `size` bytes (otlp/metadata.py). Returns 0 or NO_MEMORY."""
        cdef FieldCursor field = cursor(p, p + size, MAX_DEPTH)
        cdef Header* header
        if self.add_header() or self.copy_to_header(p, size):
            return NO_MEMORY
        header = &self.headers[0]
        header.offset = 0
        header.size = size
        header.parent = -1
        header.is_scope = header.damaged_text = False
        self.header_count = 1
        self.above_resources = 0
        if next_field(&field):
            self.metadata = field.content
            self.metadata_size = field.size
        return 0

    cdef int scan_header(
        self, cbytes p, cbytes end, int32_t parent, bint is_scope, uint32_t* spans
    ) noexcept nogil:
        """Copy the known fields of a ResourceSpans or ScopeSpans other than field 2, which holds what is inside;
        validate them, and give the matcher what they say.

        Counts the fields 2 in `spans`, and the deprecated form of ResourceSpans's in `legacy_count`. Any other field is
        only counted: what it holds may belong to single spans, and a header leaves with every one of them that is kept.
        """
        cdef int depth = MAX_DEPTH - (2 if is_scope else 1)
        cdef FieldCursor field = cursor(p, end, depth)
        cdef Header* header
        cdef bint damaged_text = False
        cdef uint64_t begin = self.header_used
        if is_spent(&self.matcher.regexes.effort):
            return TOO_COSTLY
        if self.add_header():
            return NO_MEMORY
        spans[0] = 0
        while next_field(&field):
            if field.wire == LEN and field.number == 2:
                spans[0] += 1
                continue
            if field.wire == LEN and field.number == 1:
                if not self.matcher.read_header(field.content, field.p, depth - 1, is_scope):
                    return ERROR
                damaged_text |= not strings_are_valid(M_SCOPE if is_scope else M_RESOURCE, field.content, field.p)
            elif field.wire == LEN and field.number == 3:
                damaged_text |= not strings_are_valid(M_RESOURCE_SPANS, field.start, field.p)
            else:
                if is_scope:
                    self.unknown_of_scope_spans += 1
                elif field.wire == LEN and field.number == LEGACY_SCOPE_SPANS:
                    self.legacy_count += 1
                else:
                    self.unknown_of_resource_spans += 1
                continue
            if self.copy_to_header(field.start, <uint64_t>(field.p - field.start)):
                return NO_MEMORY
        if damaged(&field):
            return ERROR
        header = &self.headers[self.header_count]
        header.offset = <uint32_t>begin
        header.size = <uint32_t>(self.header_used - begin)
        header.parent = parent
        header.is_scope = is_scope
        header.damaged_text = damaged_text
        self.header_count += 1
        return 0

    cdef int add_header(self) noexcept nogil:
        """Make room for one header more."""
        cdef void* grown
        if self.header_count == self.header_room:
            grown = realloc(self.headers, (2 * self.header_room + 8) * sizeof(Header))
            if grown == NULL:
                return NO_MEMORY
            self.headers = <Header*>grown
            self.header_room = 2 * self.header_room + 8
        return 0

    cdef int copy_to_header(self, cbytes p, uint64_t size) noexcept nogil:
        """Append bytes to the header that is being read."""
        cdef void* grown
        if self.header_used + size > self.header_bytes_room:
            grown = realloc(self.header_bytes, 2 * self.header_used + size + 512)
            if grown == NULL:
                return NO_MEMORY
            self.header_bytes = <uint8_t*>grown
            self.header_bytes_room = 2 * self.header_used + size + 512
        memcpy(self.header_bytes + self.header_used, p, size)
        self.header_used += size
        return 0

    cdef int scan_resource_spans(self, cbytes p, cbytes end) noexcept nogil:
        """Scan a ResourceSpans twice: its header first, for fields come in any order, then what is inside. The form of
        before OTLP 0.15 is read only where field 2 has no span: senders of the transition filled both alike."""
        cdef uint32_t inside = 0
        cdef int32_t own = <int32_t>self.header_count
        cdef uint64_t header_used = self.header_used
        cdef uint32_t record_count = self.record_count
        cdef int result
        cdef uint32_t left_out = self.invalid_trace_ids + self.invalid_span_ids
        self.legacy_count = 0
        self.matcher.begin_resource()
        if self.metadata != NULL:
            self.matcher.read_header(self.metadata, self.metadata + self.metadata_size, SOUND, False)
        result = self.scan_header(p, end, self.above_resources, False, &inside)
        if result == 0:
            result = self.scan_inside(p, end, own, 2, inside)
        if result == 0 and self.legacy_count:
            if self.record_count == record_count and self.invalid_trace_ids + self.invalid_span_ids == left_out:
                result = self.scan_inside(p, end, own, LEGACY_SCOPE_SPANS, self.legacy_count)
            else:
                self.legacy_spans += self.count_fields(p, end, 2, LEGACY_SCOPE_SPANS)
        if result:
            return result
        if self.record_count == record_count:  # no span, no header
            self.header_count = own
            self.header_used = header_used
        return 0

    cdef uint32_t count_fields(self, cbytes p, cbytes end, uint32_t number, uint32_t within) noexcept nogil:
        """Count the length-delimited fields of a number, inside of those with the number `within` if that is not 0."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef uint32_t count = 0
        while next_field(&field):
            if field.wire == LEN and field.number == (within or number):
                count += self.count_fields(field.content, field.p, number, 0) if within else 1
        return count

    cdef int scan_inside(self, cbytes p, cbytes end, int32_t resource, uint32_t number, uint32_t count) noexcept nogil:
        """Scan the ScopeSpans of a ResourceSpans: the first `count` fields of this number."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef int result
        while count and next_field(&field):
            if field.number == number and field.wire == LEN:
                result = self.scan_scope_spans(field.content, field.p, resource)
                if result:
                    return result
                count -= 1
        return 0

    cdef int scan_scope_spans(self, cbytes p, cbytes end, int32_t resource) noexcept nogil:
        """Scan a ScopeSpans in the same way."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef uint32_t inside = 0
        cdef uint32_t own = self.header_count, record_count = self.record_count
        cdef uint64_t header_used = self.header_used
        cdef int result
        self.matcher.begin_scope()
        result = self.scan_header(p, end, resource, True, &inside)
        if result:
            return result
        if self.reserve(self.record_count + min(inside, <uint32_t>((end - p) // SMALLEST_SPAN))):
            return NO_MEMORY
        while inside and next_field(&field):
            if field.number == 2 and field.wire == LEN:
                result = self.scan_span(field.content, field.size, own)
                if result:
                    return result
                inside -= 1
        if self.record_count == record_count:
            self.header_count = own
            self.header_used = header_used
        return 0

    cdef int reserve(self, uint32_t spans) noexcept nogil:
        """Make room for this many records and slots, kept from request to request."""
        cdef uint32_t room, mask, i, at
        cdef void* grown
        if spans <= self.record_room:
            return 0
        room = spans + spans // 2 + 64
        grown = realloc(self.records, room * sizeof(Record))
        if grown == NULL:
            return NO_MEMORY
        self.records = <Record*>grown
        grown = realloc(self.slots, room * sizeof(Slot))
        if grown == NULL:
            return NO_MEMORY
        self.slots = <Slot*>grown
        grown = realloc(self.slot_bits, <uint64_t>room * self.plan.filter_words * 8 + 8)
        if grown == NULL:
            return NO_MEMORY
        self.slot_bits = <uint64_t*>grown
        mask = 255
        while mask < 2 * room:
            mask = mask * 2 + 1
        grown = calloc(mask + 1, sizeof(uint32_t))
        if grown == NULL:
            return NO_MEMORY
        free(self.table)
        self.table = <uint32_t*>grown
        self.table_mask = mask
        for i in range(self.slot_count):
            at = self.slot_hash(self.slots[i].trace_id[0], self.slots[i].trace_id[1])
            while self.table[at] and (
                self.slots[self.table[at] - 1].trace_id[0] != self.slots[i].trace_id[0]
                or self.slots[self.table[at] - 1].trace_id[1] != self.slots[i].trace_id[1]
            ):
                at = (at + 1) & self.table_mask
            self.table[at] = i + 1  # of several of a trace the last
        self.record_room = room
        return 0

    cdef uint32_t slot_hash(self, uint64_t high, uint64_t low) noexcept nogil:
        """Return where a trace id belongs in the table."""
        cdef uint64_t[2] trace_id = [high, low]
        return <uint32_t>mix(trace_id, self.seed) & self.table_mask

    cdef Slot* slot_of(self, uint64_t high, uint64_t low) noexcept nogil:
        """Return the slot of a trace, an empty one if this is its first span, or the last one is full."""
        cdef uint32_t at = self.slot_hash(high, low)
        cdef Slot* slot
        while self.table[at]:
            slot = &self.slots[self.table[at] - 1]
            if slot.trace_id[0] == high and slot.trace_id[1] == low:
                if slot.payload < MAX_FRAGMENT_PAYLOAD:
                    return slot
                break
            at = (at + 1) & self.table_mask
        slot = &self.slots[self.slot_count]
        memset(slot, 0, sizeof(Slot))
        memset(self.slot_bits + <uint64_t>self.slot_count * self.plan.filter_words, 0, 8 * self.plan.filter_words)
        slot.trace_id[0] = high
        slot.trace_id[1] = low
        slot.first = slot.last = slot.root = -1
        self.slot_count += 1
        self.table[at] = self.slot_count
        return slot

    cdef int scan_span(self, cbytes body, uint32_t size, uint32_t header) noexcept nogil:
        """Read and validate one span, and add it to its trace if its ids are valid."""
        cdef Facts facts
        if is_spent(&self.matcher.regexes.effort):
            return TOO_COSTLY
        if not self.matcher.read_span(body, size, &facts):
            return ERROR
        if facts.trace_id.size != 16 or (load64(facts.trace_id.p) | load64(facts.trace_id.p + 8)) == 0:
            self.invalid_trace_ids += 1
            return 0
        if facts.span_id.size != 8 or load64(facts.span_id.p) == 0:
            self.invalid_span_ids += 1
            return 0
        self.add_span(body, size, header, &facts)
        return 0

    cdef void add_span(self, cbytes body, uint32_t size, uint32_t header, Facts* facts) noexcept nogil:
        """Add a valid span to its trace's slot: what the decision needs of it, and where its bytes are."""
        cdef Slot* slot = self.slot_of(load64(facts.trace_id.p), load64(facts.trace_id.p + 8))
        cdef int32_t index = <int32_t>self.record_count
        cdef Record* record = &self.records[index]
        cdef uint64_t span_id
        record.body = body
        record.size = size
        record.header = header
        record.next = -1
        self.record_count += 1
        self.add_tracestate(slot, facts)
        if slot.spans == 0:
            slot.first = index
        else:
            self.records[slot.last].next = index
        if slot.spans == 0 or slot.last_header != header:
            slot.groups += 1
            slot.last_header = header
        slot.last = index
        slot.spans += 1
        slot.payload += 1 + varint_size(size) + size
        if has_duration(facts):
            if not slot.flags & HAS_TIMES or facts.start < slot.min_start:
                slot.min_start = facts.start
            if not slot.flags & HAS_TIMES or facts.end > slot.max_end:
                slot.max_end = facts.end
            slot.flags |= HAS_TIMES
        if not has_bytes(&facts.parent_id):
            span_id = bswap64(load64(facts.span_id.p))
            if slot.root < 0 or facts.start < slot.root_start or (
                facts.start == slot.root_start and span_id < slot.root_id
            ):
                slot.root = index
                slot.root_start = facts.start
                slot.root_end = facts.end
                slot.root_id = span_id
            slot.flags |= HAS_ROOT
        elif has_remote_parent(facts):
            slot.flags |= self.remote_parent
        if self.plan.filters.count:
            self.matcher.match(self.slot_bits + <uint64_t>(slot - self.slots) * self.plan.filter_words, facts, False)
            if self.matcher.partly:
                self.matcher.partly = False
                slot.flags |= PARTLY_READ

    cdef void add_tracestate(self, Slot* slot, Facts* facts) noexcept nogil:
        """Add a span's `th` and `rv` to its trace: the first span's threshold, the smallest randomness."""
        cdef uint64_t threshold = 0, randomness = 0
        cdef int found
        if facts.tracestate.size:
            found = read_tracestate(facts.tracestate.p, facts.tracestate.size, &threshold, &randomness)
            slot.flags |= HAS_TRACESTATE
            if not found & HAS_TH:
                threshold = 0
            if found & HAS_RV and (not slot.flags & HAS_RANDOMNESS or randomness < slot.randomness):
                slot.randomness = randomness
                slot.flags |= HAS_RANDOMNESS
        if slot.spans == 0:
            slot.threshold = threshold
        elif slot.threshold != threshold:
            slot.flags |= UNEQUAL_THRESHOLDS

    cdef int cut_fragments(self) noexcept nogil:
        """Copy every trace's spans out of the request, once, into a fragment of its own, or several."""
        cdef uint32_t i
        cdef Fragment* fragment
        self.fragments = <Fragment**>calloc(self.slot_count, sizeof(Fragment*))
        if self.fragments == NULL:
            return NO_MEMORY
        for i in range(self.slot_count):
            fragment = self.cut_fragment(&self.slots[i], self.slot_bits + <uint64_t>i * self.plan.filter_words)
            if fragment == NULL:
                while i:
                    i -= 1
                    free(self.fragments[i])
                free(self.fragments)
                self.fragments = NULL
                return NO_MEMORY
            self.fragments[i] = fragment
            self.cost += fragment_cost(fragment)
        return 0

    cdef void clear_table(self) noexcept nogil:
        """Empty the table of traces. From a large table few traces are removed one by one."""
        cdef uint32_t i, at
        if self.slot_count > self.table_mask // 16:
            memset(self.table, 0, (<uint64_t>self.table_mask + 1) * sizeof(uint32_t))
            return
        for i in range(self.slot_count):
            at = self.slot_hash(self.slots[i].trace_id[0], self.slots[i].trace_id[1])
            while self.table[at]:
                self.table[at] = 0
                at = (at + 1) & self.table_mask

    cdef void shrink(self) noexcept nogil:
        """Free memory that only a very large request needs. The table is empty by then."""
        if self.record_room > MAX_KEPT_ROOM:
            free(self.records)
            free(self.slots)
            free(self.slot_bits)
            free(self.table)
            self.records = NULL
            self.slots = NULL
            self.slot_bits = NULL
            self.table = NULL
            self.record_room = self.table_mask = 0
        if self.header_bytes_room > MAX_KEPT_HEADER_BYTES and self.slot_count == 0:
            free(self.header_bytes)
            self.header_bytes = NULL
            self.header_bytes_room = 0

    cdef Fragment* cut_fragment(self, Slot* slot, uint64_t* matched) noexcept nogil:
        """Return a new fragment with all spans of a slot; NULL where there is no memory."""
        cdef uint16_t words = <uint16_t>self.plan.filter_words
        cdef Fragment* fragment = <Fragment*>malloc(
            sizeof(Fragment) + 8 * words + slot.groups * sizeof(Group) + slot.payload
        )
        if fragment == NULL:
            return NULL
        fragment.next = NULL
        fragment.trace_id[0] = slot.trace_id[0]
        fragment.trace_id[1] = slot.trace_id[1]
        fragment.min_start = slot.min_start
        fragment.max_end = slot.max_end
        fragment.randomness = slot.randomness
        fragment.threshold = slot.threshold
        fragment.root_start = slot.root_start
        fragment.root_end = slot.root_end
        fragment.root_id = slot.root_id
        fragment.root_offset = fragment.root_size = fragment.root_group = 0
        fragment.size = slot.payload
        fragment.spans = slot.spans
        fragment.plan = self.plan.serial
        fragment.flags = slot.flags
        fragment.words = words
        fragment.groups = slot.groups
        memcpy(filter_words(fragment), matched, 8 * words)
        self.copy_spans(slot, fragment)
        return fragment

    cdef void copy_spans(self, Slot* slot, Fragment* fragment) noexcept nogil:
        """Copy the spans of a slot into its fragment, in one group for each run under the same header."""
        cdef Group* group = groups_of(fragment) - 1
        cdef uint8_t* payload = payload_of(fragment)
        cdef uint8_t* out = payload
        cdef uint8_t* begin = payload
        cdef Record* record
        cdef int32_t index = slot.first
        while index >= 0:
            record = &self.records[index]
            if index == slot.first or record.header != group.scope.index:
                if index != slot.first:
                    group.size = <uint32_t>(out - begin)
                group += 1
                group.scope.index = record.header
                group.spans = 0
                begin = out
            group.spans += 1
            out[0] = 0x12
            out = write_varint(out + 1, record.size)
            if index == slot.root:
                fragment.root_offset = <uint32_t>(out - payload)
                fragment.root_size = record.size
                fragment.root_group = <uint32_t>(group - groups_of(fragment))
            memcpy(out, record.body, record.size)
            out += record.size
            index = record.next
        group.size = <uint32_t>(out - begin)


def response(invalid_trace_ids, invalid_span_ids):
    cdef uint8_t[10] number
    cdef bytes message = (
        f"rejected: {invalid_trace_ids} spans with an invalid trace id, "
        f"{invalid_span_ids} with an invalid span id"
    ).encode()
    cdef bytes partial = (
        b"\x08" + (<const uint8_t*>number)[:write_varint(number, invalid_trace_ids + invalid_span_ids) - number]
        + b"\x12" + bytes([len(message)]) + message
    )
    return b"\x0a" + bytes([len(partial)]) + partial
