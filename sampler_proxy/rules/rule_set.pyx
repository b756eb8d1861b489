"""A rule set: the first rule that matches a trace decides, and gives its threshold. `rules.pyi` is the manual.

What the scan has answered span by span stands in the fragments' filter words. Conditions on the trace itself are asked here, of the
fragments, only when a rule needs them and once for a trace. Queries read the trace's spans again, if their guard lets them; so do
traces with fragments that were scanned for another plan. A rule set is used under the pipeline's lock.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.rules.conditions cimport (
    ROOT_NAME, ROOT_SERVICE, TRACE_DURATION, V_BEYOND, V_INT, V_NIL, V_STRING, Value, holds,
    read_any_value,
)
from sampler_proxy.rules.programs cimport P_AND, P_NOT, P_OR, P_TRUE, PROGRAM_STACK
from sampler_proxy.rules.slices cimport to_hex
from sampler_proxy.rules.trace_key cimport TraceKeyReader
from sampler_proxy.rules.plan cimport OF_TRACE, Consumers
from sampler_proxy.otlp.protobuf cimport LEN, MAX_DEPTH, cbytes, read_length, read_tag, skip_value
from sampler_proxy.rules.trace_matcher cimport Node, build
from sampler_proxy.otlp.fragments cimport (
    Envelope, HAS_RANDOMNESS, HAS_ROOT, HAS_TIMES, SERVICE_MISSING, SERVICE_NOT_READ, filter_words, groups_of, payload_of, root_of,
)
from sampler_proxy.rules.rate cimport Controller

from typing import NamedTuple

from sampler_proxy.traceql.program import TRUE
from sampler_proxy.rules.rate import Fixed

UNITS = ("traces", "spans", "bytes")

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t) nogil


cdef uint64_t randomness_of(Fragment* first) noexcept nogil:
    """R of the trace: its smallest `rv`, else the last 56 bits of its id."""
    cdef uint64_t smallest = 0
    cdef bint found = False
    cdef Fragment* fragment = first
    while fragment != NULL:
        if fragment.flags & HAS_RANDOMNESS and (not found or fragment.randomness < smallest):
            smallest = fragment.randomness
            found = True
        fragment = fragment.next
    if found:
        return smallest
    return __builtin_bswap64(first.trace_id[1]) & 0xFFFFFFFFFFFFFFULL


cdef double size_of(uint8_t unit, Fragment* first, uint32_t spans) noexcept nogil:
    """How much a trace is of what a rate counts; `spans` is how many it has."""
    cdef uint64_t size = 0
    if unit == TRACES:
        return 1
    if unit == SPANS:
        return spans
    while first != NULL:
        size += first.size
        first = first.next
    return <double>size


cdef void read_field(cbytes p, cbytes end, uint32_t wanted, Value* value) noexcept nogil:
    """The last length-delimited field of this number in a valid message, as a string; "" where there is none."""
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    value.type = V_STRING
    value.text = p
    value.size = 0
    while p < end:
        p = read_tag(p, end, &field, &wire)
        if wire == LEN:
            p = read_length(p, end, &length)
            if field == wanted:
                value.text = p
                value.size = length
            p += length
        else:
            p = skip_value(p, end, field, wire, MAX_DEPTH)


cdef void read_merged_value(cbytes p, cbytes end, Value* value) noexcept nogil:
    """The value of a valid KeyValue. One in several parts merges: the last part that holds something counts (arrays apart)."""
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef Value part
    value.type = V_NIL
    while p < end:
        p = read_tag(p, end, &field, &wire)
        if wire == LEN:
            p = read_length(p, end, &length)
            if field == 2:
                read_any_value(p, p + length, MAX_DEPTH, &part)
                if part.type != V_NIL:
                    value[0] = part
            p += length
        else:
            p = skip_value(p, end, field, wire, MAX_DEPTH)


cdef void read_service(Envelope* resource, Value* value) noexcept nogil:
    """The last `service.name` of a resource's header; V_NIL where there is none."""
    cdef cbytes p = resource.data
    cdef cbytes end = p + resource.size
    cdef cbytes inner
    cdef cbytes attribute
    cdef uint32_t field = 0
    cdef uint32_t wire = 0
    cdef uint32_t length = 0
    cdef Value key
    value.type = V_NIL
    while p < end:
        p = read_tag(p, end, &field, &wire)
        if wire != LEN:
            p = skip_value(p, end, field, wire, MAX_DEPTH)
            continue
        p = read_length(p, end, &length)
        inner = p
        p += length
        if field != 1:
            continue
        while inner < p:
            inner = read_tag(inner, p, &field, &wire)
            if wire != LEN:
                inner = skip_value(inner, p, field, wire, MAX_DEPTH)
                continue
            inner = read_length(inner, p, &length)
            attribute = inner
            inner += length
            if field != 1:
                continue
            read_field(attribute, inner, 1, &key)
            if key.size == 12 and memcmp(key.text, b"service.name", 12) == 0:
                read_merged_value(attribute, inner, value)


class Keep(NamedTuple):
    controller: Controller
    slots: tuple = ()
    unit: str = "traces"


cdef class RuleSet:
    def __cinit__(self, *, names, keeps, compiled, ledger_id, uint64_t seed=0):
        cdef uint32_t i, rule
        cdef list arguments = []
        self.names = tuple(names)
        self.count = <uint32_t>len(self.names)
        programs = [tuple(program) for program in compiled.programs]
        if self.count == 0 or not len(programs) == len(keeps) == len(compiled.monotone) == self.count:
            raise ValueError("every rule has a name, a probability and a program")
        if programs[self.count - 1] != (TRUE,):
            raise ValueError("the last rule must match everything")
        self.trace_conditions = ConditionList(compiled.trace_conditions)
        self.queries = [build(query.root, arguments) for query in compiled.queries]
        self.plan = Plan(
            compiled.conditions, compiled.filters, comparisons=compiled.comparisons, trace_conditions=self.trace_conditions.count,
            deferred=compiled.deferred, arguments=arguments,
        )
        self.asked = self.trace_conditions.count + <uint32_t>len(self.queries)
        guards = [tuple(query.guard) for query in compiled.queries]
        for program in (*programs, *guards):
            for token in program:
                if token >= 0 and token >> 1 >= (self.asked if token & 1 else self.plan.filters.count):
                    raise ValueError(f"operand {token} is not there")
        # The guards stand behind the rules.
        self.programs = Programs(programs + guards, 2 * max(self.plan.filters.count, self.asked))
        self.regexes = RegexCache(self.trace_conditions, seed)
        self.rows = Rows(self.plan, seed)
        keeps = [keep if isinstance(keep, Keep) else Keep(Fixed(keep)) for keep in keeps]
        self.controllers = [keep.controller for keep in keeps]
        self.readers = [TraceKeyReader(keep.slots, seed=seed) if keep.slots else None for keep in keeps]
        for keep in keeps:
            if (<Controller?>keep.controller).keyed != bool(keep.slots):
                raise ValueError("a controller that is keyed wants fields, and others none")
        self.always = <uint8_t*>calloc(self.count, 1)
        self.units = <uint8_t*>calloc(self.count, 1)
        self.ids = <uint16_t*>calloc(self.count, sizeof(uint16_t))
        self.early = <uint8_t*>calloc(self.count, 1)
        self.matched = <uint64_t*>calloc(self.plan.filter_words + 1, sizeof(uint64_t))
        self.early_filters = <uint64_t*>calloc(self.plan.filter_words + 1, sizeof(uint64_t))
        self.known = <signed char*>malloc(self.asked + 1)
        if self.always == NULL or self.units == NULL or self.ids == NULL or self.early == NULL or self.matched == NULL or self.known == NULL or (
            self.early_filters == NULL
        ):
            raise MemoryError
        for rule in range(self.count):
            self.always[rule] = (<Controller>self.controllers[rule]).always
            self.units[rule] = UNITS.index(keeps[rule].unit)
        for rule in range(self.count):  # only now that nothing can be wrong with them any more
            self.ids[rule] = ledger_id(self.names[rule])
        # A rule decides early if what it says cannot be taken back, and it does not matter which of those before it would have.
        for rule in range(self.count):
            if not self.always[rule]:
                break
            if compiled.monotone[rule]:
                self.early_count = rule + 1
                token = programs[rule][0]
                if len(programs[rule]) == 1 and token >= 0 and not token & 1:
                    self.early_filters[token >> 7] |= (<uint64_t>1) << (token >> 1 & 63)
                    continue
                self.early[rule] = EARLY_BITS
                for token in programs[rule]:
                    if token >= 0 and token & 1 and token >> 1 >= self.trace_conditions.count:
                        self.early[rule] = EARLY_QUERY
                        self.early_queries = True

    def __dealloc__(self):
        free(self.always)
        free(self.units)
        free(self.ids)
        free(self.early)
        free(self.early_filters)
        free(self.matched)
        free(self.known)

    cdef int ask_about(self, Fragment* first) except -1:
        """Begin with another trace."""
        cdef Fragment* fragment = first
        cdef uint64_t* words
        cdef uint32_t i
        cdef bint scanned = True
        self.rows_read = False
        memset(self.known, -1, self.asked)
        memset(self.matched, 0, 8 * self.plan.filter_words)
        while fragment != NULL:
            if fragment.plan != self.plan.serial:
                scanned = False
                break
            words = filter_words(fragment)
            for i in range(self.plan.filter_words):
                self.matched[i] |= words[i]
            fragment = fragment.next
        if not scanned:
            self.read_rows(first)
            memcpy(self.matched, self.rows.matched, 8 * self.plan.filter_words)
        return 0

    cdef uint32_t first_match(self, Fragment* first) except? 0xFFFFFFFF:
        """The index of the rule that decides a trace with these fragments."""
        cdef uint32_t rule
        self.ask_about(first)
        for rule in range(self.count):
            if self.run(rule, first):
                return rule
        return self.count - 1

    cdef uint64_t threshold(self, uint32_t rule, Fragment* first, uint32_t spans, uint64_t randomness, int64_t now_ns) noexcept:
        """What the rule makes of a trace that it decides; asked once, since a rate that adapts learns from it."""
        cdef Controller controller = <Controller>self.controllers[rule]
        cdef TraceKeyReader reader
        cdef double size = size_of(self.units[rule], first, spans)
        cdef double incoming = 1
        if first.threshold <= randomness:  # else it is inconsistent, and says nothing
            incoming = 1 - <double>first.threshold / <double>(<uint64_t>1 << 56)
        if not controller.keyed:
            return controller.threshold(NULL, NULL, 0, size, incoming, now_ns)
        reader = <TraceKeyReader>self.readers[rule]
        reader.read(first)
        return controller.threshold(reader.key, reader.text, reader.text_size, size, incoming, now_ns)

    cdef bint matches_early(self, Fragment* first, bint with_queries) except -1:
        """Whether a trace is bound to be kept whole, whatever of it is still to come."""
        cdef uint32_t rule, i
        cdef uint64_t* words = filter_words(first)  # which has absorbed the others'
        if first.plan != self.plan.serial:
            return False
        for i in range(self.plan.filter_words):
            if words[i] & self.early_filters[i]:
                return True
        self.rows_read = False
        memset(self.known, -1, self.asked)
        memcpy(self.matched, words, 8 * self.plan.filter_words)
        for rule in range(self.early_count):
            if (self.early[rule] == EARLY_BITS or (self.early[rule] == EARLY_QUERY and with_queries)) and self.run(rule, first):
                return True
        return False

    cdef bint run(self, uint32_t program, Fragment* first) except -1:
        """Of the trace that ask_about was told of: the answer of a rule's program, or behind those of a guard."""
        cdef unsigned char[PROGRAM_STACK] stack
        cdef int top = -1
        cdef uint32_t i, operand
        cdef int token
        for i in range(self.programs.starts[program], self.programs.starts[program + 1]):
            token = self.programs.code[i]
            if token >= 0:
                operand = <uint32_t>token >> 1
                top += 1
                if token & 1:
                    stack[top] = self.ask(operand, first)
                else:
                    stack[top] = self.matched[operand >> 6] >> (operand & 63) & 1
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

    cdef bint ask(self, uint32_t number, Fragment* first) except -1:
        """A trace condition, or behind those a query; each is answered once for a trace."""
        cdef Value value
        if self.known[number] < 0:
            if number < self.trace_conditions.count:
                self.read_trace(self.trace_conditions.items[number].field, first, &value)
                self.known[number] = holds(&self.trace_conditions.items[number], &value, self.regexes)
            else:
                self.known[number] = self.query(number - self.trace_conditions.count, first)
        return self.known[number]

    cdef bint query(self, uint32_t number, Fragment* first) except -1:
        cdef Node node = self.queries[number]
        cdef uint8_t* given
        cdef uint8_t* selected
        cdef uint32_t i
        cdef bint found = False
        if not self.run(self.count + number, first):
            return False
        if not self.rows_read:
            self.read_rows(first)
        given = <uint8_t*>malloc(self.rows.count + 1)
        if given == NULL:
            raise MemoryError
        memset(given, 1, self.rows.count)
        try:
            selected = node.select(self.rows, given)
        finally:
            free(given)
        for i in range(self.rows.count):
            found |= selected[i]
        free(selected)
        return found

    cdef int read_rows(self, Fragment* first) except -1:
        cdef Consumers consumers = self.plan.intrinsics[OF_TRACE]
        cdef Value value
        cdef uint32_t i
        for i in range(self.trace_conditions.count):
            self.rows.tell(i, self.ask(i, first))
        for i in range(consumers.start, consumers.end):
            self.read_trace(self.plan.consumers[i].field, first, &value)
            self.rows.matcher.record(&self.rows.matcher.defaults, self.plan.consumers[i].number, &value)
        self.rows.read(first)
        self.rows_read = True
        return 0

    cdef void read_trace(self, int field, Fragment* first, Value* value) noexcept:
        """What the trace says of itself, as far as it has arrived. Of its times, the first fragment has absorbed the others'."""
        cdef Fragment* root
        cdef Envelope* resource
        cdef uint64_t duration
        memset(value, 0, sizeof(Value))
        if field == TRACE_DURATION:
            if first.flags & HAS_TIMES:
                duration = first.max_end - first.min_start
                value.type = V_INT if duration <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
                value.integer = <long long>duration
                value.real = <double>duration
        elif field == ROOT_NAME or field == ROOT_SERVICE:
            root = root_of(first)
            if root == NULL:
                return
            if field == ROOT_NAME:
                read_field(payload_of(root) + root.root_offset, payload_of(root) + root.root_offset + root.root_size, 5, value)
                return
            resource = groups_of(root)[root.root_group].scope.envelope.parent
            if resource.service == SERVICE_NOT_READ:
                read_service(resource, value)
                resource.service = SERVICE_MISSING
                if value.type == V_STRING:
                    resource.service = <uint32_t>(value.text - <cbytes>resource.data)
                    resource.service_size = value.size
            value.type = V_NIL
            if resource.service != SERVICE_MISSING:
                value.type = V_STRING
                value.text = resource.data + resource.service
                value.size = resource.service_size
        else:
            value.type = V_STRING
            value.size = to_hex(<cbytes>first.trace_id, 16, self.trace_hex)
            value.text = self.trace_hex
