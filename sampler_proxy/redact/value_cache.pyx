"""Caches what becomes of values and keys: a policy is asked about each once. The walker asks here.

A hit costs a hash and a comparison. A miss is PENDING until resolve(), which asks about all of them in one go: joined,
they are put to one set of patterns, and only where something may be found is a value looked at alone, as long as the
budget lasts.

The cache is set-associative (BUCKETS of WAYS entries, by a keyed hash) and bounded by MAX_CACHED_BYTES; within a bucket
it evicts by CLOCK. Evicted entries may still be pointed to: they are freed when the caller says that none is.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.otlp.fragments cimport BLOCK_OVERHEAD
from sampler_proxy.otlp.protobuf cimport hash_bytes
from sampler_proxy.otlp.utf8 cimport valid_utf8
from sampler_proxy.redact.effort cimport may_look, walked

from sampler_proxy.redact import lanes
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.lanes import LaneKind as PythonLaneKind, Place as PythonPlace
from sampler_proxy.redact.section import MAX_FILTERS
from sampler_proxy.redact.sieve import CANARY as PYTHON_CANARY

cdef enum:
    WAYS = 4
    BUCKETS = 1 << 13
    MAX_CACHED_BYTES = 1 << 23
    MAX_CACHED_VALUE = 2048  # bytes of one value
    MAX_PENDING_BYTES = 1 << 14  # of new values that are asked about in one go
    COST_OF_COUNTS = 256  # bytes, about, of what is counted for a replacement
    MIN_FREED = 4096  # entries that are listed before it is looked whether some can be freed
    STEPS_OF_NEW = 5  # that a new text takes, beside those of its bytes
    # What looking at something new costs at least, in units of the budget.
    COST_OF_KEY = 4
    COST_OF_VALUE = 8
    # Contexts of keys, and of names of stores; those of values have a lane there.
    OF_KEYS = 1 << 16
    OF_NAMED_KEYS = 1 << 8
    OF_SYSTEMS = 1 << 9
    SERIAL_SHIFT = 20
    UNCACHED = 0xFFFFFFFFFFFFFFFF  # no context: the entry is not found again

cdef bytes SEPARATOR = catalogue.SEPARATOR
cdef bytes CANARY = PYTHON_CANARY
cdef object OVERSIZE_COUNTS = ((lanes.OVERSIZE, 1),)
cdef object OVERSIZE_LABEL = lanes.OVERSIZE

# Numbers that Python has too.
assert (lanes.MAX_VALUE_BYTES, lanes.MAX_KEY_BYTES) == (MAX_VALUE_BYTES, MAX_KEY_BYTES)
assert (lanes.EXEMPT, lanes.TEXT, lanes.KEY, lanes.BYTES, lanes.NAME) == (EXEMPT, TEXT, KEY, BYTES, NAME)
assert list(PythonLaneKind) == [AS_IT_IS, BATCHED, SINGLE, ANY_TYPE, DELETED, MASKED]
assert MAX_FILTERS <= 32  # two sets of them are the key of a view
assert list(PythonPlace) == [IN_SPAN, IN_RESOURCE, IN_SCOPE, IN_EVENT, IN_LINK, IN_VALUE]


cdef inline bint like_json(cbytes p, uint32_t size) noexcept nogil:
    """Tell whether a text begins as an object or array of JSON, after white space."""
    cdef cbytes end = p + size
    while p < end and (p[0] == 32 or 9 <= p[0] <= 13):
        p += 1
    return p < end and (p[0] == b"{" or p[0] == b"[")


cdef inline uint64_t tokens(cbytes p, uint32_t size) noexcept nogil:
    """Count what ends tokens in a text: candidates of detectors, words of SQL, members of JSON."""
    cdef uint64_t count = 0
    cdef uint32_t i
    cdef uint8_t c
    for i in range(size):
        c = p[i]
        count += not (48 <= c <= 57 or 97 <= (c | 32) <= 122)
    return count


cdef inline uint64_t entry_cost(Entry* entry) noexcept nogil:
    """Return the bytes of memory that a cached entry holds."""
    cdef uint64_t size = sizeof(Entry) + entry.size + BLOCK_OVERHEAD
    return size + entry.out_size + BLOCK_OVERHEAD + COST_OF_COUNTS if entry.out_size else size


cdef class CachedView:
    """A view of the policy, with what is asked of it often at hand."""

    def __cinit__(self, view, uint64_t serial):
        self.lane_of = view.key_rules.lane_of
        self.statement_lane = view.key_rules.statement_lane
        self.statement = view.key_rules.statement
        self.lanes = view.key_rules.lanes
        self.sift = view.sift
        self.apply = view.apply
        self.plain = view.plain
        self.serial = serial
        self.name_kind = self.lanes[NAME].kind


cdef class ValueCache:
    def __cinit__(self, policy not None, uint64_t seed, Effort effort not None):
        self.policy = policy
        self.effort = effort
        self.seed = seed
        self.views = {}
        self.pending_views = []
        self.mask_text = lanes.MASK_TEXT
        self.slots = <CacheSlot*>calloc(BUCKETS * WAYS, sizeof(CacheSlot))
        if self.slots == NULL:
            raise MemoryError
        self.oversize.state = CHANGED
        self.oversize.out = <uint8_t*><char*>self.mask_text
        self.oversize.out_size = <uint32_t>len(self.mask_text)
        self.oversize.counts = <PyObject*>OVERSIZE_COUNTS
        self.oversize.kind = MASKED
        self.oversize.label = <PyObject*>OVERSIZE_LABEL
        self.strict_view = policy.strict
        self.view = self.strict = CachedView(policy.strict, 0)

    def __dealloc__(self):
        if self.slots != NULL:
            self.clear()
        free(self.slots)
        free(self.pending)

    cdef int select_view(self, uint64_t some, uint64_t every) except -1:
        """Go on with the view for spans of which these filters hold for some, and for every one."""
        cdef object combination = some << 32 | every
        cdef object view = self.views.get(combination)
        if view is None:
            found = self.policy.view(some, every)
            if found is self.strict_view:  # senders choose combinations: what has no view of its own is not cached
                view = self.strict
            else:
                view = self.views[combination] = CachedView(found, len(self.views) + 1)
        self.view = view
        return 0

    cdef uint64_t nbytes(self) noexcept:
        """Return the bytes of memory that are held: slots, entries, and the queue."""
        return BUCKETS * WAYS * sizeof(CacheSlot) + self.cached_bytes + self.pending_room * sizeof(Pending)

    # Looking up.

    cdef Entry* find(self, uint64_t context, cbytes p, uint32_t size, bint* fresh) except NULL:
        """Return the entry of a text, made anew (`fresh`) if there is none; `oversize` where the budget is spent. A
        value's is valid until the next is found, unless it is pinned; a key's until free_unused()."""
        cdef uint64_t key = hash_bytes(p, size, context, self.seed)
        cdef CacheSlot* bucket = &self.slots[(key & (BUCKETS - 1)) * WAYS]
        cdef Entry* entry
        cdef int i
        walked(self.effort, 1 + (size + 15) // 16)
        for i in range(WAYS):
            entry = bucket[i].entry
            if bucket[i].hash == key and entry != NULL and entry.context == context and entry.size == size and (
                memcmp(entry.text, p, size) == 0
            ):
                entry.hit = True
                fresh[0] = False
                return entry
        if not may_look(self.effort):
            fresh[0] = False
            return &self.oversize
        if self.pending_bytes >= MAX_PENDING_BYTES:
            self.resolve()
            self.full = True
            if self.freeing >= self.free_at:
                self.free_unused(False)
                self.free_at = 2 * self.freeing + MIN_FREED
        walked(self.effort, STEPS_OF_NEW + size // 16)
        fresh[0] = True
        entry = <Entry*>malloc(sizeof(Entry) + (size if size <= MAX_CACHED_VALUE or context & OF_KEYS else 0))
        if entry == NULL:
            raise MemoryError
        memset(entry, 0, sizeof(Entry))
        entry.hash = key
        entry.context = context
        entry.size = size
        if size > MAX_CACHED_VALUE and not context & OF_KEYS:
            entry.text = p
            self.free_later(entry)
            return entry
        memcpy(entry.data, p, size)
        entry.text = entry.data
        self.insert(bucket, entry)
        return entry

    cdef int insert(self, CacheSlot* bucket, Entry* entry) except -1:
        """Put an entry into its bucket, and evict what must make room."""
        cdef int i
        # Too many bytes: the hand goes round, and evicts whatever it comes to.
        self.make_room(entry_cost(entry))
        for i in range(WAYS):
            if bucket[i].entry == NULL:
                break
        else:
            # CLOCK: evict an entry not hit since the last sweep; if all were, evict round robin and clear their marks.
            for i in range(WAYS):
                if not bucket[i].entry.hit:
                    break
            else:
                i = <int>(self.hand & (WAYS - 1))
                self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
                bucket[0].entry.hit = bucket[1].entry.hit = bucket[2].entry.hit = bucket[3].entry.hit = False
            self.evict(&bucket[i])
        bucket[i].hash = entry.hash
        bucket[i].entry = entry
        entry.cached = True
        self.cached_bytes += entry_cost(entry)
        return 0

    cdef void make_room(self, uint64_t more) noexcept:
        """Evict what is in the way of so many bytes more."""
        while self.cached_bytes + more > MAX_CACHED_BYTES:
            self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
            if self.slots[self.hand].entry != NULL:
                self.evict(&self.slots[self.hand])

    cdef void evict(self, CacheSlot* slot) noexcept:
        """Take the entry out of a bucket; its memory is freed later, by free_unused()."""
        self.cached_bytes -= entry_cost(slot.entry)
        slot.entry.cached = False
        self.free_later(slot.entry)
        slot.entry = NULL

    cdef Entry* key(self, int place, cbytes p, uint32_t size, bint named) except NULL:
        """Return the entry of an attribute's key: the lane of its value, and what becomes of the key itself. `named`:
        an entity reference names it."""
        cdef bint fresh = False
        cdef Entry* entry
        cdef object lane
        cdef uint64_t context = self.view.serial << SERIAL_SHIFT | OF_KEYS | <uint64_t>place
        if size > MAX_KEY_BYTES:
            return &self.oversize
        if named:
            context |= OF_NAMED_KEYS
        entry = self.find(context, p, size, &fresh)
        entry.pinned = True  # frames point to it while the value is walked
        if fresh:
            self.effort.looks += COST_OF_KEY + size // 8
            entry.lane = self.view.lane_of(place, p[:size], named)
            lane = self.view.lanes[entry.lane]
            entry.kind = lane.kind
            entry.label = <PyObject*>lane.label
            if entry.kind == AS_IT_IS:
                entry.state = SAME
            else:
                self.enqueue(entry, KEY, like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    cdef int system(self, cbytes p, uint32_t size) except -1:
        """Return the lane of statements for the store of this name."""
        cdef bint fresh = False
        cdef Entry* entry
        if size > MAX_KEY_BYTES:
            return self.view.statement
        entry = self.find(self.view.serial << SERIAL_SHIFT | OF_KEYS | OF_SYSTEMS, p, size, &fresh)
        if entry == &self.oversize:
            return self.view.statement
        if fresh:
            entry.lane = self.view.statement_lane(p[:size])
            entry.state = SAME
        return entry.lane

    cdef Entry* value(self, int lane, int kind, cbytes p, uint32_t size) except NULL:
        """Return the entry of a value: what becomes of it in this lane, which is of this LaneKind."""
        cdef bint fresh = False
        cdef Entry* entry
        if size > MAX_VALUE_BYTES:
            return &self.oversize
        entry = self.find(self.view.serial << SERIAL_SHIFT | <uint64_t>lane, p, size, &fresh)
        if fresh:
            self.enqueue(entry, lane, kind != BATCHED or like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    # Freeing.

    cdef void free_later(self, Entry* entry) noexcept:
        """Put an entry on the list of those to be freed: items of the trace may still point to it."""
        entry.next = self.to_free
        self.to_free = entry
        self.freeing += 1

    cdef void free_unused(self, bint pinned) noexcept:
        """Free the listed entries; those that are pinned only where nothing points to them any more."""
        cdef Entry* entry
        cdef Entry** link = &self.to_free
        if pinned:
            self.free_at = MIN_FREED
            self.full = False
        while link[0] != NULL:
            entry = link[0]
            if entry.pinned and not pinned:
                link = &entry.next
                continue
            link[0] = entry.next
            self.freeing -= 1
            free(entry.out)
            Py_XDECREF(entry.counts)
            free(entry)

    cdef void clear(self) noexcept:
        """Empty the cache and the queue."""
        cdef uint32_t i
        cdef CachedView view
        for i in range(BUCKETS * WAYS):
            if self.slots[i].entry != NULL:
                self.free_later(self.slots[i].entry)
                self.slots[i].entry = NULL
        self.cached_bytes = 0
        self.free_unused(True)
        if self.pending_views is not None:  # as it may be at the end
            for view in self.pending_views:
                view.pending = False
            self.pending_views.clear()
        self.pending_count = 0
        self.pending_bytes = 0

    # Asking the policy.

    cdef int enqueue(self, Entry* entry, int lane, bint single) except -1:
        """Have the next resolve() find out what becomes of an entry's text in this lane."""
        cdef void* grown
        cdef Pending* pending
        entry.state = PENDING
        if self.pending_count == self.pending_room:
            grown = realloc(self.pending, (2 * <uint64_t>self.pending_room + 256) * sizeof(Pending))
            if grown == NULL:
                raise MemoryError
            self.pending = <Pending*>grown
            self.pending_room = 2 * self.pending_room + 256
        pending = &self.pending[self.pending_count]
        pending.entry = entry
        pending.view = <PyObject*>self.view
        pending.lane = <uint16_t>lane
        pending.single = single
        self.pending_count += 1
        self.pending_bytes += entry.size + <uint64_t>len(SEPARATOR)
        if not self.view.pending:
            self.view.pending = True
            self.pending_views.append(self.view)
        return 0

    cdef int resolve(self) except -1:
        """Find out what becomes of all that is pending."""
        cdef CachedView view
        for view in self.pending_views:
            self.resolve_view(view)
            view.pending = False
        self.pending_views.clear()
        self.pending_count = 0
        self.pending_bytes = 0
        return 0

    cdef int resolve_view(self, CachedView view) except -1:
        """Find out what becomes of all that is pending in one view."""
        cdef Pending* pending
        cdef uint32_t i
        cdef bytes text
        cdef bytes joined = self.join(view)
        cdef object regions = None if joined is None else view.sift(joined)
        if regions is not None:
            self.mark_suspects(view, regions)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if pending.view != <PyObject*>view:
                continue
            if not pending.single:
                pending.entry.state = SAME
                continue
            text = pending.entry.text[:pending.entry.size]
            if self.spend(view, pending.entry, text):
                self.store(pending.entry, view.apply(pending.lane, text))
            else:
                self.store(pending.entry, (self.mask_text, OVERSIZE_COUNTS))
                pending.entry.context = UNCACHED  # another trace may have more
        return 0

    cdef bytes join(self, CachedView view):
        """Join the view's pending values, and note where each of them begins; None for none."""
        cdef Pending* pending
        cdef uint64_t total = 0
        cdef uint32_t i
        cdef bytes joined
        cdef uint8_t* out
        cdef uint32_t gap = <uint32_t>len(SEPARATOR)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if not pending.single and pending.view == <PyObject*>view:
                pending.offset = total
                total += pending.entry.size + gap
        if not total:
            return None
        joined = PyBytes_FromStringAndSize(NULL, total + len(CANARY))
        out = <uint8_t*>PyBytes_AS_STRING(joined)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if not pending.single and pending.view == <PyObject*>view:
                memcpy(out, pending.entry.text, pending.entry.size)
                out += pending.entry.size
                memcpy(out, PyBytes_AS_STRING(SEPARATOR), gap)
                out += gap
        memcpy(out, PyBytes_AS_STRING(CANARY), len(CANARY))
        return joined

    cdef int mark_suspects(self, CachedView view, list regions) except -1:
        """Have those of the joined values looked at alone that touch a region; these are in order."""
        cdef Pending* pending
        cdef uint64_t low, high
        cdef uint32_t i
        regions.append((0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF))  # behind all values
        following = iter(regions)
        low, high = next(following)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if not pending.single and pending.view == <PyObject*>view:
                while high < pending.offset:
                    low, high = next(following)
                pending.single = low <= pending.offset + pending.entry.size
        return 0

    cdef bint spend(self, CachedView view, Entry* entry, bytes text) except -1:
        """Spend a close look's cost, which grows mostly with the tokens, from the budget; False where the budget is
        spent."""
        cdef uint64_t more
        if not may_look(self.effort):
            return False
        more = 2 * tokens(entry.text, entry.size) + entry.size // 8
        if like_json(entry.text, entry.size) and view.plain(text):  # but for its keys nothing is looked at
            more //= 16
        self.effort.looks += COST_OF_VALUE + more
        return True

    cdef int store(self, Entry* entry, object result) except -1:
        """Keep the policy's answer: None, or a replacement and its counts."""
        cdef bytes replacement
        if result is None:
            entry.state = SAME
            return 0
        replacement, counts = result
        entry.out = <uint8_t*>malloc(len(replacement) + 1)
        if entry.out == NULL:
            raise MemoryError
        memcpy(entry.out, <const char*>replacement, len(replacement))
        Py_INCREF(counts)
        entry.counts = <PyObject*>counts
        entry.state = CHANGED
        if entry.cached:
            self.cached_bytes -= entry_cost(entry)
            entry.out_size = <uint32_t>len(replacement)
            self.cached_bytes += entry_cost(entry)
            self.make_room(0)
        entry.out_size = <uint32_t>len(replacement)
        return 0
