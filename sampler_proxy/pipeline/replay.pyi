"""Decides and redacts whole files of traces, outside of any buffer, for explanations, previews and tests.

Each function reads ExportTraceServiceRequests, takes every trace as a whole, whatever its requests, and answers in the
order in which the traces first appear. Spans with an invalid id are left out. All requests are held in memory at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Observer, Policy
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.traceql.compiler import Compiled
from sampler_proxy.traceql.program import Field, Kind

class Decided(NamedTuple):
    """The decision of a rule set on one trace."""

    trace_id: bytes
    rule: int  # its index
    threshold: int | None  # None: it depends on the traffic
    randomness: int
    keep: bool | None
    spans: int  # those that arrived twice counted twice
    root: bytes | None  # id of the span that was taken as the root; None: there is none
    local_root: bool  # it has a parent, which is in another process and not among the spans

class RedactedTrace(NamedTuple):
    """A trace as it would leave, and the redactions in it."""

    trace: KeptTrace
    redactions: dict[Label, int]  # number of redactions by detector and action, in the order of their first
    effort: int  # that its redaction has taken, in units of about a microsecond

def decide(
    names: Sequence[str],
    keeps: Sequence[float | Keep],
    compiled: Compiled,
    requests: Iterable[bytes],
    *,
    local_roots: bool = True,
) -> list[Decided]:
    """Decide traces by a rule set, without limit, without learning. `local_roots`: as `Scanner` has it.

    Raises MalformedRequest, ValueError as RuleSet does, and MemoryError.
    """

def type_mismatches(compiled: Compiled, requests: Iterable[bytes]) -> dict[int, list[tuple[Field, bytes, Kind, str]]]:
    """Find the rules (by index) with comparisons that meet their attribute with other types only, as
    `RuleSet.type_mismatches` says it.

    Raises MalformedRequest and MemoryError.
    """

def select(
    compiled: Compiled, requests: Iterable[bytes], *, local_roots: bool = True
) -> dict[bytes, list[list[bytes]]]:
    """Find the spans that the filters of a `compile_selection` match: by trace id, for each filter the ids of its
    spans, in order of arrival. A span id that arrives twice is there once: all copies are asked.

    Raises MalformedRequest and MemoryError.
    """

def redact(
    requests: Iterable[bytes], policy: Policy | None, observer: Observer | None = None
) -> Iterator[RedactedTrace]:
    """Redact traces as a pipeline that keeps them all, and stamps nothing, would; a policy of None changes nothing.

    `observer` is told of each redaction before its trace is yielded; with one, headers are redacted for each trace
    anew. Raises, at the first step, MalformedRequest and MemoryError.
    """
