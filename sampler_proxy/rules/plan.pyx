"""Lays out for the scan what one pass over a span has to look for. plan.pyi is the manual. Immutable once it is built.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from sampler_proxy.otlp.protobuf cimport load64
from sampler_proxy.rules.arithmetic cimport ON_EVENT, ON_LINK, ON_TRACE
from sampler_proxy.rules.conditions cimport (
    ANY_ATTRIBUTE, EVENT_ATTRIBUTE, EVENT_NAME, EVENT_TIME, LINK_ATTRIBUTE, LINK_SPAN_ID, LINK_TRACE_ID,
    NESTED_SET_PARENT, OP_IS_NIL, RESOURCE_ATTRIBUTE, SCOPE_ATTRIBUTE, SCOPE_NAME, SCOPE_VERSION, SPAN_ATTRIBUTE,
    TRACE_DURATION,
)

cdef uint32_t _serials = 0

_ATTRIBUTE_PLACES = {
    SPAN_ATTRIBUTE: (OF_SPAN,),
    RESOURCE_ATTRIBUTE: (OF_RESOURCE,),
    SCOPE_ATTRIBUTE: (OF_SCOPE,),
    ANY_ATTRIBUTE: (OF_SPAN, OF_RESOURCE),
    EVENT_ATTRIBUTE: (OF_EVENT,),
    LINK_ATTRIBUTE: (OF_LINK,),
}


cdef inline uint32_t _key_hash(const uint8_t* p, uint32_t size) noexcept nogil:
    """Hash the size and the first and last 8 bytes. The table holds keys of the configuration only."""
    cdef uint64_t word = 0
    if size >= 8:
        word = load64(p) ^ (load64(p + size - 8) * 0x9E3779B97F4A7C15ULL)
    else:
        memcpy(&word, p, size)
    word = (word ^ size) * 0xFF51AFD7ED558CCDULL
    return <uint32_t>(word >> 32)


cdef int _place(int field) except -1:
    """Return the Place at which an intrinsic is read."""
    if field == SCOPE_NAME or field == SCOPE_VERSION:
        return OF_SCOPE
    if field == EVENT_NAME or field == EVENT_TIME:
        return OF_EVENT
    if field == LINK_TRACE_ID or field == LINK_SPAN_ID:
        return OF_LINK
    return OF_TRACE if field >= TRACE_DURATION else OF_SPAN


cdef list _places():
    """Return an empty list for each Place. (Not by a comprehension: see RuleSet.)"""
    cdef list lists = []
    cdef int _i
    for _i in range(PLACES):
        lists.append([])
    return lists


cdef class Plan:
    def __cinit__(self, conditions, filters, *, comparisons=(), trace_conditions=0, deferred=(), arguments=()):
        global _serials
        _serials += 1
        self.serial = _serials
        self.conditions = ConditionList(conditions)
        self.arithmetic = Arithmetic(comparisons, arguments)
        self.condition_count = self.conditions.count
        self.trace_condition_count = trace_conditions
        self.slot_count = <uint32_t>len(self.arithmetic.slots)
        cdef uint32_t operands = self.condition_count + self.arithmetic.comparison_count + self.trace_condition_count
        self.filters = Programs(filters, operands)
        self.words = (operands + 63) // 64
        self.filter_words = (self.filters.count + 63) // 64
        self.missing = <uint64_t*>calloc(self.words + 1, 8)
        self.filter_depends = <int32_t*>calloc(self.filters.count + 1, sizeof(int32_t))
        self.unbound = <uint64_t*>calloc(self.filter_words + 1, 8)
        self.deferred = <uint64_t*>calloc(self.filter_words + 1, 8)
        if self.missing == NULL or self.filter_depends == NULL or self.unbound == NULL or self.deferred == NULL:
            raise MemoryError
        cdef dict keys = {}  # key -> its consumers, by Place
        cdef list intrinsics = _places()
        cdef uint32_t i
        for i in range(self.condition_count):
            if self.conditions.items[i].op == OP_IS_NIL:
                self.missing[i >> 6] |= (<uint64_t>1) << (i & 63)
            if self.conditions.items[i].field >= TRACE_DURATION:
                raise ValueError("a condition on the trace is none of a span")
        for number, item in enumerate((*self.conditions.source, *self.arithmetic.slots)):
            self.reads_roots |= item.field == NESTED_SET_PARENT
            if item.field in _ATTRIBUTE_PLACES:
                places = keys.setdefault(item.key, _places())
                for place in _ATTRIBUTE_PLACES[item.field]:
                    places[place].append((number, item.field))
            else:
                intrinsics[_place(int(item.field))].append((number, item.field))
        self.fill_table(keys, intrinsics)
        self.find_dependencies(deferred)
        self.count_steps()

    def __dealloc__(self):
        free(self.keys)
        free(self.table)
        free(self.consumers)
        free(self.missing)
        free(self.filter_depends)
        free(self.unbound)
        free(self.deferred)

    cdef Consumers add_consumers(self, list all_consumers, list added):
        """Append to the consumers, and return where the new ones are."""
        cdef Consumers consumers
        consumers.start = <uint32_t>len(all_consumers)
        all_consumers += added
        consumers.end = <uint32_t>len(all_consumers)
        return consumers

    cdef int fill_table(self, dict keys, list intrinsics) except -1:
        """Build the table of keys and the list of consumers."""
        cdef list consumers = []
        cdef AttributeKey* key
        cdef uint32_t at, i, place
        cdef uint32_t offset = 0
        self.key_count = <uint32_t>len(keys)
        self.key_bytes = b"".join(keys)
        self.keys = <AttributeKey*>calloc(self.key_count + 1, sizeof(AttributeKey))
        self.table_mask = 15
        while self.table_mask < 4 * self.key_count:
            self.table_mask = self.table_mask * 2 + 1
        self.table = <uint32_t*>calloc(self.table_mask + 1, sizeof(uint32_t))
        if self.keys == NULL or self.table == NULL:
            raise MemoryError
        for i, (name, places) in enumerate(keys.items()):
            key = &self.keys[i]
            key.text = <const uint8_t*><const char*>self.key_bytes + offset
            key.size = <uint32_t>len(name)
            offset += key.size
            key.hash = _key_hash(key.text, key.size)
            self.key_sizes |= (<uint64_t>1) << min(key.size, 63)
            for place in range(OF_TRACE):
                key.consumers[place] = self.add_consumers(consumers, places[place])
            at = key.hash & self.table_mask
            while self.table[at]:
                at = (at + 1) & self.table_mask
            self.table[at] = i + 1
        for place in range(PLACES):
            self.intrinsics[place] = self.add_consumers(consumers, intrinsics[place])
        self.consumers = <Consumer*>calloc(len(consumers) + 1, sizeof(Consumer))
        if self.consumers == NULL:
            raise MemoryError
        for i, (number, field) in enumerate(consumers):
            self.consumers[i].number = number
            self.consumers[i].field = int(field)
        return 0

    cdef int find_dependencies(self, deferred) except -1:
        """Find out for each filter what a span alone does not answer: an event, a link, the trace."""
        cdef uint32_t i, filter
        cdef int32_t depends
        for filter in range(self.filters.count):
            depends = DEFERRED if filter in deferred else 0
            for i in range(self.filters.starts[filter], self.filters.starts[filter + 1]):
                if self.filters.code[i] >= 0:
                    depends |= self.operand_depends(self.filters.code[i])
            if depends & ON_TRACE and not depends & DEFERRED:
                raise ValueError("a filter on the trace's own values must be deferred")
            self.filter_depends[filter] = depends
            if not depends & (ON_EVENT | ON_LINK):
                self.unbound[filter >> 6] |= (<uint64_t>1) << (filter & 63)
            if depends & DEFERRED:
                self.deferred[filter >> 6] |= (<uint64_t>1) << (filter & 63)
            self.depends |= depends
        for i in range(self.arithmetic.argument_count):
            self.depends |= self.arithmetic.argument_depends[i]
        return 0

    cdef void count_steps(self) noexcept:
        """Count the steps that a header, a span and an event or link cost beside their fields: see Effort."""
        cdef uint32_t level = (self.words + 4 * self.slot_count) >> 3
        self.header_steps = 4 + level
        self.span_steps = 8 + level + (
            (self.intrinsics[OF_SPAN].end - self.intrinsics[OF_SPAN].start + 4 * self.arithmetic.comparison_count) >> 2
        )
        self.binding_steps = 2 + level + (
            (self.condition_count + 8 * self.arithmetic.comparison_count + self.filters.count) >> 3
        )

    cdef int32_t operand_depends(self, int32_t operand) noexcept:
        """Return what an operand of a filter needs beside the span."""
        cdef uint32_t number = <uint32_t>operand
        cdef int32_t field
        if number >= self.condition_count + self.arithmetic.comparison_count:
            return ON_TRACE
        if number >= self.condition_count:
            return self.arithmetic.comparisons[number - self.condition_count].depends
        field = self.conditions.items[number].field
        if field == EVENT_NAME or field == EVENT_TIME or field == EVENT_ATTRIBUTE:
            return ON_EVENT
        if field == LINK_TRACE_ID or field == LINK_SPAN_ID or field == LINK_ATTRIBUTE:
            return ON_LINK
        return 0

    cdef AttributeKey* find_key(self, const uint8_t* text, uint32_t size) noexcept nogil:
        """Return the key with this text; NULL where nothing asks for it."""
        cdef uint32_t key_hash, at
        cdef AttributeKey* key
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
