"""Caches what has been answered for one span and is asked again for the next: values repeat.

Both caches are direct-mapped: a key has one place, and displaces the one that is there. So a lookup is a hash and a
comparison, an entry is never wrong, and memory is bounded. Hashes are not seeded: a collision costs what the answers
cost without a cache.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from sampler_proxy.otlp.protobuf cimport load64, scramble

cdef enum:
    TEXT_ENTRIES = 1024
    MAX_CACHED_TEXT = 80  # bytes of a string in the cache
    MAX_TEXT_ANSWERS = 64

cdef struct TextEntry:
    # A string, and the answers of the conditions on its attribute.
    uint32_t consumers_end  # of its attribute in Plan.consumers, which tells attributes and places apart; 0: no entry
    uint32_t size
    uint64_t answers  # a bit by consumer
    uint8_t[MAX_CACHED_TEXT] text

cdef class TextCache:
    cdef TextEntry* entries

cdef class FilterCache:
    cdef uint64_t* entries  # each: 1 where it is in use, `words` bits of a span, `filter_words` answers
    cdef uint64_t mask  # entries - 1
    cdef uint32_t words, filter_words


cdef inline TextEntry* find_text(
    TextCache cache, uint32_t consumers_end, const uint8_t* text, uint32_t size, bint* hit
) noexcept nogil:
    """Return the entry of a string of at most MAX_CACHED_TEXT bytes. Without a hit it is new, and its answers are 0."""
    cdef uint64_t key = (<uint64_t>size << 32) ^ consumers_end
    cdef uint64_t word
    cdef uint32_t at = 0
    cdef TextEntry* entry
    while at + 8 <= size:
        key = (key ^ load64(text + at)) * 0xFF51AFD7ED558CCDULL
        key ^= key >> 32
        at += 8
    word = 0
    memcpy(&word, text + at, size - at)
    entry = &cache.entries[scramble((key ^ word) * 0xFF51AFD7ED558CCDULL) & (TEXT_ENTRIES - 1)]
    hit[0] = entry.consumers_end == consumers_end and entry.size == size and memcmp(entry.text, text, size) == 0
    if not hit[0]:
        entry.consumers_end = consumers_end
        entry.size = size
        entry.answers = 0
        memcpy(entry.text, text, size)
    return entry


cdef inline uint64_t* find_filters(FilterCache cache, const uint64_t* bits, bint* hit) noexcept nogil:
    """Return the filters' answers to the bits of a span. Without a hit the entry is new, and its answers are 0."""
    cdef uint32_t words = cache.words
    cdef uint64_t* entry
    cdef uint64_t key = 0x9E3779B97F4A7C15ULL
    cdef uint32_t i
    cdef bint equal
    for i in range(words):
        key = (key ^ bits[i]) * 0xFF51AFD7ED558CCDULL
        key ^= key >> 32
    entry = cache.entries + (key & cache.mask) * (1 + words + cache.filter_words)
    equal = entry[0]
    for i in range(words):
        equal &= entry[1 + i] == bits[i]
    hit[0] = equal
    if not equal:
        entry[0] = 1
        for i in range(words):
            entry[1 + i] = bits[i]
        for i in range(cache.filter_words):
            entry[1 + words + i] = 0
    return entry + 1 + words
