"""Stores undecided traces, bounded in bytes.

A pipeline fills and empties the buffer, under its lock; Python may read the properties, best under the lock too.
"""

from typing import final

from sampler_proxy.otlp.fragments import Envelopes

@final
class Buffer:
    """Holds traces until they are decided, and says which are due."""

    def __init__(self, envelopes: Envelopes, *, wait_ns: int, wait_after_root_ns: int, seed: int) -> None:
        """Create an empty buffer. A trace is due `wait_ns` after its first span, or `wait_after_root_ns` after its
        first root came, if that is sooner; 0: at once. `seed`: 64 bits that senders cannot know, so that they cannot
        choose trace ids that collide. Raises MemoryError."""
    @property
    def envelopes(self) -> Envelopes:
        """The interned headers that the fragments refer to."""
    @property
    def wait_ns(self) -> int: ...
    @property
    def wait_after_root_ns(self) -> int: ...
    @property
    def traces(self) -> int:
        """Number of traces held, those that wait for the limit included."""
    @property
    def spans(self) -> int:
        """Number of spans held, those of traces that wait for the limit included."""
    @property
    def nbytes(self) -> int:
        """Bytes of memory held by fragments, traces, tables and envelopes, as the allocator counts them (within 5 % of
        the growth of RSS; fragmentation, up to 20 % with small requests, comes on top). Tables never shrink: 16 bytes
        for each trace that has room."""
    @property
    def oldest_ns(self) -> int | None:
        """Arrival of the first span of the oldest trace; None: no trace is held, save those that wait for the limit."""
