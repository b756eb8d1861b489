"""Declares rate controllers in native form: the base of all, and a fixed probability. `rate.pyi` is the manual."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_KEY_TEXT = 256  # bytes of a key's readable form

cdef extern from *:
    """
    #define SAMPLER_PROXY_NS 1e-9
    #define SAMPLER_PROXY_TWO_TO_56 72057594037927936.0
    #define SAMPLER_PROXY_LEAST_WEIGHT 1e-9
    #define SAMPLER_PROXY_MOST_WEIGHT 1e15
    """
    const double NS "SAMPLER_PROXY_NS"  # in seconds
    const double TWO_TO_56 "SAMPLER_PROXY_TWO_TO_56"
    const double LEAST_WEIGHT "SAMPLER_PROXY_LEAST_WEIGHT"
    const double MOST_WEIGHT "SAMPLER_PROXY_MOST_WEIGHT"

cdef class Controller:
    cdef readonly bint always
    cdef readonly bint keyed
    cdef uint64_t seed
    cdef int64_t now_ns  # of the last call
    cdef bint started  # it has been asked
    cdef bint held
    cdef double stats_s, demand, kept  # decayed sums over the last seconds, for stats(); no decision depends on them
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept
    cpdef void hold(self) noexcept
    cdef double pass_time(self, int64_t now_ns) noexcept nogil
    cdef double since(self, int64_t then_ns) noexcept nogil

cdef class Fixed(Controller):
    cdef readonly double probability
    cdef uint64_t fixed  # the threshold of it

cpdef uint64_t threshold_of(double probability) noexcept nogil


cdef inline uint64_t elapsed_ns(int64_t then_ns, int64_t now_ns) noexcept nogil:
    """Return the time from one to the other, 0 where it has gone back. Unsigned: any two times have a difference."""
    return <uint64_t>now_ns - <uint64_t>then_ns if now_ns > then_ns else 0


cdef inline double bounded(double value, double least, double most) noexcept nogil:
    """Return a value, or the bound that it exceeds."""
    return most if value > most else least if value < least else value


cdef inline double sound_weight(double weight) noexcept nogil:
    """Return a trace's weight, 1 in place of one that cannot be."""
    return weight if LEAST_WEIGHT <= weight <= MOST_WEIGHT else 1.0


cdef inline double sound_probability(double incoming) noexcept nogil:
    """Return the probability with which a trace came, 1 in place of one that cannot be."""
    if not 0.0 < incoming <= 1.0:
        return 1.0
    return max(incoming, 1.0 / TWO_TO_56)
