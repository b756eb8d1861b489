"""The byte-bounded store of undecided traces. Filled and emptied by a pipeline, under its lock; Python may look on."""

from sampler_proxy.otlp.fragments import Envelopes

class Buffer:
    def __init__(self, envelopes: Envelopes, *, wait_ns: int, wait_after_root_ns: int, seed: int) -> None:
        """A trace is due `wait_ns` after its first span, or `wait_after_root_ns` after its first root came, if that is
        sooner; 0: at once. `seed`: 64 bits that senders cannot know."""
    @property
    def envelopes(self) -> Envelopes: ...
    @property
    def wait_ns(self) -> int: ...
    @property
    def wait_after_root_ns(self) -> int: ...
    @property
    def traces(self) -> int: ...
    @property
    def spans(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes of memory held by fragments, traces, tables and envelopes, as the allocator counts them (within 5 % of
        the growth of RSS; fragmentation, up to 20 % with small requests, comes on top). Tables never shrink: 16 bytes
        for each trace that has room."""
    @property
    def oldest_ns(self) -> int | None:
        """When the first span of the oldest trace came; None: there is none."""
