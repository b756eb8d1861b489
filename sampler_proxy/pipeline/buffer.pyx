"""Stores undecided traces, bounded in bytes: plain calls with time as an argument, under the pipeline's lock.

Deadlines need no timing wheel: both waits are the same for every trace, so traces fall due in the order in which they
began, and those with a root in the order in which their root came. Two FIFO lists answer "which trace is due" by their
heads, exactly, in constant time. The list by age also gives the oldest trace when memory runs out.

The wait after a root begins when a span without a parent arrives, once. It also begins with a span whose parent is in
another process, since that parent may never be sent here; and anew with each such span, because of spans that call each
other the topmost ends, and so arrives, last. If the parent is sent here after all, it comes within this wait: it ends
with its child, and exporters send every few seconds, which is what the wait is for. So the question whether the trace
has a root is asked at the end of the wait (`Pipeline.tick`), of all its spans. Where the answer is no, because another
span waits for a parent in its own process, the wait is broken off, and begins again with the next spans of the trace.

A trace in the limit's window stands in neither list: its rule keeps it, it is a candidate for the limit's budget, more
spans may join it, and it stays until the pipeline removes it.

Traces are found in a hash table with open addressing: linear probing, deletion by backward shift, so no tombstones; it
is at most three quarters full, and never shrinks. (The same algorithm over other entries: decisions.pyx,
rules/key_table.pyx.)
"""
cimport cython
from libc.stdlib cimport calloc, free

from sampler_proxy.otlp.fragments cimport (
    BLOCK_OVERHEAD, HAS_REMOTE_PARENT, HAS_ROOT, Fragment, absorb, fragment_cost, mix,
)

cdef enum:
    FIRST_SLOTS = 1024  # of the hash table; a power of two


@cython.no_gc  # __dealloc__ needs the envelopes
cdef class Buffer:
    def __cinit__(self, Envelopes envelopes not None, *, wait_ns, wait_after_root_ns, seed):
        self.seed = seed
        self.envelopes = envelopes
        self.wait_ns = wait_ns
        self.wait_after_root_ns = wait_after_root_ns
        self.mask = FIRST_SLOTS - 1
        self.slots = <TraceSlot*>calloc(FIRST_SLOTS, sizeof(TraceSlot))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.envelopes is not None:
            while self.oldest != NULL:
                self.remove(self.oldest, False)
            while self.waiting != NULL:
                self.remove(self.waiting, False)
        free(self.slots)

    cdef uint64_t nbytes_(self) noexcept:
        """Return the bytes of memory held by fragments, traces, tables and envelopes."""
        return self.trace_bytes + (self.mask + 1) * sizeof(TraceSlot) + self.envelopes.cost

    cdef uint64_t empty_cost(self) noexcept:
        """Return the bytes that the tables of traces and envelopes hold at their present size, with nothing in them."""
        return (self.mask + 1) * sizeof(TraceSlot) + (self.envelopes.mask + 1) * sizeof(void*)

    @property
    def nbytes(self):
        return self.nbytes_()

    @property
    def oldest_ns(self):
        return None if self.oldest == NULL else self.oldest.first_ns

    cdef Trace* find(self, const uint64_t* trace_id) noexcept nogil:
        """Look up a trace by its id; NULL: not held. The pointer is valid until remove()."""
        cdef uint64_t key = mix(trace_id, self.seed)
        cdef TraceSlot* slot = &self.slots[key & self.mask]
        while slot.trace != NULL:
            if (slot.hash == key and slot.trace.fragments.trace_id[0] == trace_id[0]
                    and slot.trace.fragments.trace_id[1] == trace_id[1]):
                return slot.trace
            slot = slot + 1 if slot < self.slots + self.mask else self.slots
        return NULL

    cdef int grow(self) except -1:
        """Double the hash table. On MemoryError it is unchanged."""
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t i, at
        cdef TraceSlot* slots = <TraceSlot*>calloc(mask + 1, sizeof(TraceSlot))
        if slots == NULL:
            raise MemoryError
        for i in range(self.mask + 1):
            if self.slots[i].trace != NULL:
                at = self.slots[i].hash & mask
                while slots[at].trace != NULL:
                    at = (at + 1) & mask
                slots[at] = self.slots[i]
        free(self.slots)
        self.slots = slots
        self.mask = mask
        return 0

    cdef Trace* add(self, Trace* trace, Fragment* fragment, int64_t now_ns) except NULL:
        """Take ownership of an adopted fragment and return its trace.

        `trace` is the answer of find() for the fragment's id; where it is NULL a new trace begins. `now_ns` never goes
        back. On MemoryError nothing was taken. One function: single-span traces come through all of it for each span.
        """
        cdef uint64_t at, key, cost
        if trace == NULL:
            if (self.traces + 1) * 4 > (self.mask + 1) * 3:
                self.grow()
            trace = <Trace*>calloc(1, sizeof(Trace))
            if trace == NULL:
                raise MemoryError
            trace.fragments = trace.last_fragment = fragment
            trace.first_ns = now_ns
            trace.root_ns = -1
            # To the end of the list by age.
            trace.older = self.newest
            if self.newest != NULL:
                self.newest.newer = trace
            else:
                self.oldest = trace
            self.newest = trace
            # Into the first free slot of its probe sequence.
            key = mix(fragment.trace_id, self.seed)
            at = key & self.mask
            while self.slots[at].trace != NULL:
                at = (at + 1) & self.mask
            self.slots[at].hash = key
            self.slots[at].trace = trace
            self.traces += 1
            self.trace_bytes += sizeof(Trace) + BLOCK_OVERHEAD
        else:
            trace.last_fragment.next = fragment
            trace.last_fragment = fragment
            absorb(trace.fragments, fragment)
        cost = fragment_cost(fragment)
        trace.cost += cost
        trace.spans += fragment.spans
        self.trace_bytes += cost
        self.spans += fragment.spans
        if fragment.flags & (HAS_ROOT | HAS_REMOTE_PARENT) or trace.state.only_remote:
            self.note_root(trace, fragment.flags, now_ns)
        return trace

    cdef void note_root(self, Trace* trace, uint16_t flags, int64_t now_ns) noexcept nogil:
        """Begin the wait after the root, if spans with these flags, which have joined the trace, are a reason to."""
        if trace.state.in_limit_window or (trace.root_ns >= 0 and not trace.state.only_remote):
            return
        trace.state.only_remote = not flags & HAS_ROOT
        if trace.root_ns >= 0:
            if not flags & (HAS_ROOT | HAS_REMOTE_PARENT):
                return
            self.break_off(trace)
        # To the end of the list by root_ns.
        trace.root_ns = now_ns
        trace.rooted_before = self.last_rooted
        trace.rooted_after = NULL
        if self.last_rooted != NULL:
            self.last_rooted.rooted_after = trace
        else:
            self.first_rooted = trace
        self.last_rooted = trace

    cdef void break_off(self, Trace* trace) noexcept nogil:
        """End the wait after the root, which has begun, without a decision."""
        if trace.rooted_before != NULL:
            trace.rooted_before.rooted_after = trace.rooted_after
        else:
            self.first_rooted = trace.rooted_after
        if trace.rooted_after != NULL:
            trace.rooted_after.rooted_before = trace.rooted_before
        else:
            self.last_rooted = trace.rooted_before
        trace.root_ns = -1

    cdef Trace* due(self, int64_t now_ns, bint* has_root) noexcept nogil:
        """Return a trace whose wait is over, or NULL; `has_root` is set where it is the wait after the root."""
        if self.first_rooted != NULL and now_ns - self.first_rooted.root_ns >= self.wait_after_root_ns:
            has_root[0] = True
            return self.first_rooted
        if self.oldest != NULL and now_ns - self.oldest.first_ns >= self.wait_ns:
            has_root[0] = False
            return self.oldest
        return NULL

    cdef void unlink(self, Trace* trace) noexcept nogil:
        """Take a trace out of the lists by age and by root. Its root_ns stays, for those who ask."""
        cdef int64_t root_ns = trace.root_ns
        if trace.older != NULL:
            trace.older.newer = trace.newer
        else:
            self.oldest = trace.newer
        if trace.newer != NULL:
            trace.newer.older = trace.older
        else:
            self.newest = trace.older
        if root_ns >= 0:
            self.break_off(trace)
            trace.root_ns = root_ns

    cdef void move_to_window(self, Trace* trace) noexcept nogil:
        """Move a trace from the lists by age and by root to the list of those in the limit's window."""
        self.unlink(trace)
        trace.state.in_limit_window = True
        trace.older = NULL
        trace.newer = self.waiting
        if self.waiting != NULL:
            self.waiting.older = trace
        self.waiting = trace

    cdef void remove(self, Trace* trace, bint fragments_stay) noexcept:
        """Take a trace out of the table and its lists, and free it with its fragments, unless these have an owner."""
        cdef uint64_t at = mix(trace.fragments.trace_id, self.seed) & self.mask
        cdef uint64_t hole, home
        while self.slots[at].trace != trace:
            at = (at + 1) & self.mask
        # Backward shift: an entry that probed past the hole moves into it and leaves the next hole.
        hole = at
        at = (at + 1) & self.mask
        while self.slots[at].trace != NULL:
            home = self.slots[at].hash & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.slots[hole] = self.slots[at]
                hole = at
            at = (at + 1) & self.mask
        self.slots[hole].trace = NULL
        if not trace.state.in_limit_window:
            self.unlink(trace)
        else:
            if trace.older != NULL:
                trace.older.newer = trace.newer
            else:
                self.waiting = trace.newer
            if trace.newer != NULL:
                trace.newer.older = trace.older
        self.traces -= 1
        self.spans -= trace.spans
        self.trace_bytes -= trace.cost + sizeof(Trace) + BLOCK_OVERHEAD
        if not fragments_stay:
            self.envelopes.free_fragments(trace.fragments)
        free(trace)
