"""Finds the root of a trace: the span without a parent, or else a local root, by the remote flag of OTLP.

A local root is a span that says that its parent is in another process (Span.flags), where that parent is not among the
spans of the trace: it belongs to a mesh, a browser or a customer, and is sent elsewhere. While some span of the trace
has no parent, that span is the root, and none is a local one. Of several roots of a kind the one that starts first is
meant, then the one with the smallest id. Senders without the flag (SDKs older than it) do not say where a parent is:
their spans are never local roots.

A span without a parent is noted by the scan, at no cost. Local roots need the ids of all spans, so that the trace is
read again, in linear time, only where the scan has noted a remote parent and no span without a parent. Traces whose
root is not theirs are such; all others pay nothing. Reading is bounded, since it happens under the pipeline's lock:
what is beyond MAX_EFFORT, some 30 000 spans of 440 bytes, is not among the spans.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from sampler_proxy.otlp.fragments cimport HAS_REMOTE_PARENT, groups_of, next_span, payload_of, root_of, spans_of
from sampler_proxy.otlp.protobuf cimport (
    FIXED32, FIXED64, LEN, MAX_DEPTH, FieldCursor, bswap64, cursor, hash_two, load64, next_field,
)
from sampler_proxy.rules.effort cimport grant, is_spent
from sampler_proxy.rules.span_matcher cimport MAX_READ_AGAIN, REMOTE_PARENT

cdef enum:
    ATTRIBUTE = 9 << 3 | 2  # tag of Span.attributes
    MAX_EFFORT = 8_000  # units
    MAX_SPANS = 1 << 16  # for which there is memory: 6 MiB


cdef class RootFinder:
    def __cinit__(self, uint64_t seed):
        self.seed = seed

    def __dealloc__(self):
        free(self.kin)
        free(self.ids)

    cdef int find(self, Fragment* trace, Root* root) except -1:
        """Find the root of a trace among its adopted fragments, which must outlive its use; NO_ROOT: there is none."""
        cdef Fragment* fragment = root_of(trace)
        cdef Kin* best = NULL
        cdef Kin* one
        cdef uint32_t i
        root.kind = NO_ROOT
        self.beyond = False
        if fragment != NULL:
            root.kind = PARENTLESS
            root.group = &groups_of(fragment)[fragment.root_group]
            root.body = payload_of(fragment) + fragment.root_offset
            root.size = fragment.root_size
            root.start = fragment.root_start
            root.end = fragment.root_end
            return 0
        if not self.read(trace):
            return 0
        for i in range(self.count):
            one = &self.kin[i]
            if not one.remote or self.knows(one.parent_id):
                continue
            if best == NULL or one.place.start < best.place.start or (
                one.place.start == best.place.start and one.span_id < best.span_id
            ):
                best = one
        if best != NULL:
            root[0] = best.place
        return 0

    cdef bint is_whole(self, Fragment* trace, Root* root) except -1:
        """Tell whether no span of a trace waits for a parent that is bound to come, and find the root as find() does.

        A parent that is not among the spans is bound to come if it is not known to be in another process; and if it is
        in another process, it may belong to somebody else. Traces without a root of either kind are not whole, nor are
        those of which not all has been read.
        """
        cdef Kin* one
        cdef uint32_t i
        self.find(trace, root)
        if root.kind != LOCAL:
            return root.kind == PARENTLESS
        if self.beyond:
            return False
        for i in range(self.count):
            one = &self.kin[i]
            if not one.remote and not self.knows(one.parent_id):
                return False
        return True

    cdef bint holds(self, Slice* parent_id) noexcept nogil:
        """Tell whether the span with this id is among those of the trace that was read last: find() said LOCAL."""
        return parent_id.size == 8 and self.knows(bswap64(load64(parent_id.p)))

    cdef int read(self, Fragment* trace) except -1:
        """Read the spans of a trace; returns 0, and reads nothing, where the scan has noted no remote parent."""
        cdef SpanWalk walk
        cdef Fragment* fragment = trace
        cdef uint64_t spans = 0
        cdef uint16_t flags = 0
        cdef Kin* one
        cdef uint64_t at
        while fragment != NULL:
            spans += fragment.spans
            flags |= fragment.flags
            fragment = fragment.next
        if not flags & HAS_REMOTE_PARENT:
            return 0
        self.reserve(min(spans, <uint64_t>MAX_SPANS))
        grant(&self.effort, MAX_EFFORT)
        walk = spans_of(trace)
        while next_span(&walk):
            if is_spent(&self.effort) or self.count == MAX_SPANS:
                self.beyond = True
                break
            one = &self.kin[self.count]
            self.count += 1
            self.effort.steps += 4 + (walk.size >> 6) + (_read_kin(one, &walk) >> 1)
            at = hash_two(one.span_id, 0, self.seed) & self.mask
            while self.ids[at] and self.ids[at] != one.span_id:
                at = (at + 1) & self.mask
            self.ids[at] = one.span_id
        return 1

    cdef int reserve(self, uint64_t spans) except -1:
        """Empty the list and the table, and make room for so many spans."""
        self.count = 0
        self.mask = 63
        while self.mask < 2 * spans:
            self.mask = 2 * self.mask + 1
        if self.room <= self.mask:
            free(self.ids)
            free(self.kin)
            self.room = 0
            self.ids = <uint64_t*>malloc((self.mask + 1) * sizeof(uint64_t))
            self.kin = <Kin*>malloc((self.mask + 1) // 2 * sizeof(Kin))
            if self.ids == NULL or self.kin == NULL:
                raise MemoryError
            self.room = self.mask + 1
        memset(self.ids, 0, (self.mask + 1) * sizeof(uint64_t))
        return 0

    cdef bint knows(self, uint64_t span_id) noexcept nogil:
        """Tell whether a span id is in the table; 0 is never."""
        cdef uint64_t at = hash_two(span_id, 0, self.seed) & self.mask
        while self.ids[at]:
            if self.ids[at] == span_id:
                return True
            at = (at + 1) & self.mask
        return False


cdef bytes span_id_of(Root* root):
    """Return the span id of a root that has been found."""
    cdef FieldCursor field = cursor(root.body, root.body + root.size, MAX_DEPTH)
    span_id = b""
    while next_field(&field):
        if field.wire == LEN and field.number == 2:
            span_id = (<const char*>field.content)[:field.size]
    return span_id


cdef uint32_t _read_kin(Kin* one, SpanWalk* walk) noexcept nogil:
    """Read ids, times and flags of a valid span with a parent; return how many fields were read. A parent's id without
    8 bytes is 0: that of no span."""
    cdef FieldCursor field = cursor(walk.body, walk.body + min(walk.size, MAX_READ_AGAIN), MAX_DEPTH)
    cdef uint32_t flags = 0
    cdef uint32_t fields = 0
    one.place.kind = LOCAL
    one.place.group = walk.group
    one.place.body = walk.body
    one.place.size = walk.size
    one.place.start = one.place.end = one.span_id = one.parent_id = 0
    while True:
        # Attributes are most of a span, and of no interest: those with a length of one byte are passed over here.
        while field.end - field.p >= 2 and field.p[0] == ATTRIBUTE and field.p[1] < 0x80:
            field.p += 2 + field.p[1]
        if not next_field(&field):
            break
        fields += 1
        if field.wire == LEN:
            if field.number == 2 and field.size == 8:
                one.span_id = bswap64(load64(field.content))
            elif field.number == 4:
                one.parent_id = bswap64(load64(field.content)) if field.size == 8 else 0
        elif field.wire == FIXED64:
            if field.number == 7:
                one.place.start = field.integer
            elif field.number == 8:
                one.place.end = field.integer
        elif field.wire == FIXED32 and field.number == 16:
            memcpy(&flags, field.value, 4)
    one.remote = flags & REMOTE_PARENT == REMOTE_PARENT
    return fields
