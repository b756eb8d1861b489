"""Numbers the resources and scopes above a trace's spans, and interns them as they leave.

What a header has become is noted in its envelope (`Form`), under this redactor and a view: the next trace under it need
not walk it again. Forms go with their envelope or with the redactor; they are in the account of the envelopes.
"""
cimport cython
from libc.stdlib cimport free, realloc

from sampler_proxy.otlp.fragments cimport Form
from sampler_proxy.otlp.protobuf cimport (
    FieldCursor, LEN, M_RESOURCE_SPANS, M_SCOPE_SPANS, MAX_DEPTH, Message, cursor, next_field,
)
from sampler_proxy.otlp.utf8 cimport repaired, strings_are_valid
from sampler_proxy.redact.value_cache cimport MAX_KEY_BYTES

cdef enum:
    MAX_ENTITY_KEYS = 1024
    MAX_KEPT_DOCS = 1 << 18  # for the next trace

cdef uint64_t redactors = 0  # so far; the GIL is held


@cython.no_gc_clear  # __dealloc__ needs the envelopes
cdef class Headers:
    def __cinit__(self, Envelopes envelopes not None):
        global redactors
        redactors += 1
        self.serial = redactors
        self.envelopes = envelopes
        self.entity_keys = set()

    def __dealloc__(self):
        if self.envelopes is not None:
            self.release()
            self.envelopes.forget(self.serial)
        free(self.docs)

    cdef uint32_t add(self, Envelope* envelope) except? 0xFFFFFFFF:
        """Add a header, and return its number, which is written into its envelope."""
        cdef void* grown
        if self.count == self.room:
            grown = realloc(self.docs, (2 * <uint64_t>self.room + 16) * sizeof(HeaderDoc))
            if grown == NULL:
                raise MemoryError
            self.docs = <HeaderDoc*>grown
            self.room = 2 * self.room + 16
        self.docs[self.count].envelope = envelope
        self.docs[self.count].leaving = NULL
        envelope.redacted = self.count
        self.count += 1
        return envelope.redacted

    cdef bint recall(self, HeaderDoc* header, Envelope* parent, uint64_t view, Edits edits) except -1:
        """Tell whether it is known what a header becomes in a view, as a child of `parent`, and have it so, its
        redactions counted again."""
        cdef Form* form = header.envelope.forms
        cdef Envelope* leaving
        while form != NULL:
            leaving = header.envelope if form.leaving == NULL else form.leaving
            if form.redactor == self.serial and form.view == view and leaving.parent == parent:
                leaving.refs += 1
                header.leaving = leaving
                if form.counts != NULL:
                    edits.add_counts(<tuple>form.counts)
                return True
            form = form.next
        return False

    cdef int read_entities(self, cbytes p, cbytes end) except -1:
        """Read the keys that entity references (ResourceSpans.resource.entity_refs) name: id_keys and
        description_keys."""
        cdef FieldCursor field = cursor(p, end, MAX_DEPTH)
        cdef FieldCursor resource, reference
        if self.entity_keys:
            self.entity_keys.clear()
        self.all_named = False
        while next_field(&field):
            if field.wire != LEN or field.number != 1:
                continue
            resource = cursor(field.content, field.p, MAX_DEPTH)
            while next_field(&resource):
                if resource.wire != LEN or resource.number != 3:
                    continue
                reference = cursor(resource.content, resource.p, MAX_DEPTH)
                while next_field(&reference):
                    if reference.wire != LEN or not 3 <= reference.number <= 4:
                        continue
                    if reference.size > MAX_KEY_BYTES:  # is masked in any case
                        continue
                    if len(self.entity_keys) == MAX_ENTITY_KEYS:
                        self.all_named = True
                        return 0
                    self.entity_keys.add(<bytes>reference.content[:reference.size])
        return 0

    cdef bint names(self, cbytes p, uint32_t size) except -1:
        """Tell whether an entity reference of the last resource names a key, so that its attribute must stay."""
        return bool(self.entity_keys) and (self.all_named or p[:size] in self.entity_keys)

    cdef int intern(self, HeaderDoc* header, Envelope* parent, bint is_scope, Doc* doc, Edits edits) except -1:
        """Intern a header as it leaves, of which nothing is pending, below what its resource has become."""
        cdef Message message = M_SCOPE_SPANS if is_scope else M_RESOURCE_SPANS
        cdef cbytes data = doc.data
        cdef uint32_t size = doc.size
        cdef bint valid
        cdef bytes whole
        if doc.changed:
            data = edits.out + doc.offset
            size = doc.out_size
            # Envelopes were repaired when they came; what has been cut may not fall between characters.
            with nogil:
                valid = strings_are_valid(message, data, data + size)
            if not valid:
                whole = repaired(message, data, size)
                data = <cbytes><const char*>whole
                size = <uint32_t>len(whole)
        header.leaving = self.envelopes.intern(parent, data, size)
        return 0

    cdef void release(self) noexcept:
        """Forget the trace's headers, and give back the references to what they have become."""
        cdef uint32_t i
        for i in range(self.count):
            if self.docs[i].leaving != NULL:
                self.envelopes.release(self.docs[i].leaving)
        self.count = 0
        if self.room > MAX_KEPT_DOCS:
            free(self.docs)
            self.docs = NULL
            self.room = 0
