"""Declares the finisher of kept traces."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.fragments cimport Envelopes, Fragment, KeptTrace
from sampler_proxy.pipeline.ledger cimport Ledger
from sampler_proxy.pipeline.memory cimport Memory
from sampler_proxy.pipeline.outlets cimport Outlets
from sampler_proxy.pipeline.stamp cimport Stamper
from sampler_proxy.pipeline.turn_lock cimport TurnLock

cdef struct Leaving:
    # A trace that is kept, or that a destination takes all the same, or late spans of one, on the way out.
    Leaving* next
    Fragment* fragments  # owned
    Fragment* others  # owned; those with other metadata than the first, while it is being finished
    uint64_t cost  # bytes of these, and of this
    uint64_t threshold, randomness
    uint32_t spans
    uint16_t rule  # its id in the ledger
    uint8_t reason  # as the ledger numbers them
    uint8_t incomplete
    uint8_t sampled_out


cdef class Finisher:
    cdef TurnLock lock  # the pipeline's
    cdef object turn  # one trace at a time is finished
    cdef Envelopes envelopes
    cdef Ledger ledger
    cdef Memory memory
    cdef Outlets outlets
    cdef Stamper stamper
    cdef Leaving* first  # first in, first out
    cdef Leaving* last
    cdef Leaving* taken  # those that are being finished
    cdef Leaving* spare  # for the next one; NULL: none
    cdef uint64_t spans  # of all that have not been offered to the destinations, those that are being finished, too
    cdef dict attributes  # (rule id, reason, incomplete, sampled out) -> encoded attributes that stamping appends
    cdef void add(
        self, Fragment* fragments, uint64_t cost, uint32_t spans, uint64_t threshold, uint16_t rule, uint8_t reason,
        bint incomplete, bint sampled_out,
    ) noexcept
    cdef int reserve(self) except -1
    cdef uint64_t finish(self, uint64_t effort, bint forced) except? 0xFFFFFFFFFFFFFFFF
    cdef int take_some(self, bint forced) except -1
    cdef uint64_t finish_some(self, list finished) except? 0xFFFFFFFFFFFFFFFF
    cdef int deliver(self, list finished) except -1
    cdef Fragment* go_on_with_others(self, Leaving* leaving, uint32_t spans) noexcept
    cdef void put_back(self) noexcept
    cdef KeptTrace finished(self, Leaving* leaving)
    cdef bytes attributes_of(self, Leaving* leaving)
    cdef bint holds(self, bytes trace_id) noexcept
