"""Measures what redacting a trace takes, and gives the GIL way meanwhile.

Steps are counted, not timed: the same trace takes the same effort wherever, and tests can say how much.
"""


cdef class Effort:
    def __cinit__(self):
        self.begin()

    cdef void begin(self) noexcept:
        """Begin a trace."""
        self.looks = self.steps = 0
        self.pause_at = PAUSE
        self.exhausted = False

    cdef uint64_t spent(self) noexcept:
        """Return the units that the trace has taken, of about a microsecond."""
        return self.looks + self.steps // STEPS_PER_UNIT

    cdef void give_way(self) noexcept:
        """Let a thread run that waits for the GIL; without one it costs next to nothing."""
        self.pause_at = self.steps + PAUSE
        with nogil:
            pass
