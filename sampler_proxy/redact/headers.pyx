"""Numbers the resources and scopes above a trace's spans, each redacted once, and interns them as they leave."""
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from sampler_proxy.otlp.protobuf cimport (
    FieldCursor, LEN, M_RESOURCE_SPANS, M_SCOPE_SPANS, MAX_DEPTH, cursor, next_field,
)
from sampler_proxy.otlp.utf8 cimport repaired
from sampler_proxy.redact.value_cache cimport MAX_KEY_BYTES

cdef enum:
    MAX_ENTITY_KEYS = 1024


cdef class Headers:
    def __cinit__(self, Envelopes envelopes not None):
        self.envelopes = envelopes
        self.entity_keys = set()

    def __dealloc__(self):
        free(self.docs)

    cdef HeaderDoc* add(self, Envelope* envelope, bint is_scope, uint32_t parent) except NULL:
        """Add a header, whose number is written into its envelope. The pointer is valid until the next one."""
        cdef void* grown
        cdef HeaderDoc* header
        if self.count == self.room:
            grown = realloc(self.docs, (2 * self.room + 16) * sizeof(HeaderDoc))
            if grown == NULL:
                raise MemoryError
            self.docs = <HeaderDoc*>grown
            self.room = 2 * self.room + 16
        header = &self.docs[self.count]
        memset(header, 0, sizeof(HeaderDoc))
        header.envelope = envelope
        header.is_scope = is_scope
        header.parent = parent
        header.doc.data = envelope.data
        header.doc.size = envelope.size
        envelope.redacted = self.count
        self.count += 1
        return header

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

    cdef int intern_all(self, Edits edits) except -1:
        """Intern every header as it leaves, once nothing of it is pending."""
        cdef uint32_t i
        cdef HeaderDoc* header
        cdef Envelope* parent
        cdef cbytes data
        cdef uint32_t size
        cdef bytes whole
        for i in range(self.count):  # a resource comes before its scopes
            header = &self.docs[i]
            parent = self.docs[header.parent].leaving if header.is_scope else NULL
            data = header.doc.data
            size = header.doc.size
            if header.doc.changed:
                data = edits.out + header.doc.offset
                size = header.doc.out_size
                # Envelopes were repaired when they came; what has been cut may not fall between characters.
                whole = repaired(M_SCOPE_SPANS if header.is_scope else M_RESOURCE_SPANS, data, size)
                if whole is not None:
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
                self.docs[i].leaving = NULL
        self.count = 0
