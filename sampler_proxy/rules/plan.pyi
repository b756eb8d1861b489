"""Lays out for the scan what one pass over a span has to look for."""

from collections.abc import Collection, Sequence

from sampler_proxy.traceql.program import Comparison, Condition, Term

class Plan:
    """The questions of a rule set about each span; immutable, shared by threads."""

    def __init__(
        self,
        conditions: Sequence[Condition],
        filters: Sequence[Sequence[int]],
        *,
        comparisons: Sequence[Comparison] = (),
        trace_conditions: int = 0,
        deferred: Collection[int] = (),
        arguments: Sequence[Term] = (),
    ) -> None:
        """Lay out filters. Each is a postfix program whose operands number the conditions, then the comparisons, then
        the trace conditions (`traceql/program.py`); the scan records in each fragment which filters some span of it
        matches. Filters in `deferred` are answered only when a trace is read again (`trace_matcher`), which also
        evaluates the `arguments` of aggregates for each span.

        Raises ValueError for a condition on the trace, an operand that is not there, a filter on the trace that is not
        deferred, and a program that does not leave exactly one answer or needs more than 512 values at a time (a term:
        256).
        """
    @property
    def serial(self) -> int:
        """A number from 1, different for every plan of this process."""
