"""Makes kept spans ready to leave, and batches of them into requests. `stamp.pyi` is the manual.

finish() reads a trace's fragments (valid spans, not changed) and returns memory of its own: every span redacted, its
strings repaired, its tracestate with the threshold, and the decision's attributes behind its own. assemble() joins
finished traces under their shared resources and scopes; it copies bytes and reads none of them.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from sampler_proxy.otlp.fragments cimport BLOCK_OVERHEAD, Group, HAS_TRACESTATE, SpanWalk, next_span, spans_of
from sampler_proxy.otlp.protobuf cimport (
    FieldCursor, LEN, M_SPAN, MAX_DEPTH, cursor, next_field, varint_size, write_varint,
)
from sampler_proxy.otlp.tracestate cimport HAS_TH, read_tracestate
from sampler_proxy.otlp.utf8 cimport repaired, strings_are_valid
from sampler_proxy.redact.walker cimport next_redacted_scope, next_redacted_span

import struct

from sampler_proxy.otlp.sampling import adjusted_count as adjusted_count_of, encode_threshold, rewrite_tracestate

cdef enum:
    MAX_KEPT_ROOM = 1 << 22  # bytes of the buffer that are kept for the next trace
    STRETCH = 1 << 18  # bytes that are stamped before the GIL is given way


cdef bytes _field(int number, bytes content):
    """Encode a length-delimited field with a number below 16."""
    cdef uint8_t[10] prefix
    return bytes([number << 3 | LEN]) + (<const uint8_t*>prefix)[:write_varint(prefix, len(content)) - prefix] + content


cdef bytes _attribute(bytes key, bytes value):
    """Encode an element of Span.attributes, of an encoded AnyValue."""
    return _field(9, _field(1, key) + _field(2, value))


cdef bytes _count_attribute(uint64_t threshold):
    """Encode the adjusted count that a threshold stands for as an element of Span.attributes."""
    return _attribute(b"sampler_proxy.adjusted_count", b"\x21" + struct.pack("<d", adjusted_count_of(threshold)))


cdef bytes NO_COUNT = _attribute(b"sampler_proxy.adjusted_count", b"\x21" + struct.pack("<d", 0.0))


cdef class Stamper:
    def __cinit__(self, Envelopes envelopes not None, *, decision, adjusted_count):
        self.envelopes = envelopes
        self.decision = decision
        self.adjusted_count = adjusted_count

    def __dealloc__(self):
        free(self.out)

    cdef bytes decision_attributes(self, str rule, str reason, bint incomplete, bint sampled_out):
        """Encode the attributes that say which rule decided, and why; where they are switched off, only that a trace
        was sampled out: it must not be taken for a kept one."""
        cdef bytes attributes = _attribute(b"sampler_proxy.sampled_out", b"\x10\x01") if sampled_out else b""
        if not self.decision:
            return attributes
        return (attributes + _attribute(b"sampler_proxy.rule", _field(1, rule.encode()))
                + _attribute(b"sampler_proxy.reason", _field(1, reason.encode()))
                + (_attribute(b"sampler_proxy.incomplete", b"\x10\x01") if incomplete else b""))

    cdef int reserve(self, uint64_t more) except -1:
        """Make room for so many bytes more in the output, which is there even where they are none: it is copied to."""
        cdef void* grown
        if self.used + more >= self.room:
            grown = realloc(self.out, 2 * self.used + more + 4096)
            if grown == NULL:
                raise MemoryError
            self.out = <uint8_t*>grown
            self.room = 2 * self.used + more + 4096
        return 0

    # Finishing.

    cdef KeptTrace finish(
        self, Fragment* trace, uint64_t threshold, uint64_t randomness, bytes attributes, uint32_t rule,
        bint sampled_out,
    ):
        """Return a trace as it leaves, in memory of its own. `attributes`: decision_attributes(). One that was sampled
        out stands for nothing: its tracestate stays as it came, and its adjusted count is 0."""
        cdef KeptTrace kept = KeptTrace()
        cdef Fragment* fragment = trace
        cdef Stamp stamp
        cdef Redacted redacted
        cdef Redactor redactor = self.redactor  # another one may take its place meanwhile
        cdef uint32_t groups = 0
        stamp.threshold = 0 if sampled_out else threshold
        stamp.sampled_out = sampled_out
        stamp.randomness = randomness
        while fragment != NULL:
            groups += fragment.groups
            fragment = fragment.next
        kept.trace_id = (<const uint8_t*>trace.trace_id)[:16]
        kept.rule = rule
        kept.sampled_out = sampled_out
        kept.group_list = <Group*>malloc(groups * sizeof(Group))
        if kept.group_list == NULL:
            raise MemoryError
        kept.envelopes = self.envelopes
        self.used = self.effort = 0
        if redactor is None:
            self.stamp_trace(kept, trace, NULL, &stamp, attributes)
        else:
            redacted = redactor.redact(trace)
            self.effort = redactor.spent()
            try:
                self.stamp_trace(kept, trace, &redacted, &stamp, attributes)
            finally:
                redactor.release()
        kept.data = <uint8_t*>malloc(self.used)
        if kept.data == NULL:
            raise MemoryError
        memcpy(kept.data, self.out, self.used)
        kept.sum_headers()
        # The object, its id and its two blocks.
        kept.nbytes = self.used + groups * sizeof(Group) + 2 * BLOCK_OVERHEAD + 192
        if self.room > MAX_KEPT_ROOM:
            free(self.out)
            self.out = NULL
            self.room = 0
        return kept

    cdef int stamp_trace(
        self, KeptTrace kept, Fragment* trace, Redacted* redacted, Stamp* stamp, bytes attributes
    ) except -1:
        """Append all spans of a trace, and add their groups. `redacted`: what they have become; NULL: what they
        were."""
        cdef SpanWalk walk = spans_of(trace)
        cdef Envelope* scope
        cdef cbytes body
        cdef uint32_t size
        cdef uint64_t begin = 0
        cdef uint64_t pause = STRETCH
        cdef bytes plain_state = b""
        if stamp.threshold:
            plain_state = b"ot=th:" + encode_threshold(stamp.threshold).encode()
        while next_span(&walk):
            body = walk.body
            size = walk.size
            if redacted != NULL:
                body = next_redacted_span(redacted, &size)
            self.span(body, size, walk.fragment.flags & HAS_TRACESTATE, stamp, attributes, plain_state)
            if self.used >= pause:
                pause = self.used + STRETCH
                with nogil:
                    pass
            if walk.ends_group:
                scope = walk.group.scope.envelope if redacted == NULL else next_redacted_scope(redacted)
                self.add_group(kept, scope, begin, walk.group.spans)
                begin = self.used
        return 0

    cdef int add_group(self, KeptTrace kept, Envelope* scope, uint64_t begin, uint32_t spans) except -1:
        """Add the spans from `begin` on as a group under a scope."""
        cdef Group* group = &kept.group_list[kept.group_count]
        group.scope.envelope = scope
        scope.refs += 1
        group.size = <uint32_t>(self.used - begin)
        group.spans = spans
        kept.group_count += 1
        kept.spans += spans
        return 0

    cdef int span(
        self, cbytes body, uint32_t size, bint look, Stamp* stamp, bytes attributes, bytes plain_state
    ) except -1:
        """Append one span. `look`: it may have a tracestate. `plain_state`: the tracestate of a span without one; b""
        for none."""
        cdef SpanState found
        cdef bytes whole
        cdef bytes state = plain_state
        cdef bytes count = b""
        if not strings_are_valid(M_SPAN, body, body + size):
            whole = repaired(M_SPAN, body, size)
            self.strings_mended += 1
            body = <cbytes><const char*>whole
            size = <uint32_t>len(whole)
        found.threshold = stamp.threshold
        found.consistent = True
        found.removed = 0
        if look:
            state = self.leaving_state(body, body + size, stamp, plain_state, &found)
        if self.adjusted_count and found.consistent:
            count = NO_COUNT if stamp.sampled_out else _count_attribute(found.threshold)
        return self.append_span(body, body + size, found.removed, state, attributes, count)

    cdef bytes leaving_state(self, cbytes body, cbytes end, Stamp* stamp, bytes plain_state, SpanState* found):
        """Return the tracestate that a span gets in place of its own; b"" for none. What stays as it came is not
        removed."""
        cdef FieldCursor field = cursor(body, end, MAX_DEPTH)
        cdef cbytes state_at = NULL
        cdef uint32_t state_size = 0
        cdef uint32_t removed = 0
        cdef uint64_t own = 0
        cdef uint64_t ignored = 0
        cdef bytes state
        while next_field(&field):
            if field.number == 3 and field.wire == LEN:  # of several the last counts
                state_at = field.content
                state_size = field.size
                removed += <uint32_t>(field.p - field.start)
        if not state_size:
            if plain_state:
                found.removed = removed
            return plain_state
        if read_tracestate(state_at, state_size, &own, &ignored) & HAS_TH and own > stamp.randomness:
            found.consistent = False
            self.inconsistent += 1
        elif own >= stamp.threshold:
            found.threshold = own
            return b""
        found.removed = removed
        if not (
            self.state_size == state_size and self.state_stamp.threshold == stamp.threshold
            and self.state_stamp.randomness == stamp.randomness and memcmp(state_at, self.state, state_size) == 0
        ):
            state = state_at[:min(state_size, MAX_STATE + 1)]  # no more is read of it
            self.rewritten = rewrite_tracestate(state, stamp.randomness, stamp.threshold)
            self.state_size = state_size if state_size <= MAX_STATE else 0
            self.state_stamp = stamp[0]
            memcpy(self.state, <const char*>state, self.state_size)
        return self.rewritten

    cdef int append_span(
        self, cbytes body, cbytes end, uint32_t removed, bytes state, bytes attributes, bytes count
    ) except -1:
        """Append a span without its tracestate if that is removed, and with another one and more attributes behind."""
        cdef FieldCursor field
        cdef uint8_t* out
        cdef uint32_t size = <uint32_t>((end - body) - removed + len(attributes) + len(count))
        if state:
            size += <uint32_t>(1 + varint_size(len(state)) + len(state))
        self.reserve(6 + <uint64_t>size)
        out = self.out + self.used
        out[0] = 0x12
        out = write_varint(out + 1, size)
        if removed:
            field = cursor(body, end, MAX_DEPTH)
            while next_field(&field):
                if field.number != 3 or field.wire != LEN:
                    memcpy(out, field.start, field.p - field.start)
                    out += field.p - field.start
        else:
            memcpy(out, body, end - body)
            out += end - body
        if state:
            out[0] = 0x1A
            out = write_varint(out + 1, len(state))
            memcpy(out, <const char*>state, len(state))
            out += len(state)
        memcpy(out, <const char*>attributes, len(attributes))
        out += len(attributes)
        memcpy(out, <const char*>count, len(count))
        out += len(count)
        self.used = <uint64_t>(out - self.out)
        return 0


cdef class _Part:
    """A resource or scope of a request, and what lies in it."""
    cdef Envelope* envelope
    cdef uint64_t size  # of its content: header and fields inside
    cdef list inside  # of a resource: its scopes; of a scope: (address, size) of spans


def assemble(traces):
    cdef dict scopes = {}
    cdef dict resources = {}
    cdef KeptTrace trace
    cdef _Part scope, resource
    cdef Group* group
    cdef uint8_t* out
    cdef uint64_t total = 0
    cdef uint64_t offset
    cdef uint32_t i
    cdef bytes request
    for trace in traces:
        offset = 0
        for i in range(trace.group_count):
            group = &trace.group_list[i]
            scope = scopes.get(<size_t>group.scope.envelope)
            if scope is None:
                scope = _Part()
                scope.envelope = group.scope.envelope
                scope.size = scope.envelope.size
                scope.inside = []
                scopes[<size_t>scope.envelope] = scope
                resource = resources.get(<size_t>scope.envelope.parent)
                if resource is None:
                    resource = _Part()
                    resource.envelope = scope.envelope.parent
                    resource.size = resource.envelope.size
                    resource.inside = []
                    resources[<size_t>resource.envelope] = resource
                resource.inside.append(scope)
            scope.size += group.size
            scope.inside.append((<size_t>(trace.data + offset), group.size))
            offset += group.size
    for resource in resources.values():
        for scope in resource.inside:
            resource.size += 1 + varint_size(scope.size) + scope.size
        total += 1 + varint_size(resource.size) + resource.size
    request = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t*><char*>request
    for resource in resources.values():
        out[0] = 0x0A
        out = write_varint(out + 1, resource.size)
        memcpy(out, resource.envelope.data, resource.envelope.size)
        out += resource.envelope.size
        for scope in resource.inside:
            out[0] = 0x12
            out = write_varint(out + 1, scope.size)
            memcpy(out, scope.envelope.data, scope.envelope.size)
            out += scope.envelope.size
            for address, size in scope.inside:
                memcpy(out, <void*><size_t>address, <size_t>size)
                out += <size_t>size
    return request
