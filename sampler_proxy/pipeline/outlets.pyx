"""Offers every kept trace to the destinations of its rule, and keeps in a backlog the traces that one refuses.

Some destinations, the archives, take traces that were sampled out, too. A trace is kept (or sampled out), in the
ledger's sense, when the last of its destinations has taken it; until then it counts as buffered, and its bytes as
memory in use. Backlogs have no bound of their own: the pipeline decides no more traces while they fill its
memory. Used under the pipeline's lock.
"""
from libc.stdint cimport uint32_t

from collections import deque

cdef enum:
    FLUSHED = 2048  # traces that leave a backlog at once: the lock is held


cdef class Outlet:
    """A destination, and its backlog: the kept traces that it has not taken yet, first in, first out."""
    cdef object offer  # Destination.offer: pipeline.pyi
    cdef object backlog

    def __init__(self, destination):
        self.offer = destination.offer
        self.backlog = deque()


cdef class Outlets:
    def __init__(self, destinations, archives, Ledger ledger not None):
        self.outlets = list(map(Outlet, destinations))
        self.archives = [self.outlets[number] for number in archives]
        self.archiving = bool(self.archives)
        self.routes = {}
        self.ledger = ledger

    cdef list taking(self, uint32_t rule, bint sampled_out):
        """Return the outlets that the traces of a rule go to."""
        return self.archives if sampled_out else self.routes.get(rule, self.outlets)

    cdef int left(self, KeptTrace kept) noexcept:
        """Count a trace that every destination has taken."""
        if kept.sampled_out:
            self.ledger.rules[kept.rule].sampled_out += kept.spans
        else:
            self.ledger.rules[kept.rule].kept += kept.spans
        return 0

    cdef int deliver(self, KeptTrace kept) except -1:
        """Offer a finished trace to each of its destinations, behind its backlog where there is one.

        Where a destination has no memory for it, it waits in the backlog if another one has taken it before; else the
        error is raised, and nothing has happened. The same where a backlog cannot grow, save that a destination may
        have the trace.
        """
        cdef Outlet outlet
        cdef bint taken
        cdef bint given = False
        kept.waiting = 0
        try:
            for outlet in self.taking(kept.rule, kept.sampled_out):
                taken = False
                if not outlet.backlog:
                    try:
                        taken = outlet.offer(kept)
                    except MemoryError:
                        if not given:
                            raise
                if taken:
                    given = True
                else:
                    outlet.backlog.append(kept)
                    kept.waiting += 1
        except BaseException:
            self.withdraw(kept)
            raise
        if kept.waiting:
            self.backlog_bytes += kept.nbytes
            self.backlog_spans += kept.spans
        else:
            self.left(kept)
        return 0

    cdef int withdraw(self, KeptTrace kept) except -1:
        """Remove a trace from the ends of the backlogs, before it has been counted."""
        cdef Outlet outlet
        for outlet in self.outlets:
            if outlet.backlog and outlet.backlog[len(outlet.backlog) - 1] is kept:
                outlet.backlog.pop()
        kept.waiting = 0
        return 0

    cdef bint flush(self) except -1:
        """Offer the backlogs again, in order, each until its destination refuses one, or has taken FLUSHED; return
        whether one that has taken so many may take more."""
        cdef Outlet outlet
        cdef KeptTrace kept
        cdef int left
        cdef bint more = False
        for outlet in self.outlets:
            left = FLUSHED
            while left and outlet.backlog and outlet.offer(outlet.backlog[0]):
                left -= 1
                kept = outlet.backlog.popleft()
                kept.waiting -= 1
                if not kept.waiting:
                    self.backlog_bytes -= kept.nbytes
                    self.backlog_spans -= kept.spans
                    self.left(kept)
            more = more or (not left and len(outlet.backlog) != 0)
        return more

    cdef bint blocked(self) except -1:
        """Return whether every destination has a backlog: a trace that is finished now leaves no sooner."""
        cdef Outlet outlet
        if not self.backlog_spans:
            return False
        for outlet in self.outlets:
            if not outlet.backlog:
                return False
        return True

    cdef list waiting(self, bytes trace_id):
        """Tell of each destination whether a trace is in its backlog; looks at every trace there."""
        cdef Outlet outlet
        cdef KeptTrace kept
        cdef list found = []
        for outlet in self.outlets:
            for kept in outlet.backlog:
                if kept.trace_id == trace_id:
                    found.append(True)
                    break
            else:
                found.append(False)
        return found
