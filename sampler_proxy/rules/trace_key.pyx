"""Reads the key of a trace for a target's `per`: the values of some fields of its root span, as a number and as text.

Without a root the earliest span stands for it (of several, the one with the smallest id), so that the order of arrival
does not matter; the first 65 536 spans, or 4 MiB of them, are asked. The number is a seeded hash of 128 bits over each
whole value with its type; two keys with the same number count as one.

The text is for people and for what survives a restart, so it is bounded: the values with KEY_SEPARATOR between them,
each cut to its share of MAX_KEY_TEXT bytes, MISSING where there is none. The cut may fall inside a character.
"""
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from sampler_proxy.otlp.fragments cimport Group, SpanWalk, next_span, spans_of
from sampler_proxy.otlp.protobuf cimport (
    FIXED64, LEN, MAX_DEPTH, FieldCursor, bswap64, cbytes, cursor, hash_bytes, load64, next_field, scramble,
)
from sampler_proxy.rules.conditions cimport V_ARRAY, V_BEYOND, V_BOOL, V_DOUBLE, V_INT, V_NIL, V_STRING, Value
from sampler_proxy.rules.roots cimport LOCAL, PARENTLESS
from sampler_proxy.rules.span_matcher cimport MAX_READ_AGAIN, Facts

cdef enum:  # bytes of a text that no value has
    NO_VALUE = 0x00
    SEPARATOR = 0x1F

cdef enum:
    # Spans, and bytes, among which the earliest is sought: that happens under the pipeline's lock.
    MAX_SPANS = 1 << 16
    MAX_BYTES = 4 << 20

KEY_SEPARATOR = bytes((SEPARATOR,))
MISSING = bytes((NO_VALUE,))


cdef void _age(cbytes body, uint32_t size, uint64_t* start, uint64_t* span_id) noexcept nogil:
    """Read start and id of a valid span. A start of 0, which is not known, becomes the latest of all."""
    cdef FieldCursor field = cursor(body, body + size, MAX_DEPTH)
    start[0] = span_id[0] = 0
    while next_field(&field):
        if field.wire == FIXED64 and field.number == 7:
            start[0] = field.integer
        elif field.wire == LEN and field.number == 2 and field.size == 8:
            span_id[0] = bswap64(load64(field.content))
    start[0] -= 1


cdef class TraceKeyReader:
    def __cinit__(self, slots, *, uint64_t seed=0):
        """Plan the reading of `slots`: program.Slot of a span, its scope or its resource, all different."""
        self.plan = Plan((), (), arguments=list(zip(slots)))
        assert self.plan.arithmetic.slots == tuple(slots)
        self.matcher = SpanMatcher(self.plan, seed)
        self.matcher.sound = True
        self.seed = seed

    cdef void read(self, Fragment* trace, Root* root) noexcept nogil:
        """Read the key of a trace in the buffer, whose root has been sought, into `key`, `text` and `text_size`."""
        cdef SpanWalk walk = spans_of(trace)
        cdef Group* group = NULL
        cdef cbytes body = NULL
        cdef uint32_t size = 0
        cdef uint64_t start, span_id
        cdef uint64_t best_start = 0
        cdef uint64_t best_id = 0
        cdef uint32_t spans = 0
        cdef uint64_t read = 0
        cdef Facts facts
        if root.kind == PARENTLESS or root.kind == LOCAL:
            body = root.body
            size = root.size
            group = root.group
        else:
            while spans < MAX_SPANS and read < MAX_BYTES and next_span(&walk):
                _age(walk.body, min(walk.size, MAX_READ_AGAIN), &start, &span_id)
                spans += 1
                read += walk.size
                if body == NULL or start < best_start or (start == best_start and span_id < best_id):
                    best_start = start
                    best_id = span_id
                    body = walk.body
                    size = walk.size
                    group = walk.group
        self.matcher.begin()
        self.matcher.load_headers(group, True)
        self.matcher.read_again(body, size, &facts)
        self.matcher.regexes.effort.steps += 2 * spans + (read >> 4)
        self.matcher.record_intrinsics(&facts)
        self.summarize()

    cdef void summarize(self) noexcept nogil:
        """Make key and text of the values that the matcher has recorded."""
        cdef uint32_t count = self.plan.slot_count
        cdef uint32_t share = room_of(count)
        cdef Value* value
        cdef uint64_t content
        cdef uint32_t i
        self.key[0] = self.seed
        self.key[1] = scramble(self.seed ^ 0x9E3779B97F4A7C15ULL)
        self.text_size = 0
        for i in range(count):
            value = &self.matcher.of_span.values[i]
            if i:
                self.text[self.text_size] = SEPARATOR
                self.text_size += 1
            if value.type == V_STRING or value.type == V_ARRAY:
                self.key[0] = hash_bytes(value.text, value.size, self.key[0] ^ value.type, self.seed)
                self.key[1] = hash_bytes(value.text, value.size, self.key[1] ^ value.type, ~self.seed)
            else:
                content = 0
                if value.type == V_DOUBLE:
                    memcpy(&content, &value.real, 8)
                elif value.type == V_INT or value.type == V_BOOL or value.type == V_BEYOND:
                    content = <uint64_t>value.integer
                self.key[0] = hash_bytes(<cbytes>&content, 8, self.key[0] ^ value.type, self.seed)
                self.key[1] = hash_bytes(<cbytes>&content, 8, self.key[1] ^ value.type, ~self.seed)
            self.write(value, share)

    cdef void write(self, Value* value, uint32_t room) noexcept nogil:
        """Append a value to the text, cut to `room` bytes."""
        cdef uint8_t* out = self.text + self.text_size
        cdef int written = 0
        cdef int i
        if value.type == V_STRING:
            written = <int>min(value.size, room)
            for i in range(written):
                out[i] = value.text[i] if value.text[i] > SEPARATOR else 32  # no control characters
        elif value.type == V_NIL:
            out[0] = NO_VALUE
            written = 1
        elif value.type == V_BOOL:
            written = snprintf(<char*>out, room, b"true" if value.integer else b"false")
        elif value.type == V_INT:
            written = snprintf(<char*>out, room, b"%lld", <long long>value.integer)
        elif value.type == V_DOUBLE or value.type == V_BEYOND:
            written = snprintf(<char*>out, room, b"%g", value.real)
        elif value.type == V_ARRAY:
            written = snprintf(<char*>out, room, b"[...]")
        else:
            written = snprintf(<char*>out, room, b"(...)")
        self.text_size += <uint32_t>written


cpdef uint32_t room_of(uint32_t fields) noexcept nogil:
    """Return how many bytes each of so many values may have in a text."""
    return MAX_KEY_TEXT // fields - 1


def values_of(text):
    """Return the values in a key's text, None for a missing one; what is no UTF-8 is replaced."""
    return [None if value == MISSING else value.decode("utf-8", "replace") for value in text.split(KEY_SEPARATOR)]
