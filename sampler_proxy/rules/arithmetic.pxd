"""Comparisons whose sides have to be evaluated. `conditions.py` is the manual of what they mean."""
from libc.stdint cimport int32_t, uint32_t

from sampler_proxy.rules.conditions cimport Value

cdef enum:
    # What an answer depends on beside the span itself.
    ON_EVENT = 1
    ON_LINK = 2
    ON_TRACE = 4

cdef struct Token:
    int32_t kind  # T_SLOT, T_CONSTANT or T_ARITH
    int32_t index  # of the slot, or the number of the operator
    bint real  # of a slot: a duration, which counts as a double in arithmetic
    Value constant

cdef struct Side:
    uint32_t start, end  # in Terms.tokens

cdef struct Pair:
    # A comparison.
    int32_t op
    int32_t depends
    Side left, right

cdef class Terms:
    cdef Token* tokens
    cdef uint32_t token_count
    cdef Pair* pairs
    cdef uint32_t pair_count
    cdef Side* arguments  # of aggregates
    cdef int32_t* argument_depends
    cdef uint32_t argument_count
    cdef readonly tuple slots  # conditions.Slot, distinct
    cdef Side add(self, term, dict numbers) except *
    cdef int32_t depends(self, Side side) noexcept
    cdef void evaluate(self, Side side, Value* slots, Value* result) noexcept nogil
    cdef bint holds(self, uint32_t pair, Value* slots) noexcept nogil

cdef int compare_numbers(Value* left, Value* right) noexcept nogil
cdef bint is_number(Value* value) noexcept nogil
cdef double as_real(Value* value) noexcept nogil
cdef void add_numbers(Value* left, Value* right, Value* result) noexcept nogil
