"""Declares requests and traces as memory. Ownership and meaning stand beside each field; fragments.pyi is the
manual."""
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes, hash_two, read_length

cdef enum:
    # Bytes that a block of the C allocator costs beside those asked for (glibc: 8 of header, rounded up to 16).
    BLOCK_OVERHEAD = 16

cdef enum Flag:
    HAS_ROOT = 1  # some span has no parent
    HAS_TIMES = 2  # some span has usable times: min_start and max_end are set
    HAS_RANDOMNESS = 4  # some span has an explicit `rv`: randomness is set
    HAS_TRACESTATE = 8  # some span has a tracestate, which stamping has to read
    UNEQUAL_THRESHOLDS = 16  # the spans differ in their incoming `th`
    HAS_REMOTE_PARENT = 32  # some span has a parent in another process; never set where these are no roots
    PARTLY_READ = 64  # of some span, the scan has not looked at all: a bit may be missing among the filter words


cdef struct Form:
    # What an envelope has become under one policy and view; the envelope's. It goes with the envelope or the policy,
    # whichever is first, so that no circle of forms outlives a policy.
    Form* next  # older
    Envelope* leaving  # one reference; NULL: the envelope itself
    PyObject* counts  # its redactions, a tuple of pairs of label and number; owned; NULL: none
    uint64_t redactor  # its serial
    uint64_t view  # serial among the redactor's views
    uint64_t cost  # bytes of memory


cdef struct Envelope:
    # The header of a ResourceSpans or ScopeSpans: the encoded fields other than its spans; or a sender's metadata
    # (otlp/metadata.py). Interned; `refs` counts the groups and the child envelopes that point here. Touched with the
    # GIL held only.
    Envelope* parent  # a scope's resource; a resource's metadata, NULL where it has none; NULL for metadata
    Envelope* next  # in its hash chain
    uint64_t hash
    uint32_t refs
    uint32_t size
    uint32_t service, service_size  # of a resource: where in `data` its service.name is, once a rule set has read it
    uint32_t redacted  # a redactor's: index among the headers of a trace; perhaps an earlier one, so it is checked
    Form* forms  # owned, MAX_FORMS at most, the newest first
    uint8_t data[1]  # `size` bytes


cdef enum:
    MAX_FORMS = 8  # of one envelope: more than spans under one header call for, unless by ill will
    COST_OF_COUNT = 128  # bytes, about, of one pair of Form.counts
    # Values of Envelope.service that are no place.
    SERVICE_NOT_READ = 0
    SERVICE_MISSING = 1  # the resource has none, or it is no string


cdef union EnvelopeRef:
    uint64_t index  # into Scanned.headers until the request has been accepted
    Envelope* envelope  # from then on; one reference


cdef struct Group:
    # A run of spans under one ScopeSpans header.
    EnvelopeRef scope
    uint32_t size  # bytes in the payload
    uint32_t spans


cdef struct Fragment:
    # One block of memory: this header, `words` filter words, `groups` groups, then the payload: spans as the encoded
    # field `ScopeSpans.spans` (tag 0x12, length, body), group after group.
    Fragment* next  # of the same trace; the first of its fragments stands for a trace
    uint64_t[2] trace_id  # as loaded from the 16 bytes
    uint64_t min_start, max_end  # ns since the epoch; valid with HAS_TIMES
    uint64_t randomness  # 56 bits; valid with HAS_RANDOMNESS: the smallest of its spans
    uint64_t threshold  # incoming `th`, 0 where absent; of the first span
    uint64_t root_start, root_end, root_id  # of the root: its times, and its span id as a big-endian number
    uint32_t root_offset, root_size  # of the root's body in the payload
    uint32_t size  # of the payload
    uint32_t spans
    uint32_t plan  # the serial of the Plan that it was scanned with
    uint16_t flags
    uint16_t words
    uint32_t groups
    uint32_t root_group


cdef inline uint64_t mix(const uint64_t* trace_id, uint64_t seed) noexcept nogil:
    """Hash a trace id. The seed is drawn at start, so that nobody outside can choose ids that collide."""
    return hash_two(trace_id[0], trace_id[1], seed)


cdef extern from *:
    void prefetch "__builtin_prefetch" (const void*) noexcept nogil


cdef inline uint64_t* filter_words(Fragment* fragment) noexcept nogil:
    """Return the `words` words with a bit by filter: some span of the fragment matches it."""
    return <uint64_t*>(<uint8_t*>fragment + sizeof(Fragment))


cdef inline Group* groups_of(Fragment* fragment) noexcept nogil:
    """Return the first of a fragment's groups."""
    return <Group*>(<uint8_t*>fragment + sizeof(Fragment) + 8 * fragment.words)


cdef inline uint8_t* payload_of(Fragment* fragment) noexcept nogil:
    """Return the encoded spans of a fragment, `size` bytes."""
    return <uint8_t*>fragment + sizeof(Fragment) + 8 * fragment.words + fragment.groups * sizeof(Group)


cdef inline uint64_t fragment_cost(Fragment* fragment) noexcept nogil:
    """Return the bytes of memory that a fragment holds, the allocator's overhead included, its envelopes apart."""
    return sizeof(Fragment) + 8 * fragment.words + fragment.groups * sizeof(Group) + fragment.size + BLOCK_OVERHEAD


cdef inline void absorb_times(Fragment* trace, uint64_t min_start, uint64_t max_end, bint has_times) noexcept nogil:
    """Fold first start and last end of other spans of its trace into a fragment, where there are any."""
    if not has_times:
        return
    if not trace.flags & HAS_TIMES or min_start < trace.min_start:
        trace.min_start = min_start
    if not trace.flags & HAS_TIMES or max_end > trace.max_end:
        trace.max_end = max_end
    trace.flags |= HAS_TIMES


cdef inline void absorb(Fragment* trace, Fragment* fragment) noexcept nogil:
    """Fold a fragment's times, filter bits and PARTLY_READ into the first one of its trace, so that readers need only
    that."""
    cdef uint64_t* into = filter_words(trace)
    cdef uint64_t* words = filter_words(fragment)
    cdef uint32_t i
    absorb_times(trace, fragment.min_start, fragment.max_end, fragment.flags & HAS_TIMES)
    trace.flags |= fragment.flags & PARTLY_READ
    if trace.plan == fragment.plan:
        for i in range(trace.words):
            into[i] |= words[i]


cdef inline Envelope* metadata_of(Fragment* fragment) noexcept nogil:
    """Return the metadata that an adopted fragment came with, NULL where it has none: its request's."""
    return groups_of(fragment).scope.envelope.parent.parent


cdef inline Fragment* root_of(Fragment* trace) noexcept nogil:
    """Return the fragment with the trace's root, of several roots the one that starts first, then the one with the
    smallest id; NULL without a root."""
    cdef Fragment* best = NULL
    cdef Fragment* fragment = trace
    while fragment != NULL:
        if fragment.flags & HAS_ROOT and (best == NULL or fragment.root_start < best.root_start or (
            fragment.root_start == best.root_start and fragment.root_id < best.root_id
        )):
            best = fragment
        fragment = fragment.next
    return best


cdef struct SpanWalk:
    # A place among the spans of a trace, and the span that next_span has found there.
    Fragment* fragment  # of the span
    Group* group  # of the span
    cbytes body  # `size` bytes
    uint32_t size
    bint begins_resource  # its resource is another than the last span's
    bint begins_group  # it is the first of its group
    bint ends_group  # it is the last of its group
    # Where the next span is:
    cbytes p
    cbytes end  # of the group
    uint32_t groups_left  # of the fragment
    Fragment* fragments_left
    Envelope* resource  # of the last span


cdef inline SpanWalk spans_of(Fragment* trace) noexcept nogil:
    """Return a walk in front of the first span of a trace: all spans of all its fragments, in the order of their
    arrival.

        cdef SpanWalk walk = spans_of(trace)
        while next_span(&walk):
            if walk.begins_group:
                ...  # walk.group.scope.envelope
            ...  # walk.body, walk.size

    The request of each fragment has been adopted. The walk is a local variable, as a FieldCursor is.
    """
    cdef SpanWalk walk
    walk.fragment = NULL
    walk.group = NULL
    walk.body = walk.p = walk.end = NULL
    walk.size = walk.groups_left = 0
    walk.begins_resource = walk.begins_group = walk.ends_group = False
    walk.fragments_left = trace
    walk.resource = NULL
    return walk


cdef inline bint next_span(SpanWalk* walk) noexcept nogil:
    """Go on to the next span; False behind the last. No fragment is without a group, and no group without a span."""
    walk.begins_group = walk.p == walk.end
    walk.begins_resource = False
    if walk.begins_group:
        if walk.groups_left:
            walk.group += 1
        else:
            if walk.fragments_left == NULL:
                return False
            walk.fragment = walk.fragments_left
            walk.fragments_left = walk.fragment.next
            walk.group = groups_of(walk.fragment)
            walk.groups_left = walk.fragment.groups
            walk.p = payload_of(walk.fragment)
        walk.groups_left -= 1
        walk.end = walk.p + walk.group.size
        walk.begins_resource = walk.group.scope.envelope.parent != walk.resource
        walk.resource = walk.group.scope.envelope.parent
    walk.body = read_length(walk.p + 1, walk.end, &walk.size)
    walk.p = walk.body + walk.size
    walk.ends_group = walk.p == walk.end
    return True


cdef struct Header:
    # An envelope as found in a request, not interned yet.
    uint32_t offset, size  # in Scanned.header_bytes
    int32_t parent  # index of the header that becomes the envelope's parent; -1: it has none
    bint is_scope
    bint damaged_text  # some string in it is not UTF-8


cdef class Scanned:
    cdef Fragment** fragments  # `count` owned fragments; NULL where the ownership has passed on
    cdef uint32_t count
    cdef Header* headers
    cdef uint32_t header_count
    cdef uint8_t* header_bytes
    cdef readonly uint32_t spans  # in the fragments
    cdef readonly uint32_t invalid_trace_ids, invalid_span_ids, legacy_spans  # spans that were left out
    cdef readonly uint32_t unknown_of_request, unknown_of_resource_spans, unknown_of_scope_spans  # fields left out
    cdef readonly uint64_t cost  # of the fragments, in bytes of memory
    cdef uint64_t header_cost(self) noexcept


cdef class Envelopes:
    cdef Envelope** buckets
    cdef uint64_t mask, seed
    cdef uint64_t count
    cdef readonly uint64_t cost
    cdef uint64_t room_for_forms  # bytes that forms may still take; without end where nobody says
    cdef int grow(self) except -1
    cdef Envelope* intern(self, Envelope* parent, const uint8_t* data, uint32_t size) except NULL
    cdef void release(self, Envelope* envelope) noexcept
    cdef void remember(
        self, Envelope* envelope, Envelope* leaving, tuple counts, uint64_t redactor, uint64_t view
    ) noexcept
    cdef void forget(self, uint64_t redactor) noexcept
    cdef Envelope* free_form(self, Form* form) noexcept
    cdef int adopt(self, Scanned scanned) except -1
    cdef void free_fragments(self, Fragment* fragment) noexcept
    cdef void free_fragment(self, Fragment* fragment) noexcept


cdef class KeptTrace:
    cdef Envelopes envelopes  # that the groups' references belong to
    cdef Group* group_list
    cdef uint32_t group_count
    cdef uint8_t* data  # finished spans, as in a fragment's payload, group after group
    cdef readonly uint64_t nbytes
    cdef uint64_t all_headers  # bytes of all its headers, where there are very many groups; else 0
    cdef readonly uint32_t spans
    cdef readonly bytes trace_id
    cdef readonly uint32_t rule  # its id in the ledger
    cdef readonly bint sampled_out  # it was decided not to be kept, and leaves for destinations that take that, too
    cdef public int waiting  # destinations that have not taken it yet
    cdef int sum_headers(self) except -1
