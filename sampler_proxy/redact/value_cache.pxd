"""Declares the cache of redacted values and keys. Ownership stands beside each field; the numbers of `lanes.py` are
here again."""
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.effort cimport Effort

cdef enum:
    MAX_VALUE_BYTES = 64 * 1024
    MAX_KEY_BYTES = 4096

cdef enum State:
    PENDING
    SAME  # leaves as it came
    CHANGED

cdef enum LaneKind:
    AS_IT_IS = 0
    BATCHED = 1
    SINGLE = 2
    ANY_TYPE = 3
    DELETED = 4
    MASKED = 5

cdef enum:  # the lanes that every view has
    EXEMPT = 0
    TEXT = 1
    KEY = 2
    BYTES = 3
    NAME = 4

cdef enum Place:
    IN_SPAN = 0
    IN_RESOURCE = 1
    IN_SCOPE = 2
    IN_EVENT = 3
    IN_LINK = 4
    IN_VALUE = 5

cdef struct Entry:
    # A value, or an attribute's key, and what becomes of it. In the cache, or on the list of those to be freed.
    uint64_t hash
    uint64_t context  # view and lane, or view and place of a key; part of what is compared
    Entry* next  # on the list of those to be freed
    cbytes text  # in `data`; of a value too large to be cached, where it stands in the trace
    uint8_t* out  # replacement; owned
    PyObject* counts  # labels of the replacement, each with its number; owned
    PyObject* label  # of a key: its rule's label; the view's
    uint32_t size, out_size
    uint16_t lane  # of a key: the lane of its value
    uint8_t kind  # LaneKind of that lane
    uint8_t state
    bint hit  # since the clock's last sweep
    bint pinned  # the trace points here until it is done
    bint cached  # in a slot
    uint8_t data[1]

cdef struct CacheSlot:
    uint64_t hash
    Entry* entry  # owned; NULL: free

cdef struct Pending:
    Entry* entry
    PyObject* view  # CachedView; in ValueCache.pending_views
    uint64_t offset  # among the joined values
    uint16_t lane
    bint single  # looked at alone, not joined with others


@cython.final
cdef class CachedView:
    cdef object lane_of, statement_lane, sift, apply, plain  # bound methods of the view and of its key rules
    cdef list lanes  # of the key rules
    cdef uint64_t serial  # in contexts; 0: the policy's strict view
    cdef int name_kind  # LaneKind of the lane NAME
    cdef int statement  # lane of statements to a store that is not named
    cdef bint pending  # some value of the view is


@cython.final
cdef class ValueCache:
    cdef object policy
    cdef dict views  # some << 32 | every -> CachedView; without those that are `strict`
    cdef list pending_views
    cdef CachedView strict
    cdef CachedView view  # selected
    cdef object strict_view  # the policy's
    cdef uint64_t seed
    cdef CacheSlot* slots  # BUCKETS * WAYS
    cdef uint64_t cached_bytes
    cdef uint32_t hand  # of the clock
    cdef Entry* to_free
    cdef uint32_t freeing, free_at  # entries in to_free; and how many are worth looking whether some can go
    cdef bint full  # has resolved by itself, so that the caller may as well finish what it waits with
    cdef Entry oversize  # stands for whatever is beyond a bound
    cdef bytes mask_text
    cdef Pending* pending
    cdef uint32_t pending_count, pending_room
    cdef uint64_t pending_bytes
    cdef Effort effort
    cdef int select_view(self, uint64_t some, uint64_t every) except -1
    cdef Entry* find(self, uint64_t context, cbytes p, uint32_t size, bint* fresh) except NULL
    cdef int insert(self, CacheSlot* bucket, Entry* entry) except -1
    cdef void make_room(self, uint64_t more) noexcept
    cdef void evict(self, CacheSlot* slot) noexcept
    cdef Entry* key(self, int place, cbytes p, uint32_t size, bint named) except NULL
    cdef int system(self, cbytes p, uint32_t size) except -1
    cdef Entry* value(self, int lane, int kind, cbytes p, uint32_t size) except NULL
    cdef int enqueue(self, Entry* entry, int lane, bint single) except -1
    cdef bint spend(self, CachedView view, Entry* entry, bytes text) except -1
    cdef void free_later(self, Entry* entry) noexcept
    cdef void free_unused(self, bint pinned) noexcept
    cdef void clear(self) noexcept
    cdef uint64_t nbytes(self) noexcept
    cdef int resolve(self) except -1
    cdef int resolve_view(self, CachedView view) except -1
    cdef bytes join(self, CachedView view)
    cdef int mark_suspects(self, CachedView view, list regions) except -1
    cdef int store(self, Entry* entry, object result) except -1
