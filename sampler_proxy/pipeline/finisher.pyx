"""Finishes kept traces, outside of the pipeline's lock, and has them delivered under it.

To redact and stamp a trace takes as long as the trace is large and new, up to half a second; to decide it takes
microseconds. So a decision only leaves the trace here, first in, first out. Until all destinations have been offered
it, its spans count as buffered and its bytes as in use.

A lock of its own makes one thread at a time finish traces: what redaction and stamping use is not shared. The GIL is
held; a large trace gives it way (redact/walker.pyx).
"""
cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from sampler_proxy.otlp.fragments cimport BLOCK_OVERHEAD, Envelope, fragment_cost, metadata_of
from sampler_proxy.rules.rule_set cimport randomness_of

import threading

from sampler_proxy.pipeline.ledger import REASONS

cdef enum:
    # What is finished before it is delivered: traces, bytes of their spans, and effort. Few enough that another thread
    # does not wait long for its turn, enough that the locks cost little.
    SOME_TRACES = 64
    SOME_BYTES = 1 << 20
    SOME_EFFORT = 5_000
    BYTES_PER_UNIT = 512  # that are stamped in a microsecond


cdef void set_others_apart(Leaving* leaving) noexcept:
    """Set the fragments of a trace that came with other metadata than its first one apart, in their order: they leave
    as a trace of their own. Without metadata there are none."""
    cdef Envelope* metadata = metadata_of(leaving.fragments)
    cdef Fragment** link = &leaving.fragments.next
    cdef Fragment** other = &leaving.others
    cdef Fragment* fragment
    while link[0] != NULL:
        fragment = link[0]
        if metadata_of(fragment) == metadata:
            link = &fragment.next
        else:
            link[0] = fragment.next
            fragment.next = NULL
            other[0] = fragment
            other = &fragment.next


cdef void join_others(Leaving* leaving) noexcept:
    """Undo set_others_apart()."""
    cdef Fragment** link = &leaving.fragments
    if leaving.others == NULL:
        return
    while link[0] != NULL:
        link = &link[0].next
    link[0] = leaving.others
    leaving.others = NULL


@cython.no_gc  # __dealloc__ needs the envelopes
cdef class Finisher:
    def __cinit__(
        self, TurnLock lock not None, Envelopes envelopes not None, Ledger ledger not None, Memory memory not None,
        Outlets outlets not None, Stamper stamper not None,
    ):
        self.lock = lock
        self.turn = threading.Lock()
        self.envelopes = envelopes
        self.ledger = ledger
        self.memory = memory
        self.outlets = outlets
        self.stamper = stamper
        self.attributes = {}

    def __dealloc__(self):
        cdef Leaving* leaving
        while self.first != NULL:
            leaving = self.first
            self.first = leaving.next
            self.envelopes.free_fragments(leaving.fragments)
            self.envelopes.free_fragments(leaving.others)
            free(leaving)
        free(self.spare)

    cdef int reserve(self) except -1:
        """Make room for one trace more."""
        if self.spare == NULL:
            self.spare = <Leaving*>malloc(sizeof(Leaving))
            if self.spare == NULL:
                raise MemoryError
        return 0

    cdef void add(
        self, Fragment* fragments, uint64_t cost, uint32_t spans, uint64_t threshold, uint16_t rule, uint8_t reason,
        bint incomplete, bint sampled_out,
    ) noexcept:
        """Take ownership of a leaving trace's fragments, `cost` bytes, after reserve(). The lock is held."""
        cdef Leaving* leaving = self.spare
        self.spare = NULL
        leaving.next = NULL
        leaving.fragments = fragments
        leaving.others = NULL
        leaving.cost = cost + sizeof(Leaving) + BLOCK_OVERHEAD
        leaving.threshold = threshold
        leaving.randomness = randomness_of(fragments)
        leaving.spans = spans
        leaving.rule = rule
        leaving.reason = reason
        leaving.incomplete = incomplete
        leaving.sampled_out = sampled_out
        if self.first == NULL:
            self.first = leaving
        else:
            self.last.next = leaving
        self.last = leaving
        self.spans += spans
        self.memory.leaving += leaving.cost

    cdef uint64_t finish(self, uint64_t effort, bint forced) except? 0xFFFFFFFFFFFFFFFF:
        """Finish and deliver traces until `effort` (microseconds, about) is spent, or none is left, or none can leave
        (Memory.congested; `forced`: all the same). Return what was spent; 0: nothing could be done.

        The lock is not held. On an error, MemoryError that is, the trace that has met it comes first the next time.
        """
        cdef uint64_t spent = 0
        cdef list finished
        while spent < effort and self.memory.leaving:
            finished = []  # before anything is taken: it may find no memory
            if not self.turn.acquire(False):
                self.turn.acquire()
                spent += 1  # another thread has finished some
            try:
                self.lock.take()
                try:
                    self.take_some(forced)
                finally:
                    self.lock.leave()
                if self.taken == NULL:
                    break
                spent += self.finish_some(finished)
            finally:
                self.turn.release()
        return spent

    cdef int take_some(self, bint forced) except -1:
        """Take the first traces out of the line, unless none is there, or can leave. The lock is held."""
        cdef Leaving* taken = self.first
        cdef Leaving* end = taken
        cdef uint64_t nbytes
        cdef int count = 1
        # With a backlog one by one, so that it shows when memory is full.
        cdef int most = 1 if self.outlets.backlog_spans else SOME_TRACES
        if taken == NULL or (not forced and self.memory.congested()):
            return 0
        self.envelopes.room_for_forms = self.memory.bound - min(self.memory.bound, self.memory.in_use())
        nbytes = taken.cost
        while end.next != NULL and count < most and nbytes + end.next.cost <= SOME_BYTES:
            end = end.next
            nbytes += end.cost
            count += 1
        self.first = end.next
        end.next = NULL
        self.taken = taken
        return 0

    cdef uint64_t finish_some(self, list finished) except? 0xFFFFFFFFFFFFFFFF:
        """Finish and deliver the traces that were taken out of the line, and put back what SOME_EFFORT does not reach
        for, or an error has kept from it. Return the effort. `finished`: an empty list."""
        cdef Leaving* leaving = self.taken
        cdef uint64_t spent = 0
        try:
            while leaving != NULL and spent < SOME_EFFORT:
                set_others_apart(leaving)
                finished.append(self.finished(leaving))
                spent += 1 + leaving.cost // BYTES_PER_UNIT + self.stamper.effort
                if leaving.others != NULL:  # they are next
                    break
                leaving = leaving.next
        finally:  # an error's traces come first the next time
            self.deliver(finished)
        return spent

    cdef int deliver(self, list finished) except -1:
        """Offer finished traces to the destinations, and free what they were made of; the rest goes back."""
        cdef Leaving* done = NULL
        cdef Leaving* leaving
        cdef Fragment* part = NULL
        cdef KeptTrace kept
        self.lock.take()
        try:
            for kept in finished:
                self.outlets.deliver(kept)
                leaving = self.taken
                if leaving.others != NULL:
                    part = self.go_on_with_others(leaving, kept.spans)
                    break
                self.taken = leaving.next
                self.spans -= leaving.spans
                self.memory.leaving -= leaving.cost
                leaving.next = done
                done = leaving
        finally:
            self.put_back()
            self.lock.leave()
            while done != NULL:  # a large trace is of many fragments
                leaving = done
                done = leaving.next
                self.envelopes.free_fragments(leaving.fragments)
                free(leaving)
            self.envelopes.free_fragments(part)
        return 0

    cdef Fragment* go_on_with_others(self, Leaving* leaving, uint32_t spans) noexcept:
        """Have what is left of a trace be finished next; the part that has been delivered, `spans`, is returned."""
        cdef uint64_t cost = 0
        cdef Fragment* part = leaving.fragments
        cdef Fragment* fragment = part
        while fragment != NULL:
            cost += fragment_cost(fragment)
            fragment = fragment.next
        leaving.fragments = leaving.others
        leaving.others = NULL
        leaving.spans -= spans
        leaving.cost -= cost
        self.spans -= spans
        self.memory.leaving -= cost
        return part

    cdef void put_back(self) noexcept:
        """Put what has been taken and not delivered back to the beginning of the line."""
        cdef Leaving* end = self.taken
        if end == NULL:
            return
        join_others(end)
        while end.next != NULL:
            end = end.next
            join_others(end)
        end.next = self.first
        if self.first == NULL:
            self.last = end
        self.first = self.taken
        self.taken = NULL

    cdef KeptTrace finished(self, Leaving* leaving):
        """Return a trace as it leaves."""
        return self.stamper.finish(
            leaving.fragments, leaving.threshold, leaving.randomness, self.attributes_of(leaving), leaving.rule,
            leaving.sampled_out,
        )

    cdef bytes attributes_of(self, Leaving* leaving):
        """Return the encoded attributes that say which decision a span left by; cached, since they are few."""
        key = (leaving.rule, leaving.reason, leaving.incomplete, leaving.sampled_out)
        found = self.attributes.get(key)
        if found is None:
            found = self.stamper.decision_attributes(
                self.ledger.rule_names[leaving.rule], REASONS[leaving.reason], leaving.incomplete, leaving.sampled_out
            )
            self.attributes[key] = found
        return found

    cdef bint holds(self, bytes trace_id) noexcept:
        """Tell whether a trace is in the line, or being finished; looks at every one. The lock is held."""
        cdef Leaving* leaving
        cdef uint64_t[2] key
        cdef int line
        memcpy(key, <const char*>trace_id, 16)
        for line in range(2):
            leaving = self.taken if line else self.first
            while leaving != NULL:
                if leaving.fragments.trace_id[0] == key[0] and leaving.fragments.trace_id[1] == key[1]:
                    return True
                leaving = leaving.next
        return False
