"""Declares the measure of what redacting a trace takes: close looks in microseconds, about, and all else in steps."""
cimport cython
from libc.stdint cimport uint64_t

from sampler_proxy.rules.effort cimport STEPS_PER_UNIT

cdef enum:
    # Units that a trace may take: in close looks at what is new, and in all. Beyond either what is new is masked.
    TRACE_BUDGET = 1 << 17
    TOTAL_BUDGET = 1 << 19
    PAUSE = 1 << 16  # steps, about a millisecond, after which the GIL is given way
    LARGE_COPY = 1 << 20  # bytes that are copied without the GIL


@cython.final
cdef class Effort:
    cdef uint64_t looks, steps  # since begin()
    cdef uint64_t pause_at  # of steps
    cdef bint exhausted  # something was masked for want of budget, since this was last cleared
    cdef void begin(self) noexcept
    cdef uint64_t spent(self) noexcept
    cdef void give_way(self) noexcept


cdef inline void walked(Effort effort, uint64_t steps) noexcept:
    """Add steps, and give the GIL way from time to time. What a caller points to must survive other threads that intern
    and release envelopes: the spans of the trace, its headers, the redactor's own memory."""
    effort.steps += steps
    if effort.steps >= effort.pause_at:
        effort.give_way()


cdef inline bint may_look(Effort effort) noexcept:
    """Tell whether something new may be looked at; notes where not."""
    if effort.looks < TRACE_BUDGET and effort.steps < <uint64_t>TOTAL_BUDGET * STEPS_PER_UNIT:
        return True
    effort.exhausted = True
    return False
