"""Declares the plan of a scan: conditions, filters and slots, by the attribute key that answers them."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.rules.arithmetic cimport Arithmetic
from sampler_proxy.rules.conditions cimport ConditionList
from sampler_proxy.rules.programs cimport Programs

cdef enum:  # Place: where something is read
    OF_SPAN = 0
    OF_RESOURCE = 1
    OF_SCOPE = 2
    OF_EVENT = 3
    OF_LINK = 4
    OF_TRACE = 5
    PLACES = 6

cdef enum:
    # Beside ON_EVENT, ON_LINK and ON_TRACE in filter_depends: the filter is answered only when a trace is read again.
    DEFERRED = 8

cdef struct Consumer:
    # A condition that a value answers, or a slot of the arithmetic that the value fills.
    uint32_t number  # of the condition; of the slot, plus the number of conditions
    int32_t field

cdef struct Consumers:
    uint32_t start, end  # in Plan.consumers

cdef struct AttributeKey:
    # An attribute key that some condition or slot names.
    const uint8_t* text  # in Plan.key_bytes
    uint32_t size
    uint32_t hash
    Consumers[5] consumers  # of the attribute's value, by Place

cdef class Plan:
    cdef readonly uint32_t serial
    cdef readonly ConditionList conditions
    cdef readonly Arithmetic arithmetic
    cdef readonly Programs filters
    cdef int32_t* filter_depends  # ON_EVENT, ON_LINK, ON_TRACE, DEFERRED, by filter
    cdef uint64_t* unbound  # bit by filter: its answer needs no event and no link
    cdef uint64_t* deferred  # bit by filter: DEFERRED
    cdef readonly uint32_t condition_count, trace_condition_count
    cdef uint32_t slot_count
    cdef uint32_t words  # of a span's bits: one for each condition, comparison and trace condition
    cdef uint32_t filter_words
    cdef int32_t depends  # of all filters and arguments together
    cdef bint reads_roots  # some slot is NESTED_SET_PARENT
    cdef AttributeKey* keys
    cdef uint32_t key_count
    cdef uint32_t* table  # linear probing: key index + 1, by hash; 0: free
    cdef uint32_t table_mask
    cdef uint64_t key_sizes  # bit min(size, 63) is set where some key has that size
    cdef bytes key_bytes
    cdef Consumer* consumers
    cdef Consumers[6] intrinsics  # consumers of what is no attribute, by Place
    cdef uint64_t* missing  # bits of a span that holds nothing: the IS_NIL conditions
    cdef uint32_t header_steps, span_steps, binding_steps
    cdef void count_steps(self) noexcept
    cdef int fill_table(self, dict keys, list intrinsics) except -1
    cdef Consumers add_consumers(self, list all_consumers, list added)
    cdef int find_dependencies(self, deferred) except -1
    cdef int32_t operand_depends(self, int32_t operand) noexcept
    cdef AttributeKey* find_key(self, const uint8_t* text, uint32_t size) noexcept nogil
