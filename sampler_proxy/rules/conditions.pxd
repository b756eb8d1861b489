"""Declares conditions in native form. `traceql/program.py` is the manual of what they mean."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport MAX_DEPTH, FieldCursor, cbytes
from sampler_proxy.rules.effort cimport Effort

cdef enum ValueType:
    V_NIL
    V_STRING  # text, size
    V_BOOL  # integer
    V_INT  # integer
    V_DOUBLE  # real
    V_BEYOND  # a duration of 2^63 ns and more; real is near it
    V_ARRAY  # text, size: the AnyValue's fields from the first that belongs to the array on
    V_OTHER  # bytes, key-value list: there, but equal to no constant

cdef struct Value:
    ValueType type
    cbytes text
    uint32_t size
    int64_t integer
    double real

cdef enum:
    # What a condition has met so far, in ConditionList.met. From MET_OTHERS on: values, but none that it compares with;
    # less MET_OTHERS, the ValueType of the last one.
    MET_NOTHING = 0
    MET_COMPARABLE = 1
    MET_OTHERS = 2

cdef struct ArrayWalk:
    # A place among the elements of a V_ARRAY.
    FieldCursor parts  # the fields of the AnyValue: each array in it is a part of the whole
    FieldCursor elements  # the fields of the ArrayValue

cdef struct Condition:
    int32_t field, op, kind
    int32_t regex  # index of its callable in RegexCache.matchers; -1: none
    int64_t integer
    double real
    cbytes text  # owned by the ConditionList
    uint32_t size

# The numbers of traceql/program.py; compared when the module is imported.
cdef enum:
    SPAN_ATTRIBUTE = 0
    RESOURCE_ATTRIBUTE = 1
    SCOPE_ATTRIBUTE = 2
    ANY_ATTRIBUTE = 3
    NAME = 4
    STATUS = 5
    STATUS_MESSAGE = 6
    KIND = 7
    DURATION = 8
    SPAN_ID = 9
    PARENT_ID = 10
    SCOPE_NAME = 11
    SCOPE_VERSION = 12
    NESTED_SET_PARENT = 13
    EVENT_NAME = 16
    EVENT_TIME = 17
    EVENT_ATTRIBUTE = 18
    LINK_TRACE_ID = 20
    LINK_SPAN_ID = 21
    LINK_ATTRIBUTE = 22
    TRACE_DURATION = 32
    ROOT_NAME = 33
    ROOT_SERVICE = 34
    TRACE_ID = 35
    ROOT_DURATION = 36
    OP_EQ = 0
    OP_NE = 1
    OP_LT = 2
    OP_LE = 3
    OP_GT = 4
    OP_GE = 5
    OP_MATCH = 6
    OP_NOT_MATCH = 7
    OP_IS_NIL = 8
    OP_NOT_NIL = 9
    KIND_NONE = 0
    KIND_STRING = 1
    KIND_INT = 2
    KIND_FLOAT = 3
    KIND_BOOL = 4
    KIND_REGEX = 5

cdef enum:
    SOUND = 2 * MAX_DEPTH  # levels of nesting allowed in bytes that were validated before, and are not again

cdef struct RegexEntry:
    # A string, and whether regular expressions match it: 64 of them.
    uint64_t hash  # 0: free
    uint8_t* text
    uint32_t size
    int32_t first  # regex, by 64
    uint64_t asked, matching  # a bit by regex

cdef class RegexCache:
    cdef list matchers  # callables bytes -> bool, by Condition.regex
    cdef RegexEntry* entries  # linear probing by hash
    cdef uint32_t used  # entries
    cdef uint64_t cached_bytes  # of their strings
    cdef uint64_t seed  # of the hash
    cdef readonly uint64_t misses
    cdef Effort effort  # of all that is answered with this cache
    cdef bint matches(self, int32_t regex, cbytes text, uint32_t size) noexcept nogil
    cdef RegexEntry* entry_of(self, int32_t first, cbytes text, uint32_t size) noexcept nogil
    cdef bint ask_regex(self, int32_t regex, cbytes text, uint32_t size) noexcept with gil
    cdef void clear(self) noexcept nogil

cdef class ConditionList:
    cdef Condition* items
    cdef readonly uint32_t count
    cdef readonly tuple source
    cdef uint8_t* met  # by condition. All else never changes; this is written without a lock, a byte at a time
    cdef list regexes  # callables, each once

cdef cbytes read_any_value(cbytes p, cbytes end, int depth, Value* value) noexcept nogil
cdef bint validate(int message, cbytes p, cbytes end, int depth) noexcept nogil
cdef bint holds(Condition* condition, Value* value, RegexCache regexes) noexcept nogil
cdef uint8_t met_by(Condition* condition, Value* value) noexcept nogil
cdef bint ordered(int op, int order) noexcept nogil
cdef int compare_text(cbytes p, uint32_t size, cbytes q, uint32_t other) noexcept nogil
cdef ArrayWalk elements_of(Value* array) noexcept nogil
cdef bint next_element(ArrayWalk* walk, Value* element) noexcept nogil
