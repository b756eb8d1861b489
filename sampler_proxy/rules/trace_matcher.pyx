"""Evaluates queries on the spans of a trace: structure, aggregates, pipelines. `traceql.queries` says what they mean.

A query is a tree of nodes over a `SpanTable`. Each node takes a set of rows and returns the rows it selects, as a byte
per row in a block of its own that the caller frees. All of it is linear in the number of spans.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.protobuf cimport hash_two
from sampler_proxy.rules.arithmetic cimport add_numbers, as_real, compare_numbers
from sampler_proxy.rules.conditions cimport V_DOUBLE, V_INT, V_NIL, Value, ordered
from sampler_proxy.rules.effort cimport is_spent
from sampler_proxy.rules.span_table cimport Row

from sampler_proxy.traceql import program as ir


cdef bint selects_any(Node query, SpanTable table) except -1:
    """Tell whether a query holds: whether its root selects any of all spans. Where the effort of the table is spent, it
    does not."""
    cdef uint8_t* given
    cdef uint8_t* selected
    cdef bint found
    if is_spent(table.effort):
        table.beyond = True
        return False
    table.effort.steps += <uint64_t>table.count * query.weight >> 5
    given = <uint8_t*>malloc(table.count + 1)
    if given == NULL:
        raise MemoryError
    memset(given, 1, table.count)
    try:
        selected = query.select(table, given)
    finally:
        free(given)
    found = _any(table, selected)
    free(selected)
    return found


cdef uint8_t* _no_rows(SpanTable table) except NULL:
    """Return the empty set of rows."""
    cdef uint8_t* block = <uint8_t*>calloc(table.count + 1, 1)
    if block == NULL:
        raise MemoryError
    return block


cdef uint8_t* _copy(SpanTable table, uint8_t* given) except NULL:
    """Copy a set of rows."""
    cdef uint8_t* block = _no_rows(table)
    memcpy(block, given, table.count)
    return block


cdef bint _any(SpanTable table, uint8_t* selected) noexcept:
    """Tell whether a set holds any row."""
    cdef uint32_t i
    for i in range(table.count):
        if selected[i]:
            return True
    return False


cdef class Node:
    """A part of a query."""

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Return the set of rows selected of the rows `given`; the caller frees it."""
        raise NotImplementedError


cdef class _Select(Node):
    """The rows that match a filter."""

    cdef uint32_t filter

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Select the rows that match the filter."""
        cdef uint8_t* selected = _no_rows(table)
        cdef uint32_t i
        for i in range(table.count):
            selected[i] = given[i] and table.matches(i, self.filter)
        return selected


cdef class _Spansets(Node):
    """The union of what the parts select; with `every`, none unless every part selects some."""

    cdef bint every
    cdef list parts

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Select the rows that any part selects."""
        cdef uint8_t* union = _no_rows(table)
        cdef uint8_t* selected
        cdef Node part
        cdef uint32_t i
        cdef bint found
        for part in self.parts:
            selected = part.select(table, given)
            found = False
            for i in range(table.count):
                union[i] |= selected[i]
                found |= selected[i]
            free(selected)
            if self.every and not found:
                memset(union, 0, table.count)
                break
        return union


cdef class _Pipeline(Node):
    """Stages, each over what the stage before selected."""

    cdef list stages

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Select by each stage among the rows that the stage before selected."""
        cdef uint8_t* selected = _copy(table, given)
        cdef uint8_t* before
        cdef Node stage
        for stage in self.stages:
            if not _any(table, selected):
                break
            before = selected
            selected = stage.select(table, before)
            free(before)
        return selected


cdef class _Structural(Node):
    """The rows of the right side that have (`negated`: have not) a related row on the left side."""

    cdef str op
    cdef bint negated
    cdef Node left, right

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Select the rows of the right side that have, or have not, a relation on the left side."""
        cdef uint8_t* left = self.left.select(table, given)
        cdef uint8_t* selected = self.right.select(table, given)
        cdef uint8_t* related = _no_rows(table)
        cdef uint32_t i
        if self.op == ">":
            _children(table, left, related)
        elif self.op == ">>":
            _descendants(table, left, related)
        elif self.op == "<":
            _parents(table, left, related)
        elif self.op == "<<":
            _ancestors(table, left, related)
        else:
            _siblings(table, left, related)
        for i in range(table.count):
            selected[i] = selected[i] and (related[i] != self.negated)
        free(left)
        free(related)
        return selected


cdef void _children(SpanTable table, uint8_t* left, uint8_t* related) noexcept:
    """Set the rows whose parent is in left; no row is related to itself."""
    cdef uint32_t i
    cdef int32_t parent
    for i in range(table.count):
        parent = table.rows[i].parent
        related[i] = parent >= 0 and <uint32_t>parent != i and left[parent]


cdef void _parents(SpanTable table, uint8_t* left, uint8_t* related) noexcept:
    """Set the parents of rows in left."""
    cdef uint32_t i
    cdef int32_t parent
    for i in range(table.count):
        parent = table.rows[i].parent
        if left[i] and parent >= 0 and <uint32_t>parent != i:
            related[parent] = 1


cdef int _descendants(SpanTable table, uint8_t* left, uint8_t* related) except -1:
    """Set the rows with a row of left above them.

    Each path of parents is walked once (depth-first, iterative): up to a row that is done, then answered on the way
    back. Damaged traces may have cycles, where the path meets itself: in one, each row lies above all the others.
    """
    cdef uint8_t* state = _no_rows(table)  # 1: on the path, 2: done
    cdef int32_t* path = <int32_t*>malloc(<uint64_t>(table.count + 1) * sizeof(int32_t))
    cdef int32_t at, parent
    cdef uint32_t i, depth, start, k
    cdef uint32_t inside
    if path == NULL:
        free(state)
        raise MemoryError
    for i in range(table.count):
        depth = 0
        at = <int32_t>i
        while at >= 0 and state[at] == 0:
            state[at] = 1
            path[depth] = at
            depth += 1
            at = table.rows[at].parent
        if at >= 0 and state[at] == 1:  # a cycle, from `start` on
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
            parent = table.rows[at].parent
            related[at] = parent >= 0 and (left[parent] or related[parent])
            state[at] = 2
    free(path)
    free(state)
    return 0


cdef int _ancestors(SpanTable table, uint8_t* left, uint8_t* related) except -1:
    """Set the rows with a row of left below them.

    Rows of left are counted from the leaves up, each row after all its children (Kahn's topological order). The rows
    left over then lie in cycles, each below all the others.
    """
    cdef uint32_t* below = <uint32_t*>calloc(<uint64_t>table.count + 1, sizeof(uint32_t))  # rows of left
    cdef uint32_t* children = <uint32_t*>calloc(<uint64_t>table.count + 1, sizeof(uint32_t))  # not yet counted
    cdef uint8_t* done = <uint8_t*>calloc(<uint64_t>table.count + 1, 1)
    cdef uint32_t i
    cdef uint64_t total
    cdef int32_t at, parent
    if below == NULL or children == NULL or done == NULL:
        free(below)
        free(children)
        free(done)
        raise MemoryError
    for i in range(table.count):
        if table.rows[i].parent >= 0:
            children[table.rows[i].parent] += 1
    for i in range(table.count):
        at = <int32_t>i
        while at >= 0 and not done[at] and children[at] == 0:
            done[at] = 1
            related[at] = below[at] > 0
            parent = table.rows[at].parent
            if parent >= 0:
                below[parent] += below[at] + left[at]
                children[parent] -= 1
            at = parent
    for i in range(table.count):
        if done[i]:
            continue
        total = 0
        at = <int32_t>i
        while not done[at]:
            done[at] = 1
            total += below[at] + left[at]
            at = table.rows[at].parent
        at = <int32_t>i
        while True:
            related[at] = total > left[at]
            at = table.rows[at].parent
            if <uint32_t>at == i:
                break
    free(below)
    free(children)
    free(done)
    return 0


cdef int _siblings(SpanTable table, uint8_t* left, uint8_t* related) except -1:
    """Set the rows that share a parent, which has arrived, with another row of left; roots are siblings of each other.

    Families (rows of one parent) are found by a hash table over the parent's id.
    """
    # The first row of a family + 1; 0: free.
    cdef uint32_t* families = <uint32_t*>calloc(<uint64_t>table.index_mask + 1, sizeof(uint32_t))
    cdef uint32_t* family = <uint32_t*>malloc(<uint64_t>(table.count + 1) * sizeof(uint32_t))
    # Rows of left, by the family's first row.
    cdef uint32_t* members = <uint32_t*>calloc(<uint64_t>table.count + 1, sizeof(uint32_t))
    cdef uint32_t i, at
    cdef Row* other
    if families == NULL or family == NULL or members == NULL:
        free(families)
        free(family)
        free(members)
        raise MemoryError
    for i in range(table.count):
        at = <uint32_t>hash_two(table.rows[i].parent_id, table.rows[i].has_parent, table.seed) & table.index_mask
        while families[at]:
            other = &table.rows[families[at] - 1]
            if other.parent_id == table.rows[i].parent_id and other.has_parent == table.rows[i].has_parent:
                break
            at = (at + 1) & table.index_mask
        if families[at] == 0:
            families[at] = i + 1
        family[i] = families[at] - 1
        members[family[i]] += left[i]
    for i in range(table.count):
        related[i] = members[family[i]] > left[i] and (table.rows[i].parent >= 0 or not table.rows[i].has_parent)
    free(families)
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
    """All rows given, if the value of a function over them compares so with a constant; else none."""

    cdef int function, op
    cdef uint32_t argument
    cdef Value constant

    cdef uint8_t* select(self, SpanTable table, uint8_t* given) except NULL:
        """Select all rows given, or none."""
        cdef Value value
        if self.value(table, given, &value) and ordered(self.op, compare_numbers(&value, &self.constant)):
            return _copy(table, given)
        return _no_rows(table)

    cdef bint value(self, SpanTable table, uint8_t* given, Value* value) noexcept:
        """Compute the function's value; False where there is nothing to aggregate."""
        cdef uint64_t used = 0
        cdef uint32_t i
        cdef Value* argument
        memset(value, 0, sizeof(Value))
        value.type = V_INT
        for i in range(table.count):
            if not given[i]:
                continue
            if self.function == COUNT:
                used += 1
                continue
            argument = &table.arguments[<uint64_t>i * table.plan.arithmetic.argument_count + self.argument]
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


cdef Node build_query(node, list arguments):
    """Return the native form of a query's tree. Arguments of aggregates are appended to `arguments`; the Plan of the
    tables must be made with them."""
    cdef Node child
    cdef _Select select
    cdef _Spansets spansets
    cdef _Structural structural
    cdef _Aggregate aggregate
    cdef _Pipeline pipeline
    if isinstance(node, ir.Select):
        select = _Select()
        select.filter = node.filter
        select.weight = 4
        return select
    if isinstance(node, ir.Spansets):
        spansets = _Spansets()
        spansets.every = node.op == ir.AND
        spansets.parts = []
        for part in node.parts:
            child = build_query(part, arguments)
            spansets.parts.append(child)
            spansets.weight += 4 + child.weight
        return spansets
    if isinstance(node, ir.Structural):
        structural = _Structural()
        structural.op = node.op.removeprefix("!")
        structural.negated = node.op.startswith("!")
        structural.left = build_query(node.left, arguments)
        structural.right = build_query(node.right, arguments)
        structural.weight = 64 + structural.left.weight + structural.right.weight
        return structural
    if isinstance(node, ir.Pipeline):
        pipeline = _Pipeline()
        pipeline.stages = []
        for stage in node.stages:
            child = build_query(stage, arguments)
            pipeline.stages.append(child)
            pipeline.weight += 4 + child.weight
        return pipeline
    aggregate = _Aggregate()
    aggregate.function = _FUNCTIONS[node.function]
    aggregate.op = int(node.op)
    aggregate.weight = 16
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
