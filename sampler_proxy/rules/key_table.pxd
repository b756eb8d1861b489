"""The keys of a rate controller: a bounded table, and for each key what came of late. Windows are plain arithmetic, all of it inlined."""
from libc.math cimport exp, log
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define SAMPLER_PROXY_ENOUGH 10.0
    #define SAMPLER_PROXY_MOST_S 300.0
    """
    const double ENOUGH "SAMPLER_PROXY_ENOUGH"  # traces; fewer say little
    const double MOST_S "SAMPLER_PROXY_MOST_S"

cdef struct Window:
    # What came of late; originals / seconds is the demand.
    double seconds
    double originals  # weight / p_in of each trace: what it stands for
    double arrivals

cdef struct Replay:
    # Sums over the traces of the last interval, from which follows what another level would have kept of them.
    double weight
    double originals
    double per_level  # times the level it is what is kept, where nothing bounds it: originals / demand

cdef struct Key:
    uint64_t[2] id
    int64_t last_ns
    Window window
    Replay replay
    double owed  # of its minimum, in traces
    uint8_t* text
    uint32_t size

cdef class Keys:
    cdef Key* keys  # the first `count` of `room`
    cdef uint32_t* table  # position + 1; 0: free
    cdef uint64_t mask
    cdef uint32_t count, room, most
    cdef Key* find(self, const uint64_t* id) noexcept nogil
    cdef Key* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept nogil
    cdef void forget(self, uint32_t position) noexcept nogil
    cdef bint grow(self) noexcept nogil


cdef inline void scale(Window* window, double factor) noexcept nogil:
    window.seconds *= factor
    window.originals *= factor
    window.arrivals *= factor


cdef inline void advance(Window* window, double seconds, double least_s) noexcept nogil:
    """Let time pass. A window that is both longer than `least_s` and richer than needed is cut back; then, while it is rich, it fades
    and does not grow; then it grows, up to MOST_S."""
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
                part = ENOUGH / window.arrivals
                seconds += least_s * log(part)
            else:
                seconds = 0.0
            window.originals *= part
            window.arrivals *= part
    window.seconds += seconds
    if window.seconds > MOST_S:
        scale(window, MOST_S / window.seconds)


cdef inline void fade(Replay* replay, double keep) noexcept nogil:
    replay.weight *= keep
    replay.originals *= keep
    replay.per_level *= keep
    if replay.weight < 1e-15:  # before it is too small to divide by
        replay.weight = replay.originals = replay.per_level = 0.0
