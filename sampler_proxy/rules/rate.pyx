"""Rate controllers: the threshold of each trace that a rule decides. `rate.pyi` is the manual.

How a target is held. Each key has a window of what came of late: some seconds, or longer, until ten traces are in it. Its demand d
is what the window says when a trace arrives, that trace left out: so the mean of 1/d is right also for a key with a trace a minute. The
trace is kept with p = min(1, level / d). The level, one number for all keys, is solved twice a second: it is the one that would have met
the target over the interval just over, with the d of then. So errors of d cancel in the sum, whatever their cause, and a jump of all
traffic is followed after one interval, however slow the windows are. What has been over- or underspent meanwhile is a credit, which
multiplies the level by about exp(credit / what the target spends in the settling time), anew at every trace: so what is kept over any span
of time differs from the target by the change of the credit alone. A surge drives the credit down, which ends the interval at once.

A threshold follows from the times, keys, weights and incoming thresholds of this trace and those before it, and from nobody's
randomness; so whatever this arithmetic does, adjusted counts of what is kept are unbiased. How much they vary it does decide.
"""
from libc.math cimport exp, floor, frexp
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from sampler_proxy.rules.key_table cimport ENOUGH, advance, fade
from sampler_proxy.otlp.protobuf cimport hash_bytes

from typing import NamedTuple

cdef enum:
    MAX_TEXT = 256
    MAX_STEPS = 60
    MOST_SHOWN = 1000

cdef double TWO_TO_56 = 72057594037927936.0
cdef double LEAST_WEIGHT = 1e-9
cdef double MOST_WEIGHT = 1e15
cdef double NS = 1e-9

# A key that is known for less than YOUNG_S is the pool's; up to SETTLED_S, the shortest window, it has the better of both.
cdef double YOUNG_S = 0.5
cdef double SETTLED_S = 3.0
cdef double POOL_LEAST_S = 1.0  # the pool's shortest window
cdef double POOL_SHARE = 0.1  # of the target; its level is no lower, so that with very many keys new ones are not starved

# Keys are forgotten after such a silence; the shorter one where three quarters of the room are taken.
cdef double QUIET_S = 300.0
cdef double QUIET_WHEN_FULL_S = 10.0
cdef double RESTORED_S = 60.0

cdef double INTERVAL_S = 0.5
cdef double SHORT_INTERVAL_S = 0.05  # the first after a surge; each further one is twice as long
cdef double SHORT_INTERVAL_RISE = 2.0  # of the level
cdef double SHORTEST_INTERVAL_S = 0.01
cdef double SURGE = 0.8  # settling times of the target, overspent in an interval
cdef double REPLAYED = 50.0  # traces; of an interval with fewer, those before it count more than half
cdef double LONGEST_REPLAY_S = 10.0

# How soon a credit is spent, or a debt paid: the shorter, the more exact, and the more probabilities vary.
cdef double SETTLE_S = 0.3
cdef double SETTLE_TRACES = 8.0  # as long as these take at the target's rate, if that is longer
cdef double MOST_DEBT = 3.0  # settling times
cdef double MOST_TRACE_S = 60.0  # what is larger counts as so much of the target; at least as one
cdef double LEAST_SLOPE = 0.2  # of the target
cdef double MOST_EXPONENT = 2.0  # of the correction; traces kept at a tiny probability would make counts vary

cdef double LOOKED_S = 5.0


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
    """Return the threshold that keeps a trace with this probability: the native twin of otlp/sampling.py's."""
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


cdef inline double bounded(double value, double least, double most) noexcept nogil:
    return most if value > most else least if value < least else value


cdef inline double sound_weight(double weight) noexcept nogil:
    return weight if LEAST_WEIGHT <= weight <= MOST_WEIGHT else 1.0


cdef inline double sound_probability(double incoming) noexcept nogil:
    if not 0.0 < incoming <= 1.0:
        return 1.0
    return max(incoming, 1.0 / TWO_TO_56)


cdef class Controller:
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        return 0

    cdef double since(self, int64_t then_ns) noexcept nogil:
        """Seconds; `then_ns` was now at some time."""
        return <double>(<uint64_t>self.now_ns - <uint64_t>then_ns) * NS

    cdef double pass_time(self, int64_t now_ns) noexcept nogil:
        """Seconds since the last call; 0 where time has gone back."""
        cdef int64_t before_ns = self.now_ns
        cdef double seconds, factor
        if not self.started:
            self.started = True
            self.now_ns = before_ns = now_ns
        self.now_ns = max(self.now_ns, now_ns)
        seconds = self.since(before_ns)
        self.looked_s += seconds
        if self.looked_s > LOOKED_S:
            factor = exp(1.0 - self.looked_s / LOOKED_S)
            self.demand *= factor
            self.kept *= factor
            self.looked_s = LOOKED_S
        return seconds

    def decide(self, bytes key=b"", double weight=1.0, double incoming=1.0, *, int64_t now_ns):
        cdef uint64_t[2] id
        cdef const uint8_t* text = <const uint8_t*>key
        if not self.keyed:
            return self.threshold(NULL, NULL, 0, weight, incoming, now_ns)
        id[0] = hash_bytes(text, len(key), 0, self.seed)
        id[1] = hash_bytes(text, len(key), 1, self.seed)
        return self.threshold(id, text, <uint32_t>min(len(key), MAX_TEXT), weight, incoming, now_ns)

    def stats(self, int64_t now_ns):
        cdef double seconds = self.looked_s + (max(now_ns - self.now_ns, 0) * NS if self.started else 0.0)
        # Over less than a second a rate would say little.
        cdef double per_s = exp(min(1.0 - seconds / LOOKED_S, 0.0)) / bounded(seconds, 1.0, LOOKED_S)
        return Stats(self.demand * per_s, self.kept * per_s, self.kept / self.demand if self.demand > 0.0 else 1.0)

    cpdef void hold(self) noexcept:
        """From now on probabilities stay what they are."""

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
        self.pass_time(now_ns)
        weight = sound_weight(weight)
        incoming = sound_probability(incoming)
        self.demand += weight / incoming
        self.kept += weight * min(self.probability / incoming, 1.0)
        return self.fixed


cdef class Target(Controller):
    def __init__(
        self, *, double per_second, bint keyed, double at_least=0.0, double at_most=1.0, double minimum_per_second=0.0,
        max_keys=65536, seed,
    ):
        if not 1e-6 <= per_second <= MOST_WEIGHT:
            raise ValueError("a target is a number from 1e-6 to 1e15")
        if not 0.0 <= at_least <= at_most <= 1.0 or at_most == 0.0:
            raise ValueError("0 <= at_least <= at_most <= 1, and 0 < at_most")
        if not 0.0 <= minimum_per_second <= MOST_WEIGHT:
            raise ValueError("a minimum is a number from 0 to 1e15")
        if not 1 <= max_keys <= 1 << 24:
            raise ValueError("1 <= max_keys <= 2**24")
        self.per_second = per_second
        self.keyed = keyed
        self.at_least = at_least
        self.at_most = at_most
        self.minimum_per_second = minimum_per_second
        self.keys = Keys(max_keys)
        self.seed = seed
        memset(&self.pool, 0, sizeof(Key))
        self.pool.window.seconds = POOL_LEAST_S
        self.pool.owed = 1.0
        self.level = per_second
        self.settle_s = SETTLE_S
        self.interval_s = INTERVAL_S
        self.pool_floor = POOL_SHARE * per_second
        self.reserve = 0.5 * per_second

    def __dealloc__(self):
        free(self.scratch)

    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        cdef uint64_t[2] unkeyed
        cdef bint first = not self.started
        cdef double seconds = self.pass_time(now_ns)
        cdef double originals, level, per_demand, p, part
        cdef Key* entry
        cdef Replay* replay = NULL
        weight = min(sound_weight(weight), max(MOST_TRACE_S * self.per_second, 1.0))
        incoming = sound_probability(incoming)
        originals = weight / incoming
        if key == NULL:
            unkeyed[0] = unkeyed[1] = 0
            key = unkeyed
        if self.held:
            return threshold_of(self.held_probability(key))
        if first:
            self.interval_ns = self.pool.last_ns = self.restored_ns = self.now_ns
        self.credit = min(self.credit + seconds * self.per_second, self.settle_s * self.per_second)
        self.reserve = min(self.reserve + 0.5 * seconds * self.per_second, 0.5 * self.per_second)
        # Not amid traces of one moment: those that are decided together came one after the other, since the last such moment.
        if seconds > 0.0:
            seconds = self.since(self.interval_ns)
            if seconds >= self.interval_s or (
                seconds >= SHORTEST_INTERVAL_S and self.credit < self.credit_before - SURGE * self.settle_s * self.per_second
            ):
                self.next_interval()
        self.demand += originals

        # The level that decides, what of the demand a unit of it is, and where that is noted.
        level = per_demand = 0.0
        entry = self.key_of(key, text, size)
        if entry != NULL and entry.window.seconds >= YOUNG_S:
            level = self.level
            per_demand = entry.window.seconds / entry.window.originals
            replay = &entry.replay
        if entry == NULL or entry.window.seconds < SETTLED_S:
            seconds = self.since(self.pool.last_ns)
            self.pool.last_ns = self.now_ns
            self.pool.owed = min(self.pool.owed + seconds * self.minimum_per_second, 1.0)
            advance(&self.pool.window, seconds, POOL_LEAST_S)
            part = self.pool.window.seconds / max(self.pool.window.originals, LEAST_WEIGHT)
            if replay == NULL or self.pool_level(self.level) * part > level * per_demand:
                level = self.pool_level(self.level)
                per_demand = part
                replay = &self.pool.replay
            self.pool.window.originals += originals
            self.pool.window.arrivals += 1.0
        if entry != NULL:
            entry.window.originals += originals
            entry.window.arrivals += 1.0
        else:
            entry = &self.pool

        if self.minimum_per_second > 0.0 and self.admit(entry, weight):
            return 0
        p = bounded(level * per_demand * self.correction(), self.at_least, self.at_most)
        part = min(p / incoming, 1.0)
        entry.owed = max(entry.owed - part, 0.0)
        replay.weight += weight
        replay.originals += originals
        # That a trace would be whole at a quarter of the level is enough to know. In full it would hide, in the sum, that its
        # neighbours would not be.
        replay.per_level += min(originals * per_demand, 4.0 * weight / level)
        part *= weight
        self.spent += part
        self.spent_squared += part * part
        self.kept += part
        if self.credit > -MOST_DEBT * self.settle_s * self.per_second:
            self.credit -= part
        return threshold_of(p)

    cpdef void hold(self) noexcept:
        self.held = self.started  # else it knows nothing yet

    cdef double held_probability(self, const uint64_t* id) noexcept nogil:
        cdef Key* key = self.keys.find(id)
        cdef double per_level = 0.0
        cdef double originals
        if key != NULL and key.window.seconds >= YOUNG_S:
            per_level = self.level * key.window.seconds / max(key.window.originals, LEAST_WEIGHT)
        if key == NULL or key.window.seconds < SETTLED_S:
            originals = max(self.pool.window.originals, LEAST_WEIGHT)
            per_level = max(per_level, self.pool_level(self.level) * self.pool.window.seconds / originals)
        return bounded(per_level * self.correction(), self.at_least, self.at_most)

    cdef Key* key_of(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept:
        """Brought up to now; NULL where it is new and there is no room."""
        cdef Key* key = self.keys.find(id)
        cdef double seconds
        if key != NULL:
            seconds = self.since(key.last_ns)
            key.owed = min(key.owed + seconds * self.minimum_per_second, 1.0)
            advance(&key.window, seconds, SETTLED_S)
        else:
            key = self.keys.add(id, text, min(size, <uint32_t>MAX_TEXT) if text != NULL else 0)
            if key == NULL:
                return NULL
            key.owed = 1.0
            if self.restored is not None:
                self.adopt(key)
        key.last_ns = self.now_ns
        return key

    cdef bint admit(self, Key* key, double weight) noexcept nogil:
        """Whether the key's minimum asks for this trace. All minimums together have half of the target: else many small keys could leave
        the draw next to nothing, and counts would vary without bound."""
        if key.owed < 1.0 or self.reserve <= 0.0:
            return False
        key.owed -= 1.0
        self.reserve -= weight
        self.credit -= weight
        self.admitted += weight
        self.spent += weight
        self.spent_squared += weight * weight
        self.kept += weight
        return True

    cdef double correction(self) noexcept nogil:
        cdef double exponent = self.credit / (self.settle_s * max(self.slope, LEAST_SLOPE * self.per_second))
        # Steeper on the way down, for a surge costs what it takes to get there.
        if exponent < 0.0:
            exponent -= exponent * exponent
        return exp(bounded(exponent, -MOST_EXPONENT, MOST_EXPONENT))

    cdef double pool_level(self, double level) noexcept nogil:
        return max(level, self.pool_floor)

    cdef void next_interval(self) noexcept nogil:
        """Solve the level anew, and forget quiet keys."""
        cdef double seconds = self.since(self.interval_ns)
        cdef double traces = 0.0
        cdef double quiet_s = QUIET_S if self.keys.count < self.keys.most // 4 * 3 else QUIET_WHEN_FULL_S
        cdef double keep, level
        cdef uint32_t count = 0
        cdef uint32_t i = self.keys.count
        cdef Key* key
        cdef void* scratch
        self.replayed_s += seconds
        if self.scratch_room < self.keys.room:
            scratch = realloc(self.scratch, self.keys.room * sizeof(Replay))
            if scratch != NULL:
                self.scratch = <Replay*>scratch
                self.scratch_room = self.keys.room
        while i:
            i -= 1
            key = &self.keys.keys[i]
            if self.since(key.last_ns) > quiet_s:
                self.keys.forget(i)
            elif key.replay.weight > 0.0 and count < self.scratch_room:
                self.scratch[count] = key.replay
                count += 1
        level = self.level
        self.solve(count, self.per_second * self.replayed_s - self.admitted)
        if self.interval_s < INTERVAL_S:
            # Traces are decided in batches, at every tick. A short interval may have seen the rest of one.
            self.level = min(self.level, SHORT_INTERVAL_RISE * level)
        if self.spent > 0.0:
            # So many traces of equal weight would vary as these did.
            traces = self.spent * self.spent / self.spent_squared
            self.settle_s = max(SETTLE_S, SETTLE_TRACES * self.spent_squared / self.spent / self.per_second)
        keep = min(REPLAYED / (REPLAYED + traces), LONGEST_REPLAY_S / self.replayed_s)
        if seconds < self.interval_s:
            # A surge: what was before is of another time, and what is known by now soon will be.
            keep = 0.0
            self.interval_s = SHORT_INTERVAL_S
        else:
            self.interval_s = min(2.0 * self.interval_s, INTERVAL_S)
        if keep < 0.02:
            keep = 0.0
        self.replayed_s *= keep
        self.admitted *= keep
        self.spent *= keep
        self.spent_squared *= keep
        for i in range(self.keys.count):
            fade(&self.keys.keys[i].replay, keep)
        fade(&self.pool.replay, keep)
        self.interval_ns = self.now_ns
        self.credit_before = self.credit

    cdef void solve(self, uint32_t count, double budget) noexcept nogil:
        """Newton's steps, within a bracket that shrinks: what is kept grows with the level."""
        cdef double low = 0.0
        cdef double high = 0.0
        cdef double level, kept, step
        cdef uint32_t i
        cdef int steps
        budget = max(budget, 0.1 * self.per_second * self.replayed_s)
        for i in range(count):
            high = max(high, self.scratch[i].weight / self.scratch[i].per_level)
        if self.pool.replay.weight > 0.0:
            high = max(high, self.pool.replay.weight / self.pool.replay.per_level)
        # A pool that has just filled up got far more than that at first. All others keep three quarters.
        self.pool_floor = min(POOL_SHARE * self.per_second, 0.25 * budget / max(self.pool.replay.per_level, LEAST_WEIGHT))
        level = max(high, self.per_second)
        kept = self.would_keep(count, level)
        if kept > budget:
            level = self.level if self.level < high else 0.5 * high
            for steps in range(MAX_STEPS):
                kept = self.would_keep(count, level)
                if kept < budget:
                    low = level
                else:
                    high = level
                if budget * 0.999 <= kept <= budget * 1.001 or high - low <= 1e-6 * high:
                    break
                step = level + (budget - kept) * level / self.slope if self.slope > 0.0 else high
                level = step if low < step < high else 0.5 * (low + high)
        self.level = max(level, 1e-9 * self.per_second)
        self.slope /= self.replayed_s

    cdef double would_keep(self, uint32_t count, double level) noexcept nogil:
        """The weight that a level would have kept. Sets `slope` to its derivative by the level's logarithm."""
        cdef double slope = 0.0
        cdef double kept = self.part_kept(&self.pool.replay, self.pool_level(level), &slope)
        cdef uint32_t i
        for i in range(count):
            kept += self.part_kept(&self.scratch[i], level, &slope)
        self.slope = slope
        return kept

    cdef double part_kept(self, Replay* replay, double level, double* slope) noexcept nogil:
        cdef double kept = level * replay.per_level
        cdef double most = min(replay.weight, self.at_most * replay.originals)
        if kept >= most:
            return most
        if kept <= self.at_least * replay.originals:
            return min(self.at_least * replay.originals, most)
        slope[0] += kept
        return kept

    cdef void adopt(self, Key* key) noexcept:
        """What a former process has learned of a key that is new to this one. Where the fingerprint raises, no other is tried."""
        cdef double demand
        try:
            if self.since(self.restored_ns) > RESTORED_S:
                self.restored = None
                return
            demand = self.restored.pop(self.fingerprint(text_of(key)), 0.0)
            if not self.restored:
                self.restored = None
        except Exception:
            self.restored = None
            return
        if demand > 0.0:
            key.owed = 0.0
            key.window.seconds = SETTLED_S
            key.window.originals = demand * SETTLED_S
            key.window.arrivals = bounded(demand * SETTLED_S, 1.0, ENOUGH)

    def restore(self, level, demands, fingerprint):
        if is_rate(level):
            self.level = bounded(level, 1e-9 * self.per_second, 1e9 * self.per_second)
        self.restored = {name: float(demand) for name, demand in demands.items() if is_rate(demand)} or None
        self.fingerprint = fingerprint
        self.restored_ns = self.now_ns

    def learned(self):
        return Learned(self.level, self.demands())

    def top(self, int n):
        cdef uint32_t* best
        cdef double* demands
        cdef uint32_t i, at
        cdef uint32_t count = 0
        cdef double demand
        if n <= 0:
            return []
        n = min(n, MOST_SHOWN)
        best = <uint32_t*>malloc(n * sizeof(uint32_t))
        demands = <double*>malloc(n * sizeof(double))
        try:
            if best == NULL or demands == NULL:
                raise MemoryError
            # Who is below the n-th costs one comparison; no Python object is made but for those that are shown.
            for i in range(self.keys.count):
                demand = self.demand_of(&self.keys.keys[i])
                if count == <uint32_t>n and demand <= demands[count - 1]:
                    continue
                at = count if count < <uint32_t>n else count - 1
                while at and demands[at - 1] < demand:
                    demands[at] = demands[at - 1]
                    best[at] = best[at - 1]
                    at -= 1
                demands[at] = demand
                best[at] = i
                count = min(count + 1, <uint32_t>n)
            return [
                KeyRate(text_of(&self.keys.keys[best[i]]), demands[i], self.shown(self.level, demands[i])) for i in range(count)
            ]
        finally:
            free(best)
            free(demands)

    def stats(self, int64_t now_ns):
        seconds = self.pool.window.seconds + (max(now_ns - self.pool.last_ns, 0) * NS if self.started else 0.0)
        demand = self.pool.window.originals / seconds
        return Controller.stats(self, now_ns)._replace(
            keys=self.keys.count,
            level_per_s=self.level,
            pool_demand_per_s=demand,
            pool_probability=self.shown(self.pool_level(self.level), demand),
        )

    def shown(self, double level, double demand):
        """The probability of a key with this demand."""
        if demand <= 0.0:
            return self.at_most
        return bounded(level * self.correction() / demand, self.at_least, self.at_most)

    def demands(self):
        """(text, demand) of each key, as of the last call."""
        cdef uint32_t i
        cdef Key* key
        found = []
        for i in range(self.keys.count):
            key = &self.keys.keys[i]
            found.append((text_of(key), self.demand_of(key)))
        return found

    cdef double demand_of(self, Key* key) noexcept nogil:
        return key.window.originals / max(key.window.seconds + self.since(key.last_ns), YOUNG_S)


cdef bytes text_of(Key* key):
    return (<char*>key.text)[:key.size] if key.size else b""


cdef bint is_rate(number):
    return isinstance(number, (int, float)) and 0.0 < number <= MOST_WEIGHT
