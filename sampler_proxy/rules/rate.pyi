"""Controls rates: gives the threshold of each trace that a rule decides, and learns from being asked.

Words. *Weight* is what a target counts of a trace: 1, its spans or its bytes. A trace that comes with an incoming
probability p_in (its `th`; 1 without) stands for 1 / p_in *originals*; with a rule's probability p it is kept, now that
it has come, with min(1, p / p_in). *Demand* is the weight of originals per second, *kept* the expected weight that is
kept, the sum of weight * min(1, p / p_in). A target T is held in the sense that kept is T per second, or all where
there is less.

From Cython a controller is asked by

    uint64_t threshold(
        const uint64_t* key, const uint8_t* text, uint32_t size, double weight, double incoming, int64_t now_ns
    )

once for each trace, under the pipeline's lock. `key`: 128 bits of a seeded hash of the key's values, which is its
identity; `text`: a readable form of it, of which 256 bytes are copied; both are NULL where `keyed` is False. `now_ns`
is monotonic; time that goes back counts as standing still. The answer is a threshold from sampling.ALWAYS to
sampling.NEVER, rounded as sampling.threshold_of does. It never fails: a weight, or an incoming probability, that cannot
be is taken as 1, and a key for which there is no memory shares the pool.

A threshold depends on the times, keys, weights and incoming probabilities of this trace and those before it, and on no
trace's randomness. So the sum of adjusted counts over kept traces is an unbiased estimate, whatever a controller does.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

class Stats(NamedTuple):
    """A controller's rates now. The first three over the last 5 s; `probability` is kept / demand, 1 without demand."""

    demand_per_s: float
    kept_per_s: float
    probability: float
    keys: int = 0
    level_per_s: float = 0.0  # demand up to which a key is kept whole
    pool_demand_per_s: float = 0.0
    pool_probability: float = 1.0

class KeyRate(NamedTuple):
    """One key's rate now."""

    text: bytes  # as `threshold` was given it; any bytes
    demand_per_s: float
    probability: float

class Learned(NamedTuple):
    """The level and demands that are worth keeping over a restart."""

    level: float
    demands: list[tuple[bytes, float]]  # text of each key, and its demand per second

class Controller:
    """The interface of all controllers. Made as `Fixed` or `target.Target`."""

    @property
    def always(self) -> bool:
        """Tell whether everything is kept: every threshold is ALWAYS."""
    @property
    def keyed(self) -> bool:
        """Tell whether `threshold` needs keys."""
    def decide(self, key: bytes = b"", weight: float = 1.0, incoming: float = 1.0, *, now_ns: int) -> int:
        """Call `threshold`, with a hash of the key's text under the controller's own seed; for tests and tools."""
    def hold(self) -> None:
        """Freeze the probabilities and learn nothing more: for the traces that are decided all at once at the end. A
        controller that has not been asked yet goes on adapting."""
    def stats(self, now_ns: int) -> Stats:
        """Return the rates now. Changes nothing, so that no decision depends on being looked at."""
    def top(self, n: int) -> list[KeyRate]:
        """Return the n keys (at most 1000) with the largest demand, largest first, as of the last trace. Linear in the
        number of keys."""
    def learned(self) -> Learned:
        """Return the level and demands that are worth keeping over a restart: at most `max_keys` demands. Level 0 where
        nothing is learned."""
    def restore(self, level: float, demands: Mapping[bytes, float], fingerprint: Callable[[bytes], bytes]) -> None:
        """Go on from a level, and from demands by the fingerprint of a key's text. A demand is taken over when its key
        is first seen, and forgotten after a minute. `fingerprint` is called for such keys only; where it raises, the
        rest is forgotten. Numbers that cannot be are left out."""

class Fixed(Controller):
    """The same probability for all traces. `always` where it rounds to 1."""

    def __init__(self, probability: float) -> None:
        """Fix the probability. Raises ValueError unless 0 <= probability <= 1."""
    @property
    def probability(self) -> float: ...

def threshold_of(probability: float) -> int:
    """Return what `otlp.sampling.threshold_of` returns: its native twin."""
