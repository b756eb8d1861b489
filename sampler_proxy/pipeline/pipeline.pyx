"""Runs the whole flow without I/O: requests in, kept traces out, every span counted. pipeline.pyi is the manual.

One lock guards what is decided. It is held for short, bounded slices only, so that a request never waits behind much
work of others: the scan runs before it, without the GIL; the fragments of a large request are filed slice by slice;
what is kept is finished behind it (finisher.pyx). Time is an argument; it is made monotonic here, because two threads
that read the clock may take the lock in the other order.

Long: one lock's worth. Each method of `Pipeline` changes buffer, limit, decisions, ledger and finisher in one step, so
that the accounts balance whenever the lock is free. Cut in two, either part would need the other's fields, and the
lock.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sampler_proxy.otlp.fragments cimport (
    BLOCK_OVERHEAD, HAS_RANDOMNESS, HAS_REMOTE_PARENT, HAS_ROOT, HAS_TIMES, UNEQUAL_THRESHOLDS, Envelopes, Fragment,
    Scanned, absorb_times, fragment_cost, mix, prefetch,
)
from sampler_proxy.pipeline.buffer cimport Buffer, Trace
from sampler_proxy.pipeline.decisions cimport HELD_BACK, INCOMPLETE, KEPT, LIMITED, ROOTLESS, Decision, Decisions
from sampler_proxy.pipeline.finisher cimport Finisher
from sampler_proxy.pipeline.id_randomness cimport Uniformity
from sampler_proxy.pipeline.ledger cimport (
    DRAINING, EARLY, EFFORT, LATE, MALFORMED, MEMORY, NO_ROOM, OUT_OF_MEMORY, REASON_COUNT, ROOT, SHUTDOWN, SIZE,
    TOO_LARGE, WAIT, Ledger,
)
from sampler_proxy.pipeline.limit cimport Candidate, Limit
from sampler_proxy.pipeline.memory cimport Memory
from sampler_proxy.pipeline.outlets cimport Outlets
from sampler_proxy.pipeline.scanner cimport Scanner
from sampler_proxy.pipeline.stamp cimport Stamper
from sampler_proxy.pipeline.turn_lock cimport TurnLock
from sampler_proxy.redact.walker cimport Redactor
from sampler_proxy.rules.rate cimport Controller, elapsed_ns
from sampler_proxy.rules.roots cimport NO_ROOT
from sampler_proxy.rules.rule_set cimport NO_RULE, TRACES, RuleSet, randomness_of, size_of

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, MalformedRequest, OutOfMemory, Overloaded, RequestTooCostly, RequestTooLarge
from sampler_proxy.pipeline.ledger import REASONS
from sampler_proxy.pipeline.scanner import response
from sampler_proxy.rules.rule_set import UNITS

cdef enum:
    PREFETCH_FRAGMENTS = 32  # fragments of a request whose table slots are prefetched together
    # What is done in one go under the lock: fragments that are filed, and microseconds, about, of deciding.
    SLICE_FRAGMENTS = 2048
    SLICE_EFFORT = 5_000
    SLICE_HEADER_BYTES = 1 << 18  # headers of a request, beyond which they are not interned under the lock
    # What a request may have decided and finished to make room for itself, in microseconds, about: it bounds the time
    # for which others wait, and how far ahead of their time traces are decided when what is kept cannot leave.
    ROOM_EFFORT = 20_000
    ROOM_BYTES_PER_UNIT = 10
    FINISH_EFFORT = 20_000  # of one tick

cdef double BEYOND_ALL = 1e300  # a limit that admits everything
# A refused sender comes back after this long: RetryInfo and Retry-After.
cdef int64_t RETRY_AFTER_NS = 1_000_000_000


cdef struct Filing:
    # A request that is being filed.
    uint32_t filed  # fragments
    uint64_t need  # bytes, of what is in hand
    bint taken  # it has been counted, its headers are interned, and its spans are in hand


cdef class Pipeline:
    cdef readonly TurnLock lock
    cdef readonly RuleSet rules
    cdef readonly Envelopes envelopes
    cdef readonly Buffer buffer
    cdef readonly Decisions decisions
    cdef readonly Limit limit  # None: none is set
    cdef uint8_t limit_unit  # TRACES, SPANS or BYTES
    cdef bint unlimited  # the limit has been taken away, and is dropped once its windows are empty
    cdef readonly Uniformity uniformity
    cdef Ledger ledger
    cdef Memory memory
    cdef Outlets outlets
    cdef Finisher finisher
    cdef readonly uint64_t max_trace_bytes
    cdef int64_t rules_since_s  # decisions up to then are of other rules; -1: there were no others
    cdef bint local_roots  # a span with a parent in another process may be the root
    cdef uint64_t candidate_bytes  # of the traces in the limit's open window, when they came into it
    cdef uint64_t spans_in_hand  # of requests that are being filed
    cdef bint closed  # close() was called: requests are refused
    cdef int64_t now_ns  # the latest time seen
    cdef dict redactions  # (detector, action) -> number of redactions, by all policies so far

    def __init__(self, *, rules, destinations, max_bytes, max_trace_bytes, wait_ns, wait_after_root_ns,
                 decision_memory_bytes, stamp_decision, stamp_adjusted_count, seed, local_roots=True, limit=None,
                 redact=None, routes=None, archives=()):
        cdef Stamper stamper
        self.lock = TurnLock()
        self.envelopes = Envelopes(seed=seed)
        self.buffer = Buffer(self.envelopes, wait_ns=wait_ns, wait_after_root_ns=wait_after_root_ns, seed=seed)
        self.decisions = Decisions(decision_memory_bytes, seed=seed)
        self.ledger = Ledger()
        self.outlets = Outlets(destinations, archives, self.ledger)
        self.memory = Memory(self.buffer, self.outlets, max_bytes)
        stamper = Stamper(self.envelopes, decision=stamp_decision, adjusted_count=stamp_adjusted_count)
        self.finisher = Finisher(self.lock, self.envelopes, self.ledger, self.memory, self.outlets, stamper)
        self.redactions = {}
        self.replace_redaction(redact)
        self.rules_since_s = -1
        self.max_trace_bytes = max_trace_bytes
        self.local_roots = local_roots
        self.uniformity = Uniformity()
        self.rules = self.rule_set(rules)
        self.outlets.routes = self.routes_by_id(routes)
        self.set_limit(limit)

    def ledger_id(self, name):
        with self.lock:
            return self.ledger.rule_id(name)

    cdef RuleSet rule_set(self, rules):
        """Build the native form of the rules, numbered by the ledger."""
        names, keeps, compiled = rules
        return RuleSet(names=names, keeps=keeps, compiled=compiled, ledger_id=self.ledger_id, seed=self.buffer.seed)

    cdef dict routes_by_id(self, routes):
        """Return the outlets of each rule that has not all, by the rule's id."""
        return {
            self.ledger_id(name): [self.outlets.outlets[number] for number in numbers]
            for name, numbers in (routes or {}).items()
        }

    def replace_rules(self, rules, routes=None):
        cdef uint32_t i
        cdef RuleSet rule_set = self.rule_set(rules)  # outside the lock: a large one takes its time
        cdef dict by_id = self.routes_by_id(routes)
        cdef set ids = set(map(self.ledger_id, rules[0]))
        with self.lock:
            # What rules that are gone have decided goes where they said.
            for rule, route in self.outlets.routes.items():
                if rule not in ids:
                    by_id[rule] = route
            self.outlets.routes = by_id
            rule_set.partly_read = self.rules.partly_read
            self.rules = rule_set
            # Whether what these rules exclude has been met, nobody knows of traces that others decided.
            self.rules_since_s = self.now_ns // 1_000_000_000
            if self.limit is not None:
                for i in range(self.limit.count):
                    self.limit.waiting[i].flags |= HELD_BACK
                for i in range(self.limit.next, self.limit.closed_count):
                    self.limit.closed[i].flags |= HELD_BACK

    cdef int set_limit(self, limit) except -1:
        """Set the limit and its unit; None: there is no limit."""
        if limit is not None:
            self.limit = self.memory.limit = Limit(*limit)
            self.limit_unit = UNITS.index(self.limit.unit)
        return 0

    def replace_limit(self, limit):
        with self.lock:
            if self.limit is None:
                self.set_limit(limit)
                return
            if limit is None:
                self.limit.configure(BEYOND_ALL, self.limit.unit, self.limit.floor)
                self.unlimited = True
                return
            self.limit.configure(*limit)
            self.unlimited = False
            if UNITS.index(self.limit.unit) != self.limit_unit:
                self.limit_unit = UNITS.index(self.limit.unit)
                self.remeasure_closed_window()

    @property
    def only_limit_left(self):
        if self.limit is None or self.buffer.oldest != NULL:
            return False
        return not self.outlets.backlog_spans and not self.finisher.spans and self.limit.collected()

    def replace_redaction(self, policy, observer=None):
        cdef Redactor redactor = None
        if policy is not None:
            redactor = Redactor(policy, self.envelopes, self.redactions, observer, seed=self.buffer.seed)
        self.finisher.stamper.redactor = redactor  # the trace that is being finished has the other one to its end

    def intake(self, transport, effort=0):
        return Intake(self, transport, effort)

    # Receiving.

    @property
    def nbytes(self):
        return self.memory.in_use()

    def peak_bytes(self):
        cdef uint64_t peak
        with self.lock:
            peak = max(self.memory.peak, self.memory.in_use())
            self.memory.peak = 0
        return peak

    @property
    def max_bytes(self):
        return self.memory.bound

    @property
    def configured_max_bytes(self):
        return self.memory.configured

    def count_refused(self, transport, reason):
        with self.lock:
            self.ledger.refused_unread(transport, reason)

    def ran_out_of_memory(self):
        with self.lock:
            self.memory.lower_bound()

    cdef int refuse(self, uint32_t reason, uint32_t transport, uint64_t size, error) except -1:
        """Count the refusal of a request that was read whole, and raise it."""
        self.ledger.received(transport, size)
        self.ledger.refused(transport, reason)
        raise error

    cdef int refuse_unread(self, uint32_t reason, uint32_t transport, uint64_t size, error) except -1:
        """Count the refusal of a request that could not be scanned, and raise it."""
        with self.lock:
            self.refuse(reason, transport, size, error)
        return 0

    cdef uint64_t need_of(self, Scanned scanned) noexcept:
        """Return the bytes that a request's spans take in the buffer at most, without its headers."""
        return scanned.cost + scanned.count * (sizeof(Trace) + BLOCK_OVERHEAD)

    cdef int take(self, Scanned scanned, uint32_t transport, uint64_t size, int64_t now_ns) except -1:
        """Take ownership of a scanned request's fragments and file them, or raise the refusal. `size`: its bytes.

        The lock is taken slice by slice; in between what is not filed is in hand. Every request is counted once: here,
        or by the engine where not even a refusal finds memory.
        """
        cdef Filing filing
        filing.filed = 0
        filing.need = 0
        filing.taken = False
        try:
            self.begin_filing(scanned, transport, size, now_ns, &filing)
            if not filing.taken:
                self.adopt(scanned, &filing)
            while filing.filed < scanned.count:
                with nogil:  # give others their turn
                    pass
                self.file_next(scanned, transport, size, &filing)
        except BaseException as error:
            self.lock.take()
            try:
                self.give_back(scanned, transport, &filing)
                if not isinstance(error, MemoryError):
                    raise
                self.memory.lower_bound()
                self.refuse(OUT_OF_MEMORY, transport, size, OutOfMemory("the proxy is out of memory", RETRY_AFTER_NS))
            finally:
                self.lock.leave()
        return 0

    cdef int begin_filing(
        self, Scanned scanned, uint32_t transport, uint64_t size, int64_t now_ns, Filing* filing
    ) except -1:
        """Find room for a request, or raise the refusal, and file it. A large one is only put in hand: its headers are
        interned without the lock."""
        cdef uint64_t need = self.need_of(scanned) + scanned.header_cost()
        cdef uint64_t effort = ROOM_EFFORT + need // ROOM_BYTES_PER_UNIT
        cdef uint64_t spent
        while True:
            self.lock.take()
            try:
                if self.admit(need, transport, size, now_ns, &effort):
                    self.memory.in_hand += need
                    filing.need = need
                    if scanned.header_cost() <= SLICE_HEADER_BYTES and scanned.count <= SLICE_FRAGMENTS:
                        self.adopt(scanned, filing)
                        self.file_some(scanned, transport, size, filing)
                    return 0
            finally:
                self.lock.leave()
            if self.memory.leaving:
                spent = self.finisher.finish(min(effort, SLICE_EFFORT), False)
                effort = effort - min(effort, spent) if spent else 0

    cdef bint admit(
        self, uint64_t need, uint32_t transport, uint64_t size, int64_t now_ns, uint64_t* effort
    ) except -1:
        """Return whether there is room for a request; False: there may be, once what is kept has left. Raise the
        refusal where there is none, and nothing of `effort` is left."""
        if self.closed:
            self.refuse(DRAINING, transport, size, Draining("the proxy is stopping", RETRY_AFTER_NS))
        self.now_ns = max(self.now_ns, now_ns)
        self.memory.expect(need, size)
        if self.memory.in_use() + need <= self.memory.bound:
            return True
        if need + self.buffer.empty_cost() > self.memory.configured:
            self.refuse(TOO_LARGE, transport, size, RequestTooLarge(
                "the request is larger than the whole buffer (buffer.max_bytes)"
            ))
        if need + self.buffer.empty_cost() <= self.memory.bound and self.make_room(need, effort):
            return True
        if not effort[0] or need + self.buffer.empty_cost() > self.memory.bound:
            self.refuse(NO_ROOM, transport, size, Overloaded("the buffer is full", RETRY_AFTER_NS))
        return False

    cdef int adopt(self, Scanned scanned, Filing* filing) except -1:
        """Intern a request's headers, which count as envelopes from then on."""
        cdef uint64_t need = self.need_of(scanned)
        self.envelopes.adopt(scanned)
        self.memory.in_hand -= filing.need - need
        filing.need = need
        return 0

    cdef int file_next(self, Scanned scanned, uint32_t transport, uint64_t size, Filing* filing) except -1:
        """File the next slice of a request under the lock."""
        self.lock.take()
        try:
            self.file_some(scanned, transport, size, filing)
        finally:
            self.lock.leave()
        return 0

    cdef int file_some(self, Scanned scanned, uint32_t transport, uint64_t size, Filing* filing) except -1:
        """File the next slice of a request whose headers have been interned. The lock is held."""
        cdef uint32_t end = min(scanned.count, filing.filed + SLICE_FRAGMENTS)
        cdef uint32_t i, spans
        cdef uint64_t need
        cdef uint64_t before = self.rules.effort_()
        cdef Fragment* fragment
        if not filing.taken:
            filing.taken = True
            self.spans_in_hand += scanned.spans
            self.ledger.taken(transport, scanned)
        while filing.filed < end:
            i = filing.filed
            if i % PREFETCH_FRAGMENTS == 0:
                self.prefetch_slots(scanned, i)
            fragment = scanned.fragments[i]
            spans = fragment.spans
            need = fragment_cost(fragment) + sizeof(Trace) + BLOCK_OVERHEAD
            try:
                self.place(&scanned.fragments[i])
            finally:
                if scanned.fragments[i] == NULL:
                    self.spans_in_hand -= spans
                    self.memory.in_hand -= need
                    filing.need -= need
            filing.filed = i + 1
            if self.rules.effort_() - before > SLICE_EFFORT:
                break
        if filing.filed == scanned.count:
            self.ledger.received(transport, size)
        return 0

    cdef void give_back(self, Scanned scanned, uint32_t transport, Filing* filing) noexcept:
        """Free the fragments of a request that nobody has taken, and count their spans as never received. The lock is
        held.

        Those that have been taken stay: their sender sends them again, as duplicates.
        """
        cdef uint32_t i
        cdef uint32_t spans = 0
        self.memory.in_hand -= filing.need
        if not filing.taken:
            return
        for i in range(scanned.count):
            if scanned.fragments[i] != NULL:
                spans += scanned.fragments[i].spans
                self.envelopes.free_fragment(scanned.fragments[i])
                scanned.fragments[i] = NULL
        self.spans_in_hand -= spans
        self.ledger.taken_back(transport, spans)

    cdef void prefetch_slots(self, Scanned scanned, uint32_t begin) noexcept nogil:
        """Prefetch the cache lines of both hash tables for the next fragments: they miss together, not one by one."""
        cdef uint64_t key
        cdef uint32_t i
        for i in range(begin, min(begin + PREFETCH_FRAGMENTS, scanned.count)):
            key = mix(scanned.fragments[i].trace_id, self.buffer.seed)
            prefetch(&self.buffer.slots[key & self.buffer.mask])
            prefetch(&self.decisions.table[key & self.decisions.mask])

    cdef int place(self, Fragment** owner) except -1:
        """Put an adopted fragment into the buffer, or let it follow the decision on its trace. `owner` holds NULL from
        the moment that the fragment has another owner, also where an error comes after."""
        cdef Fragment* fragment = owner[0]
        cdef Trace* trace = self.buffer.find(fragment.trace_id)
        cdef Decision* decision
        if trace != NULL and trace.state.in_limit_window and self.leaves_for(fragment, trace):
            trace = NULL
        if trace == NULL:
            decision = self.decisions.find(fragment.trace_id)
            if decision != NULL:
                return self.follow_decision(owner, decision)
        trace = self.buffer.add(trace, fragment, self.now_ns)
        owner[0] = NULL
        if trace.state.in_limit_window:
            return self.joined_in_window(trace, fragment.flags)
        if self.rules.early_count and self.matches_early(trace):
            self.decide(trace, EARLY)
        elif trace.cost >= self.max_trace_bytes:
            self.decide(trace, SIZE)
        return 0

    cdef int joined_in_window(self, Trace* trace, uint16_t flags) except -1:
        """Note what spans with these flags, which have joined a trace in the limit's windows, say about its root, and
        check its size: one that has grown too large leaves the open window at once, at the expense of the next ones."""
        cdef bint is_open
        cdef Candidate* found = self.candidate_of(trace, &is_open)
        if found == NULL:
            return 0
        if flags & (HAS_ROOT | HAS_REMOTE_PARENT):
            found.flags &= ~ROOTLESS
        if is_open and trace.cost >= self.max_trace_bytes:
            self.leave_open_window(found)
        return 0

    cdef Candidate* candidate_of(self, Trace* trace, bint* is_open) noexcept:
        """Look up a trace's candidate in the limit's windows; NULL: it is in none."""
        cdef Candidate* found
        if self.limit is None:
            return NULL
        found = self.limit.candidate_of(trace, trace.state.mark)
        is_open[0] = found != NULL
        return found if is_open[0] else self.limit.closed_candidate_of(trace, trace.state.mark)

    cdef bint leaves_for(self, Fragment* fragment, Trace* trace) except -1:
        """Let a trace in the limit's windows, which a threshold has admitted, leave before a fragment that revives it;
        return whether it has left.

        What came until now keeps that threshold, or the one that the limit has raised it to, since traces of its kind
        that were not admitted have lost the same spans.
        """
        cdef bint is_open, held_back
        cdef Candidate* found = self.candidate_of(trace, &is_open)
        if found == NULL or not found.by_threshold:
            return False
        absorb_times(fragment, trace.fragments.min_start, trace.fragments.max_end, trace.fragments.flags & HAS_TIMES)
        held_back = found.flags & HELD_BACK
        if self.reviving_rule(fragment, found.rule, &held_back, found.flags & ROOTLESS) == NO_RULE:
            if held_back:
                found.flags |= HELD_BACK
            return False
        if is_open:
            self.leave_open_window(found)
        else:
            self.finisher.reserve()
            self.carry_out_limited(found)
            self.limit.strike_out(found)
        return True

    cdef int leave_open_window(self, Candidate* found) except -1:
        """Carry out what the rules decided on a trace in the limit's open window, at the expense of the next windows.

        On an error the trace stays in the window, and nothing is owed.
        """
        cdef Trace* trace = <Trace*>found.trace
        cdef double size = size_of(self.limit_unit, trace.fragments, trace.spans)
        cdef uint64_t cost = trace.cost
        cdef uint32_t number = trace.state.mark
        cdef Trace* renumbered
        self.finisher.reserve()
        self.carry_out(found)
        renumbered = <Trace*>self.limit.withdraw(found)
        if renumbered != NULL:
            renumbered.state.mark = number
        self.limit.charge(size, self.now_ns)
        self.candidate_bytes -= min(self.candidate_bytes, cost)
        return 0

    cdef uint32_t reviving_rule(
        self, Fragment* late, uint16_t decided_by, bint* held_back, bint rootless
    ) except? 0xFFFFFFFF:
        """Return the index of the rule that revives the trace of a late fragment, which has absorbed the times of the
        trace; NO_RULE: none. Costs next to nothing where no rule that keeps everything stands before the one that
        decided.

        The rules in force are asked, those that now stand before the one with the name of the one that decided; where
        that is gone with a former rule set, the decision stays."""
        cdef uint32_t position = self.rules.position_of(decided_by)
        if position == NO_RULE or not self.rules.revivable[position]:
            return NO_RULE
        return self.rules.first_late(late, position, held_back, rootless)

    cdef bint revive(self, Fragment* late, Decision* decision) except -1:
        """Ask the rules about a late fragment of a trace that was dropped, or kept by a threshold; return whether it
        revives the trace, whose decision then is to keep with certainty all that still comes. Counts nothing."""
        cdef bint held_back = decision.flags & HELD_BACK or <int64_t>decision.when_s <= self.rules_since_s
        cdef uint32_t rule
        absorb_times(late, decision.min_start, decision.max_end, decision.min_start != 0)
        if late.flags & HAS_TIMES:
            decision.min_start = late.min_start
            decision.max_end = late.max_end
        rule = self.reviving_rule(late, decision.rule, &held_back, decision.flags & ROOTLESS)
        if held_back:
            decision.flags |= HELD_BACK
        if late.flags & (HAS_ROOT | HAS_REMOTE_PARENT):
            decision.flags &= ~ROOTLESS
        if rule == NO_RULE:
            return False
        decision.threshold = 0
        decision.rule = self.rules.ids[rule]
        decision.reason = LATE
        decision.when_s = <uint32_t>(self.now_ns // 1_000_000_000)
        decision.flags = KEPT | INCOMPLETE
        return True

    cdef bint matches_early(self, Trace* trace) except -1:
        """Return whether to keep a trace at once, whatever of it is still to come.

        Rules that have to read its spans again are evaluated each time while it is small, and then each time it has
        grown by an eighth, so that their cost stays proportional to its size.
        """
        cdef uint32_t checked = trace.state.mark
        cdef bint with_queries = False
        if self.rules.early_queries and (trace.spans < 64 or trace.spans - checked >= checked >> 3):
            with_queries = True
            trace.state.mark = trace.spans
        return self.rules.matches_early(trace.fragments, with_queries)

    cdef int follow_decision(self, Fragment** owner, Decision* decision) except -1:
        """Keep or drop a late fragment by the decision on its trace, with the decision's threshold, rule and reason;
        or by a rule that it revives the trace for.

        A span that is kept with certainty must not be counted for others: hence traces kept by a threshold are judged,
        too. On an error nothing has happened.
        """
        cdef Fragment* fragment = owner[0]
        cdef uint32_t spans = fragment.spans
        cdef Decision before = decision[0]
        cdef bint was_kept = decision.flags & KEPT
        cdef bint kept = was_kept
        cdef bint revived = False
        cdef double size = size_of(self.limit_unit, fragment, spans)
        self.finisher.reserve()
        if not was_kept or decision.threshold != 0:
            try:
                revived = self.revive(fragment, decision)
            except BaseException:
                decision[0] = before
                raise
            kept |= revived
        if kept or self.outlets.archiving:
            self.finisher.add(
                fragment, fragment_cost(fragment), spans, decision.threshold, decision.rule, decision.reason,
                decision.flags & INCOMPLETE, not kept,
            )
        if revived:
            self.ledger.rules[decision.rule].revived += 1
            self.ledger.totals.late_would_keep += spans
        if decision.reason != EARLY:
            self.ledger.totals.late_spans[kept] += spans
        self.count_unequal_thresholds(fragment)
        owner[0] = NULL
        if not kept:
            if not self.outlets.archiving:
                self.ledger.rules[decision.rule].sampled_out += spans
                self.envelopes.free_fragment(fragment)
        elif self.limit is not None and not (self.limit_unit == TRACES and was_kept):
            self.limit.charge(size, self.now_ns)  # a trace itself has been counted, unless it was dropped
        return 0

    cdef bint make_room(self, uint64_t need, uint64_t* effort) except -1:
        """Decide the oldest traces early until `need` bytes fit; return whether they do. Where they do not, and effort
        is left, the finisher has to make what is kept leave, or another slice is due.

        The limit's window is closed early where its candidates fill a quarter of the memory, or are all there is. While
        a destination takes nothing, traces that the rules drop are found all the same.
        """
        cdef uint64_t least = effort[0] - min(effort[0], SLICE_EFFORT)
        cdef uint64_t before
        if self.outlets.backlog_spans:
            self.outlets.flush()
        while self.memory.in_use() + need > self.memory.bound and effort[0] > least:
            if not self.outlets.backlog_spans and (
                self.memory.in_use() + need <= self.memory.bound + self.memory.leaving
            ):
                return False  # it is enough that these leave
            before = self.rules.effort_()
            effort[0] -= 1
            if self.limit is not None:
                if self.emit_window(1):
                    continue
                # Not sooner: the shorter a window, the less its first rules can take from the last.
                if self.limit.count and (
                    self.candidate_bytes >= self.memory.bound >> 2 or self.buffer.oldest == NULL
                ):
                    self.close_window()
                    continue
            if self.buffer.oldest == NULL:
                if not self.memory.leaving:
                    effort[0] = 0
                break
            self.decide(self.buffer.oldest, MEMORY)
            effort[0] -= min(effort[0], self.rules.effort_() - before)
        return self.memory.in_use() + need <= self.memory.bound

    # Deciding.

    cdef void count_unequal_thresholds(self, Fragment* fragment) noexcept:
        """Count a trace whose spans came with different thresholds: its adjusted counts are biased."""
        cdef uint64_t first = fragment.threshold
        while fragment != NULL:
            if fragment.flags & UNEQUAL_THRESHOLDS or fragment.threshold != first:
                self.ledger.totals.unequal_thresholds += 1
                return
            fragment = fragment.next

    cdef int decide(self, Trace* trace, uint8_t reason) except -1:
        """Decide a trace by the rules. One that they keep leaves at once, or becomes a candidate for the limit."""
        cdef Fragment* fragments = trace.fragments
        cdef uint32_t index = self.rules.first_match(fragments)
        cdef bint by_id = not fragments.flags & HAS_RANDOMNESS and fragments.threshold == 0
        cdef Candidate candidate
        candidate.trace = trace
        candidate.randomness = randomness_of(fragments)
        candidate.position = index
        candidate.rule = self.rules.ids[index]
        candidate.reason = reason
        candidate.flags = HELD_BACK if self.rules.held_back else 0
        if trace.root_ns < 0 or trace.state.only_remote:
            self.rules.find_root(fragments)
            self.rules.note_root_beyond()
            if self.rules.root.kind == NO_ROOT:
                candidate.flags |= ROOTLESS
        if self.rules.beyond or reason != EARLY and (candidate.flags & ROOTLESS or reason >= MEMORY or reason == SIZE):
            candidate.flags |= INCOMPLETE
        # A controller learns from each trace once: nothing behind this may find no memory.
        self.reserve()
        candidate.threshold = self.rules.threshold(index, fragments, trace.spans, candidate.randomness, self.now_ns)
        candidate.admitted = candidate.randomness >= candidate.threshold
        if candidate.admitted and self.limit is not None and not self.unlimited:
            self.enter_window(&candidate)
        else:
            self.carry_out(&candidate)
        if by_id:
            self.uniformity.record(candidate.randomness)
        return 0

    cdef int reserve(self) except -1:
        """Make sure that the next decision finds the memory that it takes to carry it out."""
        self.finisher.reserve()
        if self.limit is not None:
            self.limit.reserve()
        return 0

    cdef void enter_window(self, Candidate* candidate) noexcept:
        """Make a trace a candidate in the limit's open window; there is room for it."""
        cdef Trace* trace = <Trace*>candidate.trace
        candidate.size = size_of(self.limit_unit, trace.fragments, trace.spans)
        candidate.by_threshold = candidate.threshold != 0
        self.limit.add(candidate, self.now_ns)
        self.candidate_bytes += trace.cost
        self.buffer.move_to_window(trace)
        trace.state.mark = self.limit.count - 1

    cdef void carry_out(self, Candidate* candidate) noexcept:
        """Carry out a decision: give the trace to the finisher, which has room for it, or drop it where no
        destination takes what is sampled out; remember the decision; count it."""
        cdef Trace* trace = <Trace*>candidate.trace
        cdef int64_t delay_ns = self.now_ns - trace.first_ns
        cdef Fragment* fragments = trace.fragments
        cdef bint leaves = candidate.admitted or self.outlets.archiving
        cdef Decision decision
        decision.trace_id = trace.fragments.trace_id
        decision.threshold = candidate.threshold
        decision.min_start = trace.fragments.min_start if trace.fragments.flags & HAS_TIMES else 0
        decision.max_end = trace.fragments.max_end if trace.fragments.flags & HAS_TIMES else 0
        decision.when_s = <uint32_t>(self.now_ns // 1_000_000_000)
        decision.rule = candidate.rule
        decision.reason = candidate.reason
        decision.flags = candidate.flags
        if candidate.admitted:
            decision.flags |= KEPT
        if leaves:
            self.finisher.add(
                fragments, trace.cost, trace.spans, candidate.threshold, candidate.rule, candidate.reason,
                candidate.flags & INCOMPLETE, not candidate.admitted,
            )
        else:
            self.ledger.rules[candidate.rule].sampled_out += trace.spans
        self.decisions.remember(&decision)
        self.ledger.decided(candidate.rule, decision.flags & KEPT, candidate.reason, delay_ns)
        if candidate.reason == WAIT and candidate.flags & INCOMPLETE:  # ROOTLESS, unless a root came in the window
            self.ledger.totals.rootless += 1
        self.count_unequal_thresholds(fragments)
        self.buffer.remove(trace, leaves)

    cdef int emit_window(self, int most) except -1:
        """Carry out the limit's decisions on its closed window, at most `most`; return their number."""
        cdef Candidate* candidate
        cdef int done = 0
        while done < most:
            self.finisher.reserve()
            candidate = self.limit.collect()
            if candidate == NULL:
                break
            self.carry_out_limited(candidate)
            done += 1
        return done

    cdef void carry_out_limited(self, Candidate* candidate) noexcept:
        """Carry out the limit's decision on a candidate of its closed window, as carry_out() does."""
        cdef Trace* trace = <Trace*>candidate.trace
        cdef uint32_t spans = trace.spans
        cdef double size = size_of(self.limit_unit, trace.fragments, spans)
        if not candidate.admitted:
            candidate.flags |= LIMITED
        self.carry_out(candidate)
        if candidate.flags & LIMITED:
            self.ledger.rules[candidate.rule].limited_traces += 1
            self.ledger.rules[candidate.rule].limited_spans += spans
        elif size > candidate.size:
            self.limit.charge(size - candidate.size, self.now_ns)  # spans that joined it after the window closed

    cdef void remeasure_window(self) noexcept nogil:
        """Update the sizes of the open window's candidates: spans may have joined them, or the limit's unit changed."""
        cdef uint32_t i
        cdef Trace* trace
        for i in range(self.limit.count):
            trace = <Trace*>self.limit.waiting[i].trace
            self.limit.waiting[i].size = size_of(self.limit_unit, trace.fragments, trace.spans)

    cdef void remeasure_closed_window(self) noexcept nogil:
        """Update the sizes of what is to be collected of the closed window: the limit's unit has changed, and what
        joins it from now on is charged in the new one."""
        cdef uint32_t i
        cdef Trace* trace
        for i in range(self.limit.next, self.limit.closed_count):
            if not self.limit.closed[i].gone:
                trace = <Trace*>self.limit.closed[i].trace
                self.limit.closed[i].size = size_of(self.limit_unit, trace.fragments, trace.spans)

    cdef int close_window(self) except -1:
        """Close the limit's window; emit_window() then carries out its decisions."""
        self.remeasure_window()
        self.limit.close(self.now_ns)
        self.candidate_bytes = 0
        return 0

    def tick(self, int64_t now_ns, int slice=256):
        cdef bint more
        with self.lock:
            more = self.decide_due(now_ns, slice)
        return self.finish() or more

    def finish(self):
        return self.finisher.finish(FINISH_EFFORT, False) >= FINISH_EFFORT

    cdef bint decide_due(self, int64_t now_ns, int slice) except -1:
        """Decide what is due; return whether more may be, or may leave a backlog."""
        cdef Trace* trace
        cdef bint more = False
        cdef bint has_root = False
        cdef uint64_t effort = SLICE_EFFORT
        cdef uint64_t before = self.rules.effort_()
        self.now_ns = max(self.now_ns, now_ns)
        if self.outlets.backlog_spans:
            more = self.outlets.flush()
        if self.memory.bound < self.memory.configured and self.memory.in_use() > self.memory.bound:
            self.make_room(0, &effort)
        if self.limit is not None:
            if self.limit.due(self.now_ns):
                self.close_window()
            slice -= self.emit_window(slice)
            if self.unlimited and self.limit.empty():
                self.limit = self.memory.limit = None
                self.unlimited = False
        while slice > 0 and self.rules.effort_() - before < SLICE_EFFORT:
            trace = self.buffer.due(self.now_ns, &has_root)
            if trace == NULL:
                return more
            slice -= 1
            if has_root and trace.state.only_remote and not self.rules.is_whole(trace.fragments):
                self.buffer.break_off(trace)
                continue
            if trace.newer != NULL:
                # The next traces came seconds ago and have left the CPU's caches since.
                prefetch(trace.newer.newer)
                prefetch(trace.newer.fragments)
            self.decide(trace, ROOT if has_root else WAIT)
        return True

    def close(self):
        cdef Controller controller
        with self.lock:
            if self.closed:
                return
            self.closed = True
            # All that is buffered is about to be decided in one go. Rates stay what they are: the traces came over a
            # longer time, over which they would have left, too.
            for controller in self.rules.controllers:
                controller.hold()
            if self.limit is not None and self.buffer.oldest != NULL:
                self.limit.grant(<double>(self.now_ns - self.buffer.oldest.first_ns) / 1e9)

    def drain(self, int64_t now_ns, int slice=256, *, bint hurry=False):
        cdef uint64_t before
        with self.lock:
            before = self.rules.effort_()
            self.now_ns = max(self.now_ns, now_ns)
            if self.outlets.backlog_spans:
                self.outlets.flush()
            while slice > 0 and self.buffer.oldest != NULL and self.rules.effort_() - before < SLICE_EFFORT:
                slice -= 1
                self.decide(self.buffer.oldest, SHUTDOWN)
            if self.limit is not None:
                if hurry and self.buffer.oldest == NULL:
                    self.limit.hasten(self.now_ns)
                if self.limit.due(self.now_ns):
                    self.close_window()
                self.emit_window(slice)
        self.finisher.finish(FINISH_EFFORT, True)
        with self.lock:
            return (self.buffer.traces + self.memory.in_hand + self.finisher.spans + self.outlets.backlog_spans) != 0

    # Inspection.

    def find(self, bytes trace_id not None, int64_t now_ns):
        cdef uint64_t[2] key
        cdef Trace* trace
        cdef Decision* decision
        cdef Fragment* fragment
        if len(trace_id) != 16:
            raise ValueError("a trace id has 16 bytes")
        memcpy(key, <const char*>trace_id, 16)
        with self.lock:
            trace = self.buffer.find(key)
            if trace != NULL:
                fragments = 0
                fragment = trace.fragments
                while fragment != NULL:
                    fragments += 1
                    fragment = fragment.next
                return {
                    "state": "buffered", "spans": trace.spans, "fragments": fragments, "bytes": trace.cost,
                    "age_seconds": elapsed_ns(trace.first_ns, now_ns) / 1e9, "root_seen": trace.root_ns >= 0,
                    "chosen": trace.state.in_limit_window,
                }
            decision = self.decisions.find(key)
            if decision != NULL:
                return {
                    "state": "decided", "rule": self.ledger.rule_names[decision.rule],
                    "keep": bool(decision.flags & KEPT),
                    "reason": REASONS[decision.reason], "threshold": decision.threshold,
                    "incomplete": bool(decision.flags & INCOMPLETE), "limited": bool(decision.flags & LIMITED),
                    "ago_seconds": max(now_ns // 1_000_000_000 - decision.when_s, 0),
                }
        return None

    def in_backlog(self, bytes trace_id not None):
        cdef uint64_t[2] key
        cdef Decision* decision
        cdef list taking = self.outlets.outlets
        memcpy(key, <const char*>trace_id, 16)
        decision = self.decisions.find(key)
        if decision != NULL:
            taking = self.outlets.taking(decision.rule, not decision.flags & KEPT)
        held = self.finisher.holds(trace_id)
        waiting = self.outlets.waiting(trace_id)
        return [
            (held or waits) if outlet in taking else None for outlet, waits in zip(self.outlets.outlets, waiting)
        ]

    # Accounting.

    def memory_signs(self, int64_t now_ns):
        cdef uint64_t early = 0
        cdef uint32_t i
        with self.lock:
            for i in range(<uint32_t>len(self.ledger.rule_names)):
                early += self.ledger.rules[i].decided[MEMORY] + self.ledger.rules[i].decided[REASON_COUNT + MEMORY]
            oldest_ns = self.buffer.oldest_ns
            return (
                early, self.ledger.refused_for(NO_ROOM),
                0 if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9,
            )

    def instant(self, int64_t now_ns):
        cdef Instant instant = Instant()
        oldest_ns = self.buffer.oldest_ns
        instant.ledger = self.ledger.copy()
        instant.limited = self.limit is not None
        instant.rules = self.rules
        instant.others = {
            metrics.BUFFER_SPANS: {
                (): self.buffer.spans + self.spans_in_hand + self.finisher.spans + self.outlets.backlog_spans
            },
            metrics.STRINGS_MENDED: {(): self.finisher.stamper.strings_mended},
            metrics.REDACTIONS: dict(self.redactions),
            metrics.TRACE_IDS_RANDOM: {(): 1 if self.uniformity.random else 0},
            metrics.SPANS_INCONSISTENT_THRESHOLD: {(): self.finisher.stamper.inconsistent},
            metrics.TRACES_PARTLY_READ: {(): self.rules.partly_read},
            metrics.BUFFER_TRACES: {(): self.buffer.traces},
            metrics.BUFFER_BYTES: {(): self.memory.in_use()},
            metrics.BUFFER_MAX_BYTES: {(): self.memory.bound},
            metrics.BUFFER_OLDEST_SECONDS: {(): 0 if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9},
            metrics.DECISION_MEMORY_TRACES: {(): self.decisions.count},
            metrics.DECISION_MEMORY_BYTES: {(): self.decisions.nbytes},
        }
        return instant


cdef class Instant:
    cdef Ledger ledger
    cdef RuleSet rules
    cdef bint limited
    cdef dict others

    def values(self):
        cdef dict values = self.ledger.values(self.limited)
        values.update(self.others)
        values[metrics.RULE_TYPE_MISMATCH] = {
            (self.rules.names[rule],): 1 if mismatches else 0 for rule, mismatches in self.rules.type_mismatches()
        }
        return values


cdef class Intake:
    cdef Pipeline pipeline
    cdef uint32_t transport  # as the ledger numbers it
    cdef Scanner scanner  # None before the first request
    cdef uint64_t effort  # what the scan of one request may cost, in microseconds, about; 0: what its size allows

    def __init__(self, Pipeline pipeline not None, str transport not None, effort=0):
        self.pipeline = pipeline
        self.effort = effort
        with pipeline.lock:
            self.transport = pipeline.ledger.transport_id(transport)

    def accept(self, bytes request not None, int64_t now_ns, bytes metadata=None):
        cdef Scanned scanned
        cdef Pipeline pipeline = self.pipeline
        cdef bytes answer = b""
        # Without the lock: rules are replaced as a whole, and fragments scanned for an older plan are read again.
        try:
            if self.scanner is None or self.scanner.plan is not pipeline.rules.plan:
                self.scanner = Scanner(pipeline.rules.plan, seed=pipeline.buffer.seed, local_roots=pipeline.local_roots)
            scanned = self.scanner.scan(request, self.effort, metadata)
            if scanned.invalid_trace_ids or scanned.invalid_span_ids:  # before anything is taken: it may find no memory
                answer = response(scanned.invalid_trace_ids, scanned.invalid_span_ids)
        except MemoryError:
            pipeline.ran_out_of_memory()
            raise
        except MalformedRequest as error:
            pipeline.refuse_unread(MALFORMED, self.transport, len(request), error)
        except RequestTooCostly as error:
            pipeline.refuse_unread(EFFORT, self.transport, len(request), error)
        pipeline.take(scanned, self.transport, len(request), now_ns)
        return answer
