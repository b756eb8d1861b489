"""Holds the hard cap on what leaves. `limit.pyi` is the manual.

Why the counts stay true: within a rule traces are admitted by their randomness R, largest first, until the first that
does not fit (bottom-k sampling, with a budget in place of k). Whatever R an admitted trace had had above that one's,
the same traces would have been admitted; so each was kept with the probability that its R lies above, given all the
others, and the threshold R_rejected + 1 says just that. It is why nothing smaller may slip in behind the one that did
not fit, and why what a rule may spend depends on the sizes of what was offered, never on a trace's own R.

Where not even the first fits, to drop it would leave the rule without any trace to estimate it by, and to admit it
would break the cap. So it is admitted by chance, with the probability that spends the budget on average: where its R
lies above a threshold that is set by sizes alone.
"""
from libc.stdlib cimport free, malloc, qsort, realloc

from sampler_proxy.rules.rate cimport elapsed_ns

from sampler_proxy.otlp.sampling import NEVER

cdef enum:
    WINDOW_NS = 1_000_000_000
    FIRST_ROOM = 256  # candidates
    MAX_KEPT_ROOM = 1 << 14  # candidates; the memory of a window that had more is given back

# Debts are paid by at most this part of a window's budget, and forgotten beyond so many seconds' worth of the limit.
cdef double MAX_PAID_PART = 0.9
cdef double MAX_DEBT_S = 10.0
cdef uint64_t NEVER_ = <uint64_t>1 << 56
cdef double RANGE = <double>(<uint64_t>1 << 56)  # number of values of the randomness
# Budgets are sums of floats: a size that exceeds its budget by less than this part fits.
cdef double SLACK = 1e-9


cdef inline double bounded(double value, double low, double high) noexcept nogil:
    """Return a value, or the bound that it exceeds."""
    return low if value < low else (high if value > high else value)


cdef int _order(const void* a, const void* b) noexcept nogil:
    """Compare candidates for qsort: by rule from the top of the file, then by randomness from the largest down."""
    cdef const Candidate* one = <const Candidate*>a
    cdef const Candidate* other = <const Candidate*>b
    if one.position != other.position:
        return -1 if one.position < other.position else 1
    if one.randomness != other.randomness:
        return -1 if one.randomness > other.randomness else 1
    return 0


cdef void _grant_max_min(RuleDemand* rules, uint32_t count, double budget) noexcept nogil:
    """Divide `budget` among rules by max-min fairness (water-filling): an equal part each, none more than its demand,
    and what some leave is divided among the others."""
    cdef double left = budget
    cdef double part
    cdef uint32_t i
    cdef uint32_t unmet = count
    cdef bint changed = True
    for i in range(count):
        rules[i].granted = -1  # not known yet
    # Demands below the equal part are met; each that is makes the part of the others larger, until none is below.
    while unmet and changed:
        changed = False
        part = left / unmet
        for i in range(count):
            if rules[i].granted < 0 and rules[i].demand <= part:
                rules[i].granted = rules[i].demand
                left -= rules[i].demand
                unmet -= 1
                changed = True
                part = left / unmet if unmet else 0
    for i in range(count):
        if rules[i].granted < 0:
            rules[i].granted = left / unmet


cdef uint64_t _chance(Candidate* items, uint32_t count, double budget) noexcept nogil:
    """Return the threshold for the first candidate of a rule, which is larger than the rule's budget.

    Any candidate of the rule might have been the first. Each reaches the threshold with the probability of lying above
    it, given that it lies above its rule's own; these probabilities are to add up to budget / size.
    """
    cdef double originals = 0  # traces that the candidates stand for: the sum of their adjusted counts
    cdef double probability
    cdef uint32_t i
    for i in range(count):
        originals += RANGE / (RANGE - <double>items[i].threshold)
    probability = max(budget, 0) / items[0].size / originals
    return NEVER_ - <uint64_t>(min(probability, 1) * RANGE)


cdef double _admit(Candidate* items, uint32_t count, double budget) noexcept nogil:
    """Admit a rule's candidates from the front, as far as they fit, and return what they spend of the budget. The first
    that is rejected raises the thresholds of those admitted."""
    cdef double spent = 0
    cdef uint32_t admitted = 0
    cdef uint32_t i
    cdef uint64_t raised = 0
    while admitted < count and spent + items[admitted].size <= budget * (1 + SLACK):
        spent += items[admitted].size
        admitted += 1
    if admitted == 0:
        raised = _chance(items, count, budget)
        spent = budget  # on average, which is what the others have to reckon with
        if items[0].randomness >= raised:
            admitted = 1
    if admitted < count:
        # A threshold cannot separate equal randomness: such traces are rejected together, unless they are all there is.
        i = admitted
        while i and items[i - 1].randomness == items[admitted].randomness:
            i -= 1
        while 0 < i < admitted:
            admitted -= 1
            spent -= items[admitted].size
        raised = max(raised, items[admitted].randomness + 1)
    for i in range(count):
        items[i].admitted = i < admitted
        items[i].threshold = max(items[i].threshold, min(raised, items[i].randomness) if i < admitted else raised)
    return spent


cdef class Limit:
    def __cinit__(self, per_second, unit, floor):
        self.configure(per_second, unit, floor)

    # Native calls, for the pipeline.

    def configure(self, double per_second, str unit not None, double floor):
        if not per_second > 0 or not 0 <= floor <= 1 or unit not in ("traces", "spans", "bytes"):
            raise ValueError("a limit is so many traces, spans or bytes a second, its floor a part of it")
        self.debt = 0 if unit != self.unit else min(self.debt, per_second * MAX_DEBT_S)
        self.spare = 0 if unit != self.unit else min(self.spare, per_second)
        self.per_second = per_second
        self.unit = unit
        self.floor = floor

    def __dealloc__(self):
        free(self.waiting)
        free(self.closed)
        free(self.places)

    cdef uint64_t nbytes(self) noexcept nogil:
        """Return the bytes of memory reserved for candidates."""
        return (<uint64_t>self.room + self.closed_room) * sizeof(Candidate) + self.place_count * sizeof(uint32_t)

    cdef int reserve(self) except -1:
        """Make room for one candidate more in the open window."""
        cdef void* grown
        cdef uint32_t room
        if self.count == self.room:
            room = max(2 * self.room, FIRST_ROOM)
            grown = realloc(self.waiting, room * sizeof(Candidate))
            if grown == NULL:
                raise MemoryError
            self.waiting = <Candidate*>grown
            self.room = room
        return 0

    cdef void add(self, Candidate* candidate, int64_t now_ns) noexcept nogil:
        """Copy a candidate into the open window, which has room for it, at its end: its place there is its number. The
        first one opens the window."""
        if self.count == 0:
            self.pay(now_ns)
            self.opened_ns = now_ns
        self.waiting[self.count] = candidate[0]
        self.waiting[self.count].gone = False
        self.count += 1

    cdef void pay(self, int64_t now_ns) noexcept nogil:
        """Let the time that passed without a window pay debts; it earns nothing else."""
        cdef double seconds = <double>elapsed_ns(self.paid_ns, now_ns) / 1e9
        self.debt = max(self.debt - self.per_second * seconds, 0)
        self.paid_ns = now_ns
        if seconds >= 1:
            self.spare = 0  # unspent budget is carried over for a second, no longer

    cdef void charge(self, double size, int64_t now_ns) noexcept nogil:
        """Add to the debts the size of what leaves without having waited: the next windows have so much less."""
        if self.count == 0:
            self.pay(now_ns)
        self.debt = min(self.debt + size, self.per_second * MAX_DEBT_S)

    cdef bint due(self, int64_t now_ns) noexcept nogil:
        """Return whether the window may be closed: its second is over, and the last one has been collected."""
        return self.count != 0 and self.collected() and elapsed_ns(self.opened_ns, now_ns) >= WINDOW_NS

    cdef void hasten(self, int64_t now_ns) noexcept nogil:
        """Make the open window due, with the budget of a whole second."""
        self.opened_ns = min(self.opened_ns, now_ns - WINDOW_NS)

    cdef Candidate* candidate_of(self, void* trace, uint32_t number) noexcept nogil:
        """Look up a trace's candidate, with its number, in the open window; NULL: the window does not hold it."""
        if number < self.count and self.waiting[number].trace == trace:
            return &self.waiting[number]
        return NULL

    cdef Candidate* closed_candidate_of(self, void* trace, uint32_t number) noexcept nogil:
        """Look up a trace's candidate among those of the closed window that have not been collected; NULL: it is none
        of them. `number`: the one that it had when the window was closed."""
        cdef uint32_t place
        if number >= self.place_count:
            return NULL
        place = self.places[number]
        if place < self.next or place >= self.closed_count or self.closed[place].gone:
            return NULL
        return &self.closed[place] if self.closed[place].trace == trace else NULL

    cdef void* withdraw(self, Candidate* found) noexcept nogil:
        """Take what candidate_of() has found out of the open window. Returns the trace whose candidate has got its
        number instead; NULL: none has."""
        self.count -= 1
        found[0] = self.waiting[self.count]
        return NULL if found == &self.waiting[self.count] else found.trace

    cdef void strike_out(self, Candidate* found) noexcept nogil:
        """Have collect() pass over what closed_candidate_of() has found. The last candidate is never a struck one, so
        that collected() need not look for them."""
        found.gone = True
        while self.closed_count > self.next and self.closed[self.closed_count - 1].gone:
            self.closed_count -= 1

    cdef int close(self, int64_t now_ns) except -1:
        """Close the window: admit or reject each candidate, for collect() to give out. Only for a window whose
        predecessor has been collected. On MemoryError nothing was changed."""
        cdef double seconds = <double>elapsed_ns(self.opened_ns, now_ns) / 1e9
        cdef double earned = self.per_second * seconds + self.extra + self.spare
        cdef double paid = min(self.debt, MAX_PAID_PART * earned)
        cdef uint32_t i, count
        cdef double left
        cdef double budget = earned - paid
        cdef RuleDemand* rules = <RuleDemand*>malloc((self.count + 1) * sizeof(RuleDemand))
        cdef uint32_t* places = <uint32_t*>malloc((self.count + 1) * sizeof(uint32_t))
        cdef RuleDemand* rule
        if rules == NULL or places == NULL:
            free(rules)
            free(places)
            raise MemoryError
        # The two arrays change places: the one that was collected takes the next window's candidates.
        if self.closed_room > MAX_KEPT_ROOM:
            free(self.closed)
            self.closed = NULL
            self.closed_room = 0
        self.waiting, self.closed = self.closed, self.waiting
        self.room, self.closed_room = self.closed_room, self.room
        self.closed_count = self.count
        self.next = self.count = 0
        for i in range(self.closed_count):
            self.closed[i].number = i
        qsort(self.closed, self.closed_count, sizeof(Candidate), _order)
        for i in range(self.closed_count):
            places[self.closed[i].number] = i
        free(self.places)
        self.places = places
        self.place_count = self.closed_count
        count = self.sum_demands(rules)
        # The floor's part is granted fairly; what it leaves goes to the rules from the first down.
        _grant_max_min(rules, count, budget * self.floor)
        left = budget
        for i in range(count):
            left -= rules[i].granted
        for i in range(count):
            rule = &rules[i]
            left -= _admit(self.closed + rule.start, rule.end - rule.start, rule.granted + max(left, 0)) - rule.granted
        free(rules)
        self.debt -= paid
        self.extra = 0
        self.spare = bounded(left, 0, self.per_second) if seconds < 1 else 0
        self.paid_ns = now_ns
        return 0

    cdef uint32_t sum_demands(self, RuleDemand* rules) noexcept nogil:
        """Find each rule's run of the sorted candidates and the sum of their sizes; return the number of rules."""
        cdef uint32_t i
        cdef uint32_t count = 0
        for i in range(self.closed_count):
            if i == 0 or self.closed[i].position != self.closed[i - 1].position:
                rules[count].start = i
                rules[count].demand = 0
                count += 1
            rules[count - 1].end = i + 1
            rules[count - 1].demand += self.closed[i].size
        return count

    cdef Candidate* collect(self) noexcept nogil:
        """Return the next candidate of the closed window, valid until close(); NULL: none is left."""
        if self.next == self.closed_count:
            return NULL
        while self.closed[self.next].gone:
            self.next += 1
        self.next += 1
        return &self.closed[self.next - 1]

    cdef bint collected(self) noexcept nogil:
        """Return whether all candidates of the closed window have been collected."""
        return self.next == self.closed_count

    cdef bint empty(self) noexcept nogil:
        """Return whether no candidate is waiting or left to collect."""
        return self.count == 0 and self.collected()

    # Python access to the same calls, for tests and simulations.

    def offer(self, number, *, position, randomness, threshold, size, now_ns):
        cdef Candidate candidate
        candidate.trace = <void*><size_t>number
        candidate.position = position
        candidate.randomness = randomness
        candidate.threshold = threshold
        candidate.size = size
        candidate.rule = 0
        candidate.reason = candidate.flags = 0
        candidate.admitted = candidate.by_threshold = False
        self.reserve()
        self.add(&candidate, now_ns)

    def grant(self, seconds):
        self.extra += self.per_second * seconds

    def owe(self, size, now_ns):
        self.charge(size, now_ns)

    def is_due(self, now_ns):
        return self.due(now_ns)

    def close_for_tests(self, now_ns):
        cdef Candidate* candidate
        outcomes = []
        self.close(now_ns)
        while True:
            candidate = self.collect()
            if candidate == NULL:
                return outcomes
            outcomes.append((<size_t>candidate.trace, bool(candidate.admitted), candidate.threshold))

    @property
    def owed(self):
        return self.debt


assert NEVER == NEVER_
