"""The byte-bounded store of undecided traces. Plain calls with time as an argument; whoever calls holds the pipeline's lock.

Deadlines need no timing wheel: both waits are the same for every trace, so traces fall due in the order in which they began, and
those with a root in the order in which their root came. Two lists, each in order, answer "who is due" by their heads, exactly.
The list by age also says who is the oldest when memory runs out.

A trace that is set aside is in neither list: it is chosen, more spans may join it, and it goes when its owner removes it.
"""
cimport cython
from libc.stdlib cimport calloc, free, malloc

from sampler_proxy.otlp.fragments cimport BLOCK_OVERHEAD, HAS_ROOT, Fragment, absorb, fragment_cost, mix

cdef enum:
    FIRST_PLACES = 1024


@cython.no_gc  # __dealloc__ needs the envelopes
cdef class Buffer:
    def __cinit__(self, Envelopes envelopes not None, *, wait_ns, wait_after_root_ns, seed):
        self.seed = seed
        self.envelopes = envelopes
        self.wait_ns = wait_ns
        self.wait_after_root_ns = wait_after_root_ns
        self.mask = FIRST_PLACES - 1
        self.places = <Place*>calloc(FIRST_PLACES, sizeof(Place))
        if self.places == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.envelopes is not None:
            while self.oldest != NULL:
                self.remove(self.oldest)
            while self.aside != NULL:
                self.remove(self.aside)
        free(self.places)

    cdef uint64_t nbytes_(self) noexcept:
        return self.held + (self.mask + 1) * sizeof(Place) + self.envelopes.cost

    cdef uint64_t empty_cost(self) noexcept:
        """What the tables cost, with nothing in them."""
        return (self.mask + 1) * sizeof(Place) + (self.envelopes.mask + 1) * sizeof(void*)

    @property
    def nbytes(self):
        return self.nbytes_()

    @property
    def oldest_ns(self):
        return None if self.oldest == NULL else self.oldest.first_ns

    cdef Trace* find(self, const uint64_t* trace_id) noexcept nogil:
        cdef uint64_t key = mix(trace_id, self.seed)
        cdef Place* place = &self.places[key & self.mask]
        while place.trace != NULL:
            if (place.hash == key and place.trace.first.trace_id[0] == trace_id[0]
                    and place.trace.first.trace_id[1] == trace_id[1]):
                return place.trace
            place = place + 1 if place < self.places + self.mask else self.places
        return NULL

    cdef int grow(self) except -1:
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t i, at
        cdef Place* places = <Place*>calloc(mask + 1, sizeof(Place))
        if places == NULL:
            raise MemoryError
        for i in range(self.mask + 1):
            if self.places[i].trace != NULL:
                at = self.places[i].hash & mask
                while places[at].trace != NULL:
                    at = (at + 1) & mask
                places[at] = self.places[i]
        free(self.places)
        self.places = places
        self.mask = mask
        return 0

    cdef Trace* add(self, Trace* trace, Fragment* fragment, int64_t now_ns) except NULL:
        """Take over an adopted fragment; `trace` is what find() says of its id, a new trace begins where that is NULL.
        `now_ns` never goes back. On an error nothing was taken."""
        cdef uint64_t at, key, cost
        if trace == NULL:
            if (self.traces + 1) * 4 > (self.mask + 1) * 3:
                self.grow()
            trace = <Trace*>calloc(1, sizeof(Trace))
            if trace == NULL:
                raise MemoryError
            trace.first = trace.last = fragment
            trace.first_ns = now_ns
            trace.root_ns = -1
            trace.older = self.newest
            if self.newest != NULL:
                self.newest.newer = trace
            else:
                self.oldest = trace
            self.newest = trace
            key = mix(fragment.trace_id, self.seed)
            at = key & self.mask
            while self.places[at].trace != NULL:
                at = (at + 1) & self.mask
            self.places[at].hash = key
            self.places[at].trace = trace
            self.traces += 1
            self.held += sizeof(Trace) + BLOCK_OVERHEAD
        else:
            trace.last.next = fragment
            trace.last = fragment
            absorb(trace.first, fragment)
        cost = fragment_cost(fragment)
        trace.cost += cost
        trace.spans += fragment.spans
        self.held += cost
        self.spans += fragment.spans
        if fragment.flags & HAS_ROOT and trace.root_ns < 0 and trace.asked != SET_ASIDE:
            trace.root_ns = now_ns
            trace.rooted_before = self.last_rooted
            if self.last_rooted != NULL:
                self.last_rooted.rooted_after = trace
            else:
                self.first_rooted = trace
            self.last_rooted = trace
        return trace

    cdef Trace* due(self, int64_t now_ns, bint* has_root) noexcept nogil:
        """A trace whose wait is over, or NULL; `has_root`: it is the wait after the root that is over."""
        if self.first_rooted != NULL and self.first_rooted.root_ns + self.wait_after_root_ns <= now_ns:
            has_root[0] = True
            return self.first_rooted
        if self.oldest != NULL and self.oldest.first_ns + self.wait_ns <= now_ns:
            has_root[0] = False
            return self.oldest
        return NULL

    cdef void unlink(self, Trace* trace) noexcept nogil:
        """Take a trace out of both lists."""
        if trace.older != NULL:
            trace.older.newer = trace.newer
        else:
            self.oldest = trace.newer
        if trace.newer != NULL:
            trace.newer.older = trace.older
        else:
            self.newest = trace.older
        if trace.root_ns >= 0:
            if trace.rooted_before != NULL:
                trace.rooted_before.rooted_after = trace.rooted_after
            else:
                self.first_rooted = trace.rooted_after
            if trace.rooted_after != NULL:
                trace.rooted_after.rooted_before = trace.rooted_before
            else:
                self.last_rooted = trace.rooted_before

    cdef void set_aside(self, Trace* trace) noexcept nogil:
        self.unlink(trace)
        trace.asked = SET_ASIDE
        trace.older = NULL
        trace.newer = self.aside
        if self.aside != NULL:
            self.aside.older = trace
        self.aside = trace

    cdef void remove(self, Trace* trace) noexcept:
        """Forget a trace and free it with its fragments."""
        cdef uint64_t at = mix(trace.first.trace_id, self.seed) & self.mask
        cdef uint64_t hole, home
        cdef Fragment* fragment
        while self.places[at].trace != trace:
            at = (at + 1) & self.mask
        hole = at
        at = (at + 1) & self.mask
        while self.places[at].trace != NULL:
            home = self.places[at].hash & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.places[hole] = self.places[at]
                hole = at
            at = (at + 1) & self.mask
        self.places[hole].trace = NULL
        if trace.asked != SET_ASIDE:
            self.unlink(trace)
        else:
            if trace.older != NULL:
                trace.older.newer = trace.newer
            else:
                self.aside = trace.newer
            if trace.newer != NULL:
                trace.newer.older = trace.older
        self.traces -= 1
        self.spans -= trace.spans
        self.held -= trace.cost + sizeof(Trace) + BLOCK_OVERHEAD
        while trace.first != NULL:
            fragment = trace.first
            trace.first = fragment.next
            self.envelopes.free_fragment(fragment)
        free(trace)
