from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from sampler_proxy.otlp.protobuf cimport cbytes

cdef enum:
    # What one trace may cost, and all that are decided while one request is taken, in units of about a microsecond. What is new in
    # it after that is masked.
    MAX_EFFORT = 1 << 17
    MAX_SHARED_EFFORT = 1 << 19
    MAX_KEY = 4096  # of a longer one the value is masked, too

cdef enum State:
    PENDING
    SAME  # leaves as it came
    CHANGED

cdef enum Kind:
    # How values in a lane are gone about: as redact_values.py numbers it.
    AS_IT_IS = 0
    JOINED = 1
    ALONE = 2
    LEAVES = 3
    DELETED = 4
    WHOLE = 5

cdef enum Lane:
    EXEMPT = 0
    TEXT = 1
    KEY = 2
    BYTES = 3
    NAME = 4

cdef enum Place:
    OF_SPAN = 0
    OF_RESOURCE = 1
    OF_SCOPE = 2
    OF_EVENT = 3
    OF_LINK = 4
    NESTED = 5
    KEYS = 1 << 16  # a place of keys is no lane

cdef struct Entry:
    # A value, or an attribute's key, that was met, and what became of it. In the cache or on the list of the retired.
    uint64_t hash
    uint64_t place  # the view and the lane it was met in; part of what is compared
    Entry* next  # of the retired
    cbytes text  # in `data`, or where it was met
    uint8_t* out  # what replaces it; owned
    PyObject* counts  # what that counts as; owned
    PyObject* label  # of a key: what its rule counts as; the view's
    uint32_t size, out_size
    uint16_t lane  # of a key: the lane of its value
    uint8_t kind  # and how values in that lane are gone about
    uint8_t state
    bint met  # again since the last sweep
    uint8_t data[1]

cdef struct Slot:
    uint64_t hash
    Entry* entry

cdef struct Pending:
    Entry* entry
    PyObject* view
    uint64_t offset  # among the joined
    uint16_t lane
    bint alone  # looked at closely


cdef class View:
    cdef object view
    cdef object key, sift, apply, plain
    cdef uint64_t serial
    cdef int name_kind
    cdef bint asked  # something of it is pending


cdef class Verdicts:
    cdef object policy
    cdef dict views  # but for `strict`
    cdef list asked  # views of which something is pending
    cdef View strict
    cdef View view  # that holds for what is asked about
    cdef uint64_t seed
    cdef Slot* slots
    cdef uint64_t cached_bytes
    cdef uint32_t hand
    cdef Entry* retired
    cdef Entry oversize
    cdef bytes masked
    cdef Pending* pending
    cdef uint32_t pending_count, pending_room
    cdef uint64_t pending_bytes
    cdef uint64_t effort, most  # that has been spent, and may be
    cdef int use(self, uint64_t some, uint64_t every) except -1
    cdef Entry* find(self, uint64_t place, cbytes p, uint32_t size, bint* fresh) except NULL
    cdef Entry* key(self, int place, cbytes p, uint32_t size, bint named) except NULL
    cdef Entry* value(self, int lane, int kind, cbytes p, uint32_t size) except NULL
    cdef int pend(self, Entry* entry, int lane, bint alone) except -1
    cdef int afford(self, View view, Entry* entry, bytes text) except -1
    cdef void retire(self, Entry* entry) noexcept
    cdef void free_retired(self) noexcept
    cdef void forget(self) noexcept
    cdef int resolve(self) except -1
    cdef int resolve_view(self, View view) except -1
    cdef int settle(self, Entry* entry, object result) except -1
