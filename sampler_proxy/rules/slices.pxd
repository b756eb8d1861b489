"""Holds what is read of a span: slices of its bytes, and copies where these do not do. Header only."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

from sampler_proxy.otlp.protobuf cimport cbytes

cdef struct Slice:
    # Bytes that belong to somebody else.
    cbytes p
    uint32_t size

cdef struct SliceList:
    Slice* items  # owned; free() them
    uint32_t count, room

cdef enum:
    BLOCK_BYTES = 4000  # of a block, if no value in it is longer

cdef struct Scratch:
    # A block of memory; its bytes follow.
    Scratch* next
    uint64_t used, room  # bytes


cdef inline bint has_bytes(Slice* slice) noexcept nogil:
    """Return whether any byte is not zero: an id of zeros is no id."""
    cdef uint32_t i
    for i in range(slice.size):
        if slice.p[i]:
            return True
    return False


cdef inline uint32_t to_hex(cbytes p, uint32_t size, uint8_t* out) noexcept nogil:
    """Write 2 * size lower-case hex digits, and return how many these are."""
    cdef uint32_t i
    for i in range(size):
        out[2 * i] = (p[i] >> 4) + (48 if p[i] < 0xA0 else 87)
        out[2 * i + 1] = (p[i] & 15) + (48 if (p[i] & 15) < 10 else 87)
    return 2 * size


cdef inline bint append(SliceList* slices, cbytes p, uint32_t size) noexcept nogil:
    """Append a slice. Returns False where there is no memory; the list is as before then."""
    cdef void* grown
    if slices.count == slices.room:
        grown = realloc(slices.items, (2 * slices.room + 16) * sizeof(Slice))
        if grown == NULL:
            return False
        slices.items = <Slice*>grown
        slices.room = 2 * slices.room + 16
    slices.items[slices.count].p = p
    slices.items[slices.count].size = size
    slices.count += 1
    return True


cdef inline void shrink(SliceList* slices, uint32_t most) noexcept nogil:
    """Free the memory of a list with room for more than `most`."""
    if slices.room > most:
        free(slices.items)
        slices.items = NULL
        slices.count = slices.room = 0


cdef inline uint8_t* allocate(Scratch** blocks, uint64_t size) noexcept nogil:
    """Take bytes from the last block of a list, or from a new one; NULL where there is no memory."""
    cdef Scratch* block = blocks[0]
    cdef uint64_t room
    if block == NULL or block.room - block.used < size:
        room = max(size, <uint64_t>BLOCK_BYTES)
        block = <Scratch*>malloc(sizeof(Scratch) + room)
        if block == NULL:
            return NULL
        block.next = blocks[0]
        block.used = 0
        block.room = room
        blocks[0] = block
    block.used += size
    return <uint8_t*>block + sizeof(Scratch) + block.used - size


cdef inline void free_blocks(Scratch** blocks) noexcept nogil:
    """Free all blocks of a list."""
    cdef Scratch* block
    while blocks[0] != NULL:
        block = blocks[0]
        blocks[0] = block.next
        free(block)
