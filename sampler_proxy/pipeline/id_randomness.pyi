"""Tests whether trace ids look random: Pearson's chi-square test."""

class Uniformity:
    """Tests the two highest bytes of 56-bit randomness, which decide about probabilities down to one in 65 536."""

    @property
    def random(self) -> bool:
        """Tell whether the last whole block of 16 384 values looked uniform, and every 256 since; True before any.
        Uniform values fail once in 10^10 blocks. After a failure it is True again when a whole block, and all its
        parts, have looked uniform."""
    def add(self, randomness: int) -> None:
        """Record one value: 56 bits that were taken from the id of a trace that no sampler has thinned out."""
