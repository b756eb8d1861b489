"""Holds native memory behind small Python objects: scanned requests, the traces in the buffer, and those that leave.

A fragment is all spans of one trace in one request: one block with what the scan read of them and a copy of their
bytes. Fragments, and the traces in the buffer, are no Python objects. The header of a ResourceSpans or ScopeSpans (its
known fields but the spans inside) is an envelope: interned, held once however many fragments lie in it, and freed with
the last of them.

Nothing here raises. Sizes are bytes of memory, the allocator's overhead included.
"""

class Scanned:
    """One request, cut into fragments, which it owns until a pipeline takes them over."""

    @property
    def spans(self) -> int:
        """Valid spans: all that lie in the fragments."""
    @property
    def invalid_trace_ids(self) -> int:
        """Spans left out: the trace id is not 16 bytes, or all zero."""
    @property
    def invalid_span_ids(self) -> int:
        """Spans left out whose trace id is valid: the span id is not 8 bytes, or all zero."""
    @property
    def legacy_spans(self) -> int:
        """Spans left out since they stood in the deprecated field of a ResourceSpans that has other spans, too."""
    @property
    def unknown_of_request(self) -> int:
        """Fields that OTLP does not define, left out with what they held: those of the request itself."""
    @property
    def unknown_of_resource_spans(self) -> int:
        """The same, of its ResourceSpans."""
    @property
    def unknown_of_scope_spans(self) -> int:
        """The same, of its ScopeSpans."""
    @property
    def cost(self) -> int:
        """Bytes that the fragments hold; envelopes apart."""

class Envelopes:
    """The interned headers of one pipeline: a hash table with chains. Used with the GIL held, by any thread."""

    def __init__(self, *, seed: int = 0) -> None:
        """Create an empty table. `seed`: 64 bits that senders cannot know, so that they cannot choose headers that
        collide."""
    def __len__(self) -> int:
        """Count the different headers held, those of resources and those of scopes."""
    @property
    def cost(self) -> int:
        """Bytes that the headers hold, the table included, which grows and never shrinks."""

class KeptTrace:
    """A decided trace, or late spans of one, as it leaves: stamped, repaired, immutable, independent of the buffer.

    Made by a pipeline only. Several destinations may share it. It holds its envelopes for as long as it lives.
    """

    @property
    def trace_id(self) -> bytes:
        """16 bytes."""
    @property
    def spans(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes of memory held; envelopes apart."""
    @property
    def metadata(self) -> bytes:
        """What its requests came with, as encoded by otlp/metadata.py; b"" for none. One for all of its spans: of a
        trace that came with different metadata each part leaves as a trace of its own."""
    def header_bytes(self, seen: set[int]) -> int:
        """Return the bytes that the trace's headers take in a request, those in `seen` apart, and add them to `seen`:
        by numbers that are their own for as long as a trace with them lives. With `nbytes` that is no less than
        assemble() makes of them. Of a trace with thousands of groups all headers are counted, whatever `seen` holds.

        Raises MemoryError: `seen` is of no use then.
        """
    @property
    def rule(self) -> int:
        """The pipeline's number of the rule that decided the trace."""
    @property
    def sampled_out(self) -> bool:
        """Tell whether the trace was decided not to be kept: it leaves for destinations that take such ones, too."""
    waiting: int
    """Destinations that have not taken it yet. The pipeline's own."""
