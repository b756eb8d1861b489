from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.rules.key_table cimport Key, Keys, Replay

cdef class Controller:
    cdef readonly bint always
    cdef readonly bint keyed
    cdef uint64_t seed
    cdef int64_t now_ns  # of the last call
    cdef bint started
    cdef bint held
    cdef double looked_s, demand, kept  # over the last seconds; decisions do not depend on them
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept
    cpdef void hold(self) noexcept
    cdef double pass_time(self, int64_t now_ns) noexcept nogil
    cdef double since(self, int64_t then_ns) noexcept nogil

cdef class Fixed(Controller):
    cdef readonly double probability
    cdef uint64_t fixed

cdef class Target(Controller):
    cdef readonly double per_second, at_least, at_most, minimum_per_second
    cdef Keys keys
    cdef Key pool  # of all that have no place in the table, or too short a history
    cdef double level, pool_floor, slope  # slope: by how much what is kept grows with the level's logarithm, per second
    cdef double credit, credit_before, settle_s, interval_s
    cdef double reserve  # for minimums
    # The interval, with what fades of those before it:
    cdef int64_t interval_ns
    cdef double replayed_s, admitted, spent, spent_squared
    cdef Replay* scratch
    cdef uint32_t scratch_room
    cdef dict restored  # fingerprint -> demand; None where there is nothing left
    cdef object fingerprint
    cdef int64_t restored_ns
    cdef double held_probability(self, const uint64_t* id) noexcept nogil
    cdef double demand_of(self, Key* key) noexcept nogil
    cdef Key* key_of(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept
    cdef void adopt(self, Key* key) noexcept
    cdef bint admit(self, Key* key, double weight) noexcept nogil
    cdef double correction(self) noexcept nogil
    cdef double pool_level(self, double level) noexcept nogil
    cdef void next_interval(self) noexcept nogil
    cdef void solve(self, uint32_t count, double budget) noexcept nogil
    cdef double would_keep(self, uint32_t count, double level) noexcept nogil
    cdef double part_kept(self, Replay* replay, double level, double* slope) noexcept nogil

cpdef uint64_t threshold_of(double probability) noexcept nogil
