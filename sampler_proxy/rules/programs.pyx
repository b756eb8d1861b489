"""Checks programs and holds their code; programs.pxd runs them."""
from libc.stdlib cimport calloc, free

from sampler_proxy.traceql import program as _names

assert (_names.AND, _names.OR, _names.NOT, _names.TRUE, _names.FALSE) == (P_AND, P_OR, P_NOT, P_TRUE, P_FALSE)


cdef class Programs:
    """Postfix programs, numbered in their order.

    Raises ValueError for an operand that is not below `operands`, and for a program that does not leave exactly one
    answer or holds more than PROGRAM_STACK at a time.
    """

    def __cinit__(self, source, int operands):
        cdef uint32_t at = 0
        cdef int depth
        source = list(map(tuple, source))
        self.code = <int32_t*>calloc(max(sum(map(len, source)), 1), sizeof(int32_t))
        self.starts = <uint32_t*>calloc(len(source) + 1, sizeof(uint32_t))
        if self.code == NULL or self.starts == NULL:
            raise MemoryError
        for program in source:
            depth = 0
            for token in program:
                if token >= operands or token < P_FALSE:
                    raise ValueError(f"operand {token} of {operands}")
                depth += -1 if token in (P_AND, P_OR) else 0 if token == P_NOT else 1
                if depth < 1 or depth > PROGRAM_STACK:
                    raise ValueError("a program that is nested too deeply, or not a program")
                self.code[at] = token
                at += 1
            if depth != 1:
                raise ValueError("a program that does not leave one answer")
            self.count += 1
            self.starts[self.count] = at

    def __dealloc__(self):
        free(self.code)
        free(self.starts)
