"""Runs Boolean programs: postfix lists of integers as `traceql/program.py` describes them, checked once and run many
times.

Operands are numbers that only the caller can answer: a bit of a span for filters, a question about a trace for rules.
So a run is a loop of the caller's, which answers one operand after the other:

    cdef ProgramRun run
    begin_program(&run, programs, number)
    while next_operand(&run):
        push_answer(&run, ...)  # of run.operand
    return program_answer(&run)
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

# The numbers of traceql/program.py; compared when this module is imported.
cdef enum:
    P_AND = -1
    P_OR = -2
    P_NOT = -3
    P_TRUE = -4
    P_FALSE = -5
    PROGRAM_STACK = 512  # answers, at most, that a program holds at a time

cdef class Programs:
    cdef int32_t* code
    cdef uint32_t* starts  # in `code`; count + 1 of them
    cdef readonly uint32_t count

cdef struct ProgramRun:
    const int32_t* code  # what is still to be run
    const int32_t* end
    int32_t operand  # what next_operand has stopped at
    int top  # of the stack; -1: empty
    uint8_t[PROGRAM_STACK] stack


cdef inline bint bit_of(const uint64_t* bits, uint32_t number) noexcept nogil:
    """Return one bit of a set."""
    return bits[number >> 6] >> (number & 63) & 1


cdef inline void set_bit(uint64_t* bits, uint32_t number, bint on) noexcept nogil:
    """Set or clear one bit of a set."""
    cdef uint64_t bit = (<uint64_t>1) << (number & 63)
    if on:
        bits[number >> 6] |= bit
    else:
        bits[number >> 6] &= ~bit


cdef inline void begin_program(ProgramRun* run, Programs programs, uint32_t number) noexcept nogil:
    """Set a run to the beginning of a program."""
    run.code = programs.code + programs.starts[number]
    run.end = programs.code + programs.starts[number + 1]
    run.top = -1


cdef inline void push_answer(ProgramRun* run, bint answer) noexcept nogil:
    """Answer the operand that next_operand has stopped at."""
    run.top += 1
    run.stack[run.top] = answer


cdef inline bint next_operand(ProgramRun* run) noexcept nogil:
    """Run to the next operand; False at the end of the program."""
    cdef int32_t token
    while run.code < run.end:
        token = run.code[0]
        run.code += 1
        if token >= 0:
            run.operand = token
            return True
        if token == P_AND:
            run.top -= 1
            run.stack[run.top] &= run.stack[run.top + 1]
        elif token == P_OR:
            run.top -= 1
            run.stack[run.top] |= run.stack[run.top + 1]
        elif token == P_NOT:
            run.stack[run.top] ^= 1
        else:
            push_answer(run, token == P_TRUE)
    return False


cdef inline bint program_answer(ProgramRun* run) noexcept nogil:
    """Return the one answer that a program leaves."""
    return run.stack[0]


cdef inline bint run_program(Programs programs, uint32_t number, const uint64_t* bits) noexcept nogil:
    """Return the answer of a program whose operands are bits of a set."""
    cdef ProgramRun run
    begin_program(&run, programs, number)
    while next_operand(&run):
        push_answer(&run, bit_of(bits, run.operand))
    return program_answer(&run)
