"""A table of keys, each there once, at most `most` of them.

The keys lie side by side in an array, for whoever walks over all of them, with an open-addressing index over it (linear probing,
deletion by shifting back). A key is known by 128 bits that senders cannot choose: nothing compares its text. Positions and pointers
are valid until the next add() or forget().
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef enum:
    FIRST_ROOM = 64


cdef class Keys:
    def __cinit__(self, uint32_t most):
        self.most = most
        self.room = FIRST_ROOM
        self.mask = 2 * FIRST_ROOM - 1
        self.keys = <Key*>malloc(FIRST_ROOM * sizeof(Key))
        self.table = <uint32_t*>calloc(self.mask + 1, sizeof(uint32_t))
        if self.keys == NULL or self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            free(self.keys[i].text)
        free(self.keys)
        free(self.table)

    cdef Key* find(self, const uint64_t* id) noexcept nogil:
        cdef uint64_t at = id[0] & self.mask
        cdef Key* key
        while self.table[at]:
            key = &self.keys[self.table[at] - 1]
            if key.id[0] == id[0] and key.id[1] == id[1]:
                return key
            at = (at + 1) & self.mask
        return NULL

    cdef Key* add(self, const uint64_t* id, const uint8_t* text, uint32_t size) noexcept nogil:
        """A key that is not there yet, all zero but for its name; NULL where there is no room, or no memory, for it."""
        cdef uint64_t at = 0
        cdef Key* key
        if self.count >= self.most or (self.count == self.room and not self.grow()):
            return NULL
        key = &self.keys[self.count]
        memset(key, 0, sizeof(Key))
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
        while self.table[at]:
            at = (at + 1) & self.mask
        self.table[at] = self.count
        return key

    cdef bint grow(self) noexcept nogil:
        """Double the room; False, and nothing has changed, where there is no memory."""
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint64_t at
        cdef uint32_t i
        cdef uint32_t* table = <uint32_t*>calloc(mask + 1, sizeof(uint32_t))
        cdef void* keys = NULL
        if table != NULL:
            keys = realloc(self.keys, 2 * <size_t>self.room * sizeof(Key))
        if keys == NULL:
            free(table)
            return False
        self.keys = <Key*>keys
        self.room *= 2
        for i in range(self.count):
            at = self.keys[i].id[0] & mask
            while table[at]:
                at = (at + 1) & mask
            table[at] = i + 1
        free(self.table)
        self.table = table
        self.mask = mask
        return True

    cdef void forget(self, uint32_t position) noexcept nogil:
        """The last key takes its position: who forgets some while walking over all has to walk backwards."""
        cdef uint64_t hole = self.keys[position].id[0] & self.mask
        cdef uint64_t at, home
        while self.table[hole] != position + 1:
            hole = (hole + 1) & self.mask
        at = (hole + 1) & self.mask
        while self.table[at]:
            home = self.keys[self.table[at] - 1].id[0] & self.mask
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                hole = at
            at = (at + 1) & self.mask
        self.table[hole] = 0
        free(self.keys[position].text)
        self.count -= 1
        if position != self.count:
            at = self.keys[self.count].id[0] & self.mask
            while self.table[at] != self.count + 1:
                at = (at + 1) & self.mask
            self.table[at] = position + 1
            self.keys[position] = self.keys[self.count]
