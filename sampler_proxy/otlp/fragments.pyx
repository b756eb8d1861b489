"""Owns and frees the memory of fragments, envelopes and kept traces, and counts its cost."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from sampler_proxy.otlp.protobuf cimport M_RESOURCE_SPANS, M_SCOPE_SPANS, hash_bytes
from sampler_proxy.otlp.utf8 cimport repaired

cdef enum:
    HEADER_FRAME = 1 + 5  # the most that the tag and the length of a ResourceSpans or ScopeSpans take
    # After how much work, in bytes of headers, the GIL is given way, and what a fragment, a cache miss, is worth of it.
    GIVE_WAY = 1 << 20
    STEP_OF_FRAGMENT = 64
    MANY_GROUPS = 2048


cdef inline void give_way(uint64_t* steps, uint64_t more) noexcept:
    """Add work done, and give the GIL way after each GIVE_WAY of it."""
    steps[0] += more
    if steps[0] >= GIVE_WAY:
        steps[0] = 0
        with nogil:
            pass


cdef class Scanned:
    def __dealloc__(self):
        cdef uint32_t i
        if self.fragments != NULL:
            for i in range(self.count):
                free(self.fragments[i])
        free(self.fragments)
        free(self.headers)
        free(self.header_bytes)

    cdef uint64_t header_cost(self) noexcept:
        """Return the bytes that interning the headers costs at most, where none of them is held yet. They lie one
        behind the other in header_bytes."""
        cdef uint64_t size = 0
        if self.header_count:
            size = self.headers[self.header_count - 1].offset + self.headers[self.header_count - 1].size
        return size + self.header_count * (sizeof(Envelope) + BLOCK_OVERHEAD)


cdef class Envelopes:
    def __cinit__(self, *, seed=0):
        self.seed = seed
        self.mask = 255
        self.buckets = <Envelope**>calloc(self.mask + 1, sizeof(Envelope*))
        if self.buckets == NULL:
            raise MemoryError
        self.cost = (self.mask + 1) * sizeof(Envelope*)
        self.room_for_forms = <uint64_t>-1

    def __dealloc__(self):
        cdef uint64_t i
        cdef Envelope* envelope
        cdef Form* form
        if self.buckets == NULL:
            return
        for i in range(self.mask + 1):
            while self.buckets[i] != NULL:
                envelope = self.buckets[i]
                self.buckets[i] = envelope.next
                while envelope.forms != NULL:
                    form = envelope.forms
                    envelope.forms = form.next
                    self.free_form(form)  # what it refers to is freed here, too
                free(envelope)
        free(self.buckets)

    def __len__(self):
        return self.count

    cdef int grow(self) except -1:
        """Double the number of buckets."""
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t i
        cdef Envelope* envelope
        cdef Envelope** buckets = <Envelope**>calloc(mask + 1, sizeof(Envelope*))
        if buckets == NULL:
            raise MemoryError
        for i in range(self.mask + 1):
            while self.buckets[i] != NULL:
                envelope = self.buckets[i]
                self.buckets[i] = envelope.next
                envelope.next = buckets[envelope.hash & mask]
                buckets[envelope.hash & mask] = envelope
        free(self.buckets)
        self.cost += (mask - self.mask) * sizeof(Envelope*)
        self.buckets = buckets
        self.mask = mask
        return 0

    cdef Envelope* intern(self, Envelope* parent, const uint8_t* data, uint32_t size) except NULL:
        """Return the one envelope with these bytes under this parent, with a reference more for the caller."""
        cdef uint64_t key = hash_bytes(data, size, <uint64_t>parent, self.seed)
        cdef Envelope* envelope = self.buckets[key & self.mask]
        if size == 0:
            data = <const uint8_t*>self.buckets  # any pointer but NULL, which must not be compared or copied
        while envelope != NULL:
            if (envelope.hash == key and envelope.parent == parent and envelope.size == size
                    and memcmp(envelope.data, data, size) == 0):
                envelope.refs += 1
                return envelope
            envelope = envelope.next
        if self.count > self.mask:
            self.grow()
        envelope = <Envelope*>malloc(sizeof(Envelope) + size)
        if envelope == NULL:
            raise MemoryError
        memcpy(envelope.data, data, size)
        envelope.parent = parent
        envelope.hash = key
        envelope.size = size
        envelope.refs = 1
        envelope.service = SERVICE_NOT_READ
        envelope.service_size = 0
        envelope.redacted = 0
        envelope.forms = NULL
        envelope.next = self.buckets[key & self.mask]
        self.buckets[key & self.mask] = envelope
        if parent != NULL:
            parent.refs += 1
        self.count += 1
        self.cost += sizeof(Envelope) + size + BLOCK_OVERHEAD
        return envelope

    cdef void release(self, Envelope* envelope) noexcept:
        """Give a reference back. The last one frees the envelope, and with it its references to the parent and to its
        forms."""
        cdef Envelope* parent
        cdef Envelope** link
        cdef Form* form
        cdef Form* doomed = NULL  # forms of what has been freed; a loop, as they may hang from each other
        while True:
            while envelope != NULL:
                envelope.refs -= 1
                if envelope.refs:
                    break
                parent = envelope.parent
                link = &self.buckets[envelope.hash & self.mask]
                while link[0] != envelope:
                    link = &link[0].next
                link[0] = envelope.next
                while envelope.forms != NULL:
                    form = envelope.forms
                    envelope.forms = form.next
                    form.next = doomed
                    doomed = form
                self.count -= 1
                self.cost -= sizeof(Envelope) + envelope.size + BLOCK_OVERHEAD
                free(envelope)
                envelope = parent
            if doomed == NULL:
                return
            form = doomed
            doomed = form.next
            envelope = self.free_form(form)

    cdef void remember(
        self, Envelope* envelope, Envelope* leaving, tuple counts, uint64_t redactor, uint64_t view
    ) noexcept:
        """Note what an envelope has become, with a reference to it; the oldest of MAX_FORMS goes. Without memory, or
        room_for_forms, none is noted. `counts`: None for none."""
        cdef Form** link = &envelope.forms
        cdef Form* form
        cdef int left = MAX_FORMS - 1
        cdef uint64_t cost = sizeof(Form) + BLOCK_OVERHEAD
        if leaving != envelope:
            cost += sizeof(Envelope) + leaving.size
        if cost > self.room_for_forms:
            return
        self.room_for_forms -= cost
        while link[0] != NULL and left:
            link = &link[0].next
            left -= 1
        if link[0] != NULL:
            form = link[0]
            link[0] = NULL
            self.release(self.free_form(form))
        form = <Form*>malloc(sizeof(Form))
        if form == NULL:
            return
        form.leaving = NULL if leaving == envelope else leaving
        if form.leaving != NULL:
            leaving.refs += 1
        form.counts = NULL
        form.cost = sizeof(Form) + BLOCK_OVERHEAD
        if counts is not None:
            Py_INCREF(counts)
            form.counts = <PyObject*>counts
            form.cost += COST_OF_COUNT * <uint64_t>len(counts)
        form.redactor = redactor
        form.view = view
        form.next = envelope.forms
        envelope.forms = form
        self.cost += form.cost

    cdef void forget(self, uint64_t redactor) noexcept:
        """Free the forms that a redactor has made: its policy is gone."""
        cdef uint64_t i
        cdef Envelope* envelope
        cdef Form** link
        cdef Form* form
        cdef Form* doomed = NULL  # freed at the end: chains change when envelopes go
        for i in range(self.mask + 1):
            envelope = self.buckets[i]
            while envelope != NULL:
                link = &envelope.forms
                while link[0] != NULL:
                    form = link[0]
                    if form.redactor == redactor:
                        link[0] = form.next
                        form.next = doomed
                        doomed = form
                    else:
                        link = &form.next
                envelope = envelope.next
        while doomed != NULL:
            form = doomed
            doomed = form.next
            self.release(self.free_form(form))

    cdef Envelope* free_form(self, Form* form) noexcept:
        """Free a form that nobody points to; returns the envelope whose reference it had, which is the caller's now."""
        cdef Envelope* leaving = form.leaving
        self.cost -= form.cost
        Py_XDECREF(form.counts)
        free(form)
        return leaving

    cdef int adopt(self, Scanned scanned) except -1:
        """Intern the headers of a request and point its fragments to them. After an error nothing is changed. The GIL
        is given way now and then."""
        cdef uint32_t i, j
        cdef uint32_t done = 0
        cdef uint64_t steps = 0
        cdef Header* header
        cdef Envelope* parent
        cdef Group* group
        cdef Fragment* fragment
        cdef bytes text
        if scanned.header_count == 0:
            return 0
        cdef Envelope** found = <Envelope**>malloc(scanned.header_count * sizeof(Envelope*))
        if found == NULL:
            raise MemoryError
        try:
            for i in range(scanned.header_count):
                header = &scanned.headers[i]
                parent = NULL if header.parent < 0 else found[header.parent]
                if header.damaged_text:
                    text = repaired(
                        M_SCOPE_SPANS if header.is_scope else M_RESOURCE_SPANS,
                        scanned.header_bytes + header.offset, header.size,
                    )
                    assert text is not None
                    found[i] = self.intern(parent, <const uint8_t*><const char*>text, <uint32_t>len(text))
                else:
                    found[i] = self.intern(parent, scanned.header_bytes + header.offset, header.size)
                done = i + 1
                give_way(&steps, header.size)
            for i in range(scanned.count):
                fragment = scanned.fragments[i]
                group = groups_of(fragment)
                for j in range(fragment.groups):
                    group[j].scope.envelope = found[group[j].scope.index]
                    group[j].scope.envelope.refs += 1
                give_way(&steps, STEP_OF_FRAGMENT + fragment.groups)
        finally:
            # The loop's own references; the groups and the children have theirs.
            for i in range(done):
                self.release(found[done - 1 - i])
            free(found)
        return 0

    cdef void free_fragments(self, Fragment* fragment) noexcept:
        """Free a chain of fragments of adopted requests: a trace's."""
        cdef Fragment* after
        while fragment != NULL:
            after = fragment.next
            self.free_fragment(fragment)
            fragment = after

    cdef void free_fragment(self, Fragment* fragment) noexcept:
        """Free a fragment of an adopted request, with its references."""
        cdef Group* group = groups_of(fragment)
        cdef uint32_t i
        for i in range(fragment.groups):
            self.release(group[i].scope.envelope)
        free(fragment)


# Where a kept trace hangs from somebody's cycle, the cyclic collector would clear `envelopes` before __dealloc__, and
# the references would never be given back. A kept trace can be in no cycle itself, nor can the other classes so marked.
@cython.no_gc
cdef class KeptTrace:
    def __dealloc__(self):
        cdef uint32_t i
        if self.envelopes is not None:
            for i in range(self.group_count):
                self.envelopes.release(self.group_list[i].scope.envelope)
        free(self.group_list)
        free(self.data)

    cdef int sum_headers(self) except -1:
        """Sum the bytes of all headers once, where there are so many groups that header_bytes() would take long."""
        if self.group_count > MANY_GROUPS:
            self.all_headers = self.header_bytes(set())
        return 0

    @property
    def metadata(self):
        cdef Envelope* found = self.group_list[0].scope.envelope.parent.parent
        return b"" if found == NULL else (<const uint8_t*>found.data)[:found.size]

    def header_bytes(self, set seen not None):
        cdef uint64_t size = 0
        cdef uint32_t i
        cdef Envelope* last = NULL
        cdef Envelope* envelope
        if self.all_headers:
            return self.all_headers
        for i in range(self.group_count):
            envelope = self.group_list[i].scope.envelope
            if envelope == last:
                continue
            last = envelope
            while envelope != NULL and <size_t>envelope not in seen:  # with a scope, its resource has been seen
                seen.add(<size_t>envelope)
                size += HEADER_FRAME + envelope.size
                envelope = envelope.parent
        return size
