"""Kept spans made ready to leave, and batches of them made into requests. `stamp.pyi` is the manual.

finish() reads a trace's fragments (valid spans, not changed) and returns memory of its own: every span redacted, with its strings
mended, its tracestate carrying the threshold, and the decision's attributes behind its own. assemble() joins finished traces under their shared
resources and scopes; it copies bytes and reads none of them.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from sampler_proxy.otlp.utf8 cimport repaired, strings_are_valid
from sampler_proxy.otlp.protobuf cimport (
    LEN, M_SPAN, MAX_DEPTH, read_length, read_tag, skip_value, varint_size, write_varint,
)
from sampler_proxy.otlp.tracestate cimport HAS_TH, read_tracestate
from sampler_proxy.otlp.fragments cimport BLOCK_OVERHEAD, HAS_TRACESTATE, Envelope, Group, groups_of, payload_of

import struct

from sampler_proxy.otlp.sampling import adjusted_count, encode_threshold, rewrite_tracestate


cdef bytes _field(int number, bytes content):
    """A length-delimited field with a number below 16."""
    cdef uint8_t[10] prefix
    return bytes([number << 3 | LEN]) + (<const uint8_t*>prefix)[:write_varint(prefix, len(content)) - prefix] + content


cdef bytes _attribute(bytes key, bytes value):
    """The field Span.attributes with this encoded AnyValue."""
    return _field(9, _field(1, key) + _field(2, value))


cdef bytes _count_attribute(uint64_t threshold):
    return _attribute(b"sampler_proxy.adjusted_count", b"\x21" + struct.pack("<d", adjusted_count(threshold)))


cdef class Stamper:
    def __cinit__(self, Envelopes envelopes not None, *, decision, adjusted_count):
        self.envelopes = envelopes
        self.decision = decision
        self.adjusted_count = adjusted_count

    def __dealloc__(self):
        free(self.out)

    cdef bytes decision_attributes(self, str rule, str reason, bint incomplete):
        """What finish() wants as `attributes`."""
        if not self.decision:
            return b""
        return (_attribute(b"sampler_proxy.rule", _field(1, rule.encode()))
                + _attribute(b"sampler_proxy.reason", _field(1, reason.encode()))
                + (_attribute(b"sampler_proxy.incomplete", b"\x10\x01") if incomplete else b""))

    cdef int reserve(self, uint64_t more) except -1:
        cdef void* grown
        if self.used + more > self.room:
            grown = realloc(self.out, 2 * self.used + more + 4096)
            if grown == NULL:
                raise MemoryError
            self.out = <uint8_t*>grown
            self.room = 2 * self.used + more + 4096
        return 0

    cdef KeptTrace finish(self, Fragment* first, uint64_t threshold, uint64_t randomness, bytes attributes, uint32_t rule):
        cdef KeptTrace kept = KeptTrace()
        cdef Fragment* fragment = first
        cdef Group* group
        cdef Group* target
        cdef cbytes p
        cdef cbytes end
        cdef cbytes body
        cdef uint32_t i
        cdef uint32_t size = 0
        cdef uint32_t groups = 0
        cdef uint32_t index = 0
        cdef uint64_t begin
        cdef bytes plain_state = b"" if threshold == 0 else b"ot=th:" + encode_threshold(threshold).encode()
        while fragment != NULL:
            groups += fragment.groups
            fragment = fragment.next
        kept.trace_id = (<const uint8_t*>first.trace_id)[:16]
        kept.rule = rule
        kept.group_list = <Group*>malloc(groups * sizeof(Group))
        if kept.group_list == NULL:
            raise MemoryError
        kept.envelopes = self.envelopes
        self.used = 0
        if self.redactor is not None:
            self.redactor.redact(first)
        fragment = first
        while fragment != NULL:
            group = groups_of(fragment)
            p = payload_of(fragment)
            for i in range(fragment.groups):
                begin = self.used
                end = p + group[i].size
                while p < end:
                    p = read_length(p + 1, end, &size)
                    body = p
                    p += size
                    if self.redactor is not None:
                        body = self.redactor.span(index, &size)
                        index += 1
                    self.span(body, size, fragment.flags & HAS_TRACESTATE, threshold, randomness, attributes, plain_state)
                target = &kept.group_list[kept.group_count]
                target.scope.envelope = group[i].scope.envelope
                if self.redactor is not None:
                    target.scope.envelope = self.redactor.envelope(kept.group_count)
                target.scope.envelope.refs += 1
                target.size = <uint32_t>(self.used - begin)
                target.spans = group[i].spans
                kept.group_count += 1
                kept.spans += group[i].spans
            fragment = fragment.next
        if self.redactor is not None:
            self.redactor.finished()
        kept.data = <uint8_t*>malloc(self.used)
        if kept.data == NULL:
            raise MemoryError
        memcpy(kept.data, self.out, self.used)
        # The object, its id and its two blocks.
        kept.nbytes = self.used + groups * sizeof(Group) + 2 * BLOCK_OVERHEAD + 192
        if self.room > 1 << 22:
            free(self.out)
            self.out = NULL
            self.room = 0
        return kept

    cdef int span(self, cbytes body, uint32_t size, bint look, uint64_t threshold, uint64_t randomness, bytes attributes,
                  bytes plain_state) except -1:
        """Append one span; `look`: it may have a tracestate."""
        cdef cbytes p
        cdef cbytes end
        cdef cbytes start
        cdef uint8_t* out
        cdef uint32_t field = 0
        cdef uint32_t wire = 0
        cdef uint32_t length = 0
        cdef uint32_t state_size = 0
        cdef uint32_t removed = 0
        cdef cbytes state_at = NULL
        cdef uint64_t own = 0
        cdef uint64_t ignored = 0
        cdef uint64_t leaving = threshold
        cdef bint known = True
        cdef bytes whole
        cdef bytes state = plain_state
        cdef bytes count = b""
        if not strings_are_valid(M_SPAN, body, body + size):
            whole = repaired(M_SPAN, body, size)
            self.strings_mended += 1
            body = <cbytes><const char*>whole
            size = <uint32_t>len(whole)
        p = body
        end = body + size
        if look:
            while p < end:
                start = p
                p = read_tag(p, end, &field, &wire)
                if wire == LEN:
                    p = read_length(p, end, &length)
                    p += length
                    if field == 3:
                        state_at = p - length
                        state_size = length
                        removed += <uint32_t>(p - start)
                else:
                    p = skip_value(p, end, field, wire, MAX_DEPTH)
            if state_size:
                if read_tracestate(state_at, state_size, &own, &ignored) & HAS_TH and own > randomness:
                    known = False
                    self.inconsistent += 1
                elif own >= threshold:
                    leaving = own
                    state = None
                if state is not None:
                    state = rewrite_tracestate(state_at[:state_size], randomness, threshold)
        if not state:
            if state is None or not plain_state and not state_size:
                removed = 0  # as it came
        if self.adjusted_count and known:
            count = _count_attribute(leaving)
        size = size - removed + <uint32_t>(len(attributes) + len(count))
        if state:
            size += <uint32_t>(1 + varint_size(len(state)) + len(state))
        self.reserve(6 + <uint64_t>size)
        out = self.out + self.used
        out[0] = 0x12
        out = write_varint(out + 1, size)
        if removed:
            p = body
            while p < end:
                start = p
                p = read_tag(p, end, &field, &wire)
                p = skip_value(p, end, field, wire, MAX_DEPTH)
                if field != 3 or wire != LEN:
                    memcpy(out, start, p - start)
                    out += p - start
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
    """A resource or scope on its way out, and what lies in it."""
    cdef Envelope* envelope
    cdef uint64_t size  # of its content: header and fields inside
    cdef list inside


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
