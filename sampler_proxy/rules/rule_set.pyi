"""Decides traces by a rule set: the first rule that matches a trace decides. Used by a pipeline, under its lock."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampler_proxy.rules.plan import Plan
from sampler_proxy.rules.rate import Controller
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.traceql.program import Field, Kind, Slot

UNITS: tuple[str, ...]
"""What a rate may count: traces, spans, bytes."""

class Keep(NamedTuple):
    """The rate that a rule keeps."""

    controller: Controller
    """Gives the threshold of each trace that the rule decides; its state belongs to the pipeline's lock."""
    slots: tuple[Slot, ...] = ()
    """For a keyed controller: the fields that tell traces apart, read from the root span. Empty for others."""
    unit: str = "traces"
    """What the controller counts of a trace as its weight: one of UNITS."""

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
        """Join rules into a set: one name, and one probability in [0, 1] or controller, for each rule of `compiled`, in
        order. The last rule must match everything: its program is (TRUE,). `ledger_id` gives each name its number in
        the counters. `seed`: 64 bits that senders cannot know, so that they cannot choose span ids or values that
        collide.

        Raises ValueError for a rule set that does not fit together: lengths that differ, no rule, a last rule that does
        not match everything, an operand that is not there, a program that does not leave one answer, a controller that
        is keyed without slots.
        """
    @property
    def effort(self) -> int:
        """Units of effort, each about a microsecond, that decisions have cost so far."""
    @property
    def beyond(self) -> bool:
        """Tell whether, of the trace that was asked about last, not all has been looked at."""
    @property
    def partly_read(self) -> int:
        """Count of the traces that were decided so."""
    def type_mismatches(self) -> list[tuple[int, list[tuple[Field, bytes, Kind, str]]]]:
        """Return, for each rule (its index) that compares attributes with constants, those of its comparisons that have
        met their attribute with other types only, as (where, key, kind of the constant, what the last value was). Since
        the rule set was made; without a lock, so that the last requests may be missing."""
    @property
    def plan(self) -> Plan: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def count(self) -> int: ...
    @property
    def controllers(self) -> list[Controller]: ...
