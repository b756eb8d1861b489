"""What becomes of values and keys, asked of a policy once and remembered. `_redact` walks over spans and asks here.

A value that was met before costs a hash and a comparison. A new one is PENDING until resolve(), which asks about all of them in
one go: joined, they are put to one set of patterns, and only where something may be found is a value looked at alone. The memory is
bounded; what leaves it may still be pointed to, and is freed when the caller says that nothing does.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sampler_proxy.otlp.utf8 cimport valid_utf8
from sampler_proxy.otlp.protobuf cimport hash_bytes

from sampler_proxy.redact import policy as policies
from sampler_proxy.redact import values

cdef enum:
    WAYS = 4
    BUCKETS = 1 << 13
    MAX_CACHED_BYTES = 1 << 23
    MAX_CACHED_VALUE = 2048
    MAX_VALUE = 64 * 1024  # as redact.py has it
    EFFORT_OF_KEY = 4
    EFFORT_OF_VALUE = 8
    NOWHERE = 0xFFFFFFFFFFFFFFFF  # no place: what has it is not found again

cdef bytes SEPARATOR = values.SEPARATOR
cdef bytes CANARY = values.CANARY
cdef object OVERSIZE = ((values.OVERSIZE, 1),)
cdef object MASKED_OVERSIZE = values.OVERSIZE
assert policies.MAX_VALUE_BYTES == MAX_VALUE
assert (policies.EXEMPT, policies.TEXT, policies.KEY, policies.BYTES, policies.NAME) == (EXEMPT, TEXT, KEY, BYTES, NAME)
assert (values.AS_IT_IS, values.JOINED, values.ALONE, values.LEAVES, values.DELETED, values.WHOLE) == (
    AS_IT_IS, JOINED, ALONE, LEAVES, DELETED, WHOLE
)


cdef inline bint like_json(cbytes p, uint32_t size) noexcept nogil:
    cdef cbytes end = p + size
    while p < end and (p[0] == 32 or 9 <= p[0] <= 13):
        p += 1
    return p < end and (p[0] == b"{" or p[0] == b"[")


cdef inline uint64_t tokens(cbytes p, uint32_t size) noexcept nogil:
    """How many there may be in a text, or rather what ends them: candidates of detectors, words of SQL, members of JSON."""
    cdef uint64_t count = 0
    cdef uint32_t i
    cdef uint8_t c
    for i in range(size):
        c = p[i]
        count += not (48 <= c <= 57 or 97 <= (c | 32) <= 122)
    return count


cdef class View:
    """A policy's view, with what is asked of it often at hand."""

    def __cinit__(self, view, uint64_t serial):
        self.view = view
        self.key = view.key
        self.sift = view.sift
        self.apply = view.apply
        self.plain = view.plain
        self.serial = serial
        self.name_kind = view.lanes[NAME].kind


cdef class Verdicts:
    def __cinit__(self, policy not None, uint64_t seed):
        self.policy = policy
        self.seed = seed
        self.views = {}
        self.asked = []
        self.most = MAX_EFFORT
        self.masked = values.MASKED
        self.slots = <Slot*>calloc(BUCKETS * WAYS, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.oversize.state = CHANGED
        self.oversize.out = <uint8_t*><char*>self.masked
        self.oversize.out_size = <uint32_t>len(self.masked)
        self.oversize.counts = <PyObject*>OVERSIZE
        self.oversize.kind = WHOLE
        self.oversize.label = <PyObject*>MASKED_OVERSIZE
        self.view = self.strict = View(policy.strict, 0)

    def __dealloc__(self):
        if self.slots != NULL:
            self.forget()
        free(self.slots)
        free(self.pending)

    cdef int use(self, uint64_t some, uint64_t every) except -1:
        """Go on with what applies where these filters hold: for some, and for every one, of those who share it."""
        cdef object combination = some << 32 | every  # MAX_FILTERS is below
        cdef object view = self.views.get(combination)
        if view is None:
            found = self.policy.view(some, every)
            if found is self.strict.view:  # senders choose combinations: what has no view of its own is not remembered
                view = self.strict
            else:
                view = self.views[combination] = View(found, len(self.views) + 1)
        self.view = view
        return 0

    cdef Entry* find(self, uint64_t place, cbytes p, uint32_t size, bint* fresh) except NULL:
        cdef uint64_t key = hash_bytes(p, size, place, self.seed)
        cdef Slot* bucket = &self.slots[(key & (BUCKETS - 1)) * WAYS]
        cdef Entry* entry
        cdef int i
        for i in range(WAYS):
            entry = bucket[i].entry
            if bucket[i].hash == key and entry != NULL and entry.place == place and entry.size == size and (
                memcmp(entry.text, p, size) == 0
            ):
                entry.met = True
                fresh[0] = False
                return entry
        if self.effort >= self.most:
            fresh[0] = False
            return &self.oversize
        fresh[0] = True
        entry = <Entry*>malloc(sizeof(Entry) + (size if size <= MAX_CACHED_VALUE or place & KEYS else 0))
        if entry == NULL:
            raise MemoryError
        memset(entry, 0, sizeof(Entry))
        entry.hash = key
        entry.place = place
        entry.size = size
        if size > MAX_CACHED_VALUE and not place & KEYS:
            entry.text = p
            self.retire(entry)
            return entry
        memcpy(entry.data, p, size)
        entry.text = entry.data
        while self.cached_bytes + size + sizeof(Entry) > MAX_CACHED_BYTES:
            self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
            if self.slots[self.hand].entry != NULL:
                self.cached_bytes -= self.slots[self.hand].entry.size + sizeof(Entry)
                self.retire(self.slots[self.hand].entry)
                self.slots[self.hand].entry = NULL
        for i in range(WAYS):
            if bucket[i].entry == NULL:
                break
        else:
            # What has not been met again goes; if all have been, some one, and the others have to prove themselves anew.
            for i in range(WAYS):
                if not bucket[i].entry.met:
                    break
            else:
                i = <int>(self.hand & (WAYS - 1))
                self.hand = (self.hand + 1) & (BUCKETS * WAYS - 1)
                bucket[0].entry.met = bucket[1].entry.met = bucket[2].entry.met = bucket[3].entry.met = False
            self.cached_bytes -= bucket[i].entry.size + sizeof(Entry)
            self.retire(bucket[i].entry)
        bucket[i].hash = key
        bucket[i].entry = entry
        self.cached_bytes += size + sizeof(Entry)
        return entry

    cdef Entry* key(self, int place, cbytes p, uint32_t size, bint named) except NULL:
        """What a key says of its value, and what becomes of itself. `named`: by an entity reference."""
        cdef bint fresh = False
        cdef Entry* entry
        cdef object lane
        if size > MAX_KEY:
            return &self.oversize
        entry = self.find(self.view.serial << 20 | KEYS | <uint64_t>named << 8 | <uint64_t>place, p, size, &fresh)
        if fresh:
            self.effort += EFFORT_OF_KEY + size // 8
            entry.lane = self.view.key(place, p[:size], named)
            lane = self.view.view.lanes[entry.lane]
            entry.kind = lane.kind
            entry.label = <PyObject*>lane.label
            if entry.kind == AS_IT_IS:
                entry.state = SAME
            else:
                self.pend(entry, KEY, like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    cdef Entry* value(self, int lane, int kind, cbytes p, uint32_t size) except NULL:
        cdef bint fresh = False
        cdef Entry* entry
        if size > MAX_VALUE:
            return &self.oversize
        entry = self.find(self.view.serial << 20 | <uint64_t>lane, p, size, &fresh)
        if fresh:
            self.pend(entry, lane, kind != JOINED or like_json(p, size) or not valid_utf8(p, p + size))
        return entry

    cdef int pend(self, Entry* entry, int lane, bint alone) except -1:
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
        pending.alone = alone
        self.pending_count += 1
        self.pending_bytes += entry.size
        if not self.view.asked:
            self.view.asked = True
            self.asked.append(self.view)
        return 0

    cdef void retire(self, Entry* entry) noexcept:
        """Free it later: what was asked about may still point to it."""
        entry.next = self.retired
        self.retired = entry

    cdef void free_retired(self) noexcept:
        cdef Entry* entry
        while self.retired != NULL:
            entry = self.retired
            self.retired = entry.next
            free(entry.out)
            Py_XDECREF(entry.counts)
            free(entry)

    cdef void forget(self) noexcept:
        """Everything, also what is pending."""
        cdef uint32_t i
        cdef View view
        for i in range(BUCKETS * WAYS):
            if self.slots[i].entry != NULL:
                self.retire(self.slots[i].entry)
                self.slots[i].entry = NULL
        self.cached_bytes = 0
        self.free_retired()
        if self.asked is not None:  # as it may be at the end
            for view in self.asked:
                view.asked = False
            self.asked.clear()
        self.pending_count = 0
        self.pending_bytes = 0

    cdef int resolve(self) except -1:
        cdef View view
        for view in self.asked:
            self.resolve_view(view)
            view.asked = False
        self.asked.clear()
        self.pending_count = 0
        self.pending_bytes = 0
        return 0

    cdef int afford(self, View view, Entry* entry, bytes text) except -1:
        """Whether there is enough left for a close look, which is paid for. What that costs grows with the tokens, above all."""
        cdef uint64_t more
        if self.effort >= self.most:
            return False
        more = 2 * tokens(entry.text, entry.size) + entry.size // 8
        if like_json(entry.text, entry.size) and view.plain(text):  # but for its keys nothing is looked at
            more //= 16
        self.effort += EFFORT_OF_VALUE + more
        return True

    cdef int resolve_view(self, View view) except -1:
        cdef Pending* pending
        cdef uint64_t total = 0
        cdef uint64_t low, high
        cdef uint32_t i
        cdef bytes joined
        cdef uint8_t* out
        cdef uint32_t gap = <uint32_t>len(SEPARATOR)
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if not pending.alone and pending.view == <PyObject*>view:
                pending.offset = total
                total += pending.entry.size + gap
        if total:
            joined = PyBytes_FromStringAndSize(NULL, total + len(CANARY))
            out = <uint8_t*>PyBytes_AS_STRING(joined)
            for i in range(self.pending_count):
                pending = &self.pending[i]
                if not pending.alone and pending.view == <PyObject*>view:
                    memcpy(out, pending.entry.text, pending.entry.size)
                    out += pending.entry.size
                    memcpy(out, PyBytes_AS_STRING(SEPARATOR), gap)
                    out += gap
            memcpy(out, PyBytes_AS_STRING(CANARY), len(CANARY))
            regions = view.sift(joined)
            if regions is not None:
                regions.append((total, total))
                following = iter(regions)
                low, high = next(following)
                for i in range(self.pending_count):
                    pending = &self.pending[i]
                    if not pending.alone and pending.view == <PyObject*>view:
                        while high < pending.offset:
                            low, high = next(following)
                        pending.alone = low <= pending.offset + pending.entry.size
        for i in range(self.pending_count):
            pending = &self.pending[i]
            if pending.view == <PyObject*>view:
                if pending.alone:
                    text = pending.entry.text[:pending.entry.size]
                    if self.afford(view, pending.entry, text):
                        self.settle(pending.entry, view.apply(pending.lane, text))
                    else:
                        self.settle(pending.entry, (self.masked, OVERSIZE))
                        pending.entry.place = NOWHERE  # another trace may have more
                else:
                    pending.entry.state = SAME
        return 0

    cdef int settle(self, Entry* entry, object result) except -1:
        cdef bytes replacement
        if result is None:
            entry.state = SAME
            return 0
        replacement, counts = result
        entry.out = <uint8_t*>malloc(len(replacement) + 1)
        if entry.out == NULL:
            raise MemoryError
        memcpy(entry.out, <const char*>replacement, len(replacement))
        entry.out_size = <uint32_t>len(replacement)
        Py_INCREF(counts)
        entry.counts = <PyObject*>counts
        entry.state = CHANGED
        return 0
