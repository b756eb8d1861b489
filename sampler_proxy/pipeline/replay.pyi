"""Decisions on whole files of traces, outside of any buffer: what `explain` and the tests ask."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.traceql.compiler import Compiled

class Decided(NamedTuple):
    """What rules say of one trace."""

    trace_id: bytes
    rule: int  # its index
    threshold: int | None  # None: it depends on the traffic
    randomness: int
    keep: bool | None
    spans: int  # those that arrived twice counted twice

def decide(
    names: Sequence[str], keeps: Sequence[float | Keep], compiled: Compiled, requests: Iterable[bytes]
) -> list[Decided]:
    """Decide the traces of some ExportTraceServiceRequests, each as a whole, in the order in which they appear. Spans
    with an invalid id are left out.

    Raises MalformedRequest, and ValueError as RuleSet does.
    """

def select(compiled: Compiled, requests: Iterable[bytes]) -> dict[bytes, list[list[bytes]]]:
    """For each trace and each filter of a `compile_selection`: the ids of the spans that the filter holds for, in
    order of arrival. Of a span id that arrives twice the first counts. Raises MalformedRequest.
    """
