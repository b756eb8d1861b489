"""Runs a rule set: decides which rule matches a trace first, and gives the trace's threshold. `rule_set.pyi` is the
manual.

The scan has answered span by span: its answers stand in the fragments' filter words. Conditions on the trace itself are
answered here, from the fragments, only when a rule asks and once for a trace. Queries read the trace's spans again, if
their guard lets them; so do traces with fragments that were scanned for another plan. A rule set is used under the
pipeline's lock.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.fragments cimport HAS_RANDOMNESS, PARTLY_READ, filter_words
from sampler_proxy.otlp.protobuf cimport bswap64
from sampler_proxy.rules.conditions cimport MET_OTHERS, Value, holds
from sampler_proxy.rules.effort cimport STEPS_PER_UNIT, grant, is_spent
from sampler_proxy.rules.plan cimport Consumers, OF_TRACE
from sampler_proxy.rules.programs cimport (
    ProgramRun, begin_program, bit_of, next_operand, program_answer, push_answer,
)
from sampler_proxy.rules.rate cimport Controller
from sampler_proxy.rules.roots cimport ELSEWHERE, LOCAL, NO_ROOT, NOT_SOUGHT
from sampler_proxy.rules.trace_fields cimport read_trace_field, reads_root
from sampler_proxy.rules.trace_key cimport TraceKeyReader
from sampler_proxy.rules.trace_matcher cimport Node, build_query, selects_any

from typing import NamedTuple

from sampler_proxy.rules.rate import Fixed
from sampler_proxy.traceql.compiler import selects
from sampler_proxy.traceql.program import FALSE, TRUE, Field, Kind

_ATTRIBUTES = frozenset(field for field in Field if field.name.endswith("ATTRIBUTE"))
# By ValueType; a value of none cannot be met, and arrays are never a mismatch.
_MET = ("nothing", "a text", "a boolean", "a number", "a number", "a number", "an array", "bytes or a key-value list")

UNITS = ("traces", "spans", "bytes")

cdef enum:
    MAX_EFFORT = 5_000  # units, for the trace conditions of one trace: regular expressions on the name of its root


cdef uint64_t randomness_of(Fragment* trace) noexcept nogil:
    """Return R of a trace: its smallest `rv`, else the last 56 bits of its id."""
    cdef uint64_t smallest = 0
    cdef bint found = False
    cdef Fragment* fragment = trace
    while fragment != NULL:
        if fragment.flags & HAS_RANDOMNESS and (not found or fragment.randomness < smallest):
            smallest = fragment.randomness
            found = True
        fragment = fragment.next
    if found:
        return smallest
    return bswap64(trace.trace_id[1]) & 0xFFFFFFFFFFFFFFULL


cdef double size_of(uint8_t unit, Fragment* trace, uint32_t spans) noexcept nogil:
    """Return the size of a trace, in a unit that a rate counts; `spans` is how many it has."""
    cdef uint64_t size = 0
    if unit == TRACES:
        return 1
    if unit == SPANS:
        return spans
    while trace != NULL:
        size += trace.size
        trace = trace.next
    return <double>size


class Keep(NamedTuple):
    controller: Controller
    slots: tuple = ()
    unit: str = "traces"


cdef class RuleSet:
    def __cinit__(self, *, names, keeps, compiled, ledger_id, uint64_t seed=0):
        cdef uint32_t rule
        # No comprehensions here, nor in what is called: Cython 3.3.1 drops a reference too many where an item that has
        # just been made finds no memory in the list, and rules may be replaced while memory is short.
        cdef list arguments = []
        cdef list programs = list(map(tuple, compiled.programs))
        cdef list guards = []
        cdef list exclusions = list(map(tuple, compiled.exclusions))
        self.names = tuple(names)
        self.count = <uint32_t>len(self.names)
        if self.count == 0 or not len(programs) == len(keeps) == len(compiled.monotone) == self.count:
            raise ValueError("every rule has a name, a probability and a program")
        if not len(compiled.late) == len(exclusions) == self.count:
            raise ValueError("of every rule it is known what late spans tell, and what it excludes")
        if programs[self.count - 1] != (TRUE,):
            raise ValueError("the last rule must match everything")
        self.trace_conditions = ConditionList(compiled.trace_conditions)
        self.queries = []
        for query in compiled.queries:
            guards.append(tuple(query.guard))
            self.queries.append(build_query(query.root, arguments))
        self.plan = Plan(
            compiled.conditions, compiled.filters, comparisons=compiled.comparisons,
            trace_conditions=self.trace_conditions.count, deferred=compiled.deferred, arguments=arguments,
        )
        self.question_count = self.trace_conditions.count + <uint32_t>len(self.queries)
        for program in programs + guards + exclusions:
            for token in program:
                if token >= 0 and token >> 1 >= (self.question_count if token & 1 else self.plan.filters.count):
                    raise ValueError(f"operand {token} is not there")
        self.first_exclusion = self.count + <uint32_t>len(guards)
        self.programs = Programs(
            programs + guards + exclusions, 2 * max(self.plan.filters.count, self.question_count)
        )
        self.regexes = RegexCache(self.trace_conditions, seed)
        self.table = SpanTable(self.plan, seed)
        self.roots = RootFinder(seed)
        self.allocate()
        self.set_keeps(keeps, seed)
        self.find_early_rules(programs, compiled.monotone)
        self.find_late_rules(compiled)
        self.find_comparing(compiled)
        for rule in range(self.count):  # only now that nothing can be wrong with the rules any more
            self.ids[rule] = ledger_id(self.names[rule])

    def __dealloc__(self):
        free(self.always)
        free(self.units)
        free(self.ids)
        free(self.early)
        free(self.late)
        free(self.revivable)
        free(self.early_filters)
        free(self.matched)
        free(self.answers)

    cdef int allocate(self) except -1:
        """Allocate the arrays by rule, and those that answer a trace."""
        self.always = <uint8_t*>calloc(self.count, 1)
        self.units = <uint8_t*>calloc(self.count, 1)
        self.ids = <uint16_t*>calloc(self.count, sizeof(uint16_t))
        self.early = <uint8_t*>calloc(self.count, 1)
        self.late = <uint8_t*>calloc(self.count, 1)
        self.revivable = <uint8_t*>calloc(self.count, 1)
        self.early_filters = <uint64_t*>calloc(self.plan.filter_words + 1, sizeof(uint64_t))
        self.matched = <uint64_t*>calloc(self.plan.filter_words + 1, sizeof(uint64_t))
        self.answers = <signed char*>malloc(self.question_count + 1)
        if self.always == NULL or self.units == NULL or self.ids == NULL or self.early == NULL:
            raise MemoryError
        if self.late == NULL or self.revivable == NULL:
            raise MemoryError
        if self.early_filters == NULL or self.matched == NULL or self.answers == NULL:
            raise MemoryError
        return 0

    cdef int set_keeps(self, keeps, uint64_t seed) except -1:
        """Set how much each rule keeps."""
        cdef uint32_t rule
        cdef Controller controller
        self.controllers = []
        self.readers = []
        for rule in range(self.count):
            keep = keeps[rule]
            if not isinstance(keep, Keep):
                keep = Keep(Fixed(keep))
            controller = <Controller?>keep.controller
            if controller.keyed != bool(keep.slots):
                raise ValueError("a controller that is keyed wants fields, and others none")
            self.controllers.append(controller)
            self.readers.append(TraceKeyReader(keep.slots, seed=seed) if keep.slots else None)
            self.always[rule] = controller.always
            self.units[rule] = UNITS.index(keep.unit)
        return 0

    cdef int find_early_rules(self, list programs, monotone) except -1:
        """Find the rules that may decide early: a match cannot be taken back (the program is monotone), and it does not
        matter which of the rules before would have decided, as all of them keep everything."""
        cdef uint32_t rule
        for rule in range(self.count):
            if not self.always[rule]:
                break
            if not monotone[rule]:
                continue
            self.early_count = rule + 1
            token = programs[rule][0]
            if len(programs[rule]) == 1 and token >= 0 and not token & 1:
                # One filter and nothing else: a test of bits for all such rules at once.
                self.early_filters[token >> 7] |= (<uint64_t>1) << (token >> 1 & 63)
                continue
            self.early[rule] = EARLY_BITS
            for token in programs[rule]:
                if token >= 0 and token & 1 and token >> 1 >= self.trace_conditions.count:
                    self.early[rule] = EARLY_QUERY
                    self.early_queries = True
        return 0

    cdef int find_late_rules(self, compiled) except -1:
        """Find the rules that late spans may tell, and those that have one before them that keeps everything."""
        cdef uint32_t rule
        cdef bint revivable = False
        for rule in range(self.count):
            self.revivable[rule] = revivable
            if not compiled.late[rule]:
                continue
            self.late[rule] = LATE_TOLD
            if tuple(compiled.exclusions[rule]) != (FALSE,):
                self.late[rule] |= LATE_EXCLUDES
                self.excluding = True
            revivable |= self.always[rule]
        return 0

    cdef int find_comparing(self, compiled) except -1:
        """Find the conditions on attributes of each rule."""
        cdef uint32_t trace_conditions = self.trace_conditions.count
        asked = {
            number for number, condition in enumerate(compiled.conditions)
            if condition.field in _ATTRIBUTES and condition.kind != Kind.NONE
        }
        filters = list(map(asked.intersection, compiled.filters))
        self.comparing = []
        for rule, program in enumerate(compiled.programs):
            numbers = set()
            for token in program:
                if token >= 0 and not token & 1:
                    numbers.update(filters[token >> 1])
                elif token >= 0 and token >> 1 >= trace_conditions:
                    for selected in selects(compiled.queries[(token >> 1) - trace_conditions].root):
                        numbers.update(filters[selected])
            if numbers:
                self.comparing.append((rule, tuple(sorted(numbers))))
        return 0

    def type_mismatches(self):
        cdef uint8_t met
        found = []
        for rule, numbers in self.comparing:
            conditions = []
            for number in numbers:
                met = self.plan.conditions.met[number]
                if met >= MET_OTHERS:
                    condition = self.plan.conditions.source[number]
                    mismatch = (condition.field, condition.key, condition.kind, _MET[met - MET_OTHERS])
                    if mismatch not in conditions:
                        conditions.append(mismatch)
            found.append((rule, conditions))
        return found

    # Effort.

    cdef uint64_t effort_(self) noexcept:
        """Return the units of effort that deciding has cost so far: about 1 a trace, and what is read again."""
        cdef uint64_t steps = self.steps + self.regexes.effort.steps + self.table.effort.steps + self.roots.effort.steps
        return steps // STEPS_PER_UNIT

    @property
    def effort(self):
        return self.effort_()

    cdef void note_beyond(self) noexcept:
        """Note whether what was asked last has been answered by a part of the trace."""
        if self.roots.beyond or is_spent(&self.regexes.effort):
            self.beyond = True

    cdef void note_root_beyond(self) noexcept:
        """Note, and count, whether the root that was sought after first_match() was found in a part of it."""
        if self.roots.beyond and not self.beyond:
            self.beyond = True
            self.partly_read += 1

    # Deciding a trace.

    cdef uint32_t first_match(self, Fragment* trace) except? 0xFFFFFFFF:
        """Return the index of the rule that decides a trace. find_root() then finds the root of that trace, and has
        found it for a rule that is keyed. `held_back` is set if a rule before it, that late spans may tell, has been
        kept from it by what the trace holds: by its `unless`, most often. `beyond` is set where the trace is too large
        to be read again as a whole under the lock: it is decided by what has been read, and by all that the scan knows.
        """
        cdef TraceAnswers answers
        cdef uint32_t rule
        self.held_back = False
        self.root_is_elsewhere = False
        self.begin_trace(trace, &answers)
        for rule in range(self.count):
            if self.run(rule, &answers):
                break
            if self.excluding and self.late[rule] & LATE_EXCLUDES and self.run(self.first_exclusion + rule, &answers):
                self.held_back = True
        if self.readers[rule] is not None:
            self.find_root(trace)
        self.note_beyond()
        self.partly_read += self.beyond
        return rule

    cdef uint32_t position_of(self, uint16_t rule) noexcept nogil:
        """Return the index of the rule with this number in the ledger; NO_RULE: it is none of this rule set."""
        cdef uint32_t i
        for i in range(self.count):
            if self.ids[i] == rule:
                return i
        return NO_RULE

    cdef uint32_t first_late(self, Fragment* late, uint32_t before, bint* held_back, bint rootless) except? 0xFFFFFFFF:
        """Return the index of the rule that revives the trace of a late fragment, which has absorbed the times of the
        trace; NO_RULE: none does. Only rules before the one that decided (`before`) are asked, and only those that late
        spans tell; the first that holds decides: it revives the trace if it keeps everything.

        `held_back`: as first_match() has said it of the trace. Rules that exclude something then stay silent; it is set
        if the late spans hold what they exclude. `rootless`: no root was among the spans before. Only then may a late
        span with a parent in another process be a local root; else its parent may have been one of those spans.
        """
        cdef TraceAnswers answers
        cdef uint32_t rule
        self.root_is_elsewhere = not rootless
        self.begin_trace(late, &answers)
        for rule in range(before):
            if self.late[rule] & LATE_EXCLUDES:
                if not held_back[0]:
                    held_back[0] = self.run(self.first_exclusion + rule, &answers)
                if held_back[0]:
                    continue
            if self.late[rule] and self.run(rule, &answers):
                return rule if self.always[rule] else NO_RULE
        return NO_RULE

    cdef bint matches_early(self, Fragment* trace, bint with_queries) except -1:
        """Tell whether a trace is bound to be kept whole, whatever of it is still to come."""
        cdef TraceAnswers answers
        cdef uint32_t rule, i
        cdef uint64_t* words = filter_words(trace)  # which has absorbed the other fragments' words
        if trace.plan != self.plan.serial:
            return False
        self.root_is_elsewhere = False
        for i in range(self.plan.filter_words):
            if words[i] & self.early_filters[i]:
                return True
        self.clear_answers(trace, &answers)
        memcpy(answers.matched, words, 8 * self.plan.filter_words)
        for rule in range(self.early_count):
            if self.early[rule] == EARLY_BITS or (self.early[rule] == EARLY_QUERY and with_queries):
                if self.run(rule, &answers):
                    return True
        return False

    cdef bint is_whole(self, Fragment* trace) except -1:
        """Tell whether a trace has a root, and no span whose parent is bound to come: see RootFinder. Where it is, the
        trace is to be decided next: its root is not sought again."""
        self.whole = trace if self.roots.is_whole(trace, &self.root) else NULL
        return self.whole != NULL

    cdef int find_root(self, Fragment* trace) except -1:
        """Find the root of the trace that was begun, unless it has been sought."""
        if self.root.kind == NOT_SOUGHT:
            self.roots.find(trace, &self.root)
            if self.root_is_elsewhere and (self.root.kind == NO_ROOT or self.root.kind == LOCAL):
                self.root.kind = ELSEWHERE
        return 0

    cdef uint64_t threshold(
        self, uint32_t rule, Fragment* trace, uint32_t spans, uint64_t randomness, int64_t now_ns
    ) noexcept:
        """Return the threshold of the trace that first_match() has just found a rule for. Once a trace: a controller
        learns from each call."""
        cdef Controller controller = <Controller>self.controllers[rule]
        cdef TraceKeyReader reader
        cdef double size = size_of(self.units[rule], trace, spans)
        cdef double incoming = 1
        cdef uint64_t steps
        if trace.threshold <= randomness:  # else it is inconsistent, and says nothing
            incoming = 1 - <double>trace.threshold / <double>(<uint64_t>1 << 56)
        if not controller.keyed:
            return controller.threshold(NULL, NULL, 0, size, incoming, now_ns)
        reader = <TraceKeyReader>self.readers[rule]
        steps = reader.matcher.regexes.effort.steps
        reader.read(trace, &self.root)
        self.steps += reader.matcher.regexes.effort.steps - steps
        return controller.threshold(reader.key, reader.text, reader.text_size, size, incoming, now_ns)

    # Answering its questions.

    cdef int begin_trace(self, Fragment* trace, TraceAnswers* answers) except -1:
        """Begin with a trace: collect the filter bits of its fragments. Nothing else is answered yet."""
        cdef Fragment* fragment = trace
        cdef uint64_t* words
        cdef uint32_t i
        self.clear_answers(trace, answers)
        memset(answers.matched, 0, 8 * self.plan.filter_words)
        self.beyond = trace.flags & PARTLY_READ != 0
        while fragment != NULL:
            if fragment.plan != self.plan.serial:  # scanned for other rules: its bits say nothing
                self.read_table(answers)
                memcpy(answers.matched, self.table.matched, 8 * self.plan.filter_words)
                break
            words = filter_words(fragment)
            for i in range(self.plan.filter_words):
                answers.matched[i] |= words[i]
            self.steps += 2
            fragment = fragment.next
        return 0

    cdef void clear_answers(self, Fragment* trace, TraceAnswers* answers) noexcept:
        """Begin with no answer known and the span table not read."""
        if self.whole != trace:
            self.root.kind = NOT_SOUGHT
        self.whole = NULL
        answers.trace = trace
        answers.matched = self.matched
        answers.answers = self.answers
        answers.table_read = False
        self.roots.beyond = False
        self.steps += STEPS_PER_UNIT
        grant(&self.regexes.effort, MAX_EFFORT)
        memset(answers.answers, -1, self.question_count)

    cdef bint run(self, uint32_t program, TraceAnswers* answers) except -1:
        """Run a program over a trace, a rule's or (behind those) a guard's; its questions are answered as they come."""
        cdef ProgramRun run
        begin_program(&run, self.programs, program)
        while next_operand(&run):
            if run.operand & 1:
                push_answer(&run, self.answer(<uint32_t>run.operand >> 1, answers))
            else:
                push_answer(&run, bit_of(answers.matched, <uint32_t>run.operand >> 1))
        return program_answer(&run)

    cdef bint answer(self, uint32_t question, TraceAnswers* answers) except -1:
        """Answer a trace condition, or (behind those) a query; each once for a trace."""
        cdef Value value
        cdef int field
        if answers.answers[question] < 0:
            if question < self.trace_conditions.count:
                field = self.trace_conditions.items[question].field
                if reads_root(field):
                    self.find_root(answers.trace)
                read_trace_field(field, answers.trace, &self.root, self.trace_hex, &value)
                answers.answers[question] = holds(&self.trace_conditions.items[question], &value, self.regexes)
            else:
                answers.answers[question] = self.query(question - self.trace_conditions.count, answers)
        return answers.answers[question]

    cdef bint query(self, uint32_t number, TraceAnswers* answers) except -1:
        """Answer a query: by its guard, if that does not hold, else from the spans."""
        cdef bint found
        if not self.run(self.count + number, answers):
            return False
        if not answers.table_read:
            self.read_table(answers)
        found = selects_any(<Node>self.queries[number], self.table)
        self.beyond |= self.table.beyond
        return found

    cdef int read_table(self, TraceAnswers* answers) except -1:
        """Read the spans of the trace into the table, all filters answered, those that need the trace too."""
        cdef Consumers consumers = self.plan.intrinsics[OF_TRACE]
        cdef Value value
        cdef uint32_t i
        if self.plan.reads_roots or consumers.start != consumers.end:
            self.find_root(answers.trace)
        for i in range(self.trace_conditions.count):
            self.table.set_trace_condition(i, self.answer(i, answers))
        for i in range(consumers.start, consumers.end):
            read_trace_field(self.plan.consumers[i].field, answers.trace, &self.root, self.trace_hex, &value)
            self.table.matcher.record(&self.table.matcher.defaults, self.plan.consumers[i].number, &value)
        self.table.read(answers.trace, self.roots, &self.root)
        self.beyond |= self.table.beyond
        answers.table_read = True
        return 0
