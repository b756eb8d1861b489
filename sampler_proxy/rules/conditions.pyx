"""Answers conditions on bytes: reads an AnyValue, compares it with a constant, without making an object of either.

Nothing here keeps a pointer into a request. Only regular expressions need Python (google-re2); their answers are cached
by string, and a scan takes the GIL only for a string that is not in the cache. A `RegexCache` belongs to one thread.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.otlp.protobuf cimport (
    FIXED64, LEN, M_ARRAY, M_KVLIST, M_NONE, MAX_DEPTH, VARINT, FieldCursor, Message, child, cursor, damaged,
    hash_bytes, next_field,
)

from sampler_proxy.rules.effort cimport STEPS_PER_UNIT, is_spent

from sampler_proxy.traceql import program as _names

for _name, _number in (
    ("SPAN_ATTRIBUTE", SPAN_ATTRIBUTE), ("RESOURCE_ATTRIBUTE", RESOURCE_ATTRIBUTE),
    ("SCOPE_ATTRIBUTE", SCOPE_ATTRIBUTE), ("ANY_ATTRIBUTE", ANY_ATTRIBUTE),
    ("NAME", NAME), ("STATUS", STATUS), ("STATUS_MESSAGE", STATUS_MESSAGE), ("KIND", KIND),
    ("DURATION", DURATION), ("SPAN_ID", SPAN_ID), ("PARENT_ID", PARENT_ID), ("SCOPE_NAME", SCOPE_NAME),
    ("SCOPE_VERSION", SCOPE_VERSION), ("TRACE_DURATION", TRACE_DURATION), ("ROOT_NAME", ROOT_NAME),
    ("ROOT_SERVICE", ROOT_SERVICE), ("TRACE_ID", TRACE_ID), ("EVENT_NAME", EVENT_NAME), ("EVENT_TIME", EVENT_TIME),
    ("EVENT_ATTRIBUTE", EVENT_ATTRIBUTE), ("LINK_TRACE_ID", LINK_TRACE_ID), ("LINK_SPAN_ID", LINK_SPAN_ID),
    ("LINK_ATTRIBUTE", LINK_ATTRIBUTE), ("NESTED_SET_PARENT", NESTED_SET_PARENT), ("ROOT_DURATION", ROOT_DURATION),
):
    assert _names.Field[_name] == _number
assert [op.name for op in _names.Op] == ["EQ", "NE", "LT", "LE", "GT", "GE", "MATCH", "NOT_MATCH", "IS_NIL", "NOT_NIL"]
assert [kind.name for kind in _names.Kind] == ["NONE", "STRING", "INT", "FLOAT", "BOOL", "REGEX"]

cdef enum:
    CACHE_SLOTS = 1 << 15
    CACHE_VALUES = 3 * CACHE_SLOTS // 4
    CACHE_BYTES = 8 << 20


cdef bint validate(int message, cbytes p, cbytes end, int depth) noexcept nogil:
    """Return whether [p, end) is a well-formed message of this type with at most `depth` levels of nesting inside it.
    """
    cdef FieldCursor field = cursor(p, end, depth)
    cdef Message nested
    while next_field(&field):
        if field.wire == LEN:
            nested = child(<Message>message, field.number)
            if nested != M_NONE and (depth <= 0 or not validate(nested, field.content, field.p, depth - 1)):
                return False
    return not damaged(&field)


cdef cbytes read_any_value(cbytes p, cbytes end, int depth, Value* value) noexcept nogil:
    """Validate an AnyValue, unless `depth` is near SOUND, and read the last member of its oneof; the parts of an array
    are merged. NULL: it is damaged."""
    cdef FieldCursor field = cursor(p, end, depth)
    cdef Message nested
    value.type = V_NIL
    value.text = p
    value.size = 0
    value.integer = 0
    value.real = 0
    while next_field(&field):
        if field.wire == LEN:
            if field.number == 1:
                value.type = V_STRING
                value.text = field.content
                value.size = field.size
            elif field.number == 5 or field.number == 6:
                nested = M_ARRAY if field.number == 5 else M_KVLIST
                if depth <= MAX_DEPTH and (depth <= 0 or not validate(nested, field.content, field.p, depth - 1)):
                    return NULL
                if field.number == 6:
                    value.type = V_OTHER
                elif value.type != V_ARRAY:
                    value.type = V_ARRAY
                    value.text = field.start
            elif field.number == 7:
                value.type = V_OTHER
        elif field.wire == VARINT and (field.number == 2 or field.number == 3 or field.number == 8):
            value.type = V_BOOL if field.number == 2 else (V_INT if field.number == 3 else V_OTHER)
            value.integer = field.integer != 0 if field.number == 2 else <int64_t>field.integer
        elif field.wire == FIXED64 and field.number == 4:
            value.type = V_DOUBLE
            memcpy(&value.real, &field.integer, 8)
    if value.type == V_ARRAY:
        value.size = <uint32_t>(end - value.text)
    return field.p


cdef bint ordered(int op, int order) noexcept nogil:
    """Return whether an operator holds of an order: negative, 0, positive as the value is below, equal to, above the
    constant; 2 where they have no order (NaN)."""
    if op == OP_EQ:
        return order == 0
    if op == OP_NE:
        return order != 0
    if order == 2:
        return False
    if op == OP_LT:
        return order < 0
    if op == OP_LE:
        return order <= 0
    if op == OP_GT:
        return order > 0
    return op == OP_GE and order >= 0


cdef int _compare(Condition* condition, Value* value, RegexCache regexes) noexcept nogil:
    """Return whether a condition holds of one scalar; -1: they cannot be compared."""
    cdef int order
    cdef double real, constant
    if condition.kind == KIND_STRING:
        if value.type != V_STRING:
            return -1
        if condition.op == OP_EQ or condition.op == OP_NE:
            order = value.size != condition.size or memcmp(value.text, condition.text, value.size) != 0
            return (order == 0) == (condition.op == OP_EQ)
        return ordered(condition.op, compare_text(value.text, value.size, condition.text, condition.size))
    if condition.kind == KIND_REGEX:
        if value.type != V_STRING:
            return -1
        return regexes.matches(condition.regex, value.text, value.size) == (condition.op == OP_MATCH)
    if condition.kind == KIND_BOOL:
        if value.type != V_BOOL or (condition.op != OP_EQ and condition.op != OP_NE):
            return -1
        return (value.integer == condition.integer) == (condition.op == OP_EQ)
    if condition.kind == KIND_INT and value.type == V_INT:
        order = (value.integer > condition.integer) - (value.integer < condition.integer)
        return ordered(condition.op, order)
    if condition.kind == KIND_INT and value.type == V_BEYOND:
        return ordered(condition.op, 1)
    if value.type == V_INT:
        real = <double>value.integer
    elif value.type == V_DOUBLE or value.type == V_BEYOND:
        real = value.real
    else:
        return -1
    constant = <double>condition.integer if condition.kind == KIND_INT else condition.real
    if real != real or constant != constant:
        return ordered(condition.op, 2)
    return ordered(condition.op, (real > constant) - (real < constant))


cdef int compare_text(cbytes p, uint32_t size, cbytes q, uint32_t other) noexcept nogil:
    """Compare two strings by their bytes: -1, 0 or 1."""
    cdef int order = memcmp(p, q, min(size, other))
    if order == 0:
        return (size > other) - (size < other)
    return 1 if order > 0 else -1


cdef ArrayWalk elements_of(Value* array) noexcept nogil:
    """Return a walk in front of the first element of a V_ARRAY."""
    cdef ArrayWalk walk
    walk.parts = cursor(array.text, array.text + array.size, MAX_DEPTH)
    walk.elements = cursor(array.text, array.text, MAX_DEPTH)
    return walk


cdef bint next_element(ArrayWalk* walk, Value* element) noexcept nogil:
    """Read the next element; False behind the last."""
    while True:
        while next_field(&walk.elements):
            if walk.elements.wire == LEN and walk.elements.number == 1:
                read_any_value(walk.elements.content, walk.elements.p, SOUND, element)
                return True
        if not next_field(&walk.parts):
            return False
        if walk.parts.wire == LEN and walk.parts.number == 5:
            walk.elements = cursor(walk.parts.content, walk.parts.p, MAX_DEPTH)


cdef bint _array_holds(Condition* condition, Value* array, RegexCache regexes) noexcept nogil:
    """Return whether a condition holds of an array: of any element; for `!=` and `!~` of all that can be compared, and
    one. Where the effort is spent, of none."""
    cdef bint negative = condition.op == OP_NE or condition.op == OP_NOT_MATCH
    cdef bint comparable = False
    cdef bint found = False
    cdef ArrayWalk walk = elements_of(array)
    cdef Value element
    cdef uint32_t elements = 0
    cdef int answer
    if is_spent(&regexes.effort):
        return False
    while not found and next_element(&walk, &element):
        elements += 1
        answer = _compare(condition, &element, regexes)
        if answer >= 0:
            comparable = True
            found = answer != negative
    regexes.effort.steps += elements >> 2
    return found != negative if comparable else False


cdef bint holds(Condition* condition, Value* value, RegexCache regexes) noexcept nogil:
    """Return whether a condition holds of a value from read_any_value; V_NIL stands for a missing one."""
    if condition.op == OP_IS_NIL:
        return value.type == V_NIL
    if condition.op == OP_NOT_NIL:
        return value.type != V_NIL
    if value.type == V_ARRAY:
        return _array_holds(condition, value, regexes)
    return _compare(condition, value, regexes) == 1


cdef uint8_t met_by(Condition* condition, Value* value) noexcept nogil:
    """Return what ConditionList.met says after a value, other than V_NIL, of which the condition does not hold."""
    cdef bint comparable
    if condition.kind == KIND_STRING or condition.kind == KIND_REGEX:
        comparable = value.type == V_STRING
    elif condition.kind == KIND_BOOL:
        comparable = value.type == V_BOOL
    elif condition.kind == KIND_NONE:
        comparable = True
    else:
        comparable = value.type == V_INT or value.type == V_DOUBLE or value.type == V_BEYOND
    if comparable or value.type == V_ARRAY:  # arrays hold what they hold
        return MET_COMPARABLE
    return <uint8_t>(MET_OTHERS + value.type)


cdef class ConditionList:
    """Conditions in native form, shared by all matchers. Raises ValueError for a constant that does not fit its kind.
    """

    def __cinit__(self, source):
        cdef Condition* item
        cdef bytes text
        self.source = tuple(source)
        self.regexes = []
        self.items = <Condition*>calloc(max(len(self.source), 1), sizeof(Condition))
        self.met = <uint8_t*>calloc(max(len(self.source), 1), 1)
        if self.items == NULL or self.met == NULL:
            raise MemoryError
        for condition in self.source:
            item = &self.items[self.count]
            item.field = int(condition.field)
            item.op = int(condition.op)
            item.kind = int(condition.kind)
            item.regex = -1
            if item.kind == KIND_STRING:
                text = condition.value
                item.size = <uint32_t>len(text)
                item.text = <cbytes>malloc(max(item.size, 1))
                if item.text == NULL:
                    raise MemoryError
                memcpy(<void*>item.text, <const char*>text, item.size)
            elif item.kind == KIND_REGEX:
                if condition.value not in self.regexes:
                    self.regexes.append(condition.value)
                item.regex = self.regexes.index(condition.value)
            elif item.kind == KIND_INT or item.kind == KIND_BOOL:
                item.integer = int(condition.value)
            elif item.kind == KIND_FLOAT:
                item.real = float(condition.value)
            self.count += 1

    def __dealloc__(self):
        cdef uint32_t i
        if self.items != NULL:
            for i in range(self.count):
                free(<void*>self.items[i].text)
        free(self.items)
        free(self.met)


cdef class RegexCache:
    """A cache of regular expressions' answers, by string: a hash table with linear probing. Full, at 24 576 strings or
    8 MiB of them, the cache is emptied, which takes a millisecond. It also keeps the account of the effort of whoever
    asks it."""

    def __cinit__(self, ConditionList conditions, uint64_t seed):
        self.seed = seed
        self.effort.most = <uint64_t>-1  # no bound, unless somebody sets one
        self.matchers = list(conditions.regexes)
        self.entries = <RegexEntry*>calloc(CACHE_SLOTS, sizeof(RegexEntry)) if self.matchers else NULL
        if self.matchers and self.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.entries != NULL:
            self.clear()
        free(self.entries)

    cdef void clear(self) noexcept nogil:
        """Empty the cache."""
        cdef uint32_t i
        for i in range(CACHE_SLOTS):
            free(self.entries[i].text)
        memset(self.entries, 0, CACHE_SLOTS * sizeof(RegexEntry))
        self.used = 0
        self.cached_bytes = 0

    cdef bint ask_regex(self, int32_t regex, cbytes text, uint32_t size) noexcept with gil:
        """Ask the regular expression itself."""
        self.misses += 1
        return self.matchers[regex](text[:size])

    cdef RegexEntry* entry_of(self, int32_t first, cbytes text, uint32_t size) noexcept nogil:
        """Return the entry of a string for 64 regular expressions, a new one if it is not there; NULL where the string
        is too long, or there is no memory."""
        cdef uint64_t key = hash_bytes(text, size, <uint64_t>first, self.seed) | 1
        cdef RegexEntry* entry
        cdef uint64_t at = (key >> 1) & (CACHE_SLOTS - 1)
        if size > CACHE_BYTES // 8:
            return NULL
        while True:
            entry = &self.entries[at]
            if entry.hash == 0:
                break
            if entry.hash == key and entry.size == size and entry.first == first and (
                memcmp(entry.text, text, size) == 0
            ):
                return entry
            at = (at + 1) & (CACHE_SLOTS - 1)
        if self.used >= CACHE_VALUES or self.cached_bytes + size > CACHE_BYTES:
            self.clear()
            entry = &self.entries[(key >> 1) & (CACHE_SLOTS - 1)]
        entry.text = <uint8_t*>malloc(size + 1)
        if entry.text == NULL:
            return NULL
        memcpy(entry.text, text, size)
        entry.hash = key
        entry.size = size
        entry.first = first
        entry.asked = entry.matching = 0
        self.used += 1
        self.cached_bytes += size
        return entry

    cdef bint matches(self, int32_t regex, cbytes text, uint32_t size) noexcept nogil:
        """Return whether a regular expression matches a string, from the cache if it is there; False where the effort
        is spent, for a string that is not."""
        cdef RegexEntry* entry = self.entry_of(regex >> 6, text, size)
        cdef uint64_t bit = (<uint64_t>1) << (regex & 63)
        cdef bint answer
        if entry != NULL and entry.asked & bit:
            return entry.matching & bit != 0
        if is_spent(&self.effort):
            return False
        self.effort.steps += STEPS_PER_UNIT + (size >> 2)
        answer = self.ask_regex(regex, text, size)
        if entry != NULL:
            entry.asked |= bit
            if answer:
                entry.matching |= bit
        return answer
