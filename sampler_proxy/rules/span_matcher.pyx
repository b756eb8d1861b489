"""What a plan has to say of one span after another: read them, validate them, answer the plan's questions.

Answers are bits, collected in levels: what a resource says holds for its scopes, what a scope says for its spans, unless something
nearer says otherwise. An event or link is bound last. A Judge belongs to one thread; pointers it notes live as long as the bytes
it was given. `begin` starts a new request or trace.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.rules.conditions cimport (
    DURATION, EVENT_NAME, EVENT_TIME, KIND, LINK_TRACE_ID, NAME, P_AND, P_NOT, P_OR, P_TRUE, PARENT_ID, PROGRAM_STACK, SCOPE_NAME,
    SPAN_ID, STATUS, STATUS_MESSAGE, V_BEYOND, V_INT, V_NIL, V_STRING, holds, read_any_value, validate,
)
from sampler_proxy.rules.plan cimport (
    DEFERRED, OF_EVENT, OF_LINK, OF_RESOURCE, OF_SCOPE, OF_SPAN, Key, Noted, Run,
)
from sampler_proxy.otlp.protobuf cimport (
    FIXED64, FieldCursor, LEN, M_EVENT, M_LINK, M_NONE, M_RESOURCE, M_SCOPE, MAX_DEPTH, VARINT, cbytes, child, cursor, damaged, load64, next_field, read_length, read_tag,
    read_varint, scramble, skip_value,
)
from sampler_proxy.rules.arithmetic cimport ON_EVENT, ON_LINK, ON_TRACE, is_number

cdef enum:
    # Events and links of one span that are tried together where one pair of braces asks for both: the SDKs' own limit.
    MAX_BOTH = 128
    # How many different bits of spans are remembered with their answers, and within how much memory.
    MAX_MET = 1024
    # Room for events and links that is kept for the next request.
    MAX_ROOM = 1 << 14
    MET_BYTES = 1 << 18
    # How many strings are remembered with the answers of their key's conditions.
    MAX_TEXTS = 1024


cdef enum:
    # How long values that had to be copied live: until `begin`, until the next span, until the next event and link.
    OF_HEADERS = 0
    OF_ONE_SPAN
    OF_ONE_BINDING
    LIFETIMES


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


cdef bint has_bytes(Text* text) noexcept nogil:
    """Whether any byte is not zero: an id of zeros is no id."""
    cdef uint32_t i
    for i in range(text.size):
        if text.p[i]:
            return True
    return False


cdef class Judge:
    def __cinit__(self, Plan plan not None, uint64_t seed):
        cdef uint32_t words = plan.words + 1
        cdef uint32_t slots = plan.slot_count + 1
        self.plan = plan
        self.regexes = Regexes(plan.conditions, seed)
        self.all_bits = <uint64_t*>calloc(5 * words, sizeof(uint64_t))
        self.all_values = <Value*>calloc(5 * slots, sizeof(Value))
        cdef uint64_t entry = 8 * (1 + plan.words + plan.filter_words)
        self.met_mask = MAX_MET - 1
        while self.met_mask and (self.met_mask + 1) * entry > MET_BYTES:
            self.met_mask >>= 1
        self.met = <uint64_t*>calloc(self.met_mask + 1, entry)
        self.texts = <Answered*>calloc(MAX_TEXTS, sizeof(Answered))
        if self.all_bits == NULL or self.all_values == NULL or self.met == NULL or self.texts == NULL:
            raise MemoryError
        self.before.bits = self.all_bits
        self.before.values = self.all_values
        self.of_resource.bits = self.all_bits + words
        self.of_resource.values = self.all_values + slots
        self.of_scope.bits = self.all_bits + 2 * words
        self.of_scope.values = self.all_values + 2 * slots
        self.of_span.bits = self.all_bits + 3 * words
        self.of_span.values = self.all_values + 3 * slots
        self.bound.bits = self.all_bits + 4 * words
        self.bound.values = self.all_values + 4 * slots
        memcpy(self.before.bits, plan.missing, 8 * plan.words)

    def __dealloc__(self):
        if self.all_bits != NULL:
            self.begin()
        free(self.all_bits)
        free(self.all_values)
        free(self.met)
        free(self.texts)
        free(self.events)
        free(self.links)

    cdef void begin(self) noexcept nogil:
        cdef int lifetime
        for lifetime in range(LIFETIMES):
            self.drop(lifetime)
        if self.event_room > MAX_ROOM:
            free(self.events)
            self.events = NULL
            self.event_room = 0
        if self.link_room > MAX_ROOM:
            free(self.links)
            self.links = NULL
            self.link_room = 0

    cdef void drop(self, int lifetime) noexcept nogil:
        cdef Scratch* scratch
        while self.scratch[lifetime] != NULL:
            scratch = self.scratch[lifetime]
            self.scratch[lifetime] = scratch.next
            free(scratch)

    cdef void copy(self, Level* target, Level* source) noexcept nogil:
        cdef uint32_t i
        for i in range(self.plan.words):
            target.bits[i] = source.bits[i]
        if self.plan.slot_count:
            memcpy(target.values, source.values, self.plan.slot_count * sizeof(Value))

    cdef void begin_resource(self) noexcept nogil:
        self.copy(&self.of_resource, &self.before)

    cdef void begin_scope(self) noexcept nogil:
        cdef uint32_t i
        cdef Value empty
        self.copy(&self.of_scope, &self.of_resource)
        memset(&empty, 0, sizeof(Value))
        empty.type = V_STRING
        empty.text = self.span_hex  # nothing of it: the size is 0
        for i in range(self.plan.intrinsics[OF_SCOPE].start, self.plan.intrinsics[OF_SCOPE].end):
            self.note(&self.of_scope, self.plan.order[i].number, &empty)

    cdef void note(self, Level* level, uint32_t number, Value* value) noexcept nogil:
        cdef uint64_t bit
        if number >= self.plan.condition_count:
            level.values[number - self.plan.condition_count] = value[0]
            return
        bit = (<uint64_t>1) << (number & 63)
        if holds(&self.plan.conditions.items[number], value, self.regexes):
            level.bits[number >> 6] |= bit
        else:
            level.bits[number >> 6] &= ~bit

    cdef bint envelope(self, cbytes p, cbytes end, int depth, bint scope) noexcept nogil:
        """Validate a Resource or InstrumentationScope, and note what it says."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i
        cdef Level* level = &self.of_scope if scope else &self.of_resource
        cdef Value value
        cdef Run run = self.plan.intrinsics[OF_SCOPE]
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
            if field == (3 if scope else 1):
                if not self.attribute(p, p + length, depth - 1, OF_SCOPE if scope else OF_RESOURCE, level):
                    return False
            elif child(M_SCOPE if scope else M_RESOURCE, field) != M_NONE:
                if not validate(child(M_SCOPE if scope else M_RESOURCE, field), p, p + length, depth - 1):
                    return False
            elif scope and field <= 2:
                memset(&value, 0, sizeof(Value))
                value.type = V_STRING
                value.text = p
                value.size = length
                for i in range(run.start, run.end):
                    if (self.plan.order[i].field == SCOPE_NAME) == (field == 1):
                        self.note(level, self.plan.order[i].number, &value)
            p += length
        return True

    cdef void load(self, Envelope* header, bint scope) noexcept nogil:
        """Note what an interned header says, its resource's begun before its scope's."""
        cdef cbytes p = header.data
        cdef cbytes end = p + header.size
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        if scope:
            self.begin_scope()
        else:
            self.begin_resource()
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if wire == LEN:
                p = read_length(p, end, &length)
                if field == 1:
                    self.envelope(p, p + length, MAX_DEPTH, scope)
                p += length
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)

    cdef bint attribute(self, cbytes p, cbytes end, int depth, int place, Level* level) noexcept nogil:
        """Validate a KeyValue; `depth` more levels are allowed inside it. Notes its value where the key is wanted here."""
        cdef FieldCursor field = cursor(p, end, depth)
        cdef Text key
        cdef uint32_t parts = 0
        cdef uint32_t i
        cdef Key* known
        cdef Run run
        cdef Value value
        key.p = p
        key.size = 0
        while next_field(&field):
            if field.wire == LEN:
                if field.number == 1:
                    key.p = field.content
                    key.size = field.size
                elif field.number == 2:
                    parts += 1
                    if depth <= 0 or read_any_value(field.content, field.p, depth - 1, &value) == NULL:
                        return False
        if damaged(&field):
            return False
        known = self.plan.find(key.p, key.size)
        if known == NULL:
            return True
        run = known.noted[place]
        if parts == 0:
            value.type = V_NIL
        if parts > 1:
            return self.merged_attribute(p, end, run.start, run.end, level)
        if value.type == V_STRING and value.size <= sizeof(self.texts.text) and 1 < run.end - run.start <= 64:
            self.note_text(level, run, &value)
            return True
        for i in range(run.start, run.end):
            self.note(level, self.plan.order[i].number, &value)
        return True

    cdef void note_text(self, Level* level, Run run, Value* value) noexcept nogil:
        """Note a short string where several conditions ask for it: they are asked only if it has not been met lately."""
        cdef uint64_t key = (<uint64_t>value.size << 32) ^ run.end
        cdef uint64_t word
        cdef uint32_t at = 0
        cdef uint32_t i, number
        cdef Answered* entry
        cdef bint met
        while at + 8 <= value.size:
            key = (key ^ load64(value.text + at)) * 0xFF51AFD7ED558CCDULL
            key ^= key >> 32
            at += 8
        word = 0
        memcpy(&word, value.text + at, value.size - at)
        entry = &self.texts[scramble((key ^ word) * 0xFF51AFD7ED558CCDULL) & (MAX_TEXTS - 1)]
        met = entry.run == run.end and entry.size == value.size and memcmp(entry.text, value.text, value.size) == 0
        if not met:
            entry.run = run.end
            entry.size = value.size
            entry.answers = 0
            memcpy(entry.text, value.text, value.size)
        for i in range(run.start, run.end):
            number = self.plan.order[i].number
            if number >= self.plan.condition_count or not met:
                self.note(level, number, value)
            if number >= self.plan.condition_count:
                continue
            if met:
                word = (<uint64_t>1) << (number & 63)
                level.bits[number >> 6] = (level.bits[number >> 6] & ~word) | (entry.answers >> (i - run.start) & 1) << (number & 63)
            else:
                entry.answers |= (level.bits[number >> 6] >> (number & 63) & 1) << (i - run.start)

    cdef bint merged_attribute(self, cbytes p, cbytes end, uint32_t start, uint32_t stop, Level* level) noexcept nogil:
        """A valid KeyValue whose value came in several parts, which merge: as if their bytes stood one behind the other."""
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i
        cdef uint64_t size = 0
        cdef Value value
        cdef uint8_t* joined
        cdef int lifetime = OF_HEADERS
        cdef Scratch* scratch = <Scratch*>malloc(sizeof(Scratch) + <uint64_t>(end - p))
        if scratch == NULL:
            return False
        if level == &self.bound:
            lifetime = OF_ONE_BINDING
        elif level == &self.of_span:
            lifetime = OF_ONE_SPAN
        scratch.next = self.scratch[lifetime]  # slots may point into it
        self.scratch[lifetime] = scratch
        joined = <uint8_t*>scratch + sizeof(Scratch)
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
            self.note(level, self.plan.order[i].number, &value)
        return True

    cdef bint remember(self, Text** texts, uint32_t* count, uint32_t* room, cbytes p, uint32_t size) noexcept nogil:
        cdef void* grown
        if count[0] == room[0]:
            grown = realloc(texts[0], (2 * room[0] + 16) * sizeof(Text))
            if grown == NULL:
                return False
            texts[0] = <Text*>grown
            room[0] = 2 * room[0] + 16
        texts[0][count[0]].p = p
        texts[0][count[0]].size = size
        count[0] += 1
        return True

    cdef bint read_span(self, cbytes body, uint32_t size, Facts* facts) noexcept nogil:
        """Read and validate one span, under the scope that was begun; False where it is damaged."""
        cdef FieldCursor field = cursor(body, body + size, MAX_DEPTH - 3)
        cdef Text text
        memset(facts, 0, sizeof(Facts))
        facts.name.p = facts.message.p = body  # never NULL, for what compares and copies nothing of it
        self.drop(OF_ONE_SPAN)
        self.copy(&self.of_span, &self.of_scope)
        self.event_count = self.link_count = 0
        while next_field(&field):
            if field.wire == LEN:
                if field.number == 9:
                    if not self.attribute(field.content, field.p, MAX_DEPTH - 4, OF_SPAN, &self.of_span):
                        return False
                elif field.number <= 5:
                    text.p = field.content
                    text.size = field.size
                    if field.number == 1:
                        facts.trace_id = text
                    elif field.number == 2:
                        facts.span_id = text
                    elif field.number == 3:
                        facts.tracestate = text
                    elif field.number == 4:
                        facts.parent_id = text
                    else:
                        facts.name = text
                elif field.number == 15:
                    if not self.status(field.content, field.p, facts):
                        return False
                elif field.number == 11:
                    if not validate(M_EVENT, field.content, field.p, MAX_DEPTH - 4):
                        return False
                    if self.plan.depends & ON_EVENT:
                        if not self.remember(&self.events, &self.event_count, &self.event_room, field.content, field.size):
                            return False
                elif field.number == 13:
                    if not validate(M_LINK, field.content, field.p, MAX_DEPTH - 4):
                        return False
                    if self.plan.depends & ON_LINK:
                        if not self.remember(&self.links, &self.link_count, &self.link_room, field.content, field.size):
                            return False
            elif field.wire == FIXED64:
                if field.number == 7:
                    facts.start = field.integer
                elif field.number == 8:
                    facts.end = field.integer
            elif field.number == 6 and field.wire == VARINT:
                facts.kind = <int32_t>field.integer
        return not damaged(&field)

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

    cdef void judge(self, uint64_t* matched, Facts* facts, bint everything) noexcept nogil:
        """Which filters the span that was read matches: set their bits. `everything`: the deferred ones, too."""
        cdef uint32_t filter, i
        cdef int32_t depends
        cdef int32_t bound = 0
        cdef uint64_t* answers
        self.intrinsics(facts)
        if self.plan.terms.pair_count:
            self.compare(&self.of_span, 0, everything)
        answers = self.answers()
        for i in range(self.plan.filter_words):
            matched[i] |= answers[i] & (self.plan.unbound[i] if everything else self.plan.unbound[i] & ~self.plan.deferred[i])
        if not self.plan.depends & (ON_EVENT | ON_LINK):
            return
        for filter in range(self.plan.filters.count):
            depends = self.plan.filter_depends[filter]
            if not depends & (ON_EVENT | ON_LINK) or (depends & DEFERRED and not everything):
                continue
            if not matched[filter >> 6] >> (filter & 63) & 1:
                bound |= 1 << (depends & (ON_EVENT | ON_LINK))
        for depends in range(ON_EVENT, (ON_EVENT | ON_LINK) + 1):
            if bound >> depends & 1:
                self.judge_bound(matched, facts, depends, everything)

    cdef uint64_t* answers(self) noexcept nogil:
        """What the filters answer to the bits of the span alone. Values repeat, so the same bits come again and again: programs
        are run only for bits that have not been met lately."""
        cdef uint32_t words = self.plan.words
        cdef uint64_t* bits = self.of_span.bits
        cdef uint64_t* entry
        cdef uint64_t key = 0x9E3779B97F4A7C15ULL
        cdef uint32_t i, filter
        cdef bint met
        cdef int32_t* code = self.plan.filters.code
        cdef uint32_t* starts = self.plan.filters.starts
        for i in range(words):
            key = (key ^ bits[i]) * 0xFF51AFD7ED558CCDULL
            key ^= key >> 32
        entry = self.met + (key & self.met_mask) * (1 + words + self.plan.filter_words)
        met = entry[0]
        for i in range(words):
            met &= entry[1 + i] == bits[i]
        if met:
            return entry + 1 + words
        entry[0] = 1
        memcpy(entry + 1, bits, 8 * words)
        entry += 1 + words
        memset(entry, 0, 8 * self.plan.filter_words)
        for filter in range(self.plan.filters.count):
            if run_program(code + starts[filter], code + starts[filter + 1], bits):
                entry[filter >> 6] |= (<uint64_t>1) << (filter & 63)
        return entry

    cdef void intrinsics(self, Facts* facts) noexcept nogil:
        cdef Run run = self.plan.intrinsics[OF_SPAN]
        cdef Value value
        cdef uint64_t elapsed
        cdef int32_t field
        cdef uint32_t i
        for i in range(run.start, run.end):
            field = self.plan.order[i].field
            memset(&value, 0, sizeof(Value))
            if field == STATUS or field == KIND:
                value.type = V_INT
                value.integer = facts.status if field == STATUS else facts.kind
            elif field == DURATION:
                elapsed = facts.end - facts.start if facts.end > facts.start else 0
                value.type = V_INT if elapsed <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
                value.integer = <int64_t>elapsed
                value.real = <double>elapsed
            else:
                value.type = V_STRING
                if field == NAME:
                    value.text = facts.name.p
                    value.size = facts.name.size
                elif field == STATUS_MESSAGE:
                    value.text = facts.message.p
                    value.size = facts.message.size
                elif field == SPAN_ID:
                    value.size = to_hex(facts.span_id.p, min(facts.span_id.size, 16), self.span_hex)
                    value.text = self.span_hex
                else:
                    value.text = self.parent_hex
                    if has_bytes(&facts.parent_id):
                        value.size = to_hex(facts.parent_id.p, min(facts.parent_id.size, 16), self.parent_hex)
            self.note(&self.of_span, self.plan.order[i].number, &value)

    cdef void compare(self, Level* level, int32_t depends, bint everything) noexcept nogil:
        """Answer the comparisons that depend on just these of event and link."""
        cdef uint32_t i, number
        cdef uint64_t bit
        cdef int32_t on
        for i in range(self.plan.terms.pair_count):
            on = self.plan.terms.pairs[i].depends
            if on & (ON_EVENT | ON_LINK) & ~depends or (depends and not on & depends) or (on & ON_TRACE and not everything):
                continue
            number = self.plan.condition_count + i
            bit = (<uint64_t>1) << (number & 63)
            if self.plan.terms.holds(i, level.values):
                level.bits[number >> 6] |= bit
            else:
                level.bits[number >> 6] &= ~bit

    cdef void judge_bound(self, uint64_t* matched, Facts* facts, int32_t depends, bint everything) noexcept nogil:
        """The filters that depend on an event, on a link, or on both, each tried with one after another."""
        cdef uint32_t events = max(self.event_count, 1) if depends & ON_EVENT else 1
        cdef uint32_t links = max(self.link_count, 1) if depends & ON_LINK else 1
        cdef uint32_t event, link, filter
        cdef int32_t on
        cdef int32_t* code = self.plan.filters.code
        cdef uint32_t* starts = self.plan.filters.starts
        if depends == (ON_EVENT | ON_LINK):
            events = min(events, MAX_BOTH)
            links = min(links, MAX_BOTH)
        for event in range(events):
            for link in range(links):
                self.bind(
                    facts,
                    event if depends & ON_EVENT and self.event_count else -1,
                    link if depends & ON_LINK and self.link_count else -1,
                    everything,
                )
                for filter in range(self.plan.filters.count):
                    on = self.plan.filter_depends[filter]
                    if on & (ON_EVENT | ON_LINK) != depends or (on & DEFERRED and not everything):
                        continue
                    if matched[filter >> 6] >> (filter & 63) & 1:
                        continue
                    if run_program(code + starts[filter], code + starts[filter + 1], self.bound.bits):
                        matched[filter >> 6] |= (<uint64_t>1) << (filter & 63)

    cdef void bind(self, Facts* facts, int64_t event, int64_t link, bint everything) noexcept nogil:
        """The level `bound`: the span with this event and this link; -1: without."""
        self.drop(OF_ONE_BINDING)
        self.copy(&self.bound, &self.of_span)
        if event >= 0:
            self.bind_event(&self.events[event], facts)
        if link >= 0:
            self.bind_link(&self.links[link])
        if self.plan.terms.pair_count:
            self.compare(&self.bound, ON_EVENT | ON_LINK, everything)

    cdef void bind_event(self, Text* event, Facts* facts) noexcept nogil:
        cdef cbytes p = event.p
        cdef cbytes end = p + event.size
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i
        cdef uint64_t time = 0
        cdef Value name, since
        cdef Run run = self.plan.intrinsics[OF_EVENT]
        memset(&name, 0, sizeof(Value))
        memset(&since, 0, sizeof(Value))
        name.type = V_STRING
        name.text = p
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if wire == LEN:
                p = read_length(p, end, &length)
                if field == 2:
                    name.text = p
                    name.size = length
                elif field == 3:
                    self.attribute(p, p + length, MAX_DEPTH, OF_EVENT, &self.bound)
                p += length
            elif wire == FIXED64 and field == 1:
                time = load64(p)
                p += 8
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
        since.type = V_INT
        since.integer = <int64_t>(time - facts.start)
        for i in range(run.start, run.end):
            self.note(&self.bound, self.plan.order[i].number, &name if self.plan.order[i].field == EVENT_NAME else &since)

    cdef void bind_link(self, Text* link) noexcept nogil:
        cdef cbytes p = link.p
        cdef cbytes end = p + link.size
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t i
        cdef Value trace_id, span_id
        cdef Run run = self.plan.intrinsics[OF_LINK]
        memset(&trace_id, 0, sizeof(Value))
        memset(&span_id, 0, sizeof(Value))
        trace_id.type = span_id.type = V_STRING
        trace_id.text = self.link_trace_hex
        span_id.text = self.link_span_hex
        while p < end:
            p = read_tag(p, end, &field, &wire)
            if wire == LEN:
                p = read_length(p, end, &length)
                if field == 1:
                    trace_id.size = to_hex(p, min(length, 32), self.link_trace_hex)
                elif field == 2:
                    span_id.size = to_hex(p, min(length, 32), self.link_span_hex)
                elif field == 4:
                    self.attribute(p, p + length, MAX_DEPTH, OF_LINK, &self.bound)
                p += length
            else:
                p = skip_value(p, end, field, wire, MAX_DEPTH)
        for i in range(run.start, run.end):
            self.note(&self.bound, self.plan.order[i].number, &trace_id if self.plan.order[i].field == LINK_TRACE_ID else &span_id)

    cdef void argument(self, uint32_t number, Facts* facts, Value* result) noexcept nogil:
        """An aggregate's argument for the span that was read: with the first event and link for which it is a number, else V_NIL."""
        cdef int32_t depends = self.plan.terms.argument_depends[number]
        cdef uint32_t events = max(self.event_count, 1) if depends & ON_EVENT else 1
        cdef uint32_t links = max(self.link_count, 1) if depends & ON_LINK else 1
        cdef uint32_t event, link
        if not depends & (ON_EVENT | ON_LINK):
            self.plan.terms.evaluate(self.plan.terms.arguments[number], self.of_span.values, result)
            if not is_number(result):
                result.type = V_NIL
            return
        if depends & ON_EVENT and depends & ON_LINK:
            events = min(events, MAX_BOTH)
            links = min(links, MAX_BOTH)
        for event in range(events):
            for link in range(links):
                self.bind(
                    facts,
                    event if depends & ON_EVENT and self.event_count else -1,
                    link if depends & ON_LINK and self.link_count else -1,
                    True,
                )
                self.plan.terms.evaluate(self.plan.terms.arguments[number], self.bound.values, result)
                if is_number(result):
                    return
        result.type = V_NIL
