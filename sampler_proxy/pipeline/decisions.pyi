"""Remembers decisions: exact, bounded in bytes, evicting first in, first out."""

class Decisions:
    """Remembers the last `max_bytes // 59` decisions, 1024 at least. Filled and asked by a pipeline, under its lock."""

    def __init__(self, max_bytes: int, *, seed: int) -> None:
        """Reserve the memory; it is touched only as it fills. `seed`: 64 bits that senders cannot know, so that they
        cannot choose trace ids that collide. Raises MemoryError."""
    @property
    def count(self) -> int:
        """Number of traces whose decision is remembered; each stands in it once."""
    @property
    def nbytes(self) -> int:
        """Bytes in use: 48 for each decision, and the hash table, which is there from the start."""
