"""Holds the memory of the two caches; answer_cache.pxd reads and fills them."""
from libc.stdlib cimport calloc, free

cdef enum:
    MAX_FILTER_ENTRIES = 1024
    MAX_FILTER_BYTES = 1 << 18


cdef class TextCache:
    """Answers of conditions, by attribute and string. Some 100 KiB."""

    def __cinit__(self):
        self.entries = <TextEntry*>calloc(TEXT_ENTRIES, sizeof(TextEntry))
        if self.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.entries)


cdef class FilterCache:
    """Answers of filters, by the bits of a span. 1024 entries, as far as 256 KiB suffice."""

    def __cinit__(self, uint32_t words, uint32_t filter_words):
        cdef uint64_t entry_bytes = 8 * (1 + <uint64_t>words + filter_words)
        self.words = words
        self.filter_words = filter_words
        self.mask = MAX_FILTER_ENTRIES - 1
        while self.mask and (self.mask + 1) * entry_bytes > MAX_FILTER_BYTES:
            self.mask >>= 1
        self.entries = <uint64_t*>calloc(self.mask + 1, entry_bytes)
        if self.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.entries)
