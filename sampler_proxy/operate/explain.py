"""Explains which rule decides each trace of a file, and why: as the service would, if these were all of its spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sampler_proxy.config.check import Loaded
from sampler_proxy.config.model import Adaptive
from sampler_proxy.errors import printable
from sampler_proxy.operate.trace_files import Traces
from sampler_proxy.otlp.sampling import probability_of, shown_threshold
from sampler_proxy.pipeline import replay
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.traceql.ast import Field
from sampler_proxy.traceql.compiler import compile_selection
from sampler_proxy.traceql.conditions_as_written import conditions
from sampler_proxy.traceql.program import Field as Read
from sampler_proxy.traceql.program import Kind


class Matched(NamedTuple):
    """A condition of the deciding rule, and the spans for which it holds."""

    condition: str  # as written in the rule
    spans: list[bytes]  # their ids


class Explanation(NamedTuple):
    """The decision on one trace. Of a rule with a target `keep`, `probability` and `threshold` are None: they depend on
    the traffic."""

    trace_id: bytes
    rule: str
    keep: bool | None
    probability: float | None
    threshold: int | None
    target: str | None  # as in the configuration; None: the rule has none
    randomness: int
    matched: list[Matched]
    """The conditions in the rule's match that hold for any span; none for a rule without match."""
    spans: int  # those that arrived twice counted twice
    root: bytes | None  # id of the span that was taken as the root; None: there is none
    local_root: bool  # it has a parent, in another process, which is not among the spans

    def as_json(self) -> dict[str, object]:
        return {
            "trace_id": self.trace_id.hex(),
            "rule": self.rule,
            "keep": self.keep,
            "probability": self.probability,
            "threshold": None if self.threshold is None else shown_threshold(self.threshold),
            **({"target": self.target} if self.target else {}),
            "randomness": f"{self.randomness:014x}",
            "root": self.root and {"span": self.root.hex(), "kind": "local" if self.local_root else "parentless"},
            "matched": [
                {"condition": matched.condition, "spans": [span.hex() for span in matched.spans]}
                for matched in self.matched
            ],
        }


def explain(loaded: Loaded, requests: Sequence[bytes]) -> Iterator[Explanation]:
    """Explain each trace, in the order in which the traces first appear."""
    config = loaded.config
    targets = [str(rule.keep.target) if isinstance(rule.keep, Adaptive) else None for rule in config.rules]
    keeps = [
        Keep(Target(per_second=rule.keep.target.per_second, keyed=False, seed=0))
        if isinstance(rule.keep, Adaptive)
        else rule.keep
        for rule in config.rules
    ]
    local = config.buffer.root == "local"
    names = [rule.name for rule in config.rules]
    decided = replay.decide(names, keeps, loaded.compiled, requests, local_roots=local)
    written = {
        index: conditions(match) for index in {one.rule for one in decided} if (match := config.rules[index].match)
    }
    first: dict[int, int] = {}  # of each deciding rule's conditions, in the one selection for all rules
    fields: list[Field] = []
    for index, parts in written.items():
        first[index] = len(fields)
        fields += [part.field for part in parts]
    selected = replay.select(compile_selection(fields), requests, local_roots=local) if fields else {}
    for one in decided:
        parts = written.get(one.rule, [])
        at = first.get(one.rule, 0)
        spans = selected[one.trace_id][at : at + len(parts)] if parts else []
        yield Explanation(
            one.trace_id,
            config.rules[one.rule].name,
            one.keep,
            None if one.threshold is None else probability_of(one.threshold),
            one.threshold,
            targets[one.rule],
            one.randomness,
            [Matched(part.text, ids) for part, ids in zip(parts, spans, strict=True) if ids],
            one.spans,
            one.root,
            one.local_root,
        )


def type_mismatches(loaded: Loaded, requests: Sequence[bytes]) -> Iterator[str]:
    """Say which rules compare an attribute that the traces have with other types only: they never match by it."""
    for rule, mismatches in replay.type_mismatches(loaded.compiled, requests).items():
        for field, key, kind, met in mismatches:
            name = _PREFIXES[field] + printable(key.decode())
            wanted = "a text" if kind in (Kind.STRING, Kind.REGEX) else "a boolean" if kind is Kind.BOOL else "a number"
            yield f"rule {loaded.config.rules[rule].name}: {name} is compared with {wanted}, and is {met}"


_PREFIXES = {
    Read.SPAN_ATTRIBUTE: "span.",
    Read.RESOURCE_ATTRIBUTE: "resource.",
    Read.SCOPE_ATTRIBUTE: "instrumentation.",
    Read.ANY_ATTRIBUTE: ".",
    Read.EVENT_ATTRIBUTE: "event.",
    Read.LINK_ATTRIBUTE: "link.",
}


def as_text(explanation: Explanation, traces: Traces) -> str:
    """Format an explanation for a terminal, each span with its name where the file has one."""
    trace_id = explanation.trace_id
    trace = f"trace {trace_id.hex()} ({explanation.spans} span{'s' * (explanation.spans != 1)})"
    if explanation.probability is None:
        lines = [f"{trace}: decided by rule {explanation.rule}, which keeps up to {explanation.target}"]
    else:
        lines = [
            f"{trace}: {'kept' if explanation.keep else 'dropped'} by rule {explanation.rule}, "
            f"which keeps {100 * explanation.probability:.4g}% of the traces"
        ]

    def shown(span: bytes) -> str:
        return f"    {span.hex()}  {printable(traces.names.get((trace_id, span), ''))}".rstrip()

    for matched in explanation.matched:
        lines += [f"  {printable(matched.condition)}", *map(shown, matched.spans)]
    if explanation.root is None:
        lines.append("  no root: no span without a parent, and none known to have its parent in another process")
    elif explanation.local_root:
        lines += ["  local root: its parent is in another process, and not in this file", shown(explanation.root)]
    else:
        lines += ["  root: it has no parent", shown(explanation.root)]
    return "\n".join(lines)
