"""Reads the key of a trace for a target's `per`: the values of some fields of its root span, else of its earliest
span."""

from collections.abc import Iterable

from sampler_proxy.traceql.program import Slot

KEY_SEPARATOR: bytes
MISSING: bytes

class TraceKeyReader:
    """Reads keys for one rule of a rule set, under the pipeline's lock."""

    def __init__(self, slots: Iterable[Slot], *, seed: int = 0) -> None:
        """Create a reader of one or more fields, all different, of a span, its scope or its resource. `seed`: 64 bits
        that senders cannot know, so that they cannot choose values that collide."""

def values_of(text: bytes) -> list[str | None]:
    """Return the values in a key's text, one for each field, each cut to its share of 256 bytes; None for a missing
    one."""

def room_of(fields: int) -> int:
    """Return how many bytes each of so many values may have in a text; a value of that size has been cut."""
