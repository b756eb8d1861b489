"""Reads and validates spans one at a time, and answers a plan's questions about each.

Answers are bits, collected in levels: a resource's hold for its scopes, a scope's for its spans, until something nearer
overwrites them; an event or link is bound last. A SpanMatcher belongs to one thread; the pointers in it live as long as
the bytes that it was given. `begin` starts a new request or trace.

Long: one pass over a span. Each method reads into the levels or answers from them; apart, the readers of headers,
spans, events and links would share all their fields, and calls between them, one an attribute, would not be inlined.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.protobuf cimport (
    FIXED32, FIXED64, LEN, M_EVENT, M_LINK, M_NONE, M_RESOURCE, M_SCOPE, MAX_DEPTH, VARINT, FieldCursor, Message,
    cbytes, child, cursor, damaged, next_field,
)
from sampler_proxy.rules.answer_cache cimport MAX_CACHED_TEXT, MAX_TEXT_ANSWERS, TextEntry, find_filters, find_text
from sampler_proxy.rules.arithmetic cimport ON_EVENT, ON_LINK, ON_TRACE, is_number
from sampler_proxy.rules.conditions cimport (
    DURATION, EVENT_NAME, KIND, LINK_TRACE_ID, MET_COMPARABLE, NAME, NESTED_SET_PARENT, OP_IS_NIL, SCOPE_NAME, SOUND,
    SPAN_ID, STATUS, STATUS_MESSAGE, V_BEYOND, V_INT, V_NIL, V_STRING, Condition, holds, met_by, read_any_value,
    validate,
)
from sampler_proxy.rules.effort cimport is_spent
from sampler_proxy.rules.plan cimport (
    DEFERRED, OF_EVENT, OF_LINK, OF_RESOURCE, OF_SCOPE, OF_SPAN, AttributeKey, Consumer,
)
from sampler_proxy.rules.programs cimport bit_of, run_program, set_bit
from sampler_proxy.rules.slices cimport allocate, append, free_blocks, has_bytes, shrink, to_hex

cdef enum:
    # Events, and links, of one span that are looked at; SDKs record 128 unless told otherwise. It bounds the memory of
    # the two lists, 1 MiB each.
    MAX_SLICES = 1 << 16
    # Pairs of an event and a link of one span that are tried where one pair of braces asks for both.
    MAX_PAIRS = 4096
    # Events or links for which memory is kept from request to request.
    MAX_KEPT_SLICES = 1 << 14
    # Levels of nesting inside a span, and inside its fields; it lies in three messages itself.
    SPAN_DEPTH = MAX_DEPTH - 3
    FIELD_DEPTH = SPAN_DEPTH - 1

cdef enum:
    # How long values that had to be copied live: until `begin`, until the next span, until the next event for which all
    # links are tried, until the next event or link.
    OF_HEADERS = 0
    OF_ONE_SPAN
    OF_ONE_EVENT
    OF_ONE_BINDING
    LIFETIMES


@cython.final
cdef class SpanMatcher:
    def __cinit__(self, Plan plan not None, uint64_t seed):
        cdef uint32_t words = plan.words + 1
        cdef uint32_t slots = plan.slot_count + 1
        cdef uint32_t i
        cdef Level* levels[6]
        levels[:] = [
            &self.defaults, &self.of_resource, &self.of_scope, &self.of_span, &self.of_event, &self.bound
        ]
        self.plan = plan
        self.regexes = RegexCache(plan.conditions, seed)
        self.text_cache = TextCache()
        self.filter_cache = FilterCache(plan.words, plan.filter_words)
        self.all_bits = <uint64_t*>calloc(6 * words, sizeof(uint64_t))
        self.all_values = <Value*>calloc(6 * slots, sizeof(Value))
        self.met_on = <uint64_t*>calloc(5 * <uint64_t>plan.key_count + 1, sizeof(uint64_t))
        if self.all_bits == NULL or self.all_values == NULL or self.met_on == NULL:
            raise MemoryError
        for i in range(6):
            levels[i].bits = self.all_bits + i * words
            levels[i].values = self.all_values + i * slots
        memcpy(self.defaults.bits, plan.missing, 8 * plan.words)

    def __dealloc__(self):
        self.begin()
        free(self.all_bits)
        free(self.all_values)
        free(self.met_on)
        free(self.events.items)
        free(self.links.items)

    # Levels.

    cdef void begin(self) noexcept nogil:
        """Start a new request or trace: nothing of the last one is used any more."""
        cdef int lifetime
        for lifetime in range(LIFETIMES):
            free_blocks(&self.scratch[lifetime])
        shrink(&self.events, MAX_KEPT_SLICES)
        shrink(&self.links, MAX_KEPT_SLICES)

    cdef void copy_level(self, Level* target, Level* source) noexcept nogil:
        """Begin a level with the answers of the one around it."""
        cdef uint32_t i
        for i in range(self.plan.words):
            target.bits[i] = source.bits[i]
        if self.plan.slot_count:
            memcpy(target.values, source.values, self.plan.slot_count * sizeof(Value))

    cdef void begin_resource(self) noexcept nogil:
        """Begin the level of a resource."""
        self.copy_level(&self.of_resource, &self.defaults)
        self.begin_keys(OF_RESOURCE)

    cdef void begin_scope(self) noexcept nogil:
        """Begin the level of a scope, under the resource that was begun last."""
        cdef Value empty
        self.copy_level(&self.of_scope, &self.of_resource)
        self.begin_keys(OF_SCOPE)
        memset(&empty, 0, sizeof(Value))
        empty.type = V_STRING
        empty.text = self.span_hex  # not NULL; the size is 0
        self.record_all(&self.of_scope, self.plan.intrinsics[OF_SCOPE], &empty)

    cdef void begin_keys(self, int place) noexcept nogil:
        """Begin with the attributes of the next resource, scope, span, event or link."""
        self.mark += 1
        self.marks[place] = self.mark

    # Recording values.

    cdef void record(self, Level* level, uint32_t number, Value* value) noexcept nogil:
        """Answer the condition of this number, or fill the slot."""
        cdef Condition* condition
        cdef uint8_t* met
        cdef bint answer
        if number >= self.plan.condition_count:
            level.values[number - self.plan.condition_count] = value[0]
            return
        condition = &self.plan.conditions.items[number]
        answer = holds(condition, value, self.regexes)
        set_bit(level.bits, number, answer)
        met = &self.plan.conditions.met[number]
        if met[0] != MET_COMPARABLE and value.type != V_NIL:
            met[0] = MET_COMPARABLE if answer else met_by(condition, value)

    cdef void record_all(self, Level* level, Consumers consumers, Value* value) noexcept nogil:
        """Give a value to each of its consumers."""
        cdef uint32_t i
        for i in range(consumers.start, consumers.end):
            self.record(level, self.plan.consumers[i].number, value)

    cdef void record_again(self, Level* level, Consumers consumers, Value* value) noexcept nogil:
        """Give the value of a key that has come before to each of its consumers: conditions hold if they hold of any of
        its values (as in Tempo, where each is an attribute), `= nil` of all; slots take the last."""
        cdef uint32_t i, number
        cdef bint before
        for i in range(consumers.start, consumers.end):
            number = self.plan.consumers[i].number
            if number >= self.plan.condition_count:
                self.record(level, number, value)
                continue
            before = bit_of(level.bits, number)
            self.record(level, number, value)
            if before != (self.plan.conditions.items[number].op == OP_IS_NIL):
                set_bit(level.bits, number, before)

    cdef void record_text(self, Level* level, Consumers consumers, Value* value) noexcept nogil:
        """Give a short string to each of its consumers, with the answers of the cache if it is there."""
        cdef bint hit
        cdef TextEntry* entry = find_text(self.text_cache, consumers.end, value.text, value.size, &hit)
        cdef uint32_t i, number
        for i in range(consumers.start, consumers.end):
            number = self.plan.consumers[i].number
            if number >= self.plan.condition_count:
                self.record(level, number, value)
            elif hit:
                set_bit(level.bits, number, entry.answers >> (i - consumers.start) & 1)
            else:
                self.record(level, number, value)
                entry.answers |= <uint64_t>bit_of(level.bits, number) << (i - consumers.start)
        if not hit and is_spent(&self.regexes.effort):  # the answers may be none
            entry.consumers_end = 0

    # Reading.

    cdef bint read_header(self, cbytes p, cbytes end, int depth, bint scope) noexcept nogil:
        """Validate and read a Resource or InstrumentationScope; False where it is damaged."""
        cdef FieldCursor field = cursor(p, end, depth)
        cdef Level* level = &self.of_scope if scope else &self.of_resource
        cdef int place = OF_SCOPE if scope else OF_RESOURCE
        cdef Message message = M_SCOPE if scope else M_RESOURCE
        cdef Message nested
        cdef Consumers intrinsics = self.plan.intrinsics[OF_SCOPE]
        cdef Consumer* consumer
        cdef uint32_t i
        cdef uint32_t fields = 0
        cdef Value value
        while next_field(&field):
            fields += 1
            if field.wire != LEN:
                continue
            nested = child(message, field.number)
            if field.number == (3 if scope else 1):
                if not self.read_attribute(field.content, field.p, depth - 1, place, level):
                    return False
            elif nested != M_NONE:
                if depth <= MAX_DEPTH and not validate(nested, field.content, field.p, depth - 1):
                    return False
            elif scope and field.number <= 2:  # name, version
                memset(&value, 0, sizeof(Value))
                value.type = V_STRING
                value.text = field.content
                value.size = field.size
                for i in range(intrinsics.start, intrinsics.end):
                    consumer = &self.plan.consumers[i]
                    if (consumer.field == SCOPE_NAME) == (field.number == 1):
                        self.record(level, consumer.number, &value)
        self.regexes.effort.steps += self.plan.header_steps + (fields >> 1)
        return not damaged(&field)

    cdef void load_header(self, Envelope* header, bint scope) noexcept nogil:
        """Begin the level of an interned header, and read it, its first MAX_READ_AGAIN bytes; a resource's, behind the
        metadata above it, before its scope's."""
        if scope:
            self.begin_scope()
        else:
            self.begin_resource()
            if header.parent != NULL:
                self.read_header_again(header.parent, False)
        self.read_header_again(header, scope)

    cdef void read_header_again(self, Envelope* header, bint scope) noexcept nogil:
        """Read an interned header into its level, which was begun."""
        cdef FieldCursor field = cursor(header.data, header.data + header.size, MAX_DEPTH)
        cdef uint32_t size
        while next_field(&field):
            if field.wire == LEN and field.number == 1:
                size = min(field.size, MAX_READ_AGAIN)
                self.partly |= size != field.size
                self.read_header(field.content, field.content + size, SOUND, scope)

    cdef void load_headers(self, Group* group, bint with_resource) noexcept nogil:
        """Load the headers of a group of spans; without the resource's where that is the last group's, too."""
        if with_resource:
            self.load_header(group.scope.envelope.parent, False)
        self.load_header(group.scope.envelope, True)

    cdef bint read_attribute(self, cbytes p, cbytes end, int depth, int place, Level* level) noexcept nogil:
        """Validate a KeyValue with at most `depth` levels of nesting inside it, and record its value where the plan
        names its key at this place; False where it is damaged."""
        cdef FieldCursor field = cursor(p, end, depth)
        cdef Slice key
        cdef uint32_t parts = 0
        cdef AttributeKey* known
        cdef Consumers consumers
        cdef Value value
        cdef uint64_t* met_on
        cdef bint again
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
        known = self.plan.find_key(key.p, key.size)
        if known == NULL:
            return True
        consumers = known.consumers[place]
        met_on = &self.met_on[<uint64_t>place * self.plan.key_count + <uint64_t>(known - self.plan.keys)]
        again = met_on[0] == self.marks[place]
        met_on[0] = self.marks[place]
        if again:
            if is_spent(&self.regexes.effort):
                return True
            self.regexes.effort.steps += 1 + ((consumers.end - consumers.start) >> 1)
        if parts == 0:
            value.type = V_NIL
        elif parts > 1:
            return self.read_merged_attribute(p, end, consumers, level, again)
        if again:
            self.record_again(level, consumers, &value)
        elif value.type == V_STRING and value.size <= MAX_CACHED_TEXT and (
            1 < consumers.end - consumers.start <= MAX_TEXT_ANSWERS
        ):
            self.record_text(level, consumers, &value)
        else:
            self.record_all(level, consumers, &value)
        return True

    cdef bint read_merged_attribute(
        self, cbytes p, cbytes end, Consumers consumers, Level* level, bint again
    ) noexcept nogil:
        """Record the value of a valid KeyValue that has it in several parts. Messages merge as if their bytes stood one
        behind the other, so they are copied that way. False: there is no memory."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef uint64_t size = 0
        cdef Value value
        cdef uint8_t* joined
        cdef int lifetime = OF_HEADERS
        if level == &self.bound:
            lifetime = OF_ONE_BINDING
        elif level == &self.of_event:
            lifetime = OF_ONE_EVENT
        elif level == &self.of_span:
            lifetime = OF_ONE_SPAN
        joined = allocate(&self.scratch[lifetime], <uint64_t>(end - p))  # slots may point into it
        if joined == NULL:
            return False
        while next_field(&field):
            if field.number == 2 and field.wire == LEN:
                memcpy(joined + size, field.content, field.size)
                size += field.size
        read_any_value(joined, joined + size, SOUND, &value)
        if again:
            self.record_again(level, consumers, &value)
        else:
            self.record_all(level, consumers, &value)
        return True

    cdef bint read_span(self, cbytes body, uint32_t size, Facts* facts) noexcept nogil:
        """Read and validate one span, under the scope that was begun; False where it is damaged, or memory is short."""
        cdef FieldCursor field = cursor(body, body + size, SPAN_DEPTH)
        cdef int depth = SOUND if self.sound else FIELD_DEPTH
        cdef uint32_t fields = 0
        cdef Slice text
        memset(facts, 0, sizeof(Facts))
        facts.name.p = facts.message.p = body  # never NULL: an empty one is compared and copied, too
        free_blocks(&self.scratch[OF_ONE_SPAN])
        self.copy_level(&self.of_span, &self.of_scope)
        self.begin_keys(OF_SPAN)
        self.events.count = self.links.count = 0
        while next_field(&field):
            fields += 1
            if field.wire == LEN:
                if field.number == 9:
                    if not self.read_attribute(field.content, field.p, depth, OF_SPAN, &self.of_span):
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
                    if not self.read_status(field.content, field.p, facts):
                        return False
                elif field.number == 11:
                    if depth == FIELD_DEPTH and not validate(M_EVENT, field.content, field.p, depth):
                        return False
                    if self.plan.depends & ON_EVENT and not self.add_slice(&self.events, field.content, field.size):
                        return False
                elif field.number == 13:
                    if depth == FIELD_DEPTH and not validate(M_LINK, field.content, field.p, depth):
                        return False
                    if self.plan.depends & ON_LINK and not self.add_slice(&self.links, field.content, field.size):
                        return False
            elif field.wire == FIXED64:
                if field.number == 7:
                    facts.start = field.integer
                elif field.number == 8:
                    facts.end = field.integer
            elif field.number == 6 and field.wire == VARINT:
                facts.kind = <int32_t>field.integer
            elif field.number == 16 and field.wire == FIXED32:
                memcpy(&facts.flags, field.value, 4)
        self.regexes.effort.steps += self.plan.span_steps + (fields >> 1)
        return not damaged(&field)

    cdef bint read_again(self, cbytes body, uint32_t size, Facts* facts) noexcept nogil:
        """Read a span of a trace, its first MAX_READ_AGAIN bytes; False where that was not all."""
        self.partly |= size > MAX_READ_AGAIN
        return self.read_span(body, min(size, MAX_READ_AGAIN), facts)

    cdef bint add_slice(self, SliceList* slices, cbytes p, uint32_t size) noexcept nogil:
        """Add an event or link to those of the span, if they are not too many; False where there is no memory."""
        if slices.count < MAX_SLICES:
            return append(slices, p, size)
        self.partly = True
        return True

    cdef bint read_status(self, cbytes p, cbytes end, Facts* facts) noexcept nogil:
        """Validate and read a Status; False where it is damaged."""
        cdef FieldCursor field = cursor(p, end, FIELD_DEPTH)
        while next_field(&field):
            if field.number == 3 and field.wire == VARINT:
                facts.status = <int32_t>field.integer
            elif field.number == 2 and field.wire == LEN:
                facts.message.p = field.content
                facts.message.size = field.size
        return not damaged(&field)

    # Matching.

    cdef void match(self, uint64_t* matched, Facts* facts, bint deferred) noexcept nogil:
        """Set the bits of the filters that the span just read matches; with the deferred ones only if asked to."""
        cdef uint32_t filter, i
        cdef int32_t depends
        cdef int32_t unmatched = 0  # bit by ON_EVENT | ON_LINK: some filter that depends on these does not match yet
        cdef uint64_t* answers
        cdef uint64_t wanted
        self.record_intrinsics(facts)
        if self.plan.arithmetic.comparison_count:
            self.record_comparisons(&self.of_span, 0, deferred)
        answers = self.filter_answers()
        for i in range(self.plan.filter_words):
            wanted = self.plan.unbound[i] if deferred else self.plan.unbound[i] & ~self.plan.deferred[i]
            matched[i] |= answers[i] & wanted
        if not self.plan.depends & (ON_EVENT | ON_LINK):
            return
        for filter in range(self.plan.filters.count):
            depends = self.plan.filter_depends[filter]
            if not depends & (ON_EVENT | ON_LINK) or (depends & DEFERRED and not deferred):
                continue
            if not bit_of(matched, filter):
                unmatched |= 1 << (depends & (ON_EVENT | ON_LINK))
        for depends in range(ON_EVENT, (ON_EVENT | ON_LINK) + 1):
            if unmatched >> depends & 1:
                self.match_bound(matched, facts, depends, deferred)

    cdef uint64_t* filter_answers(self) noexcept nogil:
        """Return the filters' answers to the bits of the span alone; programs run only if the bits are not in the
        cache."""
        cdef uint64_t* bits = self.of_span.bits
        cdef bint hit
        cdef uint64_t* answers = find_filters(self.filter_cache, bits, &hit)
        cdef uint32_t filter
        if not hit:
            self.regexes.effort.steps += self.plan.filters.count >> 1
            for filter in range(self.plan.filters.count):
                if run_program(self.plan.filters, filter, bits):
                    answers[filter >> 6] |= (<uint64_t>1) << (filter & 63)
        return answers

    cdef void record_intrinsics(self, Facts* facts) noexcept nogil:
        """Record what is no attribute: name, status, duration and so on."""
        cdef Consumers consumers = self.plan.intrinsics[OF_SPAN]
        cdef Value value
        cdef uint64_t elapsed
        cdef int32_t field
        cdef uint32_t i
        for i in range(consumers.start, consumers.end):
            field = self.plan.consumers[i].field
            memset(&value, 0, sizeof(Value))
            if field == STATUS or field == KIND:
                value.type = V_INT
                value.integer = facts.status if field == STATUS else facts.kind
            elif field == DURATION:
                if has_duration(facts):  # else it is missing, as it is for traceDuration
                    elapsed = facts.end - facts.start
                    value.type = V_INT if elapsed <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
                    value.integer = <long long>elapsed
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
                elif field == NESTED_SET_PARENT:
                    value.type = V_INT
                    value.integer = -1 if self.is_root else 0
                else:
                    value.text = self.parent_hex
                    if has_bytes(&facts.parent_id):
                        value.size = to_hex(facts.parent_id.p, min(facts.parent_id.size, 16), self.parent_hex)
            self.record(&self.of_span, self.plan.consumers[i].number, &value)

    cdef void record_comparisons(self, Level* level, int32_t depends, bint deferred) noexcept nogil:
        """Answer the comparisons that depend on an event or link as `depends` says; 0: on none."""
        cdef uint32_t i
        cdef int32_t on
        for i in range(self.plan.arithmetic.comparison_count):
            on = self.plan.arithmetic.comparisons[i].depends
            if on & (ON_EVENT | ON_LINK) & ~depends or (depends and not on & depends):
                continue
            if on & ON_TRACE and not deferred:
                continue
            set_bit(level.bits, self.plan.condition_count + i, self.plan.arithmetic.holds(
                i, level.values, &self.regexes.effort
            ))

    # Events and links: filters and arguments that need one are tried with each, or with each pair of one and the other.

    cdef Binding bindings(self, int32_t depends) noexcept nogil:
        """Return a place in front of the first event, link or pair of them to try: none of them is one to try, too."""
        cdef Binding binding
        binding.depends = depends
        binding.event = binding.link = 0
        binding.events = max(self.events.count, 1) if depends & ON_EVENT else 1
        binding.links = max(self.links.count, 1) if depends & ON_LINK else 1
        binding.left = MAX_PAIRS if depends & ON_EVENT and depends & ON_LINK else MAX_SLICES
        return binding

    cdef bint next_binding(self, Binding* binding, Facts* facts, bint deferred) noexcept nogil:
        """Fill the level `bound`: the span with the next event and link, as far as asked for and there. False behind
        the last, and where more are not tried."""
        cdef Level* around = &self.of_span
        if binding.event == binding.events:
            return False
        if binding.left == 0 or is_spent(&self.regexes.effort):
            self.partly = True
            return False
        binding.left -= 1
        self.regexes.effort.steps += self.plan.binding_steps
        if binding.depends & ON_EVENT and binding.depends & ON_LINK:
            around = &self.of_event
            if binding.link == 0:  # the event is read once for all links
                free_blocks(&self.scratch[OF_ONE_EVENT])
                self.copy_level(around, &self.of_span)
                self.bind_event(around, binding.event, facts)
        free_blocks(&self.scratch[OF_ONE_BINDING])
        self.copy_level(&self.bound, around)
        if binding.depends & ON_LINK:
            self.bind_link(&self.bound, binding.link)
        else:
            self.bind_event(&self.bound, binding.event, facts)
        if self.plan.arithmetic.comparison_count:
            self.record_comparisons(&self.bound, ON_EVENT | ON_LINK, deferred)
        binding.link += 1
        if binding.link == binding.links:
            binding.link = 0
            binding.event += 1
        return True

    cdef void match_bound(self, uint64_t* matched, Facts* facts, int32_t depends, bint deferred) noexcept nogil:
        """Set the bits of the filters that depend on an event, on a link, or on both, and match with some of them."""
        cdef Binding binding = self.bindings(depends)
        cdef uint32_t filter
        cdef int32_t on
        cdef bint open_ = True  # some filter does not match yet
        while open_ and self.next_binding(&binding, facts, deferred):
            open_ = False
            for filter in range(self.plan.filters.count):
                on = self.plan.filter_depends[filter]
                if on & (ON_EVENT | ON_LINK) != depends or (on & DEFERRED and not deferred):
                    continue
                if bit_of(matched, filter):
                    continue
                if run_program(self.plan.filters, filter, self.bound.bits):
                    matched[filter >> 6] |= (<uint64_t>1) << (filter & 63)
                else:
                    open_ = True

    cdef void evaluate_argument(self, uint32_t number, Facts* facts, Value* result) noexcept nogil:
        """Evaluate an aggregate's argument for the span just read, with the first event and link that make it a number;
        V_NIL where none does."""
        cdef int32_t depends = self.plan.arithmetic.argument_depends[number]
        cdef Binding binding
        if not depends & (ON_EVENT | ON_LINK):
            self.plan.arithmetic.evaluate(self.plan.arithmetic.arguments[number], self.of_span.values, result)
            if not is_number(result):
                result.type = V_NIL
            return
        binding = self.bindings(depends & (ON_EVENT | ON_LINK))
        while self.next_binding(&binding, facts, True):
            self.plan.arithmetic.evaluate(self.plan.arithmetic.arguments[number], self.bound.values, result)
            if is_number(result):
                return
        result.type = V_NIL

    cdef void bind_event(self, Level* level, uint32_t number, Facts* facts) noexcept nogil:
        """Record a valid Event of the span; the first where there is none is none."""
        cdef FieldCursor field
        cdef Slice* event = &self.events.items[number]
        cdef uint32_t i
        cdef uint64_t time = 0
        cdef Value name, since_start
        cdef Consumers intrinsics = self.plan.intrinsics[OF_EVENT]
        cdef Consumer* consumer
        if number >= self.events.count:
            return
        field = cursor(event.p, event.p + event.size, MAX_DEPTH)
        self.regexes.effort.steps += event.size >> 5
        self.begin_keys(OF_EVENT)
        memset(&name, 0, sizeof(Value))
        memset(&since_start, 0, sizeof(Value))
        name.type = V_STRING
        name.text = event.p
        while next_field(&field):
            if field.wire == LEN:
                if field.number == 2:
                    name.text = field.content
                    name.size = field.size
                elif field.number == 3:
                    self.read_attribute(field.content, field.p, SOUND, OF_EVENT, level)
            elif field.wire == FIXED64 and field.number == 1:
                time = field.integer
        if time and facts.start:
            since_start.type = V_INT
            since_start.integer = <long long>(time - facts.start)
        for i in range(intrinsics.start, intrinsics.end):
            consumer = &self.plan.consumers[i]
            self.record(level, consumer.number, &name if consumer.field == EVENT_NAME else &since_start)

    cdef void bind_link(self, Level* level, uint32_t number) noexcept nogil:
        """Record a valid Link of the span; the first where there is none is none."""
        cdef FieldCursor field
        cdef Slice* link = &self.links.items[number]
        cdef uint32_t i
        cdef Value trace_id, span_id
        cdef Consumers intrinsics = self.plan.intrinsics[OF_LINK]
        cdef Consumer* consumer
        if number >= self.links.count:
            return
        field = cursor(link.p, link.p + link.size, MAX_DEPTH)
        self.regexes.effort.steps += link.size >> 5
        self.begin_keys(OF_LINK)
        memset(&trace_id, 0, sizeof(Value))
        memset(&span_id, 0, sizeof(Value))
        trace_id.type = span_id.type = V_STRING
        trace_id.text = self.link_trace_hex
        span_id.text = self.link_span_hex
        while next_field(&field):
            if field.wire == LEN:
                if field.number == 1:
                    trace_id.size = to_hex(field.content, min(field.size, 32), self.link_trace_hex)
                elif field.number == 2:
                    span_id.size = to_hex(field.content, min(field.size, 32), self.link_span_hex)
                elif field.number == 4:
                    self.read_attribute(field.content, field.p, SOUND, OF_LINK, level)
        for i in range(intrinsics.start, intrinsics.end):
            consumer = &self.plan.consumers[i]
            self.record(level, consumer.number, &trace_id if consumer.field == LINK_TRACE_ID else &span_id)
