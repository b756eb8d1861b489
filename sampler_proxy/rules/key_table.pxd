"""Declares the keys of a rate controller: a bounded hash table, and for each key the traces of the last seconds in
sums.

Windows and replays are plain arithmetic, all of it inlined.
"""
from libc.math cimport exp, log
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define SAMPLER_PROXY_ENOUGH 10.0
    #define SAMPLER_PROXY_LONGEST_WINDOW_S 300.0
    """
    const double ENOUGH "SAMPLER_PROXY_ENOUGH"  # traces in a window; with fewer its demand is mostly chance
    const double LONGEST_WINDOW_S "SAMPLER_PROXY_LONGEST_WINDOW_S"

cdef struct Window:
    # The traces of the last seconds; originals / seconds is the demand.
    double seconds
    double originals  # weight / p_in, summed over the traces: how much they stand for
    double arrivals  # traces

cdef struct Replay:
    # Sums over the traces of the last interval, from which follows how much of them another level would have kept.
    double weight
    double originals
    double per_level  # originals / demand; times the level it is the weight kept, unless a bound applies

cdef struct KeyState:
    uint64_t[2] id  # a hash that senders cannot choose
    int64_t last_ns  # of the last trace
    Window window
    Replay replay
    double owed  # of its minimum, in traces; from 0 to 1
    uint8_t* text  # owned; a readable form of the key, `size` bytes
    uint32_t size

cdef class KeyTable:
    cdef KeyState* keys  # the first `count` of `capacity`
    cdef uint32_t* index  # position in `keys` + 1, by hash; 0: free
    cdef uint64_t mask  # slots of the index - 1: twice the capacity, so that probing ends
    cdef uint32_t count, capacity, max_keys
    cdef KeyState* find(self, const uint64_t* id) noexcept nogil
    cdef KeyState* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept nogil
    cdef void remove(self, uint32_t position) noexcept nogil
    cdef bint grow(self) noexcept nogil


cdef inline void scale(Window* window, double factor) noexcept nogil:
    """Multiply the sums of a window."""
    window.seconds *= factor
    window.originals *= factor
    window.arrivals *= factor


cdef inline void count_arrival(Window* window, double originals) noexcept nogil:
    """Count a trace that stands for so many before sampling."""
    window.originals += originals
    window.arrivals += 1.0


cdef inline void advance(Window* window, double seconds, double least_s) noexcept nogil:
    """Let time pass. A window that is both longer than `least_s` and richer than needed is cut back; then, while it is
    rich, its sums decay exponentially and it does not grow; then it grows, up to LONGEST_WINDOW_S."""
    cdef double part
    if window.arrivals > ENOUGH:
        if window.seconds > least_s:
            scale(window, max(ENOUGH / window.arrivals, least_s / window.seconds))
        part = min(seconds, max(least_s - window.seconds, 0.0))
        window.seconds += part
        seconds -= part
        if seconds > 0.0 and window.arrivals > ENOUGH:
            part = exp(-seconds / least_s)
            if window.arrivals * part < ENOUGH:
                # Poor before the time is over: decay until then, and grow for the rest of it.
                part = ENOUGH / window.arrivals
                seconds += least_s * log(part)
            else:
                seconds = 0.0
            window.originals *= part
            window.arrivals *= part
    window.seconds += seconds
    if window.seconds > LONGEST_WINDOW_S:
        scale(window, LONGEST_WINDOW_S / window.seconds)


cdef inline void fade(Replay* replay, double keep) noexcept nogil:
    """Multiply the sums over the interval by `keep`; what becomes too small is 0."""
    replay.weight *= keep
    replay.originals *= keep
    replay.per_level *= keep
    if replay.weight < 1e-15:  # before it is too small to divide by
        replay.weight = replay.originals = replay.per_level = 0.0
