# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A rule set: the first rule that matches a trace decides, and gives its threshold. `rules.pyi` is the manual.

What the scan has answered span by span stands in the fragments' filter words; conditions on the trace itself are asked here, of the
fragments, only when a rule needs them and once for a trace. A rule set is used under the pipeline's lock.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memset

from sampler_proxy._conditions cimport (
    PROGRAM_STACK, P_AND, P_NOT, P_OR, P_TRUE, ROOT_NAME, ROOT_SERVICE, TRACE_DURATION, V_BEYOND, V_INT, V_NIL, V_STRING, Value, holds,
    read_any_value,
)
from sampler_proxy._proto cimport LEN, MAX_DEPTH, cbytes, read_length, read_tag, skip_value
from sampler_proxy._wire cimport to_hex
from sampler_proxy.fragments cimport HAS_RANDOMNESS, HAS_ROOT, HAS_TIMES, Envelope, filter_words, groups_of, payload_of

from sampler_proxy.sampling import threshold_of

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


cdef Fragment* root_of(Fragment* first) noexcept nogil:
    """The fragment with the trace's root: of several, the one that starts first, then the one with the smallest id."""
    cdef Fragment* best = NULL
    while first != NULL:
        if first.flags & HAS_ROOT and (best == NULL or first.root_start < best.root_start or (
            first.root_start == best.root_start and first.root_id < best.root_id
        )):
            best = first
        first = first.next
    return best


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


cdef class RuleSet:
    def __cinit__(self, *, names, keeps, Plan plan not None, trace_conditions, programs, ledger_id):
        cdef uint32_t i
        self.names = tuple(names)
        self.count = <uint32_t>len(self.names)
        self.plan = plan
        self.trace_conditions = ConditionList(trace_conditions)
        self.programs = Programs(programs, 2 * max(plan.filters.count, self.trace_conditions.count))
        self.regexes = Regexes(self.trace_conditions)
        if self.count == 0 or self.programs.count != self.count or len(keeps) != self.count:
            raise ValueError("every rule has a name, a probability and a program")
        if tuple(programs[self.count - 1]) != (P_TRUE,):
            raise ValueError("the last rule must match everything")
        for program in programs:
            for token in program:
                if token >= 0 and token >> 1 >= (self.trace_conditions.count if token & 1 else plan.filters.count):
                    raise ValueError(f"operand {token} is not there")
        self.thresholds = <uint64_t*>calloc(self.count, sizeof(uint64_t))
        self.ids = <uint16_t*>calloc(self.count, sizeof(uint16_t))
        self.matched = <uint64_t*>calloc(plan.filter_words + 1, sizeof(uint64_t))
        self.known = <signed char*>malloc(self.trace_conditions.count + 1)
        if self.thresholds == NULL or self.ids == NULL or self.matched == NULL or self.known == NULL:
            raise MemoryError
        for i in range(self.count):
            self.thresholds[i] = threshold_of(keeps[i])
            self.ids[i] = ledger_id(self.names[i])

    def __dealloc__(self):
        free(self.thresholds)
        free(self.ids)
        free(self.matched)
        free(self.known)

    cdef uint32_t first_match(self, Fragment* first) noexcept:
        """The index of the rule that decides a trace with these fragments, all of them scanned with this rule set's plan."""
        cdef unsigned char[PROGRAM_STACK] stack
        cdef int top
        cdef uint32_t rule, i, operand
        cdef int token
        cdef Fragment* fragment = first
        cdef uint64_t* words
        memset(self.matched, 0, 8 * self.plan.filter_words)
        memset(self.known, -1, self.trace_conditions.count)
        while fragment != NULL:
            words = filter_words(fragment)
            for i in range(self.plan.filter_words):
                self.matched[i] |= words[i]
            fragment = fragment.next
        for rule in range(self.count):
            top = -1
            for i in range(self.programs.starts[rule], self.programs.starts[rule + 1]):
                token = self.programs.code[i]
                if token >= 0:
                    operand = <uint32_t>token >> 1
                    top += 1
                    if token & 1:
                        stack[top] = self.trace_condition(operand, first)
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
            if stack[0]:
                return rule
        return self.count - 1

    cdef bint trace_condition(self, uint32_t number, Fragment* first) noexcept:
        cdef Condition* condition = &self.trace_conditions.items[number]
        cdef Fragment* fragment
        cdef Value value
        cdef uint64_t start = 0
        cdef uint64_t end = 0
        cdef bint timed = False
        cdef unsigned char[32] hex_id
        if self.known[number] >= 0:
            return self.known[number]
        value.type = V_NIL
        if condition.field == TRACE_DURATION:
            fragment = first
            while fragment != NULL:
                if fragment.flags & HAS_TIMES:
                    if not timed or fragment.min_start < start:
                        start = fragment.min_start
                    if not timed or fragment.max_end > end:
                        end = fragment.max_end
                    timed = True
                fragment = fragment.next
            if timed:
                value.type = V_INT if end - start <= 0x7FFFFFFFFFFFFFFFULL else V_BEYOND
                value.integer = <long long>(end - start)
                value.real = <double>(end - start)
        elif condition.field == ROOT_NAME or condition.field == ROOT_SERVICE:
            fragment = root_of(first)
            if fragment != NULL and condition.field == ROOT_NAME:
                read_field(
                    payload_of(fragment) + fragment.root_offset,
                    payload_of(fragment) + fragment.root_offset + fragment.root_size, 5, &value,
                )
            elif fragment != NULL:
                read_service(groups_of(fragment)[fragment.root_group].scope.envelope.parent, &value)
                if value.type != V_STRING:
                    value.type = V_NIL
        else:
            value.type = V_STRING
            value.size = to_hex(<cbytes>first.trace_id, 16, hex_id)
            value.text = hex_id
        self.known[number] = holds(condition, &value, self.regexes)
        return self.known[number]
