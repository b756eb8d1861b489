"""The hard cap on what leaves: traces that their rules keep wait for up to a second, and compete for the budget.

A window opens with the first trace that waits and may be closed a second later; it spends `per_second` times its
length. The part `floor` of that is shared equally among the rules that have traces in it, as far as they need it. The
rest is given from the first rule of the file down, each taking what it needs and is left. Within a rule traces are
admitted by their randomness R, largest first; the first that does not fit is the last that is looked at. With
R_rejected its randomness, those admitted leave with the threshold max(their own, R_rejected + 1), which keeps the sum
of adjusted counts an unbiased estimate of what there was.

Where not even the first of a rule fits, it is admitted by chance: with the probability (budget over size, and less
where several might have been the first) that spends the budget on average, and a threshold that says so. So a trace
that is larger than the budget has its chance, the cap holds, and no rule is left without an estimate, as long as its
share is not 0.

A window may be closed before its time, where memory runs out; what it leaves of its budget is then the next one's.

What leaves without having waited (late spans) is owed, and paid by the next windows, a tenth of which is always left.
Beyond 10 s of the limit it is forgotten. Time that nothing was waiting for pays debts and buys nothing.

Pure arithmetic, with time as an argument; a pipeline uses it natively, what stands here is for tests and simulations.
"""

class Limit:
    def __init__(self, per_second: float, unit: str, floor: float) -> None:
        """`unit`: traces, spans or bytes, what `size` counts. Raises ValueError for values that make no sense."""
    def configure(self, per_second: float, unit: str, floor: float) -> None:
        """From now on; what waits is judged by it. Another unit forgives what is owed. Raises ValueError, too."""
    @property
    def per_second(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def floor(self) -> float: ...
    @property
    def count(self) -> int:
        """Traces that wait."""
    @property
    def owed(self) -> float:
        """Debts, in units."""
    def offer(self, number: int, *, position: int, randomness: int, threshold: int, size: float, now_ns: int) -> None:
        """A trace waits. `number` names it, `position` is its rule's in the file; R >= `threshold`. May raise
        MemoryError."""
    def owe(self, size: float, now_ns: int) -> None:
        """So much has left without waiting."""
    def grant(self, seconds: float) -> None:
        """The next window may spend what so long a time earns, once."""
    def is_due(self, now_ns: int) -> bool:
        """Whether its second is over."""
    def verdicts(self, now_ns: int) -> list[tuple[int, bool, int]]:
        """Close the window: (number, admitted, threshold) of each trace that waited, by rule, then by R from the
        largest down. A rejected trace lies below its threshold. Raises MemoryError, and has then changed nothing."""
