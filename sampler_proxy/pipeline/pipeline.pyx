"""Runs the whole flow without I/O: requests in, kept traces out, every span counted. pipeline.pyi is the manual.

One lock guards everything behind the scan. It is held for short, bounded slices only, so that a request never waits
behind a large decision; the scan itself runs before it, without the GIL. Time is an argument; it is made monotonic
here, because two threads that read the clock may take the lock in the other order.

Long: one lock's worth. Each method of `Pipeline` changes buffer, limit, decisions, ledger and outlets in one step, so
that the accounts balance whenever the lock is free. Cut in two, either part would need the other's fields, and the
lock.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from sampler_proxy.otlp.fragments cimport (
    BLOCK_OVERHEAD, HAS_RANDOMNESS, HAS_REMOTE_PARENT, HAS_ROOT, HAS_TIMES, UNEQUAL_THRESHOLDS, Envelopes, Fragment,
    Scanned, absorb_times, mix, prefetch,
)
from sampler_proxy.pipeline.buffer cimport Buffer, Trace
from sampler_proxy.pipeline.decisions cimport HELD_BACK, INCOMPLETE, KEPT, LIMITED, ROOTLESS, Decision, Decisions
from sampler_proxy.pipeline.id_randomness cimport Uniformity
from sampler_proxy.pipeline.ledger cimport (
    DRAINING, EARLY, EFFORT, LATE, MALFORMED, MEMORY, NO_ROOM, OUT_OF_MEMORY, REASON_COUNT, ROOT, SHUTDOWN, SIZE,
    TOO_LARGE, WAIT, Ledger,
)
from sampler_proxy.pipeline.limit cimport Candidate, Limit
from sampler_proxy.pipeline.outlets cimport Outlets
from sampler_proxy.pipeline.scanner cimport Scanner
from sampler_proxy.pipeline.stamp cimport Stamper
from sampler_proxy.redact.walker cimport Redactor
from sampler_proxy.rules.rate cimport Controller, elapsed_ns
from sampler_proxy.rules.roots cimport NO_ROOT
from sampler_proxy.rules.rule_set cimport NO_RULE, TRACES, RuleSet, randomness_of, size_of

import threading

from sampler_proxy import metrics
from sampler_proxy.errors import Draining, MalformedRequest, OutOfMemory, Overloaded, RequestTooCostly, RequestTooLarge
from sampler_proxy.pipeline.ledger import REASONS
from sampler_proxy.pipeline.scanner import response
from sampler_proxy.rules.rule_set import UNITS

cdef enum:
    # How many traces one request may have decided early to make room for itself. It bounds the time that a request
    # waits, and how far ahead of their time traces are decided when what is decided cannot leave.
    EARLY_DECISIONS = 1024
    PREFETCH_FRAGMENTS = 32  # fragments of a request whose table slots are prefetched together
    # What the system has to have left whenever the buffer has grown by PROBE_STEP: gRPC's core, which ends the process
    # where it gets no memory, and the exporters need some of it, the more the larger requests are, of which there are
    # so many copies on their way in and out.
    HEADROOM = 32 << 20
    COPIES = 8
    PROBE_STEP = 8 << 20
    LEAST_BOUND = 16 << 20  # as far as the bound may be lowered

cdef double BEYOND_ALL = 1e300  # a limit that admits everything
# A refused sender comes back after this long: RetryInfo and Retry-After.
cdef int64_t RETRY_AFTER_NS = 1_000_000_000


cdef class Pipeline:
    cdef readonly object lock
    cdef readonly RuleSet rules
    cdef readonly Envelopes envelopes
    cdef readonly Buffer buffer
    cdef readonly Decisions decisions
    cdef readonly Limit limit  # None: none is set
    cdef uint8_t limit_unit  # TRACES, SPANS or BYTES
    cdef bint unlimited  # the limit has been taken away, and is dropped once its windows are empty
    cdef readonly Uniformity uniformity
    cdef Ledger ledger
    cdef Stamper stamper
    cdef readonly uint64_t configured_max_bytes, max_trace_bytes
    cdef readonly uint64_t max_bytes  # as configured, or less since the system has no more memory
    cdef uint64_t largest_request  # bytes
    cdef uint64_t probe_at  # bytes in use at which it is tried next whether there is HEADROOM
    cdef int64_t rules_since_s  # decisions up to then are of other rules; -1: there were no others
    cdef bint local_roots  # a span with a parent in another process may be the root
    cdef Outlets outlets
    cdef uint64_t candidate_bytes  # of the traces in the limit's open window, when they came into it
    cdef Trace* undone  # the last trace whose decision found no memory; NULL: it has been decided since
    cdef uint32_t undone_rule  # index of the rule, and its threshold
    cdef uint64_t undone_threshold
    cdef bint closed  # close() was called: requests are refused
    cdef int64_t now_ns  # the latest time seen
    cdef dict attributes  # (rule id, reason, incomplete) -> encoded attributes that stamping appends
    cdef dict redactions  # (detector, action) -> number of redactions, by all policies so far

    def __init__(self, *, rules, destinations, max_bytes, max_trace_bytes, wait_ns, wait_after_root_ns,
                 decision_memory_bytes, stamp_decision, stamp_adjusted_count, seed, local_roots=True, limit=None,
                 redact=None):
        self.lock = threading.Lock()
        self.envelopes = Envelopes(seed=seed)
        self.buffer = Buffer(self.envelopes, wait_ns=wait_ns, wait_after_root_ns=wait_after_root_ns, seed=seed)
        self.decisions = Decisions(decision_memory_bytes, seed=seed)
        self.stamper = Stamper(self.envelopes, decision=stamp_decision, adjusted_count=stamp_adjusted_count)
        self.redactions = {}
        self.replace_redaction(redact)
        self.max_bytes = self.configured_max_bytes = max_bytes
        self.rules_since_s = -1
        self.max_trace_bytes = max_trace_bytes
        self.local_roots = local_roots
        self.attributes = {}
        self.ledger = Ledger()
        self.outlets = Outlets(destinations, self.ledger)
        self.uniformity = Uniformity()
        self.rules = self.rule_set(rules)
        self.set_limit(limit)

    def ledger_id(self, name):
        with self.lock:
            return self.ledger.rule_id(name)

    cdef RuleSet rule_set(self, rules):
        """Build the native form of the rules, numbered by the ledger."""
        names, keeps, compiled = rules
        return RuleSet(names=names, keeps=keeps, compiled=compiled, ledger_id=self.ledger_id, seed=self.buffer.seed)

    def replace_rules(self, rules):
        cdef uint32_t i
        cdef RuleSet rule_set = self.rule_set(rules)  # outside the lock: a large one takes its time
        with self.lock:
            rule_set.partly_read = self.rules.partly_read
            self.rules = rule_set
            self.undone = NULL
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
            self.limit = Limit(*limit)
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
        return not self.outlets.backlog_spans and self.limit.collected()

    def replace_redaction(self, policy, observer=None):
        cdef Redactor redactor = None
        if policy is not None:
            redactor = Redactor(policy, self.envelopes, self.redactions, observer, seed=self.buffer.seed)
        with self.lock:
            self.stamper.redactor = redactor

    def intake(self, transport):
        return Intake(self, transport)

    # Receiving.

    cdef uint64_t bytes_in_use(self) noexcept:
        """Return the bytes that `max_bytes` bounds: of the buffer, the backlogs and the limit's windows."""
        cdef uint64_t window = 0 if self.limit is None else self.limit.nbytes()
        return self.buffer.nbytes_() + self.outlets.backlog_bytes + window

    @property
    def nbytes(self):
        return self.bytes_in_use()

    def count_refused(self, transport, reason):
        with self.lock:
            self.ledger.refused_unread(transport, reason)

    cdef void lower_bound(self) noexcept:
        """Lower the bound to four fifths of what is in use: the system has no memory, and what the traces that are
        decided then leave behind is there for everything else in this process.

        It is not raised again. The limit of the system is still there; to meet it once more may end the process, with
        all that is buffered, where it is gRPC's core that asks. Tables never shrink: there is always room beside them.
        """
        cdef uint64_t bound = max(self.bytes_in_use() // 5 * 4, self.buffer.empty_cost() + LEAST_BOUND)
        self.max_bytes = min(self.max_bytes, bound)

    cdef void probe(self, uint64_t in_use) noexcept:
        """Try whether there is HEADROOM, as long as there always was; lower the bound where there is not. Costs two
        system calls each PROBE_STEP by which the buffer grows beyond all that it ever was."""
        cdef void* headroom = malloc(HEADROOM + COPIES * self.largest_request)
        if headroom == NULL:
            self.lower_bound()
            self.probe_at = <uint64_t>-1  # what is freed may not be in one piece, though it is of use
        else:
            self.probe_at = in_use + PROBE_STEP
        free(headroom)

    def ran_out_of_memory(self):
        with self.lock:
            self.lower_bound()

    cdef int refuse(self, uint32_t reason, uint32_t transport, uint64_t size, error) except -1:
        """Count the refusal of a request that was read whole, and raise it."""
        self.ledger.received(transport, size)
        self.ledger.refused(reason)
        raise error

    cdef int take(self, Scanned scanned, uint32_t transport, uint64_t size, int64_t now_ns) except -1:
        """Take ownership of a scanned request's fragments and decide what is due by them, or raise the refusal.

        The lock is held. `scanned` is None for a malformed request, which is only counted; `size`: its bytes.

        Every request is counted once: here, or by the engine where not even a refusal finds memory.
        """
        cdef uint64_t need, in_use
        cdef uint32_t i
        cdef bint adopted = False
        if scanned is None:
            self.ledger.received(transport, size)
            self.ledger.refused(MALFORMED)
            return 0
        if self.closed:
            self.refuse(DRAINING, transport, size, Draining("the proxy is stopping", RETRY_AFTER_NS))
        self.now_ns = max(self.now_ns, now_ns)
        self.largest_request = max(self.largest_request, size)
        need = scanned.cost + scanned.count * (sizeof(Trace) + BLOCK_OVERHEAD) + scanned.header_cost()
        in_use = self.bytes_in_use()
        if in_use + need > self.probe_at:
            self.probe(in_use + need)
        try:
            if in_use + need > self.max_bytes:
                if need + self.buffer.empty_cost() > self.configured_max_bytes:
                    self.refuse(TOO_LARGE, transport, size, RequestTooLarge(
                        "the request is larger than the whole buffer (buffer.max_bytes)"
                    ))
                if need + self.buffer.empty_cost() > self.max_bytes or not self.make_room(need):
                    self.refuse(NO_ROOM, transport, size, Overloaded("the buffer is full", RETRY_AFTER_NS))
            self.envelopes.adopt(scanned)
            adopted = True
            self.ledger.taken(transport, scanned)
            self.stamper.begin_request()  # what is decided at once is decided under one lock
            for i in range(scanned.count):
                if i % PREFETCH_FRAGMENTS == 0:
                    self.prefetch_slots(scanned, i)
                self.place(&scanned.fragments[i])
        except BaseException as error:
            if adopted:
                self.give_back(scanned, transport)
            if not isinstance(error, MemoryError):
                raise
            self.lower_bound()
            self.refuse(OUT_OF_MEMORY, transport, size, OutOfMemory("the proxy is out of memory", RETRY_AFTER_NS))
        self.ledger.received(transport, size)
        return 0

    cdef void give_back(self, Scanned scanned, uint32_t transport) noexcept:
        """Free the fragments of an adopted request that nobody has taken, and count their spans as never received.

        Those that have been taken stay: their sender sends them again, as duplicates.
        """
        cdef uint32_t i
        cdef uint32_t spans = 0
        for i in range(scanned.count):
            if scanned.fragments[i] != NULL:
                spans += scanned.fragments[i].spans
                self.envelopes.free_fragment(scanned.fragments[i])
                scanned.fragments[i] = NULL
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
        too. On an error nothing has happened, save that a destination may have the fragment already.
        """
        cdef Fragment* fragment = owner[0]
        cdef uint32_t spans = fragment.spans
        cdef Decision before = decision[0]
        cdef bint was_kept = decision.flags & KEPT
        cdef bint kept = was_kept
        cdef bint revived = False
        cdef double size = size_of(self.limit_unit, fragment, spans)
        cdef bytes attributes
        try:
            if not was_kept or decision.threshold != 0:
                revived = self.revive(fragment, decision)
                kept |= revived
            if kept:
                attributes = self.attributes_of(decision.rule, decision.reason, decision.flags & INCOMPLETE)
                self.outlets.deliver(self.stamper.finish(
                    fragment, decision.threshold, randomness_of(fragment), attributes, decision.rule
                ))
        except BaseException:
            decision[0] = before
            raise
        if revived:
            self.ledger.rules[decision.rule].revived += 1
            self.ledger.late_would_keep += spans
        if decision.reason != EARLY:
            self.ledger.late_spans[kept] += spans
        self.count_unequal_thresholds(fragment)
        if not kept:
            self.ledger.rules[decision.rule].sampled_out += spans
        elif self.limit is not None and not (self.limit_unit == TRACES and was_kept):
            self.limit.charge(size, self.now_ns)  # a trace itself has been counted, unless it was dropped
        owner[0] = NULL
        self.envelopes.free_fragment(fragment)
        return 0

    cdef bint congested(self):
        """Return whether deciding more traces would only make memory grow: kept ones cannot leave, and a finished trace
        is larger than it was, by its attributes. A sixteenth of the bound is spent on finding, all the same, traces
        that the rules drop."""
        return self.outlets.backlog_spans and self.bytes_in_use() > self.max_bytes + self.max_bytes // 16

    cdef bint make_room(self, uint64_t need) except -1:
        """Decide the oldest traces early until `need` bytes fit; return whether they do.

        The limit's window is closed early where its candidates fill a quarter of the memory, or are all there is.
        """
        cdef int left = EARLY_DECISIONS
        if self.outlets.backlog_spans:
            self.outlets.flush()
        while self.bytes_in_use() + need > self.max_bytes and left > 0 and not self.congested():
            if self.limit is not None:
                if self.emit_window(1):
                    left -= 1
                    continue
                # Not sooner: the shorter a window, the less its first rules can take from the last.
                if self.limit.count and (self.candidate_bytes >= self.max_bytes >> 2 or self.buffer.oldest == NULL):
                    self.close_window()
                    continue
            if self.buffer.oldest == NULL:
                break
            self.decide_one(self.buffer.oldest, MEMORY)
            left -= 1
        return self.bytes_in_use() + need <= self.max_bytes

    # Deciding.

    cdef bytes attributes_of(self, uint32_t rule, uint32_t reason, bint incomplete):
        """Return the encoded attributes that say which decision a span left by; cached, since they are few."""
        key = (rule, reason, incomplete)
        found = self.attributes.get(key)
        if found is None:
            found = self.stamper.decision_attributes(self.ledger.rule_names[rule], REASONS[reason], incomplete)
            self.attributes[key] = found
        return found

    cdef void count_unequal_thresholds(self, Fragment* fragment) noexcept:
        """Count a trace whose spans came with different thresholds: its adjusted counts are biased."""
        cdef uint64_t first = fragment.threshold
        while fragment != NULL:
            if fragment.flags & UNEQUAL_THRESHOLDS or fragment.threshold != first:
                self.ledger.unequal_thresholds += 1
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
            if self.rules.root.kind == NO_ROOT:
                candidate.flags |= ROOTLESS
        if reason != EARLY and (candidate.flags & ROOTLESS or reason >= MEMORY or reason == SIZE):
            candidate.flags |= INCOMPLETE
        # A controller learns from each trace once: a decision that found no memory is not made anew, it is done.
        if trace == self.undone and index == self.undone_rule:
            candidate.threshold = self.undone_threshold
        else:
            candidate.threshold = self.rules.threshold(index, fragments, trace.spans, candidate.randomness, self.now_ns)
        candidate.admitted = candidate.randomness >= candidate.threshold
        try:
            if candidate.admitted and self.limit is not None and not self.unlimited:
                self.enter_window(&candidate)
            else:
                self.carry_out(&candidate)
        except BaseException:
            self.undone = trace
            self.undone_rule = index
            self.undone_threshold = candidate.threshold
            raise
        if trace == self.undone:
            self.undone = NULL
        if by_id:
            self.uniformity.record(candidate.randomness)
        return 0

    cdef int enter_window(self, Candidate* candidate) except -1:
        """Make a trace a candidate in the limit's open window. On MemoryError nothing has happened."""
        cdef Trace* trace = <Trace*>candidate.trace
        candidate.size = size_of(self.limit_unit, trace.fragments, trace.spans)
        candidate.by_threshold = candidate.threshold != 0
        self.limit.add(candidate, self.now_ns)
        self.candidate_bytes += trace.cost
        self.buffer.move_to_window(trace)
        trace.state.mark = self.limit.count - 1
        return 0

    cdef int carry_out(self, Candidate* candidate) except -1:
        """Carry out a decision: finish and deliver, or drop, the trace; remember the decision; count it.

        On an error nothing has happened, save that a destination may have the trace already.
        """
        cdef Trace* trace = <Trace*>candidate.trace
        cdef int64_t delay_ns = self.now_ns - trace.first_ns
        cdef bytes attributes
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
            attributes = self.attributes_of(candidate.rule, candidate.reason, candidate.flags & INCOMPLETE)
            self.outlets.deliver(self.stamper.finish(
                trace.fragments, candidate.threshold, candidate.randomness, attributes, candidate.rule
            ))
        else:
            self.ledger.rules[candidate.rule].sampled_out += trace.spans
        self.decisions.remember(&decision)
        self.ledger.decided(candidate.rule, decision.flags & KEPT, candidate.reason, delay_ns)
        if candidate.reason == WAIT and candidate.flags & INCOMPLETE:  # ROOTLESS, unless a root came in the window
            self.ledger.rootless += 1
        self.count_unequal_thresholds(trace.fragments)
        self.buffer.remove(trace)
        return 0

    cdef int emit_window(self, int most) except -1:
        """Carry out the limit's decisions on its closed window, at most `most`; return their number, and add to it what
        their redaction has cost, in traces."""
        cdef Candidate* candidate
        cdef int done = 0
        while done < most and not self.congested():
            candidate = self.limit.collect()
            if candidate == NULL:
                break
            self.stamper.begin_trace()
            try:
                self.carry_out_limited(candidate)
            except BaseException:
                self.limit.give_back()
                raise
            done += 1 + self.stamper.redaction_in_traces()
        return done

    cdef int carry_out_limited(self, Candidate* candidate) except -1:
        """Carry out the limit's decision on a candidate of its closed window; on an error nothing has happened, as with
        carry_out()."""
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
        return 0

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
        cdef Trace* trace
        cdef bint has_root = False
        with self.lock:
            self.now_ns = max(self.now_ns, now_ns)
            if self.outlets.backlog_spans:
                self.outlets.flush()
            if self.max_bytes < self.configured_max_bytes and self.bytes_in_use() > self.max_bytes:
                self.make_room(0)
            if self.limit is not None:
                if self.limit.due(self.now_ns):
                    self.close_window()
                slice -= self.emit_window(slice)
                if self.unlimited and self.limit.empty():
                    self.limit = None
                    self.unlimited = False
            while slice > 0:
                trace = self.buffer.due(self.now_ns, &has_root)
                if trace == NULL or self.congested():
                    return False
                if has_root and trace.state.only_remote and not self.rules.is_whole(trace.fragments):
                    self.buffer.break_off(trace)
                    slice -= 1
                    continue
                if trace.newer != NULL:
                    # The next traces came seconds ago and have left the CPU's caches since.
                    prefetch(trace.newer.newer)
                    prefetch(trace.newer.fragments)
                slice -= 1 + self.decide_one(trace, ROOT if has_root else WAIT)
            return True

    cdef int decide_one(self, Trace* trace, uint8_t reason) except -1:
        """Decide a trace; returns how many decisions its redaction was worth."""
        self.stamper.begin_trace()
        self.decide(trace, reason)
        return self.stamper.redaction_in_traces()

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
        with self.lock:
            self.now_ns = max(self.now_ns, now_ns)
            if self.outlets.backlog_spans:
                self.outlets.flush()
            while slice > 0 and self.buffer.oldest != NULL:
                slice -= 1 + self.decide_one(self.buffer.oldest, SHUTDOWN)
            if self.limit is not None:
                if hurry and self.buffer.oldest == NULL:
                    self.limit.hasten(self.now_ns)
                if self.limit.due(self.now_ns):
                    self.close_window()
                self.emit_window(slice)
            return self.buffer.traces != 0 or self.outlets.backlog_spans != 0

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
        return self.outlets.waiting(trace_id)

    # Accounting.

    def memory_signs(self, int64_t now_ns):
        cdef uint64_t early = 0
        cdef uint32_t i
        with self.lock:
            for i in range(<uint32_t>len(self.ledger.rule_names)):
                early += self.ledger.rules[i].decided[MEMORY] + self.ledger.rules[i].decided[REASON_COUNT + MEMORY]
            oldest_ns = self.buffer.oldest_ns
            return (
                early, self.ledger.refused_[NO_ROOM],
                0 if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9,
            )

    def snapshot(self, int64_t now_ns):
        oldest_ns = self.buffer.oldest_ns
        values = self.ledger.values(self.limit is not None)
        values.update({
            metrics.BUFFER_SPANS: {(): self.buffer.spans + self.outlets.backlog_spans},
            metrics.STRINGS_MENDED: {(): self.stamper.strings_mended},
            metrics.REDACTIONS: dict(self.redactions),
            metrics.RULE_TYPE_MISMATCH: {
                (self.rules.names[rule],): 1 if mismatches else 0 for rule, mismatches in self.rules.type_mismatches()
            },
            metrics.TRACE_IDS_RANDOM: {(): 1 if self.uniformity.random else 0},
            metrics.SPANS_INCONSISTENT_THRESHOLD: {(): self.stamper.inconsistent},
            metrics.TRACES_PARTLY_READ: {(): self.rules.partly_read},
            metrics.BUFFER_TRACES: {(): self.buffer.traces},
            metrics.BUFFER_BYTES: {(): self.bytes_in_use()},
            metrics.BUFFER_MAX_BYTES: {(): self.max_bytes},
            metrics.BUFFER_OLDEST_SECONDS: {(): 0 if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9},
            metrics.DECISION_MEMORY_TRACES: {(): self.decisions.count},
            metrics.DECISION_MEMORY_BYTES: {(): self.decisions.nbytes},
        })
        return values


cdef class Intake:
    cdef Pipeline pipeline
    cdef uint32_t transport  # as the ledger numbers it
    cdef Scanner scanner  # None before the first request

    def __init__(self, Pipeline pipeline not None, str transport not None):
        self.pipeline = pipeline
        with pipeline.lock:
            self.transport = pipeline.ledger.transport_id(transport)

    def accept(self, bytes request not None, int64_t now_ns):
        cdef Scanned scanned
        cdef Pipeline pipeline = self.pipeline
        cdef bytes answer = b""
        # Without the lock: rules are replaced as a whole, and fragments scanned for an older plan are read again.
        try:
            if self.scanner is None or self.scanner.plan is not pipeline.rules.plan:
                self.scanner = Scanner(pipeline.rules.plan, seed=pipeline.buffer.seed, local_roots=pipeline.local_roots)
            scanned = self.scanner.scan(request)
            if scanned.invalid_trace_ids or scanned.invalid_span_ids:  # before anything is taken: it may find no memory
                answer = response(scanned.invalid_trace_ids, scanned.invalid_span_ids)
        except MemoryError:
            pipeline.ran_out_of_memory()
            raise
        except MalformedRequest:
            with pipeline.lock:
                pipeline.take(None, self.transport, len(request), now_ns)
            raise
        except RequestTooCostly as error:
            with pipeline.lock:
                pipeline.refuse(EFFORT, self.transport, len(request), error)
        with pipeline.lock:
            pipeline.take(scanned, self.transport, len(request), now_ns)
        return answer
