"""Evaluates arithmetic, and comparisons of two values of one span.

Terms are postfix over slots (values read from the span, its event, link, resource, scope or trace), constants and
operators. Integers stay integers for + - * / % ^ as long as the result fits 64 bits; durations count as doubles in
arithmetic; a value that is missing or no number makes the whole term missing, and a comparison with a missing term is
false. (As Tempo executes them, where that is defined.)
"""
from libc.math cimport fmod, pow
from libc.stdint cimport INT64_MIN, int64_t
from libc.stdlib cimport calloc, free

from sampler_proxy.rules.conditions cimport (
    DURATION, EVENT_ATTRIBUTE, EVENT_NAME, EVENT_TIME, KIND_FLOAT, LINK_ATTRIBUTE, LINK_SPAN_ID, LINK_TRACE_ID,
    NESTED_SET_PARENT, OP_EQ, OP_NE, ROOT_DURATION, TRACE_DURATION, V_ARRAY, V_BEYOND, V_BOOL, V_DOUBLE, V_INT, V_NIL,
    V_STRING, ArrayWalk, compare_text, elements_of, next_element, ordered,
)
from sampler_proxy.rules.effort cimport is_spent

from sampler_proxy.traceql.program import Arith, Constant, Slot

cdef extern from *:
    bint __builtin_add_overflow(int64_t, int64_t, int64_t*) nogil
    bint __builtin_sub_overflow(int64_t, int64_t, int64_t*) nogil
    bint __builtin_mul_overflow(int64_t, int64_t, int64_t*) nogil

cdef enum:
    T_SLOT
    T_CONSTANT
    T_ARITH
    STACK = 256

cdef enum:
    ADD = 0
    SUB
    MUL
    DIV
    MOD
    POW
    NEG

assert [op.name for op in Arith] == ["ADD", "SUB", "MUL", "DIV", "MOD", "POW", "NEG"]


cdef bint is_number(Value* value) noexcept nogil:
    """Return whether a value is an integer, a double or a duration."""
    return value.type == V_INT or value.type == V_DOUBLE or value.type == V_BEYOND


cdef double as_real(Value* value) noexcept nogil:
    """Return a number as a double."""
    return <double>value.integer if value.type == V_INT else value.real


cdef int compare_numbers(Value* left, Value* right) noexcept nogil:
    """Compare two numbers: -1, 0 or 1; 2 where one is NaN. Integers, long durations included, compare exactly."""
    cdef double a, b
    if left.type == V_INT and right.type == V_INT:
        return (left.integer > right.integer) - (left.integer < right.integer)
    if left.type == V_BEYOND and right.type == V_INT:
        return 1
    if left.type == V_INT and right.type == V_BEYOND:
        return -1
    if left.type == V_BEYOND and right.type == V_BEYOND:  # both lie between 2^63 and 2^64
        return (left.integer > right.integer) - (left.integer < right.integer)
    a = as_real(left)
    b = as_real(right)
    if a != a or b != b:
        return 2
    return (a > b) - (a < b)


cdef void add_numbers(Value* left, Value* right, Value* result) noexcept nogil:
    """Add two numbers; `result` may be one of them."""
    _operate(ADD, left, right, result)


cdef void _whole_power(Value* base, int64_t exponent, Value* result) noexcept nogil:
    """Raise an integer to an integer by repeated squaring; a double where 64 bits do not suffice, V_NIL for 0 ^ -n."""
    cdef int64_t factor = base.integer
    cdef int64_t power = 1
    cdef int64_t left = exponent
    result.type = V_INT
    if exponent < 0:
        result.integer = 0
        if factor == 0:
            result.type = V_NIL
        elif factor == 1 or factor == -1:
            result.integer = factor if exponent & 1 else 1
        return
    while left:
        if left & 1 and __builtin_mul_overflow(power, factor, &power):
            result.type = V_DOUBLE
            result.real = pow(<double>base.integer, <double>exponent)
            return
        left >>= 1
        if left and __builtin_mul_overflow(factor, factor, &factor):
            result.type = V_DOUBLE
            result.real = pow(<double>base.integer, <double>exponent)
            return
    result.integer = power


cdef void _operate(int op, Value* left, Value* right, Value* result) noexcept nogil:
    """Apply an operator to two numbers; V_NIL for a division of integers by zero."""
    cdef int64_t whole = 0
    cdef bint overflow = False
    cdef double a = as_real(left)
    cdef double b = as_real(right)
    if left.type == V_INT and right.type == V_INT:
        if op == ADD:
            overflow = __builtin_add_overflow(left.integer, right.integer, &whole)
        elif op == SUB:
            overflow = __builtin_sub_overflow(left.integer, right.integer, &whole)
        elif op == MUL:
            overflow = __builtin_mul_overflow(left.integer, right.integer, &whole)
        elif op == POW:
            _whole_power(left, right.integer, result)
            return
        elif right.integer == 0:
            result.type = V_NIL
            return
        elif right.integer == -1:  # the one divisor that can overflow
            overflow = op == DIV and left.integer == INT64_MIN
            if not overflow:
                whole = -left.integer if op == DIV else 0
        else:
            whole = left.integer / right.integer if op == DIV else left.integer % right.integer
        if not overflow:
            result.type = V_INT
            result.integer = whole
            return
    result.type = V_DOUBLE
    if op == ADD:
        result.real = a + b
    elif op == SUB:
        result.real = a - b
    elif op == MUL:
        result.real = a * b
    elif op == DIV:
        result.real = a / b
    elif op == MOD:
        result.real = fmod(a, b)
    else:
        result.real = pow(a, b)


cdef int _compare(int op, Value* left, Value* right) noexcept nogil:
    """Return whether a comparison of two scalars holds; -1: they cannot be compared."""
    if is_number(left) and is_number(right):
        return ordered(op, compare_numbers(left, right))
    if left.type == V_STRING and right.type == V_STRING:
        return ordered(op, compare_text(left.text, left.size, right.text, right.size))
    if left.type == V_BOOL and right.type == V_BOOL and (op == OP_EQ or op == OP_NE):
        return (left.integer == right.integer) == (op == OP_EQ)
    return -1


cdef bint _compare_any(int op, Value* left, Value* right, Effort* effort) noexcept nogil:
    """Return whether a comparison holds where one side is an array: for any element; `!=` for all that can be compared,
    and one. Two arrays are never compared, and nothing is where the effort is spent."""
    cdef Value* array = left if left.type == V_ARRAY else right
    cdef Value element
    cdef ArrayWalk walk = elements_of(array)
    cdef bint comparable = False
    cdef bint found = False
    cdef uint32_t elements = 0
    cdef int answer
    if (left.type == V_ARRAY and right.type == V_ARRAY) or is_spent(effort):
        return False
    while not found and next_element(&walk, &element):
        elements += 1
        answer = _compare(op, &element, right) if array == left else _compare(op, left, &element)
        if answer >= 0:
            comparable = True
            found = answer != (op == OP_NE)
    effort.steps += elements >> 2
    return found != (op == OP_NE) if comparable else False


cdef class Arithmetic:
    """The comparisons and the arguments of aggregates of one plan, compiled. Raises ValueError for what is no term."""

    def __cinit__(self, comparisons, arguments):
        cdef dict numbers = {}
        cdef uint32_t i
        cdef Comparison* compiled
        total = sum(len(c.left) + len(c.right) for c in comparisons) + sum(map(len, arguments))
        self.tokens = <Token*>calloc(total + 1, sizeof(Token))
        self.comparisons = <Comparison*>calloc(len(comparisons) + 1, sizeof(Comparison))
        self.arguments = <Term*>calloc(len(arguments) + 1, sizeof(Term))
        self.argument_depends = <int32_t*>calloc(len(arguments) + 1, sizeof(int32_t))
        if self.tokens == NULL or self.comparisons == NULL or self.arguments == NULL or self.argument_depends == NULL:
            raise MemoryError
        for comparison in comparisons:
            compiled = &self.comparisons[self.comparison_count]
            compiled.op = int(comparison.op)
            compiled.left = self.add_term(comparison.left, numbers)
            compiled.right = self.add_term(comparison.right, numbers)
            self.comparison_count += 1
        for argument in arguments:
            self.arguments[self.argument_count] = self.add_term(argument, numbers)
            self.argument_count += 1
        self.slots = tuple(numbers)
        for i in range(self.comparison_count):
            compiled = &self.comparisons[i]
            compiled.depends = self.term_depends(compiled.left) | self.term_depends(compiled.right)
        for i in range(self.argument_count):
            self.argument_depends[i] = self.term_depends(self.arguments[i])

    def __dealloc__(self):
        free(self.tokens)
        free(self.comparisons)
        free(self.arguments)
        free(self.argument_depends)

    cdef Term add_term(self, term, dict numbers) except *:
        """Compile a term; `numbers` gives each slot its number."""
        cdef Term compiled
        cdef Token* token
        cdef int depth = 0
        compiled.start = self.token_count
        for item in term:
            token = &self.tokens[self.token_count]
            if isinstance(item, Slot):
                token.kind = T_SLOT
                token.index = numbers.setdefault(item, len(numbers))
                token.real = int(item.field) in (DURATION, EVENT_TIME, TRACE_DURATION, ROOT_DURATION)
                depth += 1
            elif isinstance(item, Constant):
                token.kind = T_CONSTANT
                if int(item.kind) == KIND_FLOAT:
                    token.constant.type = V_DOUBLE
                    token.constant.real = item.value
                else:
                    token.constant.type = V_INT
                    token.constant.integer = item.value
                depth += 1
            else:
                token.kind = T_ARITH
                token.index = int(item)
                depth -= 0 if item is Arith.NEG else 1
            if depth < 1 or depth > STACK:
                raise ValueError("a term that is nested too deeply, or not a term")
            self.token_count += 1
        if depth != 1:
            raise ValueError("a term that does not leave one value")
        compiled.end = self.token_count
        return compiled

    cdef int32_t term_depends(self, Term term) noexcept:
        """Return what a term needs beside the span: ON_EVENT, ON_LINK, ON_TRACE."""
        cdef int32_t depends = 0
        cdef uint32_t i
        cdef int32_t field
        for i in range(term.start, term.end):
            if self.tokens[i].kind == T_SLOT:
                field = int(self.slots[self.tokens[i].index].field)
                if field == EVENT_NAME or field == EVENT_TIME or field == EVENT_ATTRIBUTE:
                    depends |= ON_EVENT
                elif field == LINK_TRACE_ID or field == LINK_SPAN_ID or field == LINK_ATTRIBUTE:
                    depends |= ON_LINK
                elif field >= TRACE_DURATION or field == NESTED_SET_PARENT:
                    depends |= ON_TRACE
        return depends

    cdef void evaluate(self, Term term, Value* slots, Value* result) noexcept nogil:
        """Evaluate a term; V_NIL where a value is missing or no number."""
        cdef Value[STACK] stack
        cdef Value right
        cdef Token* token
        cdef uint32_t i
        cdef int top = -1
        if term.end - term.start == 1 and self.tokens[term.start].kind == T_SLOT:
            result[0] = slots[self.tokens[term.start].index]
            return
        for i in range(term.start, term.end):
            token = &self.tokens[i]
            if token.kind == T_ARITH:
                if token.index == NEG:
                    if stack[top].type == V_INT and stack[top].integer != INT64_MIN:
                        stack[top].integer = -stack[top].integer
                    else:
                        stack[top].real = -as_real(&stack[top])
                        stack[top].type = V_DOUBLE
                    continue
                right = stack[top]
                top -= 1
                _operate(token.index, &stack[top], &right, &stack[top])
                if stack[top].type == V_NIL:
                    result.type = V_NIL
                    return
                continue
            top += 1
            stack[top] = slots[token.index] if token.kind == T_SLOT else token.constant
            if not is_number(&stack[top]):
                result.type = V_NIL
                return
            if token.kind == T_SLOT and token.real:
                stack[top].real = as_real(&stack[top])
                stack[top].type = V_DOUBLE
        result[0] = stack[0]

    cdef bint holds(self, uint32_t comparison, Value* slots, Effort* effort) noexcept nogil:
        """Return whether a comparison holds of these slots."""
        cdef Comparison* compiled = &self.comparisons[comparison]
        cdef Value left, right
        self.evaluate(compiled.left, slots, &left)
        self.evaluate(compiled.right, slots, &right)
        if left.type == V_ARRAY or right.type == V_ARRAY:
            return _compare_any(compiled.op, &left, &right, effort)
        return _compare(compiled.op, &left, &right) == 1
