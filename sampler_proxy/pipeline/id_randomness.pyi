"""Whether trace ids look random."""

class Uniformity:
    """Looks at the two highest of the 56 bits' bytes, which decide what is sampled down to one in 65 536."""

    @property
    def random(self) -> bool:
        """Of the last 16 384 that were noted; True before. Chance alone says False once in 10^10 times."""
    def add(self, randomness: int) -> None:
        """Note one: 56 bits that were taken from a trace id whose trace no sampler has thinned out."""
