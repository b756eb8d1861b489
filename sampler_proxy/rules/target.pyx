"""Controls a rate by a target, divided among keys by max-min fairness. `target.pyi` is the manual.

How a target is held. Each key has a window over its last traces: some seconds, or longer, until ten traces are in it.
Its demand d is what the window says when a trace arrives, that trace left out: so the mean of 1/d is right also for a
key with a trace a minute. The trace is kept with p = min(1, level / d): water-filling, with one level for all keys. The
level is solved twice a second, by Newton's method: it is the one that would have met the target over the interval just
over, with the d of then. So errors of d cancel in the sum, whatever their cause, and a jump of all traffic is followed
after one interval, however slow the windows are. What has been over- or underspent meanwhile is a credit (a token
bucket that may go into debt), which multiplies the level by about exp(credit / what the target spends in the settling
time), anew at every trace: so what is kept over any span of time differs from the target by the change of the credit
alone. A surge drives the credit down, which ends the interval at once.
"""
cimport cython
from libc.math cimport exp
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from sampler_proxy.rules.key_table cimport ENOUGH, advance, count_arrival, fade
from sampler_proxy.rules.rate cimport (
    LEAST_WEIGHT, MAX_KEY_TEXT, MOST_WEIGHT, NS, bounded, elapsed_ns, sound_probability, sound_weight, threshold_of,
)

from sampler_proxy.rules.rate import KeyRate, Learned

cdef enum:
    MAX_STEPS = 60  # of solving: with as many halvings alone the bracket would be exact
    MAX_SHOWN = 1000  # keys that top() returns

# A key that is known for less than YOUNG_S is the pool's; up to SETTLED_S, the shortest window, it has the better of
# its own and the pool's probability.
cdef double YOUNG_S = 0.5
cdef double SETTLED_S = 3.0
cdef double POOL_LEAST_S = 1.0  # the pool's shortest window
# Of the target; the pool's level is no lower, so that with very many keys new ones are not starved.
cdef double POOL_SHARE = 0.1

# Keys are forgotten after such a silence; the shorter one where three quarters of the room are taken.
cdef double QUIET_S = 300.0
cdef double QUIET_WHEN_FULL_S = 10.0
cdef double RESTORED_S = 60.0  # how long restored demands wait for their keys

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
cdef double MOST_TRACE_S = 60.0  # a larger trace counts as so much of the target; at least as one
cdef double LEAST_SLOPE = 0.2  # of the target
cdef double MOST_EXPONENT = 2.0  # of the correction; traces kept at a tiny probability would make counts vary


@cython.final
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
        self.keys = KeyTable(max_keys)
        self.seed = seed
        memset(&self.pool, 0, sizeof(KeyState))
        self.pool.window.seconds = POOL_LEAST_S
        self.pool.owed = 1.0
        self.level = per_second
        self.settle_s = SETTLE_S
        self.interval_s = INTERVAL_S
        self.pool_floor = POOL_SHARE * per_second
        self.minimum_budget = 0.5 * per_second

    def __dealloc__(self):
        free(self.scratch)

    # Deciding a trace.

    cdef uint64_t threshold(
        self, const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    ) noexcept:
        """Return the threshold of the next trace, from the traces before, and learn from the trace."""
        cdef uint64_t[2] unkeyed
        cdef bint first = not self.started
        cdef double seconds = self.pass_time(now_ns)
        cdef double originals, p, part
        cdef KeyState* state
        cdef Estimate estimate
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
        self.refill(seconds)
        self.demand += originals
        state = self.find_or_add(key, text, size)
        self.estimate(state, originals, &estimate)
        if state == NULL:
            state = &self.pool
        if self.minimum_per_second > 0.0 and self.admit(state, weight):
            return 0
        p = bounded(estimate.level * estimate.per_demand * self.correction(), self.at_least, self.at_most)
        part = min(p / incoming, 1.0)
        state.owed = max(state.owed - part, 0.0)
        estimate.replay.weight += weight
        estimate.replay.originals += originals
        # That a trace would be whole at a quarter of the level is enough to know. In full it would hide, in the sum,
        # that its neighbours would not be.
        estimate.replay.per_level += min(originals * estimate.per_demand, 4.0 * weight / estimate.level)
        part *= weight
        self.spend(part)
        if self.credit > -MOST_DEBT * self.settle_s * self.per_second:
            self.credit -= part
        return threshold_of(p)

    cdef void refill(self, double seconds) noexcept nogil:
        """Refill the token buckets after some time, and end the interval if it is over, or cut short by a surge."""
        self.credit = min(self.credit + seconds * self.per_second, self.settle_s * self.per_second)
        self.minimum_budget = min(self.minimum_budget + 0.5 * seconds * self.per_second, 0.5 * self.per_second)
        # Not amid traces of one moment: those that are decided together came one after the other, since the last such
        # moment.
        if seconds > 0.0:
            seconds = self.since(self.interval_ns)
            if seconds >= self.interval_s or (
                seconds >= SHORTEST_INTERVAL_S
                and self.credit < self.credit_before - SURGE * self.settle_s * self.per_second
            ):
                self.next_interval()

    cdef KeyState* find_or_add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept:
        """Return a key, brought up to now; NULL where it is new and there is no room."""
        cdef KeyState* key = self.keys.find(id)
        cdef double seconds
        if key != NULL:
            seconds = self.since(key.last_ns)
            key.owed = min(key.owed + seconds * self.minimum_per_second, 1.0)
            advance(&key.window, seconds, SETTLED_S)
        else:
            key = self.keys.add(id, text, min(size, <uint32_t>MAX_KEY_TEXT) if text != NULL else 0)
            if key == NULL:
                return NULL
            key.owed = 1.0
            if self.restored is not None:
                self.restore_key(key)
        key.last_ns = self.now_ns
        return key

    cdef void estimate(self, KeyState* key, double originals, Estimate* estimate) noexcept nogil:
        """Set what decides a trace, from those before it: the key's own level and demand, or the pool's where the key
        is young and the pool's are better. Then count the trace in the windows."""
        cdef double seconds, per_demand
        estimate.level = estimate.per_demand = 0.0
        estimate.replay = NULL
        if key != NULL and key.window.seconds >= YOUNG_S:
            estimate.level = self.level
            estimate.per_demand = key.window.seconds / key.window.originals
            estimate.replay = &key.replay
        if key == NULL or key.window.seconds < SETTLED_S:
            seconds = self.since(self.pool.last_ns)
            self.pool.last_ns = self.now_ns
            self.pool.owed = min(self.pool.owed + seconds * self.minimum_per_second, 1.0)
            advance(&self.pool.window, seconds, POOL_LEAST_S)
            per_demand = self.pool.window.seconds / max(self.pool.window.originals, LEAST_WEIGHT)
            if estimate.replay == NULL or (
                self.pool_level(self.level) * per_demand > estimate.level * estimate.per_demand
            ):
                estimate.level = self.pool_level(self.level)
                estimate.per_demand = per_demand
                estimate.replay = &self.pool.replay
            count_arrival(&self.pool.window, originals)
        if key != NULL:
            count_arrival(&key.window, originals)

    cdef bint admit(self, KeyState* key, double weight) noexcept nogil:
        """Admit a trace, before the draw, if the key's minimum asks for it. All minimums together have half of the
        target: else many small keys could leave the draw next to nothing, and counts would vary without bound."""
        if key.owed < 1.0 or self.minimum_budget <= 0.0:
            return False
        key.owed -= 1.0
        self.minimum_budget -= weight
        self.credit -= weight
        self.admitted += weight
        self.spend(weight)
        return True

    cdef void spend(self, double weight) noexcept nogil:
        """Count the weight of a kept trace."""
        self.spent += weight
        self.spent_squared += weight * weight
        self.kept += weight

    cdef double correction(self) noexcept nogil:
        """Return the factor of the level that spends the credit, or pays the debt, within the settling time."""
        cdef double exponent = self.credit / (self.settle_s * max(self.slope, LEAST_SLOPE * self.per_second))
        # Steeper on the way down, for a surge costs what it takes to get there.
        if exponent < 0.0:
            exponent -= exponent * exponent
        return exp(bounded(exponent, -MOST_EXPONENT, MOST_EXPONENT))

    cdef double pool_level(self, double level) noexcept nogil:
        """Return the level of the pool, which is at least the floor."""
        return max(level, self.pool_floor)

    cdef double demand_of(self, KeyState* key) noexcept nogil:
        """Return a key's demand as of the last trace."""
        return key.window.originals / max(key.window.seconds + self.since(key.last_ns), YOUNG_S)

    cpdef void hold(self) noexcept:
        self.held = self.started  # without a trace there is nothing to hold

    cdef double held_probability(self, const uint64_t* id) noexcept nogil:
        """Return a key's probability as it would be now, and learn nothing."""
        cdef KeyState* key = self.keys.find(id)
        cdef double per_level = 0.0
        cdef double originals
        if key != NULL and key.window.seconds >= YOUNG_S:
            per_level = self.level * key.window.seconds / max(key.window.originals, LEAST_WEIGHT)
        if key == NULL or key.window.seconds < SETTLED_S:
            originals = max(self.pool.window.originals, LEAST_WEIGHT)
            per_level = max(per_level, self.pool_level(self.level) * self.pool.window.seconds / originals)
        return bounded(per_level * self.correction(), self.at_least, self.at_most)

    # Solving the level, at the end of an interval.

    cdef void next_interval(self) noexcept nogil:
        """End an interval: solve the level anew, forget quiet keys, and fade the interval's traces for the next."""
        cdef double seconds = self.since(self.interval_ns)
        cdef double traces = 0.0
        cdef double level = self.level
        cdef double keep
        self.replayed_s += seconds
        self.solve_level(self.collect_replays(), self.per_second * self.replayed_s - self.admitted)
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
        self.fade_replays(0.0 if keep < 0.02 else keep)
        self.interval_ns = self.now_ns
        self.credit_before = self.credit

    cdef uint32_t collect_replays(self) noexcept nogil:
        """Copy the keys' replays side by side, and forget quiet keys; return how many replays there are. Where there is
        no memory for all, some keys are left out of the solution."""
        cdef double quiet_s = QUIET_S if self.keys.count < self.keys.max_keys // 4 * 3 else QUIET_WHEN_FULL_S
        cdef uint32_t count = 0
        cdef uint32_t i = self.keys.count
        cdef KeyState* key
        cdef void* scratch
        if self.scratch_room < self.keys.capacity:
            scratch = realloc(self.scratch, self.keys.capacity * sizeof(Replay))
            if scratch != NULL:
                self.scratch = <Replay*>scratch
                self.scratch_room = self.keys.capacity
        while i:  # backwards, as the table wants it
            i -= 1
            key = &self.keys.keys[i]
            if self.since(key.last_ns) > quiet_s:
                self.keys.remove(i)
            elif key.replay.weight > 0.0 and count < self.scratch_room:
                self.scratch[count] = key.replay
                count += 1
        return count

    cdef void fade_replays(self, double keep) noexcept nogil:
        """Multiply all sums over the interval by `keep`."""
        cdef uint32_t i
        self.replayed_s *= keep
        self.admitted *= keep
        self.spent *= keep
        self.spent_squared *= keep
        for i in range(self.keys.count):
            fade(&self.keys.keys[i].replay, keep)
        fade(&self.pool.replay, keep)

    cdef void solve_level(self, uint32_t count, double budget) noexcept nogil:
        """Find the level that would have kept `budget`, a weight. The weight kept grows with the level: Newton's
        method, safeguarded by a bracket, which is halved where a step leaves it."""
        cdef double low = 0.0
        cdef double high = 0.0
        cdef double level, kept, step
        cdef uint32_t i
        cdef int _step
        budget = max(budget, 0.1 * self.per_second * self.replayed_s)
        for i in range(count):
            high = max(high, self.scratch[i].weight / self.scratch[i].per_level)
        if self.pool.replay.weight > 0.0:
            high = max(high, self.pool.replay.weight / self.pool.replay.per_level)
        # A pool that has just filled up got far more than that at first. All others keep three quarters.
        self.pool_floor = min(
            POOL_SHARE * self.per_second, 0.25 * budget / max(self.pool.replay.per_level, LEAST_WEIGHT)
        )
        level = max(high, self.per_second)
        kept = self.weight_kept(count, level)
        if kept > budget:
            level = self.level if self.level < high else 0.5 * high
            for _step in range(MAX_STEPS):
                kept = self.weight_kept(count, level)
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

    cdef double weight_kept(self, uint32_t count, double level) noexcept nogil:
        """Return the weight that a level would have kept. Sets `slope` to its derivative by the level's logarithm."""
        cdef double slope = 0.0
        cdef double kept = self.part_kept(&self.pool.replay, self.pool_level(level), &slope)
        cdef uint32_t i
        for i in range(count):
            kept += self.part_kept(&self.scratch[i], level, &slope)
        self.slope = slope
        return kept

    cdef double part_kept(self, Replay* replay, double level, double* slope) noexcept nogil:
        """Return the weight that a level would have kept of one key's traces, and add its derivative to `slope`."""
        cdef double kept = level * replay.per_level
        cdef double most = min(replay.weight, self.at_most * replay.originals)
        if kept >= most:
            return most
        if kept <= self.at_least * replay.originals:
            return min(self.at_least * replay.originals, most)
        slope[0] += kept
        return kept

    # What survives a restart.

    def restore(self, level, demands, fingerprint):
        if is_rate(level):
            self.level = bounded(level, 1e-9 * self.per_second, 1e9 * self.per_second)
        self.restored = {name: float(demand) for name, demand in demands.items() if is_rate(demand)} or None
        self.fingerprint = fingerprint
        self.restored_ns = self.now_ns

    cdef void restore_key(self, KeyState* key) noexcept:
        """Take over what a former process has learned of a new key. Where the fingerprint raises, the rest is
        forgotten."""
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

    def learned(self):
        return Learned(self.level, self.demands())

    cdef list demands(self):
        """Return (text, demand) of each key, as of the last trace."""
        cdef uint32_t i
        cdef KeyState* key
        cdef list found = []
        for i in range(self.keys.count):
            key = &self.keys.keys[i]
            found.append((text_of(key), self.demand_of(key)))
        return found

    # For people.

    def top(self, int n):
        cdef uint32_t* best
        cdef double* demands
        cdef uint32_t i, at
        cdef uint32_t count = 0
        cdef double demand
        cdef list found = []
        if n <= 0:
            return found
        n = min(n, MAX_SHOWN)
        best = <uint32_t*>malloc(n * sizeof(uint32_t))
        demands = <double*>malloc(n * sizeof(double))
        try:
            if best == NULL or demands == NULL:
                raise MemoryError
            # Insertion into the n best: a key below the n-th costs one comparison, and no Python object is made but for
            # those that are shown.
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
            for i in range(count):
                probability = self.shown_probability(self.level, demands[i])
                found.append(KeyRate(text_of(&self.keys.keys[best[i]]), demands[i], probability))
            return found
        finally:
            free(best)
            free(demands)

    def stats(self, int64_t now_ns):
        passed_s = <double>elapsed_ns(self.pool.last_ns, now_ns) * NS if self.started else 0.0
        seconds = self.pool.window.seconds + passed_s
        demand = self.pool.window.originals / seconds
        return Controller.stats(self, now_ns)._replace(
            keys=self.keys.count,
            level_per_s=self.level,
            pool_demand_per_s=demand,
            pool_probability=self.shown_probability(self.pool_level(self.level), demand),
        )

    cdef double shown_probability(self, double level, double demand) noexcept nogil:
        """Return the probability of a key with this demand."""
        if demand <= 0.0:
            return self.at_most
        return bounded(level * self.correction() / demand, self.at_least, self.at_most)


cdef bytes text_of(KeyState* key):
    """Return the readable form of a key; empty where there is none."""
    return (<char*>key.text)[:key.size] if key.size else b""


cdef bint is_rate(number):
    """Tell whether a learned number can be a level or demand."""
    return isinstance(number, (int, float)) and 0.0 < number <= MOST_WEIGHT
