"""A rule set: the first rule that matches a trace decides it. Asked by a pipeline, under its lock."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sampler_proxy._plan import Plan
from sampler_proxy.traceql.plan import Compiled

class RuleSet:
    def __init__(
        self,
        *,
        names: Sequence[str],
        keeps: Sequence[float],
        compiled: Compiled,
        ledger_id: Callable[[str], int],
        seed: int = 0,
    ) -> None:
        """One name and one probability in [0, 1] for each rule of `compiled`, in order. The last rule must match
        everything: its program is (TRUE,). `ledger_id` gives each name its number in the counters.
        `seed`: 64 bits that senders cannot know, so that they cannot choose span ids or values that collide.

        Raises ValueError for a rule set that does not fit together: lengths that differ, no rule, a last rule that does
        not match everything, an operand that is not there, a program that does not leave one answer.
        """
    @property
    def plan(self) -> Plan: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def count(self) -> int: ...

class Judged(NamedTuple):
    """What rules say of one trace."""

    trace_id: bytes
    rule: int  # its index
    threshold: int
    randomness: int
    keep: bool
    spans: int  # those that arrived twice counted twice

def judge(names: Sequence[str], keeps: Sequence[float], compiled: Compiled, requests: Iterable[bytes]) -> list[Judged]:
    """Decide the traces of some ExportTraceServiceRequests, each as a whole, in the order in which they appear. Spans
    with an invalid id are left out.

    Raises MalformedRequest, and ValueError as RuleSet does.
    """

def select(compiled: Compiled, requests: Iterable[bytes]) -> dict[bytes, list[list[bytes]]]:
    """For each trace and each filter of a `compile_selection`: the ids of the spans that the filter holds for, in
    order of arrival. Of a span id that arrives twice the first counts. Raises MalformedRequest.
    """
