# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scan: one pass over the bytes of an ExportTraceServiceRequest, cut into fragments. `_wire.pyi` is the manual.

Preconditions: the request stays alive and unchanged during the call (a bytes object does). Every read is bounds-checked against the
enclosing message. After MalformedRequest nothing is held. The GIL is released for the whole pass; a regular expression
that meets a value for the first time takes it back for that question.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy._conditions cimport (
    ANY_ATTRIBUTE, Condition, ConditionList, DURATION, KIND, NAME, OP_IS_NIL, PARENT_ID, P_AND, P_FALSE, P_NOT, P_OR, P_TRUE,
    PROGRAM_STACK, Programs, RESOURCE_ATTRIBUTE, Regexes, SCOPE_ATTRIBUTE, SCOPE_NAME, SCOPE_VERSION, SPAN_ATTRIBUTE, SPAN_ID, STATUS,
    STATUS_MESSAGE, V_BEYOND, V_INT, V_NIL, V_STRING, Value, holds, read_any_value, validate,
)
from sampler_proxy._mend cimport text_is_valid
from sampler_proxy._proto cimport (
    FIXED64, LEN, M_EVENT, M_KEY_VALUE, M_LINK, M_NONE, M_RESOURCE, M_RESOURCE_SPANS, M_SCOPE, M_SCOPE_SPANS, M_STATUS, MAX_DEPTH, VARINT,
    cbytes, child, load64, read_length, read_tag, read_varint, skip_value, varint_size, write_varint,
)
from sampler_proxy._tracestate cimport HAS_RV, HAS_TH, read_tracestate
from sampler_proxy.fragments cimport (
    Fragment, Group, HAS_RANDOMNESS, HAS_ROOT, HAS_TIMES, HAS_TRACESTATE, Header, Scanned, UNEQUAL_THRESHOLDS, filter_words,
    fragment_cost, groups_of, payload_of,
)

from sampler_proxy.errors import MalformedRequest

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t) nogil

cdef uint32_t _serials = 0


cdef inline uint32_t _key_hash(cbytes p, uint32_t size) noexcept nogil:
    cdef uint64_t word = 0
    if size >= 8:
        word = load64(p) ^ (load64(p + size - 8) * 0x9E3779B97F4A7C15ULL)
    else:
        memcpy(&word, p, size)
    word = (word ^ size) * 0xFF51AFD7ED558CCDULL
    return <uint32_t>(word >> 32)


cdef class Plan:
    def __cinit__(self, conditions, filters):
        global _serials
        _serials += 1
        self.serial = _serials
        self.conditions = ConditionList(conditions)
        self.filters = Programs(filters, self.conditions.count)
        self.words = (self.conditions.count + 63) // 64
        self.filter_words = (self.filters.count + 63) // 64
        cdef dict keys = {}  # key -> [span, resource, scope] conditions
        cdef list intrinsic = []
        cdef list scope = []
        cdef uint32_t i
        cdef Condition* condition
        self.missing = <uint64_t*>calloc(self.words + 1, 8)
        if self.missing == NULL:
            raise MemoryError
        for i in range(self.conditions.count):
            condition = &self.conditions.items[i]
            if condition.op == OP_IS_NIL:
                self.missing[i >> 6] |= (<uint64_t>1) << (i & 63)
            if condition.field <= ANY_ATTRIBUTE:
                places = keys.setdefault(self.conditions.source[i].key, ([], [], []))
                if condition.field == SPAN_ATTRIBUTE or condition.field == ANY_ATTRIBUTE:
                    places[0].append(i)
                if condition.field == RESOURCE_ATTRIBUTE or condition.field == ANY_ATTRIBUTE:
                    places[1].append(i)
                if condition.field == SCOPE_ATTRIBUTE:
                    places[2].append(i)
            elif condition.field == SCOPE_NAME or condition.field == SCOPE_VERSION:
                scope.append(i)
            elif condition.field <= SCOPE_VERSION:
                intrinsic.append(i)
            else:
                raise ValueError("a condition on the trace is none of a span")
        self.fill(intrinsic, keys, scope)

    cdef int fill(self, list intrinsic, dict keys, list scope) except -1:
        cdef list order = []
        cdef Key* key
        cdef uint32_t at, i
        cdef uint32_t offset = 0
        self.key_count = <uint32_t>len(keys)
        self.key_bytes = b"".join(keys)
        self.keys = <Key*>calloc(self.key_count + 1, sizeof(Key))
        self.table_mask = 15
        while self.table_mask < 4 * self.key_count:
            self.table_mask = self.table_mask * 2 + 1
        self.table = <uint32_t*>calloc(self.table_mask + 1, sizeof(uint32_t))
        if self.keys == NULL or self.table == NULL:
            raise MemoryError
        for i, (name, (span, resource, of_scope)) in enumerate(keys.items()):
            key = &self.keys[i]
            key.text = <cbytes><const char*>self.key_bytes + offset
            key.size = <uint32_t>len(name)
            offset += key.size
            key.hash = _key_hash(key.text, key.size)
            self.key_sizes |= (<uint64_t>1) << min(key.size, 63)
            key.span_start = <uint32_t>len(order)
            order += span
            key.span_end = key.resource_start = <uint32_t>len(order)
            order += resource
            key.resource_end = key.scope_start = <uint32_t>len(order)
            order += of_scope
            key.scope_end = <uint32_t>len(order)
            at = key.hash & self.table_mask
            while self.table[at]:
                at = (at + 1) & self.table_mask
            self.table[at] = i + 1
        self.intrinsic_start = <uint32_t>len(order)
        order += intrinsic
        self.intrinsic_end = self.scope_start = <uint32_t>len(order)
        order += scope
        self.scope_end = <uint32_t>len(order)
        self.order = <uint32_t*>calloc(len(order) + 1, sizeof(uint32_t))
        if self.order == NULL:
            raise MemoryError
        for i in range(<uint32_t>len(order)):
            self.order[i] = order[i]
        return 0

    def __dealloc__(self):
        free(self.keys)
        free(self.table)
        free(self.order)
        free(self.missing)

    cdef Key* find(self, cbytes text, uint32_t size) noexcept nogil:
        cdef uint32_t key_hash, at
        cdef Key* key
        if not (self.key_sizes >> min(size, 63)) & 1:
            return NULL
        key_hash = _key_hash(text, size)
        at = key_hash & self.table_mask
        while self.table[at]:
            key = &self.keys[self.table[at] - 1]
            if key.hash == key_hash and key.size == size and memcmp(key.text, text, size) == 0:
                return key
            at = (at + 1) & self.table_mask
        return NULL


cdef bint run_program(const int32_t* code, const int32_t* end, const uint64_t* bits) noexcept nogil:
    """The answer of a checked postfix program over condition bits."""
    cdef uint8_t[PROGRAM_STACK] stack
    cdef int top = -1
    cdef int32_t token
    while code < end:
        token = code[0]
        code += 1
        if token >= 0:
            top += 1
            stack[top] = bits[token >> 6] >> (token & 63) & 1
        elif token == P_AND:
            top -= 1
            stack[top] &= stack[top + 1]
        elif token == P_OR:
            top -= 1
            stack[top] |= stack[top + 1]
        elif token == P_NOT:
            stack[top] ^= 1
        else:
            top += 1
            stack[top] = token == P_TRUE
    return stack[0]


cdef uint32_t to_hex(cbytes p, uint32_t size, uint8_t* out) noexcept nogil:
    """2 * size lower-case hex digits."""
    cdef uint32_t i
    for i in range(size):
        out[2 * i] = (p[i] >> 4) + (48 if p[i] < 0xA0 else 87)
        out[2 * i + 1] = (p[i] & 15) + (48 if (p[i] & 15) < 10 else 87)
    return 2 * size


cdef enum Place:
    OF_SPAN
    OF_RESOURCE
    OF_SCOPE

cdef inline bint has_bytes(Text* text) noexcept nogil:
    """Whether any byte is not zero: an id of zeros is no id."""
    cdef uint32_t i
    for i in range(text.size):
        if text.p[i]:
            return True
    return False


cdef enum:
    ERROR = -1  # damaged
    NO_MEMORY = -2
    SMALLEST_SPAN = 30  # bytes of a valid one: two ids, three tags and lengths


cdef class Scanner:
    """Scans requests for one plan, on one thread; what it allocates is kept for the next request."""

    def __cinit__(self, Plan plan not None):
        self.plan = plan
        self.regexes = Regexes(plan.conditions)
        self.base = <uint64_t*>calloc(3 * (plan.words + 1), 8)
        if self.base == NULL:
            raise MemoryError
        self.in_scope = self.base + plan.words + 1
        self.bits = self.in_scope + plan.words + 1

    def __dealloc__(self):
        free(self.base)
        free(self.records)
        free(self.slots)
        free(self.slot_bits)
        free(self.table)
        free(self.headers)
        free(self.header_bytes)

    @property
    def regex_misses(self):
        return self.regexes.misses

    def scan(self, const uint8_t[::1] request not None):
        cdef Scanned scanned = Scanned()
        cdef cbytes p = &request[0] if request.shape[0] else NULL
        cdef uint64_t size = <uint64_t>request.shape[0]
        cdef int64_t result = 0
        if size >= 1 << 31:
            raise MalformedRequest("the request has 2 GiB or more")
        self.record_count = self.slot_count = self.header_count = 0
        self.header_used = 0
        self.invalid_trace_ids = self.invalid_span_ids = 0
        self.cost = 0
        if size:
            with nogil:
                result = self.request(p, p + size)
                if result == 0 and self.slot_count:
                    result = self.cut()
                elif result:
                    self.clear()
        if result == NO_MEMORY:
            raise MemoryError
        if result == ERROR:
            raise MalformedRequest("the request is not a valid ExportTraceServiceRequest message")
        scanned.invalid_trace_ids = self.invalid_trace_ids
        scanned.invalid_span_ids = self.invalid_span_ids
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
            self.header_room = 0
            self.header_bytes_room = 0
        return scanned

    cdef int request(self, cbytes p, cbytes end) noexcept nogil:
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef int result
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return ERROR
            if field == 1 and wire == LEN:
                p = read_length(p, end, &length)
                if p == NULL:
                    return ERROR
                result = self.resource_spans(p, p + length)
                if result:
                    return result
                p += length
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
                if p == NULL:
                    return ERROR
        return 0

    cdef int header(self, cbytes p, cbytes end, int32_t parent, uint32_t* spans) noexcept nogil:
        """Copy the fields of a ResourceSpans or ScopeSpans other than field 2, which holds what is inside; validate them, and
        read what the plan asks of them. Counts the fields 2."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef int depth = MAX_DEPTH - (1 if parent < 0 else 2)
        cdef cbytes start
        cdef cbytes body
        cdef Header* header
        cdef void* grown
        cdef bint damaged = False
        cdef uint64_t begin = self.header_used
        if self.header_count == self.header_room:
            grown = realloc(self.headers, (2 * self.header_room + 8) * sizeof(Header))
            if grown == NULL:
                return NO_MEMORY
            self.headers = <Header*>grown
            self.header_room = 2 * self.header_room + 8
        spans[0] = 0
        while p < end:
            start = p
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return ERROR
            if wire == LEN:
                p = read_length(p, end, &length)
                if p == NULL:
                    return ERROR
                body = p
                p += length
                if field == 2:
                    spans[0] += 1
                    continue
                if field == 1:
                    if not self.envelope(body, p, depth - 1, parent):
                        return ERROR
                    damaged |= not text_is_valid(M_RESOURCE if parent < 0 else M_SCOPE, body, p)
                elif field == 3:
                    damaged |= not text_is_valid(M_RESOURCE_SPANS, start, p)
            else:
                p = skip_value(p, end, field, wire, depth)
                if p == NULL:
                    return ERROR
            if self.header_used + <uint64_t>(p - start) > self.header_bytes_room:
                grown = realloc(self.header_bytes, 2 * self.header_used + <uint64_t>(p - start) + 512)
                if grown == NULL:
                    return NO_MEMORY
                self.header_bytes = <uint8_t*>grown
                self.header_bytes_room = 2 * self.header_used + <uint64_t>(p - start) + 512
            memcpy(self.header_bytes + self.header_used, start, p - start)
            self.header_used += <uint64_t>(p - start)
        header = &self.headers[self.header_count]
        header.offset = <uint32_t>begin
        header.size = <uint32_t>(self.header_used - begin)
        header.parent = parent
        header.damaged_text = damaged
        self.header_count += 1
        return 0

    cdef bint envelope(self, cbytes p, cbytes end, int depth, int32_t parent) noexcept nogil:
        """Validate a Resource or InstrumentationScope, and set the bits of the conditions on it."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i, number
        cdef bint of_scope = parent >= 0
        cdef uint64_t* bits = self.in_scope if of_scope else self.base
        cdef Value value
        cdef Condition* condition
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return False
            if wire != LEN:
                p = skip_value(p, end, field, wire, depth)
                if p == NULL:
                    return False
                continue
            p = read_length(p, end, &length)
            if p == NULL:
                return False
            if field == (3 if of_scope else 1):
                if not self.attribute(p, p + length, depth - 1, OF_SCOPE if of_scope else OF_RESOURCE, bits):
                    return False
            elif child(M_SCOPE if of_scope else M_RESOURCE, field) != M_NONE:
                if not validate(child(M_SCOPE if of_scope else M_RESOURCE, field), p, p + length, depth - 1):
                    return False
            elif of_scope and field <= 2:
                value.type = V_STRING
                value.text = p
                value.size = length
                for i in range(self.plan.scope_start, self.plan.scope_end):
                    number = self.plan.order[i]
                    condition = &self.plan.conditions.items[number]
                    if condition.field == (SCOPE_NAME if field == 1 else SCOPE_VERSION):
                        self.note(bits, number, &value)
            p += length
        return True

    cdef int resource_spans(self, cbytes p, cbytes end) noexcept nogil:
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t inside = 0
        cdef int32_t own = <int32_t>self.header_count
        cdef uint64_t header_used = self.header_used
        cdef uint32_t record_count = self.record_count
        cdef int result
        memcpy(self.base, self.plan.missing, 8 * self.plan.words)
        result = self.header(p, end, -1, &inside)
        if result:
            return result
        while inside:
            p = read_tag(p, end, &field, &wire)
            if field == 2 and wire == LEN:
                p = read_length(p, end, &length)
                result = self.scope_spans(p, p + length, own)
                if result:
                    return result
                p += length
                inside -= 1
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
        if self.record_count == record_count:  # no span, no header
            self.header_count = own
            self.header_used = header_used
        return 0

    cdef int scope_spans(self, cbytes p, cbytes end, int32_t resource) noexcept nogil:
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t inside = 0
        cdef uint32_t own = self.header_count
        cdef uint64_t header_used = self.header_used
        cdef uint32_t record_count = self.record_count
        cdef uint32_t i
        cdef int result
        cdef Value empty
        memcpy(self.in_scope, self.base, 8 * self.plan.words)
        empty.type = V_STRING
        empty.text = p
        empty.size = 0
        for i in range(self.plan.scope_start, self.plan.scope_end):
            self.note(self.in_scope, self.plan.order[i], &empty)
        result = self.header(p, end, resource, &inside)
        if result:
            return result
        if self.reserve(self.record_count + min(inside, <uint32_t>((end - p) // SMALLEST_SPAN))):
            return NO_MEMORY
        while inside:
            p = read_tag(p, end, &field, &wire)
            if field == 2 and wire == LEN:
                p = read_length(p, end, &length)
                if not self.span(p, length, own):
                    return ERROR
                p += length
                inside -= 1
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
        if self.record_count == record_count:
            self.header_count = own
            self.header_used = header_used
        return 0

    cdef void note(self, uint64_t* bits, uint32_t number, Value* value) noexcept nogil:
        cdef uint64_t bit = (<uint64_t>1) << (number & 63)
        if holds(&self.plan.conditions.items[number], value, self.regexes):
            bits[number >> 6] |= bit
        else:
            bits[number >> 6] &= ~bit

    cdef bint attribute(self, cbytes p, cbytes end, int depth, int place, uint64_t* bits) noexcept nogil:
        """Validate a KeyValue; `depth` more levels are allowed inside it. Sets the bits of the conditions on its key."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef Text key
        cdef uint32_t parts = 0
        cdef uint32_t i, start, stop
        cdef Key* known
        cdef Value value
        cdef cbytes begin = p
        key.p = p
        key.size = 0
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return False
            if wire == LEN:
                p = read_length(p, end, &length)
                if p == NULL:
                    return False
                if field == 1:
                    key.p = p
                    key.size = length
                elif field == 2:
                    parts += 1
                    if depth <= 0 or read_any_value(p, p + length, depth - 1, &value) == NULL:
                        return False
                p += length
            else:
                p = skip_value(p, end, field, wire, depth)
                if p == NULL:
                    return False
        known = self.plan.find(key.p, key.size)
        if known == NULL:
            return True
        if place == OF_SPAN:
            start = known.span_start
            stop = known.span_end
        elif place == OF_RESOURCE:
            start = known.resource_start
            stop = known.resource_end
        else:
            start = known.scope_start
            stop = known.scope_end
        if parts == 0:
            value.type = V_NIL
        if parts > 1:
            return self.merged_attribute(begin, end, start, stop, bits)
        for i in range(start, stop):
            self.note(bits, self.plan.order[i], &value)
        return True

    cdef bint merged_attribute(self, cbytes p, cbytes end, uint32_t start, uint32_t stop, uint64_t* bits) noexcept nogil:
        """A valid KeyValue whose value came in several parts, which merge: as if their bytes stood one behind the other."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i
        cdef uint64_t size = 0
        cdef Value value
        cdef uint8_t* joined = <uint8_t*>malloc(end - p)
        if joined == NULL:
            return False
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if field == 2 and wire == LEN:
                p = read_length(p, end, &length)
                memcpy(joined + size, p, length)
                size += length
                p += length
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
        read_any_value(joined, joined + size, MAX_DEPTH, &value)
        for i in range(start, stop):
            self.note(bits, self.plan.order[i], &value)
        free(joined)
        return True

    cdef int reserve(self, uint32_t spans) noexcept nogil:
        """Room for this many records and slots, kept from request to request."""
        cdef uint32_t room, mask
        cdef void* grown
        cdef uint32_t i, at
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
            while self.table[at]:
                at = (at + 1) & self.table_mask
            self.table[at] = i + 1
        self.record_room = room
        return 0

    cdef uint32_t slot_hash(self, uint64_t high, uint64_t low) noexcept nogil:
        cdef uint64_t mixed = (high ^ 0x9E3779B97F4A7C15ULL) * 0xFF51AFD7ED558CCDULL
        mixed = (mixed ^ (mixed >> 32) ^ low) * 0xC4CEB9FE1A85EC53ULL
        return <uint32_t>(mixed >> 32) & self.table_mask

    cdef Slot* slot_of(self, uint64_t high, uint64_t low) noexcept nogil:
        cdef uint32_t at = self.slot_hash(high, low)
        cdef Slot* slot
        while self.table[at]:
            slot = &self.slots[self.table[at] - 1]
            if slot.trace_id[0] == high and slot.trace_id[1] == low:
                return slot
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

    cdef bint span(self, cbytes body, uint32_t size, uint32_t header) noexcept nogil:
        """Read, validate and file one span; False where it is damaged."""
        cdef cbytes p = body
        cdef cbytes end = body + size
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint64_t number = 0
        cdef Facts facts
        cdef Text text
        memset(&facts, 0, sizeof(Facts))
        if self.plan.words:
            memcpy(self.bits, self.in_scope, 8 * self.plan.words)
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return False
            if wire == LEN:
                p = read_length(p, end, &length)
                if p == NULL:
                    return False
                if field == 9:
                    if not self.attribute(p, p + length, MAX_DEPTH - 4, OF_SPAN, self.bits):
                        return False
                elif field <= 5:
                    text.p = p
                    text.size = length
                    if field == 1:
                        facts.trace_id = text
                    elif field == 2:
                        facts.span_id = text
                    elif field == 3:
                        facts.tracestate = text
                    elif field == 4:
                        facts.parent_id = text
                    else:
                        facts.name = text
                elif field == 15:
                    if not self.status(p, p + length, &facts):
                        return False
                elif field == 11 or field == 13:
                    if not validate(M_EVENT if field == 11 else M_LINK, p, p + length, MAX_DEPTH - 4):
                        return False
                p += length
            elif wire == FIXED64 and (field == 7 or field == 8):
                if end - p < 8:
                    return False
                if field == 7:
                    facts.start = load64(p)
                else:
                    facts.end = load64(p)
                p += 8
            elif field == 6 and wire == VARINT:
                p = read_varint(p, end, &number)
                if p == NULL:
                    return False
                facts.kind = <int32_t>number
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH - 3)
                if p == NULL:
                    return False
        if facts.trace_id.size != 16 or (load64(facts.trace_id.p) | load64(facts.trace_id.p + 8)) == 0:
            self.invalid_trace_ids += 1
            return True
        if facts.span_id.size != 8 or load64(facts.span_id.p) == 0:
            self.invalid_span_ids += 1
            return True
        self.file(body, size, header, &facts)
        return True

    cdef bint status(self, cbytes p, cbytes end, Facts* facts) noexcept nogil:
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint64_t number = 0
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if p == NULL:
                return False
            if field == 3 and wire == VARINT:
                p = read_varint(p, end, &number)
                facts.status = <int32_t>number
            elif field == 2 and wire == LEN:
                p = read_length(p, end, &length)
                if p != NULL:
                    facts.message.p = p
                    facts.message.size = length
                    p += length
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH - 4)
            if p == NULL:
                return False
        return True

    cdef void file(self, cbytes body, uint32_t size, uint32_t header, Facts* facts) noexcept nogil:
        """Add a valid span to its trace's slot: what the decision needs of it, and where its bytes are."""
        cdef Slot* slot = self.slot_of(load64(facts.trace_id.p), load64(facts.trace_id.p + 8))
        cdef int32_t index = <int32_t>self.record_count
        cdef Record* record = &self.records[index]
        cdef uint64_t threshold = 0
        cdef uint64_t randomness = 0
        cdef uint64_t span_id
        cdef int found
        record.body = body
        record.size = size
        record.header = header
        record.next = -1
        self.record_count += 1
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
            slot.first = index
        else:
            if slot.threshold != threshold:
                slot.flags |= UNEQUAL_THRESHOLDS
            self.records[slot.last].next = index
        if slot.spans == 0 or slot.last_header != header:
            slot.groups += 1
            slot.last_header = header
        slot.last = index
        slot.spans += 1
        slot.payload += 1 + varint_size(size) + size
        if facts.start and facts.end >= facts.start:
            if not slot.flags & HAS_TIMES or facts.start < slot.min_start:
                slot.min_start = facts.start
            if not slot.flags & HAS_TIMES or facts.end > slot.max_end:
                slot.max_end = facts.end
            slot.flags |= HAS_TIMES
        if not has_bytes(&facts.parent_id):
            span_id = __builtin_bswap64(load64(facts.span_id.p))
            if slot.root < 0 or facts.start < slot.root_start or (
                facts.start == slot.root_start and span_id < slot.root_id
            ):
                slot.root = index
                slot.root_start = facts.start
                slot.root_id = span_id
            slot.flags |= HAS_ROOT
        if self.plan.filters.count:
            self.judge(slot, facts)

    cdef void judge(self, Slot* slot, Facts* facts) noexcept nogil:
        """Which span filters this span matches: add them to those that its trace has."""
        cdef uint64_t* matched = self.slot_bits + <uint64_t>(slot - self.slots) * self.plan.filter_words
        cdef uint32_t i, number, filter
        cdef Condition* condition
        cdef Value value
        cdef uint64_t elapsed
        cdef uint8_t[32] hex_id
        for i in range(self.plan.intrinsic_start, self.plan.intrinsic_end):
            number = self.plan.order[i]
            condition = &self.plan.conditions.items[number]
            if condition.field == STATUS or condition.field == KIND:
                value.type = V_INT
                value.integer = facts.status if condition.field == STATUS else facts.kind
            elif condition.field == DURATION:
                elapsed = facts.end - facts.start if facts.end > facts.start else 0
                value.type = V_INT if elapsed <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
                value.integer = <int64_t>elapsed
                value.real = <double>elapsed
            else:
                value.type = V_STRING
                if condition.field == NAME:
                    value.text = facts.name.p
                    value.size = facts.name.size
                elif condition.field == STATUS_MESSAGE:
                    value.text = facts.message.p
                    value.size = facts.message.size
                elif condition.field == SPAN_ID:
                    value.size = to_hex(facts.span_id.p, 8, hex_id)
                    value.text = hex_id
                else:
                    value.size = to_hex(facts.parent_id.p, min(facts.parent_id.size, 16), hex_id) if has_bytes(&facts.parent_id) else 0
                    value.text = hex_id
            self.note(self.bits, number, &value)
        for filter in range(self.plan.filters.count):
            if matched[filter >> 6] >> (filter & 63) & 1:
                continue
            if run_program(
                self.plan.filters.code + self.plan.filters.starts[filter],
                self.plan.filters.code + self.plan.filters.starts[filter + 1],
                self.bits,
            ):
                matched[filter >> 6] |= (<uint64_t>1) << (filter & 63)

    cdef int cut(self) noexcept nogil:
        """Copy every trace's spans out of the request, once, into a fragment of its own."""
        cdef uint32_t i
        cdef Fragment* fragment
        self.fragments = <Fragment**>calloc(self.slot_count, sizeof(Fragment*))
        if self.fragments == NULL:
            return NO_MEMORY
        for i in range(self.slot_count):
            fragment = self.fragment(&self.slots[i], self.slot_bits + <uint64_t>i * self.plan.filter_words)
            if fragment == NULL:
                while i:
                    i -= 1
                    free(self.fragments[i])
                free(self.fragments)
                self.fragments = NULL
                self.clear()
                return NO_MEMORY
            self.fragments[i] = fragment
            self.cost += fragment_cost(fragment)
        self.clear()
        return 0

    cdef void clear(self) noexcept nogil:
        """Empty the table of traces. Few traces in a large table are taken out one by one."""
        cdef uint32_t i, at
        if self.slot_count > self.table_mask // 16:
            memset(self.table, 0, (<uint64_t>self.table_mask + 1) * sizeof(uint32_t))
            return
        for i in range(self.slot_count):
            at = self.slot_hash(self.slots[i].trace_id[0], self.slots[i].trace_id[1])
            while self.table[at]:
                self.table[at] = 0
                at = (at + 1) & self.table_mask

    cdef Fragment* fragment(self, Slot* slot, uint64_t* matched) noexcept nogil:
        cdef uint16_t words = <uint16_t>self.plan.filter_words
        cdef Fragment* fragment = <Fragment*>malloc(
            sizeof(Fragment) + 8 * words + slot.groups * sizeof(Group) + slot.payload
        )
        cdef Group* group
        cdef uint8_t* out
        cdef uint8_t* begin
        cdef Record* record
        cdef int32_t index = slot.first
        cdef int64_t g = -1
        cdef uint32_t header = 0
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
        fragment.root_id = slot.root_id
        fragment.root_offset = fragment.root_size = fragment.root_group = 0
        fragment.size = slot.payload
        fragment.spans = slot.spans
        fragment.plan = self.plan.serial
        fragment.flags = slot.flags
        fragment.words = words
        fragment.groups = slot.groups
        memcpy(filter_words(fragment), matched, 8 * words)
        group = groups_of(fragment)
        out = begin = payload_of(fragment)
        while index >= 0:
            record = &self.records[index]
            if g < 0 or record.header != header:
                if g >= 0:
                    group[g].size = <uint32_t>(out - begin)
                g += 1
                header = record.header
                group[g].scope.index = header
                group[g].spans = 0
                begin = out
            group[g].spans += 1
            out[0] = 0x12
            out = write_varint(out + 1, record.size)
            if index == slot.root:
                fragment.root_offset = <uint32_t>(out - payload_of(fragment))
                fragment.root_size = record.size
                fragment.root_group = <uint32_t>g
            memcpy(out, record.body, record.size)
            out += record.size
            index = record.next
        group[g].size = <uint32_t>(out - begin)
        return fragment


def response(invalid_trace_ids, invalid_span_ids):
    cdef uint8_t[10] number
    cdef bytes message = (
        f"rejected: {invalid_trace_ids} spans with an invalid trace id, {invalid_span_ids} with an invalid span id".encode()
    )
    cdef bytes partial = (
        b"\x08" + (<const uint8_t*>number)[:write_varint(number, invalid_trace_ids + invalid_span_ids) - number]
        + b"\x12" + bytes([len(message)]) + message
    )
    return b"\x0a" + bytes([len(partial)]) + partial
