"""Guards a pipeline by a lock that is taken in turn, and tells how long it was held. `turn_lock.pyi` is the manual.

A plain lock goes to whoever asks at the right moment: a thread that takes it anew for each slice of its work would
hardly ever let others in. Here two locks stand one behind the other. Who waits for the inner one holds the outer one,
so that a thread which comes back meanwhile has to wait behind it.
"""
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
)
from libc.time cimport time_t

from sampler_proxy.pipeline.ledger cimport observe, set_bounds, value_of

from sampler_proxy import metrics

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* time)
    int CLOCK_MONOTONIC


cdef inline int64_t monotonic_ns() noexcept nogil:
    """Read the monotonic clock."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline void wait_for(PyThread_type_lock lock) noexcept:
    """Take one of both locks; the GIL is free while it is not to be had."""
    if not PyThread_acquire_lock(lock, NOWAIT_LOCK):
        with nogil:
            PyThread_acquire_lock(lock, WAIT_LOCK)


cdef class TurnLock:
    def __cinit__(self):
        self.turn = PyThread_allocate_lock()
        self.held = PyThread_allocate_lock()
        if self.turn == NULL or self.held == NULL:
            raise MemoryError
        set_bounds(&self.holds_ns, metrics.LOCK_HELD_SECONDS.buckets, 1e9)

    def __dealloc__(self):
        if self.turn != NULL:
            PyThread_free_lock(self.turn)
        if self.held != NULL:
            PyThread_free_lock(self.held)

    cdef int take(self) except -1:
        """Take the lock, behind those who have waited longer."""
        wait_for(self.turn)
        wait_for(self.held)
        PyThread_release_lock(self.turn)
        self.since_ns = monotonic_ns()
        return 0

    cdef int leave(self) except -1:
        """Give the lock back."""
        observe(&self.holds_ns, monotonic_ns() - self.since_ns)
        PyThread_release_lock(self.held)
        return 0

    def holds(self):
        return value_of(&self.holds_ns, 1e9)

    def __enter__(self):
        self.take()

    def __exit__(self, kind, error, traceback):  # the names of all three: a tuple of them might find no memory
        self.leave()
