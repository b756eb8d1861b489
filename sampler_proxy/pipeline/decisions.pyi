"""The memory of decisions: exact, bounded in bytes, first in first out."""

class Decisions:
    """Remembers the last `max_bytes // 43` decisions, 1024 at least. Filled and asked by a pipeline, under its lock."""

    def __init__(self, max_bytes: int, *, seed: int) -> None:
        """Raises MemoryError. The memory is reserved at once, but touched only as it fills."""
    @property
    def count(self) -> int:
        """Traces whose decision is remembered; each stands in it once."""
    @property
    def nbytes(self) -> int:
        """Bytes in use: 32 for each decision, and the index, which is there from the start."""
