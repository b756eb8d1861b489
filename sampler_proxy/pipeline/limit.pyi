"""Holds the hard cap on what leaves: traces that their rules keep wait for up to a second, and compete for a budget.

A window opens with the first candidate and may be closed a second later; its budget is `per_second` times its length.
The part `floor` of the budget is divided equally among the rules that have candidates in it, none getting more than it
demands (max-min fairness). The rest is given from the first rule of the file down, each taking what it needs and is
left. Within a rule candidates are admitted by their randomness R, largest first; the first that does not fit is the
last that is looked at. With R_rejected its randomness, those admitted leave with the threshold max(their own,
R_rejected + 1), which keeps the sum of adjusted counts an unbiased estimate of what there was.

Where not even the first of a rule fits, it is admitted by chance: with the probability (budget over size, and less
where several might have been the first) that spends the budget on average, and a threshold that says so. So a trace
that is larger than the budget has its chance, the cap holds, and no rule is left without an estimate, as long as its
part of the budget is not 0.

A window may be closed before its time, where memory runs out; the next one then has the budget that it did not spend.

Debts, a leaky bucket: what leaves without having waited (late spans) is owed, and paid from the budgets of the next
windows, of which a tenth is always left. Debts beyond 10 s of the limit are forgotten. Time without a window pays
debts and earns nothing.

Pure arithmetic, with time as an argument (monotonic nanoseconds). A pipeline uses it natively, under its lock; the
methods here are for tests and simulations. Sizes, budgets and debts are in the limit's unit.
"""

class Limit:
    """Collects the candidates of a window, and admits as many as its budget allows."""

    def __init__(self, per_second: float, unit: str, floor: float) -> None:
        """Set the limit. `unit`: traces, spans or bytes. Raises ValueError unless 0 < per_second, 0 <= floor <= 1."""
    def configure(self, per_second: float, unit: str, floor: float) -> None:
        """Change the limit, for the window that is open, too. Another unit forgives all debts. Raises ValueError as
        the constructor does, and has then changed nothing."""
    @property
    def per_second(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def floor(self) -> float: ...
    @property
    def count(self) -> int:
        """Number of candidates in the open window."""
    @property
    def owed(self) -> float:
        """Debts, in the limit's unit."""
    def offer(self, number: int, *, position: int, randomness: int, threshold: int, size: float, now_ns: int) -> None:
        """Add a candidate. `number` names it, `position` is its rule's in the file; R >= `threshold`. Raises
        MemoryError, and has then changed nothing."""
    def owe(self, size: float, now_ns: int) -> None:
        """Add to the debts what leaves without having waited."""
    def grant(self, seconds: float) -> None:
        """Add to the next window's budget, once, what the limit earns in this time."""
    def is_due(self, now_ns: int) -> bool:
        """Return whether the open window's second is over, and all outcomes of the last one have been collected."""
    def close_for_tests(self, now_ns: int) -> list[tuple[int, bool, int]]:
        """Close the window and return (number, admitted, threshold) of each candidate, by rule, then by R from the
        largest down. The R of a rejected one lies below its threshold. Raises MemoryError, and has then changed
        nothing."""
