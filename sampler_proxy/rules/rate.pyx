"""Controls rates: gives the threshold of each trace that a rule decides. `rate.pyi` is the manual.

Here is what all controllers have, and the fixed probability; `target` has the one that adapts.

A threshold follows from the times, keys, weights and incoming thresholds of this trace and those before it, and from no
trace's randomness; so whatever the arithmetic of a controller does, adjusted counts of kept traces are unbiased. The
arithmetic decides how much they vary.
"""
from libc.math cimport exp, floor, frexp

from sampler_proxy.otlp.protobuf cimport hash_bytes

from typing import NamedTuple

cdef double STATS_S = 5.0  # the window of stats()


class Stats(NamedTuple):
    demand_per_s: float
    kept_per_s: float
    probability: float
    keys: int = 0
    level_per_s: float = 0.0
    pool_demand_per_s: float = 0.0
    pool_probability: float = 1.0


class KeyRate(NamedTuple):
    text: bytes
    demand_per_s: float
    probability: float


class Learned(NamedTuple):
    level: float
    demands: list


cpdef uint64_t threshold_of(double probability) noexcept nogil:
    """Return what sampling.threshold_of returns: its native twin; tests/rules/test_rate_contract.py asserts them
    equal."""
    cdef int exponent, exponent_of_rest, digits, shift
    cdef uint64_t threshold
    if not probability > 0.0:
        return <uint64_t>1 << 56
    if probability >= 1.0:
        return 0
    frexp(probability, &exponent)
    frexp(1.0 - probability, &exponent_of_rest)
    digits = min(14, 4 + max(-exponent, -exponent_of_rest, 0) // 4)
    threshold = (<uint64_t>1 << 56) - <uint64_t>max(floor(probability * TWO_TO_56 + 0.5), 1.0)
    shift = 4 * (14 - digits)
    if shift:
        threshold = (threshold + (<uint64_t>1 << (shift - 1))) >> shift << shift
    return threshold


cdef class Controller:
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        """Return the threshold of the next trace: see `rate.pyi`."""
        return 0

    cdef double since(self, int64_t then_ns) noexcept nogil:
        """Return the seconds since `then_ns`, a former now."""
        return <double>elapsed_ns(then_ns, self.now_ns) * NS

    cdef double pass_time(self, int64_t now_ns) noexcept nogil:
        """Go on to now; return the seconds since the last call, 0 where time has gone back."""
        cdef int64_t before_ns = self.now_ns
        cdef double seconds, factor
        if not self.started:
            self.started = True
            self.now_ns = before_ns = now_ns
        self.now_ns = max(self.now_ns, now_ns)
        seconds = self.since(before_ns)
        self.stats_s += seconds
        if self.stats_s > STATS_S:  # exponential decay, once the window is full
            factor = exp(1.0 - self.stats_s / STATS_S)
            self.demand *= factor
            self.kept *= factor
            self.stats_s = STATS_S
        return seconds

    def decide(self, bytes key=b"", double weight=1.0, double incoming=1.0, *, int64_t now_ns):
        cdef uint64_t[2] id
        cdef const uint8_t* text = <const uint8_t*>key
        if not self.keyed:
            return self.threshold(NULL, NULL, 0, weight, incoming, now_ns)
        id[0] = hash_bytes(text, len(key), 0, self.seed)
        id[1] = hash_bytes(text, len(key), 1, self.seed)
        return self.threshold(id, text, <uint32_t>min(len(key), MAX_KEY_TEXT), weight, incoming, now_ns)

    def stats(self, int64_t now_ns):
        cdef double seconds = self.stats_s + (<double>elapsed_ns(self.now_ns, now_ns) * NS if self.started else 0.0)
        # Over less than a second a rate would say little.
        cdef double per_s = exp(min(1.0 - seconds / STATS_S, 0.0)) / bounded(seconds, 1.0, STATS_S)
        return Stats(self.demand * per_s, self.kept * per_s, self.kept / self.demand if self.demand > 0.0 else 1.0)

    cpdef void hold(self) noexcept:
        """Freeze the probabilities. (A fixed one is frozen anyway.)"""

    def top(self, int n):
        return []

    def learned(self):
        return Learned(0.0, [])

    def restore(self, level, demands, fingerprint):
        pass


cdef class Fixed(Controller):
    def __init__(self, double probability):
        if not 0.0 <= probability <= 1.0:
            raise ValueError("a probability is a number from 0 to 1")
        self.probability = probability
        self.fixed = threshold_of(probability)
        self.always = self.fixed == 0

    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        """Return the threshold of the fixed probability, and count the trace."""
        self.pass_time(now_ns)
        weight = sound_weight(weight)
        incoming = sound_probability(incoming)
        self.demand += weight / incoming
        self.kept += weight * min(self.probability / incoming, 1.0)
        return self.fixed
