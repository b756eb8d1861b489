# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct Window:
    # What came of late; the demand is originals / seconds.
    double seconds
    double originals  # their weight: each that arrives stands for 1 / p_in
    double arrivals

cdef struct Replay:
    # Sums over the arrivals of the last interval, from which follows what another level would have kept of them.
    double weight
    double originals  # weight / p_in
    double per_level  # weight / p_in / demand: times the level is what it keeps, where nothing bounds it

cdef struct Key:
    uint64_t[2] id
    int64_t last_ns
    Window window
    Replay replay
    double owed  # of its minimum, in traces; at most 1
    uint8_t* text
    uint32_t size

cdef struct Total:
    # Decays over some seconds; for those who look on.
    double seconds
    double demand
    double kept

cdef class Controller:
    cdef readonly bint always
    cdef readonly bint keyed
    cdef uint64_t seed
    cdef int64_t now_ns
    cdef bint started
    cdef Total total
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept
    cdef double pass_time(self, int64_t now_ns) noexcept nogil
    cdef void count(self, double originals, double kept) noexcept nogil

cdef class Fixed(Controller):
    cdef uint64_t fixed
    cdef double probability

cdef class Target(Controller):
    cdef readonly double per_second
    cdef readonly double at_least
    cdef readonly double at_most
    cdef readonly double minimum_per_second
    cdef readonly uint32_t max_keys
    cdef Key* keys
    cdef uint32_t* table  # position among the keys + 1; 0: free
    cdef Replay* scratch
    cdef uint32_t key_count, room
    cdef uint64_t mask
    cdef Key pool
    cdef double level, slope, settle_s
    cdef double credit, credit_before
    cdef double reserve, admitted
    cdef double spent, spent_squared
    cdef double replayed_s
    cdef int64_t interval_ns
    cdef object restored, fingerprint
    cdef int64_t restored_until_ns
    cdef Key* find(self, const uint64_t* id) noexcept nogil
    cdef Key* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept
    cdef bint grow(self) noexcept nogil
    cdef void forget(self, uint32_t position) noexcept nogil
    cdef void adopt(self, Key* key) noexcept
    cdef void next_interval(self, double seconds) noexcept nogil
    cdef void solve(self, uint32_t count, double budget) noexcept nogil
    cdef double would_keep(self, uint32_t count, double level, double* slope) noexcept nogil
    cdef double correction(self) noexcept nogil

cdef uint64_t threshold_of(double probability) noexcept nogil
