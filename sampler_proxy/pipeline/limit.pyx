"""The hard cap on what leaves. `limit.pyi` is the manual.

Why the counts stay true: within a rule traces are admitted by their randomness R, largest first, until the first that does not fit.
Whatever R an admitted trace had had above that one's, the same traces would have been admitted; so each was kept with the probability
that its R lies above, given all the others, and the threshold R_rejected + 1 says just that. It is why nothing smaller may slip in behind
the one that did not fit, and why what a rule may spend depends on the sizes of what was offered, never on a trace's own R.

Where not even the first fits, to drop it would leave the rule without any trace to estimate it by, and to admit it would break the cap.
So it is admitted by chance, with the probability that spends the budget on average: where its R lies above a threshold that is set by
sizes alone.
"""
from libc.stdlib cimport free, malloc, qsort, realloc

from sampler_proxy.otlp.sampling import NEVER

cdef enum:
    WINDOW_NS = 1_000_000_000
    FIRST_ROOM = 256
    KEPT_ROOM = 1 << 14  # entries; a window that had more gives the memory back

# What leaves without having waited is paid back by at most nine tenths of a window, and forgotten beyond so many seconds.
cdef double MOST_PAID = 0.9
cdef double MAX_DEBT_S = 10.0
cdef uint64_t NEVER_ = <uint64_t>1 << 56
cdef double RANGE = <double>(<uint64_t>1 << 56)
# Budgets are sums of floats: what misses by less than this share fits.
cdef double SLACK = 1e-9


cdef inline double bounded(double value, double low, double high) noexcept nogil:
    return low if value < low else (high if value > high else value)


cdef struct Run:
    # The traces of one rule in a window, in `judged`.
    uint32_t start, end
    double demand, granted


cdef int _order(const void* a, const void* b) noexcept nogil:
    """By rule from the top, then by randomness from the largest down."""
    cdef const Chosen* one = <const Chosen*>a
    cdef const Chosen* other = <const Chosen*>b
    if one.position != other.position:
        return -1 if one.position < other.position else 1
    if one.randomness != other.randomness:
        return -1 if one.randomness > other.randomness else 1
    return 0


cdef void _share(Run* runs, uint32_t count, double budget) noexcept nogil:
    """Grant each rule an equal share of `budget`, as far as it needs it; what some leave is shared among the others."""
    cdef double left = budget
    cdef double share
    cdef uint32_t i
    cdef uint32_t hungry = count
    cdef bint changed = True
    for i in range(count):
        runs[i].granted = -1
    while hungry and changed:
        changed = False
        share = left / hungry
        for i in range(count):
            if runs[i].granted < 0 and runs[i].demand <= share:
                runs[i].granted = runs[i].demand
                left -= runs[i].demand
                hungry -= 1
                changed = True
                share = left / hungry if hungry else 0
    for i in range(count):
        if runs[i].granted < 0:
            runs[i].granted = left / hungry


cdef uint64_t _chance(Chosen* items, uint32_t count, double budget) noexcept nogil:
    """The threshold that the first of these, which is too large for the budget, has to reach. Any of them may be the first, with the
    chance that it lies above the threshold, given its rule's own; their sum is to be budget / size."""
    cdef double originals = 0
    cdef double share
    cdef uint32_t i
    for i in range(count):
        originals += RANGE / (RANGE - <double>items[i].threshold)
    share = max(budget, 0) / items[0].size / originals
    return NEVER_ - <uint64_t>(min(share, 1) * RANGE)


cdef double _admit(Chosen* items, uint32_t count, double budget) noexcept nogil:
    """Admit from the front what fits; returns what it takes. The rest is rejected, and raises the thresholds of what is admitted."""
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
        # Equal randomness cannot be told apart by a threshold: such traces are rejected together, unless they are all there is.
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

    def configure(self, double per_second, str unit not None, double floor):
        if not per_second > 0 or not 0 <= floor <= 1 or unit not in ("traces", "spans", "bytes"):
            raise ValueError("a limit is so many traces, spans or bytes a second, its floor a part of it")
        self.debt = 0 if unit != self.unit else min(self.debt, per_second * MAX_DEBT_S)
        self.per_second = per_second
        self.unit = unit
        self.floor = floor

    def __dealloc__(self):
        free(self.waiting)
        free(self.judged)

    cdef uint64_t nbytes(self) noexcept nogil:
        return (<uint64_t>self.room + self.judged_room) * sizeof(Chosen)

    cdef int add(self, Chosen* chosen, int64_t now_ns) except -1:
        """A trace waits for the window's end. On an error nothing was taken."""
        cdef void* grown
        cdef uint32_t room
        if self.count == self.room:
            room = max(2 * self.room, FIRST_ROOM)
            grown = realloc(self.waiting, room * sizeof(Chosen))
            if grown == NULL:
                raise MemoryError
            self.waiting = <Chosen*>grown
            self.room = room
        if self.count == 0:
            self.pay(now_ns)
            self.opened_ns = now_ns
        self.waiting[self.count] = chosen[0]
        self.count += 1
        return 0

    cdef void pay(self, int64_t now_ns) noexcept nogil:
        """Time without a window pays what is owed, and buys nothing else."""
        cdef double seconds = <double>(now_ns - self.paid_ns) / 1e9
        self.debt = max(self.debt - self.per_second * seconds, 0)
        self.paid_ns = now_ns
        if seconds >= 1:
            self.spare = 0

    cdef void charge(self, double size, int64_t now_ns) noexcept nogil:
        """What leaves without having waited: the next windows have so much less."""
        if self.count == 0:
            self.pay(now_ns)
        self.debt = min(self.debt + size, self.per_second * MAX_DEBT_S)

    cdef bint due(self, int64_t now_ns) noexcept nogil:
        """Whether the window may be closed: its second is over, and the last one has been collected."""
        return self.count != 0 and self.collected() and now_ns - self.opened_ns >= WINDOW_NS

    cdef void hasten(self, int64_t now_ns) noexcept nogil:
        """Have the open window's second be over, with all that a second may spend."""
        self.opened_ns = min(self.opened_ns, now_ns - WINDOW_NS)

    cdef bint withdraw(self, void* trace, Chosen* into) noexcept nogil:
        """Take a trace out of the open window; False where it does not wait in it."""
        cdef uint32_t i
        for i in range(self.count):
            if self.waiting[i].trace == trace:
                into[0] = self.waiting[i]
                self.count -= 1
                self.waiting[i] = self.waiting[self.count]
                return True
        return False

    cdef int close(self, int64_t now_ns) except -1:
        """Judge what waits; collect() then gives it out. The last window has been collected. On an error it is as before."""
        cdef double seconds = <double>(now_ns - self.opened_ns) / 1e9
        cdef double earned = self.per_second * seconds + self.extra + self.spare
        cdef double paid = min(self.debt, MOST_PAID * earned)
        cdef uint32_t i, start
        cdef uint32_t rules = 0
        cdef double left
        cdef double budget = earned - paid
        cdef Run* runs = <Run*>malloc((self.count + 1) * sizeof(Run))
        if runs == NULL:
            raise MemoryError
        if self.judged_room > KEPT_ROOM:
            free(self.judged)
            self.judged = NULL
            self.judged_room = 0
        self.waiting, self.judged = self.judged, self.waiting
        self.room, self.judged_room = self.judged_room, self.room
        self.judged_count = self.count
        self.next = self.count = 0
        qsort(self.judged, self.judged_count, sizeof(Chosen), _order)
        start = 0
        for i in range(1, self.judged_count + 1):
            if i == self.judged_count or self.judged[i].position != self.judged[start].position:
                runs[rules].start = start
                runs[rules].end = i
                runs[rules].demand = 0
                while start < i:
                    runs[rules].demand += self.judged[start].size
                    start += 1
                rules += 1
        _share(runs, rules, budget * self.floor)
        left = budget
        for i in range(rules):
            left -= runs[i].granted
        for i in range(rules):
            left -= _admit(self.judged + runs[i].start, runs[i].end - runs[i].start, runs[i].granted + max(left, 0)) - runs[i].granted
        free(runs)
        self.debt -= paid
        self.extra = 0
        self.spare = bounded(left, 0, self.per_second) if seconds < 1 else 0
        self.paid_ns = now_ns
        return 0

    cdef Chosen* collect(self) noexcept nogil:
        """One judged trace after the other, valid until the next call that is not nogil; NULL: there is none left."""
        if self.next == self.judged_count:
            return NULL
        self.next += 1
        return &self.judged[self.next - 1]

    cdef void give_back(self) noexcept nogil:
        """The last that was collected is to be collected again."""
        self.next -= 1

    cdef bint collected(self) noexcept nogil:
        """Whether what was judged has been collected."""
        return self.next == self.judged_count

    cdef bint empty(self) noexcept nogil:
        return self.count == 0 and self.collected()

    # For who has no pointers.

    def offer(self, number, *, position, randomness, threshold, size, now_ns):
        cdef Chosen chosen
        chosen.trace = <void*><size_t>number
        chosen.position = position
        chosen.randomness = randomness
        chosen.threshold = threshold
        chosen.size = size
        chosen.rule = 0
        chosen.reason = chosen.flags = 0
        chosen.admitted = False
        self.add(&chosen, now_ns)

    def grant(self, seconds):
        """Once, for what would have left over so long a time."""
        self.extra += self.per_second * seconds

    def owe(self, size, now_ns):
        self.charge(size, now_ns)

    def is_due(self, now_ns):
        return self.due(now_ns)

    def verdicts(self, now_ns):
        cdef Chosen* chosen
        found = []
        self.close(now_ns)
        while True:
            chosen = self.collect()
            if chosen == NULL:
                return found
            found.append((<size_t>chosen.trace, bool(chosen.admitted), chosen.threshold))

    @property
    def owed(self):
        return self.debt


assert NEVER == NEVER_
