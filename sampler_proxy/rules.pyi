"""A rule set: the first rule that matches a trace decides it. Asked by a pipeline, under its lock."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sampler_proxy._plan import Plan
from sampler_proxy.conditions import Slot
from sampler_proxy.rate import Controller
from sampler_proxy.traceql.plan import Compiled

UNITS: tuple[str, ...]
"""What a rate counts: traces, spans, bytes."""

class Keep(NamedTuple):
    """How much a rule keeps."""

    controller: Controller
    slots: tuple[Slot, ...] = ()  # what tells traces apart for a controller that is keyed
    unit: str = "traces"  # what it counts

class RuleSet:
    def __init__(
        self,
        *,
        names: Sequence[str],
        keeps: Sequence[float | Keep],
        compiled: Compiled,
        ledger_id: Callable[[str], int],
        seed: int = 0,
    ) -> None:
        """One name, and one probability in [0, 1] or controller, for each rule of `compiled`, in order. The last rule
        must match everything: its program is (TRUE,). `ledger_id` gives each name its number in the counters.
        `seed`: 64 bits that senders cannot know, so that they cannot choose span ids or values that collide.

        Raises ValueError for a rule set that does not fit together: lengths that differ, no rule, a last rule that does
        not match everything, an operand that is not there, a program that does not leave one answer, a controller that
        is keyed without slots.
        """
    @property
    def plan(self) -> Plan: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def count(self) -> int: ...
    @property
    def controllers(self) -> list[Controller]: ...

class Judged(NamedTuple):
    """What rules say of one trace."""

    trace_id: bytes
    rule: int  # its index
    threshold: int | None  # None: it depends on the traffic
    randomness: int
    keep: bool | None
    spans: int  # those that arrived twice counted twice

def judge(
    names: Sequence[str], keeps: Sequence[float | Keep], compiled: Compiled, requests: Iterable[bytes]
) -> list[Judged]:
    """Decide the traces of some ExportTraceServiceRequests, each as a whole, in the order in which they appear. Spans
    with an invalid id are left out.

    Raises MalformedRequest, and ValueError as RuleSet does.
    """

def select(compiled: Compiled, requests: Iterable[bytes]) -> dict[bytes, list[list[bytes]]]:
    """For each trace and each filter of a `compile_selection`: the ids of the spans that the filter holds for, in
    order of arrival. Of a span id that arrives twice the first counts. Raises MalformedRequest.
    """
