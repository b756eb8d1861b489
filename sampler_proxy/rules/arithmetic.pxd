"""Declares comparisons whose sides have to be evaluated. `traceql/program.py` is the manual of what they mean."""
from libc.stdint cimport int32_t, uint32_t

from sampler_proxy.rules.conditions cimport Value
from sampler_proxy.rules.effort cimport Effort

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

cdef struct Term:
    # A postfix program.
    uint32_t start, end  # in Arithmetic.tokens

cdef struct Comparison:
    int32_t op
    int32_t depends  # ON_EVENT, ON_LINK, ON_TRACE
    Term left, right

cdef class Arithmetic:
    cdef Token* tokens
    cdef uint32_t token_count
    cdef Comparison* comparisons
    cdef uint32_t comparison_count
    cdef Term* arguments  # of aggregates
    cdef int32_t* argument_depends
    cdef uint32_t argument_count
    cdef readonly tuple slots  # program.Slot, all different
    cdef Term add_term(self, term, dict numbers) except *
    cdef int32_t term_depends(self, Term term) noexcept
    cdef void evaluate(self, Term term, Value* slots, Value* result) noexcept nogil
    cdef bint holds(self, uint32_t comparison, Value* slots, Effort* effort) noexcept nogil

cdef int compare_numbers(Value* left, Value* right) noexcept nogil
cdef bint is_number(Value* value) noexcept nogil
cdef double as_real(Value* value) noexcept nogil
cdef void add_numbers(Value* left, Value* right, Value* result) noexcept nogil
