"""Declares the account of the work that reading and matching take, and the unit of all effort. Header only.

Everything that depends on what senders send is counted, roughly: fields, answers of regular expressions that are in no
cache, events tried with links, elements of arrays by condition, keys that come again, filters for which no answer is
cached. Whoever begins something sets the bound; whoever works looks at it where the next piece could be a large one,
and leaves out what is beyond: the answers are then those to what was looked at.
"""
from libc.stdint cimport uint64_t

cdef enum:
    STEPS_PER_UNIT = 64  # a unit is about a microsecond of one core of 2.5 GHz; a step, reading two fields

cdef struct Effort:
    uint64_t steps  # done so far; never goes back
    uint64_t most  # steps at which to stop


cdef inline bint is_spent(Effort* effort) noexcept nogil:
    """Tell whether to stop."""
    return effort.steps >= effort.most


cdef inline void grant(Effort* effort, uint64_t units) noexcept nogil:
    """Begin something that may cost so many units."""
    effort.most = effort.steps + units * STEPS_PER_UNIT
