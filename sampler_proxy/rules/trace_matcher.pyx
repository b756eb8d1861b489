"""The spans of a trace side by side, for what cannot be answered span by span: structure, aggregates, pipelines.

A trace is read again from its fragments' bytes, at decision time and only if a query's guard lets it pass. A row is a distinct span id;
the first to arrive stands for it. A query is a tree of nodes; each takes a set of rows and returns the rows it selects, as a byte per
row in a block of its own that the caller frees. All of it is linear in the number of spans.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.protobuf cimport cbytes, hash_two, load64, read_length
from sampler_proxy.rules.arithmetic cimport add_numbers, as_real, compare_numbers
from sampler_proxy.rules.conditions cimport OP_GT, V_DOUBLE, V_INT, V_NIL, ordered
from sampler_proxy.otlp.fragments cimport Envelope, Group, groups_of, payload_of

from sampler_proxy.traceql import program as ir

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t) nogil


cdef enum:
    MAX_KEPT_ROOM = 1 << 16  # rows


cdef class Rows:
    def __cinit__(self, Plan plan not None, uint64_t seed):
        self.plan = plan
        self.seed = seed
        self.matcher = SpanMatcher(plan, seed)
        self.matched = <uint64_t*>calloc(plan.filter_words + 1, sizeof(uint64_t))
        if self.matched == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.rows)
        free(self.bits)
        free(self.arguments)
        free(self.matched)
        free(self.table)

    cdef void tell(self, uint32_t trace_condition, bint holds) noexcept:
        """Whether a trace condition holds of the trace that is read next."""
        cdef uint32_t number = self.plan.condition_count + self.plan.arithmetic.comparison_count + trace_condition
        cdef uint64_t bit = (<uint64_t>1) << (number & 63)
        if holds:
            self.matcher.defaults.bits[number >> 6] |= bit
        else:
            self.matcher.defaults.bits[number >> 6] &= ~bit

    cdef bint matches(self, uint32_t row, uint32_t filter) noexcept nogil:
        return self.bits[<uint64_t>row * self.plan.filter_words + (filter >> 6)] >> (filter & 63) & 1

    cdef int read(self, Fragment* first) except -1:
        """Fill the rows from a trace's adopted fragments, which must outlive their use."""
        cdef Fragment* fragment = first
        cdef Group* group
        cdef Envelope* resource
        cdef cbytes p
        cdef cbytes end
        cdef uint32_t size = 0
        cdef uint32_t i
        cdef Facts facts
        cdef uint64_t spans = 0
        self.count = 0
        if self.room > MAX_KEPT_ROOM:  # a very large trace was the last
            free(self.rows)
            free(self.bits)
            free(self.arguments)
            self.rows = NULL
            self.bits = NULL
            self.arguments = NULL
            self.room = 0
        self.matcher.begin()
        memset(self.matched, 0, 8 * self.plan.filter_words)
        while fragment != NULL:
            spans += fragment.spans
            fragment = fragment.next
        self.table_mask = 63
        while self.table_mask < 2 * spans:
            self.table_mask = 2 * self.table_mask + 1
        free(self.table)
        self.table = <int32_t*>calloc(<uint64_t>self.table_mask + 1, sizeof(int32_t))
        if self.table == NULL:
            raise MemoryError
        fragment = first
        while fragment != NULL:
            group = groups_of(fragment)
            p = payload_of(fragment)
            resource = NULL
            for i in range(fragment.groups):
                if group[i].scope.envelope.parent != resource:
                    resource = group[i].scope.envelope.parent
                    self.matcher.load_header(resource, False)
                self.matcher.load_header(group[i].scope.envelope, True)
                end = p + group[i].size
                while p < end:
                    p = read_length(p + 1, end, &size)
                    self.matcher.read_span(p, size, &facts)
                    self.add(&facts)
                    p += size
            fragment = fragment.next
        for i in range(self.count):
            if self.rows[i].has_parent:
                self.rows[i].parent = self.find(self.rows[i].parent_id)
        return 0

    cdef int reserve(self) except -1:
        cdef uint32_t room = 2 * self.room + 64
        cdef void* grown
        if self.count < self.room:
            return 0
        grown = realloc(self.rows, room * sizeof(Row))
        if grown == NULL:
            raise MemoryError
        self.rows = <Row*>grown
        grown = realloc(self.bits, <uint64_t>room * self.plan.filter_words * sizeof(uint64_t) + 8)
        if grown == NULL:
            raise MemoryError
        self.bits = <uint64_t*>grown
        grown = realloc(self.arguments, <uint64_t>room * self.plan.arithmetic.argument_count * sizeof(Value) + 8)
        if grown == NULL:
            raise MemoryError
        self.arguments = <Value*>grown
        self.room = room
        return 0

    cdef int add(self, Facts* facts) except -1:
        cdef Row* row
        cdef uint32_t i, at
        cdef uint64_t span_id = load64(facts.span_id.p)
        cdef uint64_t* bits
        cdef uint64_t arguments
        self.reserve()
        bits = self.bits + <uint64_t>self.count * self.plan.filter_words
        memset(bits, 0, 8 * self.plan.filter_words)
        self.matcher.match(bits, facts, True)
        for i in range(self.plan.filter_words):
            self.matched[i] |= bits[i]
        at = <uint32_t>hash_two(span_id, 0, self.seed) & self.table_mask
        while self.table[at]:
            if self.rows[self.table[at] - 1].span_id == span_id:
                return 0
            at = (at + 1) & self.table_mask
        row = &self.rows[self.count]
        row.span_id = span_id
        row.parent = -1
        row.parent_id = 0
        row.has_parent = False
        for i in range(facts.parent_id.size):
            if facts.parent_id.p[i]:
                row.has_parent = True
        if row.has_parent:
            if facts.parent_id.size == 8:
                row.parent_id = load64(facts.parent_id.p)
            else:  # no span has such an id, but siblings share it
                for i in range(facts.parent_id.size):
                    row.parent_id = (row.parent_id ^ facts.parent_id.p[i]) * 0x100000001B3ULL
        arguments = <uint64_t>self.count * self.plan.arithmetic.argument_count
        for i in range(self.plan.arithmetic.argument_count):
            self.matcher.evaluate_argument(i, facts, &self.arguments[arguments + i])
        self.count += 1
        self.table[at] = <int32_t>self.count
        return 0

    cdef int32_t find(self, uint64_t span_id) noexcept nogil:
        cdef uint32_t at = <uint32_t>hash_two(span_id, 0, self.seed) & self.table_mask
        while self.table[at]:
            if self.rows[self.table[at] - 1].span_id == span_id:
                return self.table[at] - 1
            at = (at + 1) & self.table_mask
        return -1


cdef uint8_t* _empty(Rows rows) except NULL:
    cdef uint8_t* block = <uint8_t*>calloc(rows.count + 1, 1)
    if block == NULL:
        raise MemoryError
    return block


cdef uint8_t* _copy(Rows rows, uint8_t* given) except NULL:
    cdef uint8_t* block = _empty(rows)
    memcpy(block, given, rows.count)
    return block


cdef bint _any(Rows rows, uint8_t* selected) noexcept:
    cdef uint32_t i
    for i in range(rows.count):
        if selected[i]:
            return True
    return False


cdef class Node:
    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        raise NotImplementedError


cdef class _Select(Node):
    cdef uint32_t filter

    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        cdef uint8_t* selected = _empty(rows)
        cdef uint32_t i
        for i in range(rows.count):
            selected[i] = given[i] and rows.matches(i, self.filter)
        return selected


cdef class _Spansets(Node):
    cdef bint every
    cdef list parts

    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        cdef uint8_t* union = _empty(rows)
        cdef uint8_t* selected
        cdef Node part
        cdef uint32_t i
        cdef bint found
        for part in self.parts:
            selected = part.select(rows, given)
            found = False
            for i in range(rows.count):
                union[i] |= selected[i]
                found |= selected[i]
            free(selected)
            if self.every and not found:
                memset(union, 0, rows.count)
                break
        return union


cdef class _Pipeline(Node):
    cdef list stages

    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        cdef uint8_t* selected = _copy(rows, given)
        cdef uint8_t* before
        cdef Node stage
        for stage in self.stages:
            if not _any(rows, selected):
                break
            before = selected
            selected = stage.select(rows, before)
            free(before)
        return selected


cdef class _Structural(Node):
    cdef str op
    cdef bint negated
    cdef Node left, right

    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        cdef uint8_t* left = self.left.select(rows, given)
        cdef uint8_t* selected = self.right.select(rows, given)
        cdef uint8_t* related = _empty(rows)
        cdef uint32_t i
        if self.op == ">":
            _children(rows, left, related)
        elif self.op == ">>":
            _descendants(rows, left, related)
        elif self.op == "<":
            _parents(rows, left, related)
        elif self.op == "<<":
            _ancestors(rows, left, related)
        else:
            _siblings(rows, left, related)
        for i in range(rows.count):
            selected[i] = selected[i] and (related[i] != self.negated)
        free(left)
        free(related)
        return selected


cdef void _children(Rows rows, uint8_t* left, uint8_t* related) noexcept:
    """Whose parent is in left. Nobody is related to itself."""
    cdef uint32_t i
    cdef int32_t parent
    for i in range(rows.count):
        parent = rows.rows[i].parent
        related[i] = parent >= 0 and <uint32_t>parent != i and left[parent]


cdef void _parents(Rows rows, uint8_t* left, uint8_t* related) noexcept:
    cdef uint32_t i
    cdef int32_t parent
    for i in range(rows.count):
        parent = rows.rows[i].parent
        if left[i] and parent >= 0 and <uint32_t>parent != i:
            related[parent] = 1


cdef int _descendants(Rows rows, uint8_t* left, uint8_t* related) except -1:
    """Those with a span of left above them. Damaged traces may have cycles: in one, each lies above all the others."""
    cdef uint8_t* state = _empty(rows)  # 1: on the path, 2: done
    cdef int32_t* path = <int32_t*>malloc(<uint64_t>(rows.count + 1) * sizeof(int32_t))
    cdef int32_t at, parent
    cdef uint32_t i, depth, start, k
    cdef uint32_t inside
    if path == NULL:
        free(state)
        raise MemoryError
    for i in range(rows.count):
        depth = 0
        at = <int32_t>i
        while at >= 0 and state[at] == 0:
            state[at] = 1
            path[depth] = at
            depth += 1
            at = rows.rows[at].parent
        if at >= 0 and state[at] == 1:
            start = depth - 1
            while path[start] != at:
                start -= 1
            inside = 0
            for k in range(start, depth):
                inside += left[path[k]]
            for k in range(start, depth):
                related[path[k]] = inside > left[path[k]]
                state[path[k]] = 2
            depth = start
        while depth:
            depth -= 1
            at = path[depth]
            parent = rows.rows[at].parent
            related[at] = parent >= 0 and (left[parent] or related[parent])
            state[at] = 2
    free(path)
    free(state)
    return 0


cdef int _ancestors(Rows rows, uint8_t* left, uint8_t* related) except -1:
    """Those with a span of left below them: counted from the leaves up; what then is left over lies in cycles."""
    cdef uint32_t* below = <uint32_t*>calloc(<uint64_t>rows.count + 1, sizeof(uint32_t))
    cdef uint32_t* children = <uint32_t*>calloc(<uint64_t>rows.count + 1, sizeof(uint32_t))
    cdef uint8_t* done = <uint8_t*>calloc(<uint64_t>rows.count + 1, 1)
    cdef uint32_t i
    cdef uint64_t total
    cdef int32_t at, parent
    if below == NULL or children == NULL or done == NULL:
        free(below)
        free(children)
        free(done)
        raise MemoryError
    for i in range(rows.count):
        if rows.rows[i].parent >= 0:
            children[rows.rows[i].parent] += 1
    for i in range(rows.count):
        at = <int32_t>i
        while at >= 0 and not done[at] and children[at] == 0:
            done[at] = 1
            related[at] = below[at] > 0
            parent = rows.rows[at].parent
            if parent >= 0:
                below[parent] += below[at] + left[at]
                children[parent] -= 1
            at = parent
    for i in range(rows.count):
        if done[i]:
            continue
        total = 0
        at = <int32_t>i
        while not done[at]:
            done[at] = 1
            total += below[at] + left[at]
            at = rows.rows[at].parent
        at = <int32_t>i
        while True:
            related[at] = total > left[at]
            at = rows.rows[at].parent
            if <uint32_t>at == i:
                break
    free(below)
    free(children)
    free(done)
    return 0


cdef int _siblings(Rows rows, uint8_t* left, uint8_t* related) except -1:
    """Those that share a parent, arrived or not, with another span of left; roots are siblings of each other."""
    cdef uint32_t* table = <uint32_t*>calloc(<uint64_t>rows.table_mask + 1, sizeof(uint32_t))  # first row of a family + 1
    cdef uint32_t* family = <uint32_t*>malloc(<uint64_t>(rows.count + 1) * sizeof(uint32_t))
    cdef uint32_t* members = <uint32_t*>calloc(<uint64_t>rows.count + 1, sizeof(uint32_t))  # of left, by the family's first row
    cdef uint32_t i, at
    cdef Row* other
    if table == NULL or family == NULL or members == NULL:
        free(table)
        free(family)
        free(members)
        raise MemoryError
    for i in range(rows.count):
        at = <uint32_t>hash_two(rows.rows[i].parent_id, rows.rows[i].has_parent, rows.seed) & rows.table_mask
        while table[at]:
            other = &rows.rows[table[at] - 1]
            if other.parent_id == rows.rows[i].parent_id and other.has_parent == rows.rows[i].has_parent:
                break
            at = (at + 1) & rows.table_mask
        if table[at] == 0:
            table[at] = i + 1
        family[i] = table[at] - 1
        members[family[i]] += left[i]
    for i in range(rows.count):
        related[i] = members[family[i]] > left[i]
    free(table)
    free(family)
    free(members)
    return 0


cdef enum:
    COUNT
    SUM
    AVG
    MIN
    MAX

_FUNCTIONS = {"count": COUNT, "sum": SUM, "avg": AVG, "min": MIN, "max": MAX}


cdef class _Aggregate(Node):
    cdef int function, op
    cdef uint32_t argument
    cdef Value constant

    cdef uint8_t* select(self, Rows rows, uint8_t* given) except NULL:
        cdef Value value
        if self.value(rows, given, &value) and ordered(self.op, compare_numbers(&value, &self.constant)):
            return _copy(rows, given)
        return _empty(rows)

    cdef bint value(self, Rows rows, uint8_t* given, Value* value) noexcept:
        """False where there is nothing to aggregate."""
        cdef uint64_t used = 0
        cdef uint32_t i
        cdef Value* argument
        memset(value, 0, sizeof(Value))
        value.type = V_INT
        for i in range(rows.count):
            if not given[i]:
                continue
            if self.function == COUNT:
                used += 1
                continue
            argument = &rows.arguments[<uint64_t>i * rows.plan.arithmetic.argument_count + self.argument]
            if argument.type == V_NIL or (argument.type == V_DOUBLE and argument.real != argument.real):
                continue
            used += 1
            if self.function == SUM or self.function == AVG:
                add_numbers(value, argument, value)
            elif used == 1:
                value[0] = argument[0]
            elif compare_numbers(argument, value) == (1 if self.function == MAX else -1):
                value[0] = argument[0]
        if used == 0:
            return False
        if self.function == COUNT:
            value.integer = <long long>used
        elif self.function == AVG:
            value.real = as_real(value) / <double>used
            value.type = V_DOUBLE
        return True


cdef Node build(node, list arguments):
    """The native form of a query's tree. Arguments of aggregates are collected; a Plan must be made with them."""
    cdef _Select select
    cdef _Spansets spansets
    cdef _Structural structural
    cdef _Aggregate aggregate
    cdef _Pipeline pipeline
    if isinstance(node, ir.Select):
        select = _Select()
        select.filter = node.filter
        return select
    if isinstance(node, ir.Spansets):
        spansets = _Spansets()
        spansets.every = node.op == ir.AND
        spansets.parts = [build(part, arguments) for part in node.parts]
        return spansets
    if isinstance(node, ir.Structural):
        structural = _Structural()
        structural.op = node.op.removeprefix("!")
        structural.negated = node.op.startswith("!")
        structural.left = build(node.left, arguments)
        structural.right = build(node.right, arguments)
        return structural
    if isinstance(node, ir.Pipeline):
        pipeline = _Pipeline()
        pipeline.stages = [build(stage, arguments) for stage in node.stages]
        return pipeline
    aggregate = _Aggregate()
    aggregate.function = _FUNCTIONS[node.function]
    aggregate.op = int(node.op)
    if node.argument is not None:
        aggregate.argument = <uint32_t>len(arguments)
        arguments.append(node.argument)
    memset(&aggregate.constant, 0, sizeof(Value))
    if node.constant.kind is ir.Kind.FLOAT:
        aggregate.constant.type = V_DOUBLE
        aggregate.constant.real = node.constant.value
    else:
        aggregate.constant.type = V_INT
        aggregate.constant.integer = node.constant.value
    return aggregate
