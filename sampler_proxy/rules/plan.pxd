from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from sampler_proxy.rules.conditions cimport ConditionList, Programs
from sampler_proxy.rules.arithmetic cimport Terms

cdef enum:  # Place: where something is read
    OF_SPAN = 0
    OF_RESOURCE = 1
    OF_SCOPE = 2
    OF_EVENT = 3
    OF_LINK = 4
    OF_TRACE = 5
    PLACES = 6

cdef enum:
    # Beside ON_EVENT, ON_LINK and ON_TRACE: the filter is asked of rows only.
    DEFERRED = 8

cdef struct Run:
    uint32_t start, end  # in Plan.order

cdef struct Key:
    # One attribute key that is named somewhere, and what to note where it is met.
    const uint8_t* text
    uint32_t size
    uint32_t hash
    Run[5] noted  # by Place

cdef struct Noted:
    # Something to do with a value that has been read: answer a condition, or fill a slot.
    uint32_t number  # of the condition; of the slot, plus the number of conditions
    int32_t field

cdef class Plan:
    cdef readonly uint32_t serial
    cdef readonly ConditionList conditions
    cdef readonly Terms terms
    cdef readonly Programs filters
    cdef int32_t* filter_depends
    cdef uint64_t* unbound  # bit by filter: it needs no event and no link
    cdef uint64_t* deferred  # it is DEFERRED
    cdef readonly uint32_t condition_count, trace_condition_count
    cdef uint32_t slot_count
    cdef uint32_t words  # of condition bits: conditions, comparisons, trace conditions
    cdef uint32_t filter_words
    cdef int32_t depends  # of all filters and arguments together
    cdef Key* keys
    cdef uint32_t key_count
    cdef uint32_t* table  # key index + 1, by hash; 0: free
    cdef uint32_t table_mask
    cdef uint64_t key_sizes  # bit min(size, 63) is set where some key has that size
    cdef bytes key_bytes
    cdef Noted* order
    cdef Run[6] intrinsics  # by Place
    cdef uint64_t* missing  # what holds of a span without anything: the IS_NIL conditions
    cdef int fill(self, dict keys, list intrinsics) except -1
    cdef Run run(self, list order, list noted)
    cdef int note_dependencies(self, deferred) except -1
    cdef Key* find(self, const uint8_t* text, uint32_t size) noexcept nogil
