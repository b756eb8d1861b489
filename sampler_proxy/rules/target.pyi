"""Controls a rate by a target: so many traces, spans or bytes per second, divided fairly among keys.

`rate` has the words, and the interface of all controllers.
"""

from typing import final

from sampler_proxy.rules.rate import Controller

@final
class Target(Controller):
    """Holds a rate, whatever comes, and divides it among keys by max-min fairness (water-filling): keys with less
    demand than the level are kept whole, all others at the level, and the level is such that it adds up. So small keys
    leave what they do not need to large ones, and no large key hides a small one.

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
        """Set the target. `per_second`: weight. `max_keys`: about 200 bytes each and the text, allocated as they come.
        `seed`: 64 bits, for decide() only.

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
