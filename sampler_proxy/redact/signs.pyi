"""Finds the signs of secrets in many texts at once: a glance, by bytes, before any pattern is asked."""

from collections.abc import Sequence

from sampler_proxy.redact.detectors.types import Digits, Sign

class Signs:
    """Looks for the signs of up to 64 groups. Each three bytes are looked up in a table of those with which a sign can
    begin, so that most texts cost one look a byte; immutable, usable by many threads."""

    def __init__(self, groups: Sequence[Sequence[Sign | Digits]]) -> None:
        """Compile the signs. Raises ValueError for more than 64 groups, or an empty or impossible sign."""

    def values(self, joined: bytes) -> list[tuple[int, int, list[int]]]:
        """Find the values, of those that are joined by SEPARATOR, that have a sign: where each begins and ends, and
        the groups whose signs it has, ascending. What stands behind the last SEPARATOR counts for nothing. Raises
        nothing but MemoryError; linear time."""
    def places(self, text: bytes) -> list[int]:
        """Find every position of a text, which ends in SEPARATOR, where a sign begins that is no number."""
