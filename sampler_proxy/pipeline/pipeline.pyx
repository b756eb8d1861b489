"""The whole flow without I/O: requests in, kept traces out, every span counted. `pipeline.pyi` is the manual.

One lock guards everything behind the scan. It is held for short, bounded slices only, so that a request never waits behind a large
decision; the scan itself runs before it, without the GIL. Time is an argument; it is made monotonic here, because two threads that
read the clock may take the lock in the other order.
"""
import threading
from collections import deque

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sampler_proxy.pipeline.ledger cimport EARLY, MEMORY, ROOT, SHUTDOWN, SIZE, WAIT, Ledger
from sampler_proxy.redact.walker cimport Redactor
from sampler_proxy.pipeline.scanner cimport Scanner
from sampler_proxy.pipeline.id_randomness cimport Uniformity
from sampler_proxy.pipeline.buffer cimport SET_ASIDE, Buffer, Trace
from sampler_proxy.pipeline.decisions cimport INCOMPLETE, KEPT, LIMITED, Decision, Decisions
from sampler_proxy.otlp.fragments cimport (
    BLOCK_OVERHEAD, Envelopes, Fragment, HAS_RANDOMNESS, KeptTrace, Scanned, UNEQUAL_THRESHOLDS, mix, prefetch,
)
from sampler_proxy.pipeline.limit cimport Chosen, Limit
from sampler_proxy.rules.rate cimport Controller
from sampler_proxy.rules.rule_set cimport TRACES, RuleSet, randomness_of, size_of
from sampler_proxy.pipeline.stamp cimport Stamper

from sampler_proxy import metrics
from sampler_proxy.pipeline.ledger import REASONS
from sampler_proxy.pipeline.scanner import response
from sampler_proxy.errors import Draining, MalformedRequest, Overloaded, RequestTooLarge
from sampler_proxy.rules.rule_set import UNITS

cdef enum:
    # How many traces one request may have decided early to make room for itself. It bounds the time that a request
    # waits, and how far ahead of their time traces are decided when what is decided cannot leave.
    EARLY_DECISIONS = 1024
    AHEAD = 32  # fragments

cdef double BEYOND_ALL = 1e300
# A refused sender comes back after this long: RetryInfo and Retry-After.
cdef int64_t RETRY_AFTER_NS = 1_000_000_000


cdef class Outlet:
    """A destination, and the kept traces that it has not taken yet, in order."""
    cdef object offer
    cdef object backlog

    def __init__(self, destination):
        self.offer = destination.offer
        self.backlog = deque()


cdef class Pipeline:
    cdef readonly object lock
    cdef readonly RuleSet rules
    cdef readonly Envelopes envelopes
    cdef readonly Buffer buffer
    cdef readonly Decisions decisions
    cdef readonly Limit limit  # None: there is none
    cdef uint8_t limit_unit
    cdef bint unlimited  # the limit has been taken away, and goes when nothing waits for it any more
    cdef readonly Uniformity uniformity
    cdef Ledger ledger
    cdef Stamper stamper
    cdef readonly uint64_t max_bytes, max_trace_bytes
    cdef list outlets
    cdef uint64_t backlog_bytes, backlog_spans
    cdef uint64_t chosen_bytes  # of the traces in the limit's open window, when they came into it
    cdef bint closed
    cdef int64_t now_ns
    cdef dict attributes  # (rule id, reason) -> what stamping appends
    cdef dict redactions  # (detector, action) -> how often, by all policies so far

    def __init__(self, *, rules, destinations, max_bytes, max_trace_bytes, wait_ns, wait_after_root_ns, decision_memory_bytes,
                 stamp_decision, stamp_adjusted_count, seed, limit=None, redact=None):
        self.lock = threading.Lock()
        self.envelopes = Envelopes(seed=seed)
        self.buffer = Buffer(self.envelopes, wait_ns=wait_ns, wait_after_root_ns=wait_after_root_ns, seed=seed)
        self.decisions = Decisions(decision_memory_bytes, seed=seed)
        self.stamper = Stamper(self.envelopes, decision=stamp_decision, adjusted_count=stamp_adjusted_count)
        self.redactions = {}
        self.replace_redaction(redact)
        self.max_bytes = max_bytes
        self.max_trace_bytes = max_trace_bytes
        self.outlets = [Outlet(destination) for destination in destinations]
        self.attributes = {}
        self.ledger = Ledger()
        self.uniformity = Uniformity()
        self.rules = self.rule_set(rules)
        self.set_limit(limit)

    def ledger_id(self, name):
        with self.lock:
            return self.ledger.rule_id(name)

    cdef RuleSet rule_set(self, rules):
        names, keeps, compiled = rules
        return RuleSet(names=names, keeps=keeps, compiled=compiled, ledger_id=self.ledger_id, seed=self.buffer.seed)

    def replace_rules(self, rules):
        cdef RuleSet rule_set = self.rule_set(rules)  # outside the lock: a large one takes its time
        with self.lock:
            self.rules = rule_set

    cdef int set_limit(self, limit) except -1:
        if limit is not None:
            self.limit = Limit(*limit)
            self.limit_unit = UNITS.index(self.limit.unit)
        return 0

    def replace_limit(self, limit):
        """What waits goes on waiting, and is judged by the new limit; without one it leaves when its second is over."""
        with self.lock:
            if self.limit is None:
                self.set_limit(limit)
                return
            self.unlimited = limit is None
            if limit is None:
                self.limit.configure(BEYOND_ALL, self.limit.unit, self.limit.floor)
                return
            self.limit.configure(*limit)
            self.limit_unit = UNITS.index(self.limit.unit)

    @property
    def waits(self):
        return self.limit is not None and self.buffer.oldest == NULL and not self.backlog_spans and self.limit.collected()

    def replace_redaction(self, policy, observer=None):
        cdef Redactor redactor = None
        if policy is not None:
            redactor = Redactor(policy, self.envelopes, self.redactions, observer, seed=self.buffer.seed)
        with self.lock:
            self.stamper.redactor = redactor

    def entrance(self, transport):
        return Entrance(self, transport)

    # Receiving.

    cdef uint64_t held(self):
        cdef uint64_t window = 0 if self.limit is None else self.limit.nbytes()
        return self.buffer.nbytes_() + self.backlog_bytes + window

    def count_refused(self, transport, reason):
        with self.lock:
            self.ledger.refused_unread(transport, reason)

    cdef int take(self, Scanned scanned, str transport, uint64_t size, int64_t now_ns) except -1:
        """Take a scanned request, or raise the refusal; the lock is held."""
        cdef uint64_t need
        cdef uint32_t i
        cdef Fragment* fragment
        self.ledger.received(transport, size)
        if scanned is None:
            self.ledger.refused("malformed")
            return 0
        if self.closed:
            self.ledger.refused("draining")
            raise Draining("the proxy is stopping", RETRY_AFTER_NS)
        self.now_ns = max(self.now_ns, now_ns)
        need = scanned.cost + scanned.count * (sizeof(Trace) + BLOCK_OVERHEAD) + scanned.header_cost()
        if self.held() + need > self.max_bytes:
            if need + self.buffer.empty_cost() > self.max_bytes:
                self.ledger.refused("too_large")
                raise RequestTooLarge("the request is larger than the whole buffer (buffer.max_bytes)")
            if not self.make_room(need):
                self.ledger.refused("memory")
                raise Overloaded("the buffer is full", RETRY_AFTER_NS)
        self.envelopes.adopt(scanned)
        self.ledger.taken(transport, scanned.spans, scanned.invalid_trace_ids, scanned.invalid_span_ids)
        self.stamper.begin_request()  # what is decided at once is decided under one lock
        for i in range(scanned.count):
            if i % AHEAD == 0:
                self.look_ahead(scanned, i)
            fragment = scanned.fragments[i]
            scanned.fragments[i] = NULL
            self.file(fragment)
        return 0

    cdef void look_ahead(self, Scanned scanned, uint32_t first) noexcept nogil:
        """Have the tables' lines for the next fragments fetched: each would cost a cache miss of its own otherwise."""
        cdef uint64_t key
        cdef uint32_t i
        for i in range(first, min(first + AHEAD, scanned.count)):
            key = mix(scanned.fragments[i].trace_id, self.buffer.seed)
            prefetch(&self.buffer.places[key & self.buffer.mask])
            prefetch(&self.decisions.table[key & self.decisions.mask])

    cdef int file(self, Fragment* fragment) except -1:
        """One adopted fragment: to its trace, or after the decision on its trace."""
        cdef Trace* trace = self.buffer.find(fragment.trace_id)
        cdef Decision* decision
        if trace == NULL:
            decision = self.decisions.find(fragment.trace_id)
            if decision != NULL:
                return self.late(fragment, decision)
        trace = self.buffer.add(trace, fragment, self.now_ns)
        if trace.asked == SET_ASIDE:
            return self.joined(trace)
        if self.rules.early_count and self.matches_early(trace):
            self.decide(trace, EARLY)
        elif trace.cost >= self.max_trace_bytes:
            self.decide(trace, SIZE)
        return 0

    cdef int joined(self, Trace* trace) except -1:
        """Spans have joined a trace that waits for the limit. One that has grown too large waits no longer, and is owed."""
        cdef Chosen chosen
        if trace.cost >= self.max_trace_bytes and self.limit.withdraw(trace, &chosen):
            self.limit.charge(size_of(self.limit_unit, trace.first, trace.spans), self.now_ns)
            self.settle(&chosen)
        return 0

    cdef bint matches_early(self, Trace* trace) except -1:
        """Whether to keep a trace at once. What needs its spans again is asked each time while it is small, and then each time it
        has grown by an eighth, so that the cost stays proportional to its size."""
        cdef bint ask = False
        if self.rules.early_queries and (trace.spans < 64 or trace.spans - trace.asked >= trace.asked >> 3):
            ask = True
            trace.asked = trace.spans
        return self.rules.matches_early(trace.first, ask)

    cdef int late(self, Fragment* fragment, Decision* decision) except -1:
        """A fragment of a trace that has been decided follows the decision, with its threshold, rule and reason."""
        cdef uint32_t spans = fragment.spans
        cdef uint32_t rule = decision.rule
        cdef bint kept = decision.flags & KEPT
        if decision.reason != EARLY:
            self.ledger.late_spans[kept] += spans
        self.note_thresholds(fragment)
        if kept:
            trace = self.stamper.finish(fragment, decision.threshold, randomness_of(fragment),
                                        self.attributes_of(rule, decision.reason, decision.flags & INCOMPLETE), rule)
            if self.limit is not None:
                self.limit.charge(0 if self.limit_unit == TRACES else size_of(self.limit_unit, fragment, spans), self.now_ns)
            self.envelopes.free_fragment(fragment)
            self.deliver(trace)
            return 0
        self.ledger.rules[rule].sampled_out += spans
        if self.rules.always[self.rules.first_match(fragment)]:
            self.ledger.late_would_keep += spans
        self.envelopes.free_fragment(fragment)
        return 0

    cdef bint congested(self):
        """Whether deciding more would only make memory grow: what has been kept cannot leave, and what is finished is larger than
        it was, by its attributes. A sixteenth is spent on finding, all the same, what the rules drop."""
        return self.backlog_spans and self.held() > self.max_bytes + self.max_bytes // 16

    cdef bint make_room(self, uint64_t need) except -1:
        """Decide the oldest traces early until `need` bytes fit. Where what waits for the limit fills a quarter of the memory, or is all
        there is, its window ends early."""
        cdef int left = EARLY_DECISIONS
        if self.backlog_spans:
            self.flush()
        while self.held() + need > self.max_bytes and left > 0 and not self.congested():
            if self.limit is not None:
                if self.release(1):
                    left -= 1
                    continue
                # Not sooner: the shorter a window, the less its first rules can take from the last.
                if self.limit.count and (self.chosen_bytes >= self.max_bytes >> 2 or self.buffer.oldest == NULL):
                    self.close_window()
                    continue
            if self.buffer.oldest == NULL:
                break
            self.decide_one(self.buffer.oldest, MEMORY)
            left -= 1
        return self.held() + need <= self.max_bytes

    # Deciding.

    cdef bytes attributes_of(self, uint32_t rule, uint32_t reason, bint incomplete):
        key = (rule, reason, incomplete)
        found = self.attributes.get(key)
        if found is None:
            found = self.stamper.decision_attributes(self.ledger.rule_names[rule], REASONS[reason], incomplete)
            self.attributes[key] = found
        return found

    cdef void note_thresholds(self, Fragment* fragment) noexcept:
        cdef uint64_t first = fragment.threshold
        while fragment != NULL:
            if fragment.flags & UNEQUAL_THRESHOLDS or fragment.threshold != first:
                self.ledger.unequal_thresholds += 1
                return
            fragment = fragment.next

    cdef int decide(self, Trace* trace, uint8_t reason) except -1:
        """By the rules. What they keep leaves at once, or competes for what the limit leaves of it."""
        cdef uint32_t index = self.rules.first_match(trace.first)
        cdef Chosen chosen
        chosen.trace = trace
        chosen.randomness = randomness_of(trace.first)
        chosen.threshold = self.rules.threshold(index, trace.first, trace.spans, chosen.randomness, self.now_ns)
        chosen.rule = self.rules.ids[index]
        chosen.reason = reason
        chosen.flags = 0
        if reason != EARLY and (trace.root_ns < 0 or reason >= MEMORY or reason == SIZE):
            chosen.flags |= INCOMPLETE
        chosen.admitted = chosen.randomness >= chosen.threshold
        if not trace.first.flags & HAS_RANDOMNESS and trace.first.threshold == 0:
            self.uniformity.note(chosen.randomness)
        if chosen.admitted and self.limit is not None and not self.unlimited:
            chosen.position = index
            chosen.size = size_of(self.limit_unit, trace.first, trace.spans)
            self.limit.add(&chosen, self.now_ns)
            self.chosen_bytes += trace.cost
            self.buffer.set_aside(trace)
            return 0
        return self.settle(&chosen)

    cdef int settle(self, Chosen* chosen) except -1:
        """A decision is made: let the trace go its way, remember the decision, count it. On an error nothing has happened, save that a
        destination may have the trace already."""
        cdef Trace* trace = <Trace*>chosen.trace
        cdef int64_t delay_ns = self.now_ns - trace.first_ns
        cdef Decision decision
        decision.trace_id = trace.first.trace_id
        decision.threshold = chosen.threshold
        decision.when_s = <uint32_t>(self.now_ns // 1_000_000_000)
        decision.rule = chosen.rule
        decision.reason = chosen.reason
        decision.flags = chosen.flags
        if chosen.admitted:
            decision.flags |= KEPT
            self.deliver(self.stamper.finish(trace.first, chosen.threshold, chosen.randomness,
                                             self.attributes_of(chosen.rule, chosen.reason, chosen.flags & INCOMPLETE), chosen.rule))
        else:
            self.ledger.rules[chosen.rule].sampled_out += trace.spans
        self.decisions.remember(&decision)
        self.ledger.decided(chosen.rule, decision.flags & KEPT, chosen.reason, delay_ns)
        self.note_thresholds(trace.first)
        self.buffer.remove(trace)
        return 0

    cdef int release(self, int most) except -1:
        """Settle at most `most` traces that the limit has judged; returns how many."""
        cdef Chosen* chosen
        cdef Trace* trace
        cdef uint32_t spans
        cdef double size
        cdef int done = 0
        while done < most and not self.congested():
            chosen = self.limit.collect()
            if chosen == NULL:
                break
            trace = <Trace*>chosen.trace
            spans = trace.spans
            size = size_of(self.limit_unit, trace.first, spans)
            if not chosen.admitted:
                chosen.flags |= LIMITED
            self.stamper.begin_trace()
            try:
                self.settle(chosen)
            except:
                self.limit.give_back()
                raise
            done += self.stamper.redaction_in_traces()
            if chosen.flags & LIMITED:
                self.ledger.rules[chosen.rule].limited_traces += 1
                self.ledger.rules[chosen.rule].limited_spans += spans
            elif size > chosen.size:
                self.limit.charge(size - chosen.size, self.now_ns)  # what joined it since it was judged
            done += 1
        return done

    cdef void measure(self) noexcept nogil:
        """Of what waits the limit is to know what it has become: spans join it, and the limit may count something else now."""
        cdef uint32_t i
        cdef Trace* trace
        for i in range(self.limit.count):
            trace = <Trace*>self.limit.waiting[i].trace
            self.limit.waiting[i].size = size_of(self.limit_unit, trace.first, trace.spans)

    cdef int close_window(self) except -1:
        self.measure()
        self.limit.close(self.now_ns)
        self.chosen_bytes = 0
        return 0

    def tick(self, int64_t now_ns, int slice=256):
        cdef Trace* trace
        cdef bint has_root = False
        with self.lock:
            self.now_ns = max(self.now_ns, now_ns)
            if self.backlog_spans:
                self.flush()
            if self.limit is not None:
                if self.limit.due(self.now_ns):
                    self.close_window()
                slice -= self.release(slice)
                if self.unlimited and self.limit.empty():
                    self.limit = None
                    self.unlimited = False
            while slice > 0:
                trace = self.buffer.due(self.now_ns, &has_root)
                if trace == NULL or self.congested():
                    return False
                if trace.newer != NULL:
                    # They were filed seconds ago and have left the caches since.
                    prefetch(trace.newer.newer)
                    prefetch(trace.newer.first)
                slice -= 1 + self.decide_one(trace, ROOT if has_root else WAIT)
            return True

    cdef int decide_one(self, Trace* trace, uint8_t reason) except -1:
        """Decide; returns how many others the redaction was worth."""
        self.stamper.begin_trace()
        self.decide(trace, reason)
        return self.stamper.redaction_in_traces()

    def close(self):
        cdef Controller controller
        with self.lock:
            if self.closed:
                return
            self.closed = True
            # All that is buffered is about to be decided in one go. Rates stay what they are: it came over a longer time, in which
            # it would have left, too.
            for controller in self.rules.controllers:
                controller.hold()
            if self.limit is not None and self.buffer.oldest != NULL:
                self.limit.grant(<double>(self.now_ns - self.buffer.oldest.first_ns) / 1e9)

    def drain(self, int64_t now_ns, int slice=256, *, bint hurry=False):
        with self.lock:
            self.now_ns = max(self.now_ns, now_ns)
            if self.backlog_spans:
                self.flush()
            while slice > 0 and self.buffer.oldest != NULL:
                slice -= 1 + self.decide_one(self.buffer.oldest, SHUTDOWN)
            if self.limit is not None:
                if hurry and self.buffer.oldest == NULL:
                    self.limit.hasten(self.now_ns)
                if self.limit.due(self.now_ns):
                    self.close_window()
                self.release(slice)
            return self.buffer.traces != 0 or self.backlog_spans != 0

    # Handing on.

    cdef int deliver(self, KeptTrace kept) except -1:
        cdef Outlet outlet
        kept.waiting = 0
        for outlet in self.outlets:
            if outlet.backlog or not outlet.offer(kept):
                outlet.backlog.append(kept)
                kept.waiting += 1
        if kept.waiting:
            self.backlog_bytes += kept.nbytes
            self.backlog_spans += kept.spans
        else:
            self.ledger.rules[kept.rule].kept += kept.spans
        return 0

    cdef int flush(self) except -1:
        """Offer again what the destinations had no room for, in order."""
        cdef Outlet outlet
        cdef KeptTrace kept
        for outlet in self.outlets:
            while outlet.backlog and outlet.offer(outlet.backlog[0]):
                kept = outlet.backlog.popleft()
                kept.waiting -= 1
                if not kept.waiting:
                    self.backlog_bytes -= kept.nbytes
                    self.backlog_spans -= kept.spans
                    self.ledger.rules[kept.rule].kept += kept.spans
        return 0

    # Looking.

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
                fragment = trace.first
                while fragment != NULL:
                    fragments += 1
                    fragment = fragment.next
                return {
                    "state": "buffered", "spans": trace.spans, "fragments": fragments, "bytes": trace.cost,
                    "age_seconds": max(now_ns - trace.first_ns, 0) / 1e9, "root_seen": trace.root_ns >= 0,
                    "chosen": trace.asked == SET_ASIDE,
                }
            decision = self.decisions.find(key)
            if decision != NULL:
                return {
                    "state": "decided", "rule": self.ledger.rule_names[decision.rule], "keep": bool(decision.flags & KEPT),
                    "reason": REASONS[decision.reason], "threshold": decision.threshold,
                    "incomplete": bool(decision.flags & INCOMPLETE), "limited": bool(decision.flags & LIMITED),
                    "ago_seconds": max(now_ns // 1_000_000_000 - decision.when_s, 0),
                }
        return None

    # Accounting.

    def snapshot(self, int64_t now_ns):
        oldest_ns = self.buffer.oldest_ns
        values = self.ledger.values(self.limit is not None)
        values.update({
            metrics.BUFFER_SPANS: {(): self.buffer.spans + self.backlog_spans},
            metrics.STRINGS_MENDED: {(): self.stamper.strings_mended},
            metrics.REDACTIONS: dict(self.redactions),
            metrics.TRACE_IDS_RANDOM: {(): 1 if self.uniformity.random else 0},
            metrics.SPANS_INCONSISTENT_THRESHOLD: {(): self.stamper.inconsistent},
            metrics.BUFFER_TRACES: {(): self.buffer.traces},
            metrics.BUFFER_BYTES: {(): self.held()},
            metrics.BUFFER_MAX_BYTES: {(): self.max_bytes},
            metrics.BUFFER_OLDEST_SECONDS: {(): 0 if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9},
            metrics.DECISION_MEMORY_TRACES: {(): self.decisions.count},
            metrics.DECISION_MEMORY_BYTES: {(): self.decisions.nbytes},
        })
        return values


cdef class Entrance:
    cdef Pipeline pipeline
    cdef str transport
    cdef Scanner scanner

    def __init__(self, Pipeline pipeline not None, str transport not None):
        self.pipeline = pipeline
        self.transport = transport

    def accept(self, bytes request not None, int64_t now_ns):
        cdef Scanned scanned
        cdef Pipeline pipeline = self.pipeline
        if self.scanner is None or self.scanner.plan is not pipeline.rules.plan:
            self.scanner = Scanner(pipeline.rules.plan, seed=pipeline.buffer.seed)
        try:
            scanned = self.scanner.scan(request)
        except MalformedRequest:
            with pipeline.lock:
                pipeline.take(None, self.transport, len(request), now_ns)
            raise
        with pipeline.lock:
            pipeline.take(scanned, self.transport, len(request), now_ns)
        if scanned.invalid_trace_ids or scanned.invalid_span_ids:
            return response(scanned.invalid_trace_ids, scanned.invalid_span_ids)
        return b""
