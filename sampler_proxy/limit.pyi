"""The hard cap on what leaves: traces that their rules keep wait for up to a second, and compete for the budget.

A window opens with the first trace that waits and may be closed a second later; it spends `per_second` times its
length. The part `floor` of that is shared equally among the rules that have traces in it, as far as they need it. The
rest is given from the first rule of the file down, each taking what it needs and is left. Within a rule traces are
admitted by their randomness R, largest first; the first that does not fit is the last that is looked at. With
R_rejected its randomness, those admitted leave with the threshold max(their own, R_rejected + 1), which keeps the sum
of adjusted counts an unbiased estimate of what there was.

The first trace of each rule is admitted whatever its size. What that overspends, and what leaves without waiting (late
spans), is owed by the next windows: a window stays open until its time has paid, at most 10 s of debts. Time that
nothing was waiting for pays debts and buys nothing.

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
    def owe(self, size: float) -> None:
        """So much has left without waiting."""
    def is_due(self, now_ns: int) -> bool:
        """Whether a second is over and the debts are paid."""
    def verdicts(self, now_ns: int) -> list[tuple[int, bool, int]]:
        """Close the window: (number, admitted, threshold) of each trace that waited, by rule, then by R from the
        largest down. A rejected trace lies below its threshold. Raises MemoryError, and has then changed nothing."""
