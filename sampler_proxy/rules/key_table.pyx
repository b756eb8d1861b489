"""Holds keys in a hash table: linear probing with backward-shift deletion, bounded to `max_keys`.

The keys lie side by side in an array, for walks over all of them, with an open-addressing index over it, at most half
full. A key is identified by 128 bits that senders cannot choose: no text is compared. At `max_keys` no key is added
(nothing is evicted: the caller removes quiet keys). Positions and pointers are valid until the next add() or remove().
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef enum:
    FIRST_CAPACITY = 64


cdef class KeyTable:
    def __cinit__(self, uint32_t max_keys):
        self.max_keys = max_keys
        self.capacity = FIRST_CAPACITY
        self.mask = 2 * FIRST_CAPACITY - 1
        self.keys = <KeyState*>malloc(FIRST_CAPACITY * sizeof(KeyState))
        self.index = <uint32_t*>calloc(self.mask + 1, sizeof(uint32_t))
        if self.keys == NULL or self.index == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            free(self.keys[i].text)
        free(self.keys)
        free(self.index)

    cdef KeyState* find(self, const uint64_t* id) noexcept nogil:
        """Return a key; NULL if it is not there."""
        cdef uint64_t at = id[0] & self.mask
        cdef KeyState* key
        while self.index[at]:
            key = &self.keys[self.index[at] - 1]
            if key.id[0] == id[0] and key.id[1] == id[1]:
                return key
            at = (at + 1) & self.mask
        return NULL

    cdef KeyState* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept nogil:
        """Add a key that is not there yet, all zero but for id and text; NULL where there is no room, or no memory."""
        cdef uint64_t at = 0
        cdef KeyState* key
        if self.count >= self.max_keys or (self.count == self.capacity and not self.grow()):
            return NULL
        key = &self.keys[self.count]
        memset(key, 0, sizeof(KeyState))
        if size:
            key.text = <uint8_t*>malloc(size)
            if key.text == NULL:
                return NULL
            memcpy(key.text, text, size)
            key.size = size
        key.id[0] = id[0]
        key.id[1] = id[1]
        self.count += 1
        at = id[0] & self.mask
        while self.index[at]:
            at = (at + 1) & self.mask
        self.index[at] = self.count
        return key

    cdef bint grow(self) noexcept nogil:
        """Double the capacity and rebuild the index; False, and nothing has changed, where there is no memory."""
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t at
        cdef uint32_t i
        cdef uint32_t* index = <uint32_t*>calloc(mask + 1, sizeof(uint32_t))
        cdef void* keys = NULL
        if index != NULL:
            keys = realloc(self.keys, 2 * <size_t>self.capacity * sizeof(KeyState))
        if keys == NULL:
            free(index)
            return False
        self.keys = <KeyState*>keys
        self.capacity *= 2
        for i in range(self.count):
            at = self.keys[i].id[0] & mask
            while index[at]:
                at = (at + 1) & mask
            index[at] = i + 1
        free(self.index)
        self.index = index
        self.mask = mask
        return True

    cdef void remove(self, uint32_t position) noexcept nogil:
        """Remove a key. The last key takes its position: a walk over all keys that removes some has to go backwards."""
        cdef uint64_t hole = self.keys[position].id[0] & self.mask
        cdef uint64_t at, home
        while self.index[hole] != position + 1:
            hole = (hole + 1) & self.mask
        # Backward shift: an entry behind the hole moves into it unless its home lies behind the hole.
        at = (hole + 1) & self.mask
        while self.index[at]:
            home = self.keys[self.index[at] - 1].id[0] & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.index[hole] = self.index[at]
                hole = at
            at = (at + 1) & self.mask
        self.index[hole] = 0
        free(self.keys[position].text)
        self.count -= 1
        if position != self.count:
            at = self.keys[self.count].id[0] & self.mask
            while self.index[at] != self.count + 1:
                at = (at + 1) & self.mask
            self.index[at] = position + 1
            self.keys[position] = self.keys[self.count]
