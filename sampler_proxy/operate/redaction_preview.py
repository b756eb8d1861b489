"""What redaction would change in a file of traces: counts by detector, action and where, and never a value.

Every span is sent through a pipeline that keeps all, with the policy of the configuration: what is counted is what the
service does. A key is shown as it would leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampler_proxy.config.check import load_config
from sampler_proxy.config.model import Config, Rule
from sampler_proxy.otlp.fragments import KeptTrace
from sampler_proxy.pipeline.pipeline import Pipeline
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Observer, Policy

# By message, of which there was too much.
_WHOLE = {1: "resource", 2: "scope", 5: "span"}
# By message and field as `_proto` numbers them. What belongs to an attribute is called by its key.
_PLACES = {
    (1, 3): "resource schema URL",
    (2, 3): "scope schema URL",
    (4, 1): "scope name",
    (4, 2): "scope version",
    **dict.fromkeys([(5, 1), (5, 2), (5, 4), (7, 1), (7, 2)], "id of an odd size"),
    (5, 5): "span name",
    (6, 2): "event name",
    (8, 2): "status message",
    (9, 1): "attribute key",
    (13, 1): "entity schema URL",
    (13, 2): "entity type",
    (13, 3): "entity key",
    (13, 4): "entity key",
}


class Redaction(NamedTuple):
    detector: str
    action: str
    place: str  # of the protocol, or "attribute"
    key: str | None  # of the attribute
    times: int

    def as_json(self) -> dict[str, object]:
        shown = {"detector": self.detector, "action": self.action, "place": self.place, "count": self.times}
        return shown if self.key is None else {**shown, "key": self.key}


class Preview(NamedTuple):
    """Of one trace."""

    trace_id: bytes
    spans: int
    redactions: list[Redaction]

    def as_json(self) -> dict[str, object]:
        return {
            "trace_id": self.trace_id.hex(),
            "spans": self.spans,
            "redactions": [redaction.as_json() for redaction in self.redactions],
        }


def preview(redact: Policy | None, requests: Sequence[bytes]) -> list[Preview]:
    """In the order in which the traces first appear. Raises MalformedRequest."""
    found: Counter[tuple[Label, str, str | None]] = Counter()
    previews: list[Preview] = []

    def observe(message: int, field: int, key: bytes | None, label: Label, count: int) -> None:
        if field == 0 and key is None:
            place = _WHOLE[message]
        else:
            place = _PLACES.get((message, field), "unknown field" if key is None else "attribute")
        found[label, place, None if key is None else key.decode("utf-8", "replace")] += count

    def take(trace: KeptTrace) -> None:
        redactions = [Redaction(*label, place, key, count) for (label, place, key), count in found.items()]
        found.clear()
        previews.append(Preview(trace.trace_id, trace.spans, redactions))

    _run(redact, requests, take, observe)
    return previews


def redacted(redact: Policy, requests: Sequence[bytes]) -> bytes:
    """All of it as it would leave, as one request. Raises MalformedRequest."""
    kept: list[KeptTrace] = []
    _run(redact, requests, kept.append)
    return assemble(kept)


def _run(
    redact: Policy | None,
    requests: Sequence[bytes],
    take: Callable[[KeptTrace], object],
    observe: Observer | None = None,
) -> None:
    class Taker:
        def offer(self, trace: KeptTrace) -> bool:
            take(trace)
            return True

    # An exception that never holds keeps traces from being decided early, before their last span and all of a request
    # at once: a file may be one large request.
    never = '{ name = "a" && name = "b" }'
    config = Config(rules=(Rule(name="all", unless=never, keep=1.0), Rule(name="rest", keep=0.0)))
    pipeline = Pipeline(
        rules=([rule.name for rule in config.rules], [1.0, 0.0], load_config(config).compiled),
        destinations=[Taker()],
        max_bytes=1 << 62,
        max_trace_bytes=1 << 62,
        wait_ns=1,
        wait_after_root_ns=1,
        decision_memory_bytes=1 << 20,
        stamp_decision=False,
        stamp_adjusted_count=False,
        seed=0,
    )
    pipeline.replace_redaction(redact, observe)
    accept = pipeline.entrance("file").accept
    for request in requests:
        accept(request, 0)
    while pipeline.drain(0):
        pass


def total(previews: Sequence[Preview]) -> dict[Label, int]:
    """How much by detector and action, the most frequent first."""
    counts: Counter[Label] = Counter()
    for one in previews:
        for redaction in one.redactions:
            counts[redaction.detector, redaction.action] += redaction.times
    return dict(counts.most_common())


def _printable(key: str) -> str:
    """Senders choose keys: no line breaks of theirs, and nothing that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in key)


def as_text(previews: Sequence[Preview]) -> str:
    lines = []
    for one in previews:
        if one.redactions:
            lines.append(f"trace {one.trace_id.hex()} ({one.spans} span{'s' * (one.spans != 1)})")
        for redaction in one.redactions:
            where = redaction.place if redaction.key is None else f"{redaction.place} {_printable(redaction.key)}"
            lines.append(f"  {redaction.times:>5}  {redaction.detector} {redaction.action}: {where}")
    changed = sum(bool(one.redactions) for one in previews)
    lines.append(f"{changed} of {len(previews)} traces would be changed" + (":" if changed else ""))
    lines += [f"  {count:>5}  {detector} {action}" for (detector, action), count in total(previews).items()]
    return "\n".join(lines)
