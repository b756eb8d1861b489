"""Declares the controller that holds a target, in native form. `target.pyi` is the manual."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sampler_proxy.rules.key_table cimport KeyState, KeyTable, Replay
from sampler_proxy.rules.rate cimport Controller

cdef struct Estimate:
    # What decides a trace: it is kept with level * per_demand, before correction and bounds.
    double level
    double per_demand  # 1 / demand
    Replay* replay  # where the trace is recorded: the key's, or the pool's


@cython.final
cdef class Target(Controller):
    cdef readonly double per_second, at_least, at_most, minimum_per_second
    cdef KeyTable keys
    cdef KeyState pool  # of all traces whose key has no place in the table, or too short a history
    cdef double level  # the water level: the demand up to which a key is kept whole
    cdef double pool_floor  # the least level of the pool
    cdef double slope  # derivative of the weight kept by the level's logarithm, per second
    cdef double credit  # a token bucket, in weight: what is unspent (negative: overspent)
    cdef double credit_before  # when the interval began
    cdef double minimum_budget  # a token bucket, in weight: what minimums may spend
    cdef double settle_s  # in which a credit is spent
    # The interval, with what is left of those before it:
    cdef int64_t interval_ns  # its begin
    cdef double interval_s  # its planned length
    cdef double replayed_s, admitted, spent, spent_squared
    cdef Replay* scratch  # room for a Replay of each key, so that solving walks over dense memory
    cdef uint32_t scratch_room
    cdef dict restored  # fingerprint -> demand; None where there is nothing left
    cdef object fingerprint
    cdef int64_t restored_ns
    cdef void refill(self, double seconds) noexcept nogil
    cdef KeyState* find_or_add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept
    cdef void restore_key(self, KeyState* key) noexcept
    cdef void estimate(self, KeyState* key, double originals, Estimate* estimate) noexcept nogil
    cdef bint admit(self, KeyState* key, double weight) noexcept nogil
    cdef void spend(self, double weight) noexcept nogil
    cdef double correction(self) noexcept nogil
    cdef double pool_level(self, double level) noexcept nogil
    cdef double demand_of(self, KeyState* key) noexcept nogil
    cdef double held_probability(self, const uint64_t* id) noexcept nogil
    cdef double shown_probability(self, double level, double demand) noexcept nogil
    cdef void next_interval(self) noexcept nogil
    cdef uint32_t collect_replays(self) noexcept nogil
    cdef void fade_replays(self, double keep) noexcept nogil
    cdef void solve_level(self, uint32_t count, double budget) noexcept nogil
    cdef double weight_kept(self, uint32_t count, double level) noexcept nogil
    cdef double part_kept(self, Replay* replay, double level, double* slope) noexcept nogil
    cdef list demands(self)
