# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rate controllers: the threshold of each trace that a rule decides. `rate.pyi` is the manual.

How a target is held. Each key has a window of what came of late, some seconds, or longer until ten traces are in it; its demand d is
what the window says at the moment of an arrival, that arrival left out: so the mean of 1/d is right also for keys with a trace a
minute. A trace of the key is kept with p = min(1, level / d). The level, one number for all keys, is solved twice a second: it is the one
that would have met the target over the interval just over, with the estimates of then. So errors of d cancel in the sum, whatever their
cause, and a jump of all traffic is followed after one interval, however slow the windows are. What has been over- or underspent meanwhile is
a credit, and the level is multiplied by exp(credit / settling time), at each trace: what is kept over any span of time differs from
the target by the change of the credit alone. Traffic that surges drives the credit down, and the interval ends at once.

A key's threshold depends on what came before and on this trace's key, weight and time, never on its randomness; hence kept spans times
adjusted counts are unbiased, whatever this arithmetic does.
"""
from libc.math cimport exp, floor, frexp, isfinite
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from sampler_proxy._proto cimport hash_bytes

import heapq
from typing import NamedTuple

cdef enum:
    FIRST_ROOM = 64
    MAX_TEXT = 256
    MAX_STEPS = 60

cdef double TWO_TO_56 = 72057594037927936.0
cdef double MAX_WEIGHT = 1e15
cdef double NS = 1e-9

# Windows. Fewer traces than ENOUGH say little about a key; a window longer than MOST_S would not follow.
cdef double LEAST_S = 3.0
cdef double MOST_S = 60.0
cdef double ENOUGH = 10.0
cdef double POOL_LEAST_S = 1.0
cdef double TOTAL_S = 5.0

# A key younger than this shares the pool, one younger than LEAST_S has the better of both.
cdef double YOUNG_S = 0.5
cdef double POOL_SHARE = 0.1  # of the target, at least

# A key without arrivals for so long is forgotten; sooner where room is short.
cdef int64_t QUIET_NS = 60 * 1000000000
cdef int64_t QUIET_WHEN_FULL_NS = 10 * 1000000000
cdef int64_t RESTORED_NS = 60 * 1000000000

cdef double INTERVAL_S = 0.5
cdef double SHORTEST_INTERVAL_S = 0.05
cdef double REPLAYED = 50.0  # contributions that make a replay as good as the one before
cdef double LONGEST_REPLAY_S = 10.0

# In seconds of the target.
cdef double MOST_CREDIT_S = 0.3
cdef double MOST_DEBT_S = 1.0
cdef double SURGE_S = 0.25
cdef double SETTLE_S = 0.3

cdef double SETTLE_CONTRIBUTIONS = 4.0
cdef double LEAST_SLOPE = 0.2
cdef double MOST_CORRECTION = 3.0


class Stats(NamedTuple):
    demand_per_s: float
    kept_per_s: float
    probability: float
    keys: int
    level_per_s: float
    pool_demand_per_s: float
    pool_probability: float


class KeyRate(NamedTuple):
    text: bytes
    demand_per_s: float
    probability: float


class Learned(NamedTuple):
    level: float
    demands: list


cdef uint64_t threshold_of(double probability) noexcept nogil:
    """sampling.threshold_of."""
    cdef int exponent, exponent_of_rest, digits, shift
    cdef double scaled
    cdef uint64_t threshold
    if not probability > 0.0:
        return <uint64_t>1 << 56
    if probability >= 1.0:
        return 0
    frexp(probability, &exponent)
    frexp(1.0 - probability, &exponent_of_rest)
    digits = 4 + max(max(-exponent, -exponent_of_rest), 0) // 4
    if digits > 14:
        digits = 14
    scaled = floor(probability * TWO_TO_56 + 0.5)
    threshold = (<uint64_t>1 << 56) - <uint64_t>(scaled if scaled > 1.0 else 1.0)
    shift = 4 * (14 - digits)
    if shift:
        threshold = (threshold + (<uint64_t>1 << (shift - 1))) >> shift << shift
    return threshold


cdef inline void scale(Window* window, double factor) noexcept nogil:
    window.seconds *= factor
    window.originals *= factor
    window.arrivals *= factor


cdef inline void advance(Window* window, double seconds, double least_s) noexcept nogil:
    """Let time pass. What is too long, or longer than `least_s` and richer than needed, fades as a whole."""
    cdef double by_arrivals, by_time
    window.seconds += seconds
    if window.seconds > MOST_S:
        scale(window, MOST_S / window.seconds)
    if window.arrivals > ENOUGH and window.seconds > least_s:
        by_arrivals = ENOUGH / window.arrivals
        by_time = least_s / window.seconds
        scale(window, by_arrivals if by_arrivals > by_time else by_time)


cdef inline double bounded(double value, double least, double most) noexcept nogil:
    if value > most:
        return most
    return least if value < least else value


cdef class Controller:
    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        return 0

    cdef double pass_time(self, int64_t now_ns) noexcept nogil:
        """Seconds since the last call; none where time has gone back."""
        cdef double seconds = 0.0
        if not self.started:
            self.started = True
            self.now_ns = now_ns
        elif now_ns > self.now_ns:
            seconds = (<double>now_ns - <double>self.now_ns) * NS
            self.now_ns = now_ns
        self.total.seconds += seconds
        if self.total.seconds > TOTAL_S:
            self.total.demand *= TOTAL_S / self.total.seconds
            self.total.kept *= TOTAL_S / self.total.seconds
            self.total.seconds = TOTAL_S
        return seconds

    cdef void count(self, double originals, double kept) noexcept nogil:
        self.total.demand += originals
        self.total.kept += kept

    def decide(self, bytes key=b"", double weight=1.0, double incoming=1.0, *, int64_t now_ns):
        cdef uint64_t[2] words
        cdef const uint8_t* text = <const uint8_t*>key
        cdef uint32_t size = <uint32_t>min(len(key), MAX_TEXT)
        if not self.keyed:
            return self.threshold(NULL, NULL, 0, weight, incoming, now_ns)
        words[0] = hash_bytes(text, len(key), 0, self.seed)
        words[1] = hash_bytes(text, len(key), 1, self.seed)
        return self.threshold(words, text, size, weight, incoming, now_ns)

    def stats(self, int64_t now_ns):
        cdef double seconds = self.total.seconds + max(<double>now_ns - <double>self.now_ns, 0.0) * NS
        # Over less than a second a rate would say little.
        seconds = max(seconds, 1.0)
        kept, demand = self.total.kept, self.total.demand
        return Stats(
            demand / seconds, kept / seconds, kept / demand if demand > 0 else 1.0, 0, 0.0, 0.0, 1.0
        )

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
        if not 0.0 < weight <= MAX_WEIGHT:
            weight = 1.0
        if not 0.0 < incoming <= 1.0:
            incoming = 1.0
        self.count(weight / incoming, weight * bounded(self.probability / incoming, 0.0, 1.0))
        return self.fixed


cdef class Target(Controller):
    def __cinit__(self):
        self.room = FIRST_ROOM
        self.mask = 2 * FIRST_ROOM - 1
        self.keys = <Key*>malloc(FIRST_ROOM * sizeof(Key))
        self.scratch = <Replay*>malloc(FIRST_ROOM * sizeof(Replay))
        self.table = <uint32_t*>calloc(self.mask + 1, sizeof(uint32_t))
        if self.keys == NULL or self.scratch == NULL or self.table == NULL:
            raise MemoryError

    def __init__(
        self, *, double per_second, bint keyed, double at_least=0.0, double at_most=1.0, double minimum_per_second=0.0,
        max_keys=65536, seed,
    ):
        if not (per_second > 0.0 and isfinite(per_second)):
            raise ValueError("a target is a finite number above 0")
        if not 0.0 <= at_least <= at_most <= 1.0 or at_most == 0.0:
            raise ValueError("0 <= at_least <= at_most <= 1, and at_most > 0")
        if not (minimum_per_second >= 0.0 and isfinite(minimum_per_second)):
            raise ValueError("a minimum is a finite number, 0 or above")
        if not 1 <= max_keys < 1 << 24:
            raise ValueError("1 <= max_keys < 2**24")
        self.per_second = per_second
        self.keyed = keyed
        self.at_least = at_least
        self.at_most = at_most
        self.minimum_per_second = minimum_per_second
        self.max_keys = max_keys
        self.seed = seed
        memset(&self.pool, 0, sizeof(Key))
        self.pool.window.seconds = POOL_LEAST_S
        self.pool.owed = 1.0
        self.level = per_second
        self.settle_s = SETTLE_S

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.key_count):
            free(self.keys[i].text)
        free(self.keys)
        free(self.scratch)
        free(self.table)

    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        cdef uint64_t[2] nothing
        cdef const uint64_t* id = key
        cdef bint first = not self.started
        cdef double seconds = self.pass_time(now_ns)
        cdef Key* entry
        cdef Key* owner = &self.pool
        cdef Replay* replay = NULL
        cdef double correction, level, originals, share, p, scaled
        cdef double per_demand = 0.0
        cdef double chosen = 0.0
        cdef double level_of_chosen = 1.0
        cdef bint young = True
        if not 0.0 < weight <= MAX_WEIGHT:
            weight = 1.0
        if not 0.0 < incoming <= 1.0:
            incoming = 1.0
        originals = weight / incoming

        if id == NULL:
            nothing[0] = nothing[1] = 0
            id = nothing
        if first:
            self.interval_ns = self.pool.last_ns = self.now_ns
            self.restored_until_ns = self.now_ns + RESTORED_NS
        self.credit = min(self.credit + seconds * self.per_second, MOST_CREDIT_S * self.per_second)
        self.reserve = min(self.reserve + 0.5 * seconds * self.per_second, 0.5 * self.per_second)
        seconds = (self.now_ns - self.interval_ns) * NS
        if seconds >= INTERVAL_S or (
            seconds >= SHORTEST_INTERVAL_S and self.credit < self.credit_before - SURGE_S * self.per_second
        ):
            self.next_interval(seconds)

        entry = self.find(id)
        correction = self.correction()
        if entry != NULL:
            seconds = (self.now_ns - entry.last_ns) * NS
            entry.owed += seconds * self.minimum_per_second
            advance(&entry.window, seconds, LEAST_S)
            entry.last_ns = self.now_ns
            young = entry.window.seconds < LEAST_S
            if entry.window.seconds >= YOUNG_S:
                level_of_chosen = self.level
                per_demand = entry.window.seconds / entry.window.originals
                chosen = level_of_chosen * per_demand
                replay = &entry.replay
        else:
            entry = self.add(id, text, size)
            young = entry == NULL or entry.window.seconds < LEAST_S
            if not young:
                level_of_chosen = self.level
                per_demand = entry.window.seconds / entry.window.originals
                chosen = level_of_chosen * per_demand
                replay = &entry.replay
        if young:
            seconds = (self.now_ns - self.pool.last_ns) * NS
            self.pool.owed += seconds * self.minimum_per_second
            advance(&self.pool.window, seconds, POOL_LEAST_S)
            self.pool.last_ns = self.now_ns
            level = max(self.level, POOL_SHARE * self.per_second)
            share = self.pool.window.seconds / max(self.pool.window.originals, 1e-9)
            if replay == NULL or level * share > chosen:
                level_of_chosen = level
                per_demand = share
                chosen = level * share
                replay = &self.pool.replay
            self.pool.window.originals += originals
            self.pool.window.arrivals += 1.0
        if entry != NULL:
            entry.window.originals += originals
            entry.window.arrivals += 1.0

        if self.minimum_per_second > 0.0:
            if entry != NULL:
                owner = entry
            owner.owed = min(owner.owed, 1.0)
            if owner.owed >= 1.0 and self.reserve > 0.0:
                owner.owed -= 1.0
                self.reserve -= weight
                self.admitted += weight
                self.credit -= weight
                self.count(originals, weight)
                return 0
        p = bounded(chosen * correction, self.at_least, self.at_most)
        share = min(p / incoming, 1.0)
        if self.minimum_per_second > 0.0:
            owner.owed = max(owner.owed - share, 0.0)

        replay.weight += weight
        replay.originals += originals
        # A trace that is whole by far would still be so at a quarter of the level; more of it would hide its neighbours in the sum.
        replay.per_level += min(originals * per_demand, 4.0 * weight / level_of_chosen)
        share *= weight
        self.spent += share
        self.spent_squared += share * share
        if self.credit > -MOST_DEBT_S * self.per_second:
            self.credit -= share
        self.count(originals, share)
        return threshold_of(p)

    cdef double correction(self) noexcept nogil:
        cdef double slope = max(self.slope, LEAST_SLOPE * self.per_second)
        return exp(bounded(self.credit / (self.settle_s * slope), -MOST_CORRECTION, MOST_CORRECTION))

    cdef void next_interval(self, double seconds) noexcept nogil:
        """Solve the level anew from what came in the interval that ends, and drop quiet keys."""
        cdef uint32_t i = self.key_count
        cdef uint32_t count = 0
        cdef double contributions = 0.0
        cdef double keep
        cdef int64_t quiet_ns = QUIET_NS if self.key_count < self.max_keys - self.max_keys // 4 else QUIET_WHEN_FULL_NS
        cdef Key* key
        self.replayed_s += seconds
        while i:
            i -= 1
            key = &self.keys[i]
            if key.replay.weight > 0.0:
                self.scratch[count] = key.replay
                count += 1
            elif self.now_ns - key.last_ns > quiet_ns:
                self.forget(i)
        self.solve(count, self.per_second * self.replayed_s - self.admitted)
        self.slope /= self.replayed_s
        if self.spent_squared > 0.0:
            contributions = self.spent * self.spent / self.spent_squared
            self.settle_s = max(SETTLE_S, SETTLE_CONTRIBUTIONS * self.spent_squared / self.spent / self.per_second)
        # Few contributions say little: then the sums go on, and fade.
        keep = min(REPLAYED / (REPLAYED + contributions), LONGEST_REPLAY_S / self.replayed_s)
        if keep < 0.02 or seconds < INTERVAL_S:  # a surge: what was before is another time
            keep = 0.0
        self.replayed_s *= keep
        self.admitted *= keep
        self.spent *= keep
        self.spent_squared *= keep
        for i in range(self.key_count):
            fade(&self.keys[i].replay, keep)
        fade(&self.pool.replay, keep)
        self.interval_ns = self.now_ns
        self.credit_before = self.credit

    cdef double would_keep(self, uint32_t count, double level, double* slope) noexcept nogil:
        """The weight that a level would have kept, and its derivative by the level's logarithm."""
        cdef uint32_t i
        cdef double kept = 0.0
        cdef double steep = 0.0
        for i in range(count):
            kept += part(&self.scratch[i], level, self.at_least, self.at_most, &steep)
        kept += part(
            &self.pool.replay, max(level, POOL_SHARE * self.per_second), self.at_least, self.at_most, &steep
        )
        slope[0] = steep
        return kept

    cdef void solve(self, uint32_t count, double budget) noexcept nogil:
        """Newton's steps within a bracket that shrinks; the sum grows with the level."""
        cdef double low = 0.0
        cdef double high = 0.0
        cdef double kept, level, step
        cdef uint32_t i
        cdef int steps
        budget = max(budget, 0.1 * self.per_second * self.replayed_s)
        for i in range(count):
            high = max(high, self.scratch[i].weight / self.scratch[i].per_level)
        if self.pool.replay.weight > 0.0:
            high = max(high, self.pool.replay.weight / self.pool.replay.per_level)
        kept = self.would_keep(count, high, &self.slope)
        if kept <= budget:
            self.slope = 0.0
            self.level = max(high, self.per_second)
            return
        level = self.level if self.level < high else 0.5 * high
        for steps in range(MAX_STEPS):
            kept = self.would_keep(count, level, &self.slope)
            if budget * 0.999 <= kept <= budget * 1.001:
                break
            if kept < budget:
                low = level
            else:
                high = level
            if high - low <= 1e-6 * high:
                break
            step = level + (budget - kept) * level / self.slope if self.slope > 0.0 else high
            level = step if low < step < high else 0.5 * (low + high)
        self.level = max(level, 1e-9 * self.per_second)

    cdef Key* find(self, const uint64_t* id) noexcept nogil:
        cdef uint64_t at = id[0] & self.mask
        cdef Key* key
        while self.table[at]:
            key = &self.keys[self.table[at] - 1]
            if key.id[0] == id[0] and key.id[1] == id[1]:
                return key
            at = (at + 1) & self.mask
        return NULL

    cdef Key* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept:
        """A key that is not there yet; NULL where there is no room for it."""
        cdef uint64_t at
        cdef Key* key
        if self.key_count >= self.max_keys or (self.key_count == self.room and not self.grow()):
            return NULL
        key = &self.keys[self.key_count]
        memset(key, 0, sizeof(Key))
        size = min(size, <uint32_t>MAX_TEXT) if text != NULL else 0
        if size:
            key.text = <uint8_t*>malloc(size)
            if key.text == NULL:
                return NULL
            memcpy(key.text, text, size)
            key.size = size
        key.id[0] = id[0]
        key.id[1] = id[1]
        key.last_ns = self.now_ns
        key.owed = 1.0
        self.key_count += 1
        at = id[0] & self.mask
        while self.table[at]:
            at = (at + 1) & self.mask
        self.table[at] = self.key_count
        if self.restored is not None:
            self.adopt(key)
        return key

    cdef bint grow(self) noexcept nogil:
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t at
        cdef uint32_t i
        cdef void* moved = realloc(self.keys, 2 * <size_t>self.room * sizeof(Key))
        cdef uint32_t* table
        if moved == NULL:
            return False
        self.keys = <Key*>moved
        moved = realloc(self.scratch, 2 * <size_t>self.room * sizeof(Replay))
        if moved == NULL:
            return False
        self.scratch = <Replay*>moved
        table = <uint32_t*>calloc(mask + 1, sizeof(uint32_t))
        if table == NULL:
            return False
        for i in range(self.key_count):
            at = self.keys[i].id[0] & mask
            while table[at]:
                at = (at + 1) & mask
            table[at] = i + 1
        free(self.table)
        self.table = table
        self.mask = mask
        self.room *= 2
        return True

    cdef void forget(self, uint32_t position) noexcept nogil:
        """The last key takes its position."""
        cdef uint64_t hole = self.keys[position].id[0] & self.mask
        cdef uint64_t at, home
        while self.table[hole] != position + 1:
            hole = (hole + 1) & self.mask
        at = (hole + 1) & self.mask
        while self.table[at]:
            home = self.keys[self.table[at] - 1].id[0] & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                hole = at
            at = (at + 1) & self.mask
        self.table[hole] = 0
        free(self.keys[position].text)
        self.key_count -= 1
        if position != self.key_count:
            at = self.keys[self.key_count].id[0] & self.mask
            while self.table[at] != self.key_count + 1:
                at = (at + 1) & self.mask
            self.table[at] = position + 1
            self.keys[position] = self.keys[self.key_count]

    cdef void adopt(self, Key* key) noexcept:
        """What a former process has learned of a key that is new to this one. Whoever gave the fingerprint function answers for it:
        where it fails the key is a new one, and no other is tried."""
        cdef double demand
        try:
            if self.now_ns > self.restored_until_ns:
                self.restored = None
                return
            demand = self.restored.pop(self.fingerprint((<char*>key.text)[:key.size] if key.size else b""), 0.0)
            if not self.restored:
                self.restored = None
        except Exception:
            self.restored = None
            return
        if demand > 0.0:
            key.window.seconds = LEAST_S
            key.window.originals = demand * LEAST_S
            key.window.arrivals = bounded(demand * LEAST_S, 1.0, ENOUGH)
            key.owed = 0.0

    def stats(self, int64_t now_ns):
        cdef double quiet = max(<double>now_ns - <double>self.pool.last_ns, 0.0) * NS if self.started else 0.0
        cdef double demand = self.pool.window.originals / (self.pool.window.seconds + quiet)
        common = Controller.stats(self, now_ns)
        return common._replace(
            keys=self.key_count,
            level_per_s=self.level,
            pool_demand_per_s=demand,
            pool_probability=self.shown(max(self.level, POOL_SHARE * self.per_second), demand),
        )

    def shown(self, double level, double demand):
        return bounded(level * self.correction() / demand, self.at_least, self.at_most) if demand > 0.0 else self.at_most

    def demands(self):
        """(text, demand) of each key."""
        cdef uint32_t i
        cdef Key* key
        found = []
        for i in range(self.key_count):
            key = &self.keys[i]
            seconds = max(key.window.seconds + (self.now_ns - key.last_ns) * NS, YOUNG_S)
            found.append(((<char*>key.text)[:key.size] if key.size else b"", key.window.originals / seconds))
        return found

    def top(self, int n):
        largest = heapq.nlargest(n, self.demands(), key=lambda pair: pair[1])
        return [KeyRate(text, demand, self.shown(self.level, demand)) for text, demand in largest]

    def learned(self):
        return Learned(self.level, self.demands())

    def restore(self, level, demands, fingerprint):
        if isinstance(level, (int, float)) and isfinite(level) and 0 < level <= MAX_WEIGHT:
            self.level = level
        self.restored = {
            name: float(demand) for name, demand in demands.items()
            if isinstance(demand, (int, float)) and isfinite(demand) and 0 < demand <= MAX_WEIGHT
        } or None
        self.fingerprint = fingerprint


cdef inline void fade(Replay* replay, double keep) noexcept nogil:
    replay.weight *= keep
    replay.originals *= keep
    replay.per_level *= keep


cdef inline double part(Replay* replay, double level, double at_least, double at_most, double* steep) noexcept nogil:
    cdef double kept = level * replay.per_level
    cdef double most = min(replay.weight, at_most * replay.originals)
    if kept >= most:
        return most
    if kept <= at_least * replay.originals:
        return min(most, at_least * replay.originals)
    steep[0] += kept
    return kept
