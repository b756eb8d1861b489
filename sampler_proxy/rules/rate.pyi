"""Rate controllers: they give the threshold of each trace that a rule decides, and learn from being asked.

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
    """The first three over the last 5 s; `probability` is kept / demand, 1 without demand."""

    demand_per_s: float
    kept_per_s: float
    probability: float
    keys: int = 0
    level_per_s: float = 0.0  # demand up to which a key is kept whole
    pool_demand_per_s: float = 0.0
    pool_probability: float = 1.0

class KeyRate(NamedTuple):
    text: bytes  # as `threshold` was told; any bytes
    demand_per_s: float
    probability: float

class Learned(NamedTuple):
    level: float
    demands: list[tuple[bytes, float]]  # text of each key, and its demand per second

class Controller:
    """What all have. Made as Fixed or Target."""

    @property
    def always(self) -> bool:
        """It keeps everything: its threshold is always ALWAYS."""
    @property
    def keyed(self) -> bool:
        """It has to be told keys."""
    def decide(self, key: bytes = b"", weight: float = 1.0, incoming: float = 1.0, *, now_ns: int) -> int:
        """`threshold`, with the key's hash made from its text by the controller's own seed; for tests and tools."""
    def hold(self) -> None:
        """From now on probabilities stay what they are, and nothing more is learned: for what is decided all at once at
        the end. One that has not been asked yet goes on adapting."""
    def stats(self, now_ns: int) -> Stats:
        """Changes nothing, so that looking at it does not either."""
    def top(self, n: int) -> list[KeyRate]:
        """The n keys (at most 1000) with the largest demand, largest first, as of the last trace. Linear in the number
        of keys."""
    def learned(self) -> Learned:
        """What is worth keeping over a restart: at most `max_keys` demands. Level 0 where nothing is learned."""
    def restore(self, level: float, demands: Mapping[bytes, float], fingerprint: Callable[[bytes], bytes]) -> None:
        """Go on from a level, and from demands by the fingerprint of a key's text. They are taken over as keys are seen
        first, and forgotten a minute later. `fingerprint` is called for such keys only; where it raises, the rest is
        forgotten. Numbers that cannot be are left out."""

class Fixed(Controller):
    """The same probability for all. `always` where it rounds to 1."""

    def __init__(self, probability: float) -> None:
        """Raises ValueError unless 0 <= probability <= 1."""
    @property
    def probability(self) -> float: ...

class Target(Controller):
    """A rate that is held, whatever comes: the target is shared between keys by water-filling. Keys with less demand
    than the level are kept whole, all others at the level; the level is such that it adds up. So small keys leave what
    they do not need to large ones, and no large key hides a small one.

    A key's first half second is the pool's: one key made of all that are new, and of those for which there is no room
    among `max_keys`. Its level is at least a tenth of the target (as long as that is less than a quarter of what is
    kept), and its probability falls with every trace that comes. Until it is known for 3 s a key has the better of its
    own and the pool's probability. A key is forgotten after 300 s of silence, or 10 s where three quarters of the room
    are taken.

    How closely: with a target of 100 traces/s and Poisson arrivals, kept is within 5 % over any 5 s from 10 s after a
    jump of traffic, and never above 1.5 times the target over 2 s. Where single traces are a fifth of a second's target
    it is 15 %; and with few traces (a target of 1/s) it takes minutes for them to add up. The variance of counts is
    within twice that of exact water-filling. A trace that is larger than 60 s of the target counts as so much.

    `at_least` and `at_most` bound each trace's probability; where `at_least` of the demand is more than the target, so
    is what is kept. What is unspent is made up for later, as far as it is no more than 0.3 s of the target (or eight
    traces, if that is more); what is overspent up to three times that.

    `minimum_per_second` (in traces; 0: none) is what each key has on average while it has traffic. What is owed to a
    key grows with time, up to one trace, and shrinks by the probability of each trace of it that is left to the draw;
    where a whole trace is owed, the next is admitted before the draw, with threshold ALWAYS. So the first trace of a
    key is kept, and a key whose draws keep enough needs no more. An admission depends on probabilities, not on what the
    draw made of them, so it biases no count. Admissions come out of the target and take half of it at most: with too
    many keys for that, theirs come less often. The pool's keys have one minimum together."""

    def __init__(
        self,
        *,
        per_second: float,
        keyed: bool,
        at_least: float = 0.0,
        at_most: float = 1.0,
        minimum_per_second: float = 0.0,
        max_keys: int = 65536,
        seed: int,
    ) -> None:
        """`per_second`: weight. `max_keys`: about 200 bytes each and the text, allocated as they come. `seed`: 64 bits,
        for decide() only.

        Raises ValueError unless 1e-6 <= per_second <= 1e15, 0 <= at_least <= at_most, 0 < at_most <= 1,
        0 <= minimum_per_second <= 1e15 and 1 <= max_keys <= 2**24; MemoryError.
        """
    @property
    def per_second(self) -> float: ...
    @property
    def at_least(self) -> float: ...
    @property
    def at_most(self) -> float: ...
    @property
    def minimum_per_second(self) -> float: ...

def threshold_of(probability: float) -> int:
    """Return what `otlp.sampling.threshold_of` returns: its native twin."""
