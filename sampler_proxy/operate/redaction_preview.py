"""Previews redaction on a file of traces: counts by detector, action and place, and never a value.

Every trace is redacted as the service redacts a kept one, by the policy of the configuration. A key is shown as it
would leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sampler_proxy.errors import printable
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Policy

# Messages of which only fields without text are left, because they had too many items, by number.
_WHOLE = {1: "resource", 2: "scope", 5: "span"}
# By message (as protobuf.pxd numbers them) and field. A place inside an attribute's value goes by the attribute's key.
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
    """Number of times that one detector and action changed one place."""

    detector: str
    action: str
    place: str  # of the protocol, or "attribute"
    key: str | None  # of the attribute
    times: int

    def as_json(self) -> dict[str, object]:
        shown = {"detector": self.detector, "action": self.action, "place": self.place, "count": self.times}
        return shown if self.key is None else {**shown, "key": self.key}


class Preview(NamedTuple):
    """The redactions of one trace."""

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
    """Count the redactions of each trace, in the order in which the traces first appear. Raises MalformedRequest."""
    found: Counter[tuple[Label, str, str | None]] = Counter()
    previews: list[Preview] = []

    def observe(message: int, field: int, key: bytes | None, label: Label, count: int) -> None:
        if field == 0 and key is None:
            place = _WHOLE[message]
        else:
            place = _PLACES.get((message, field), "unknown field" if key is None else "attribute")
        found[label, place, None if key is None else key.decode("utf-8", "replace")] += count

    for trace, _, _ in replay.redact(requests, redact, observe):
        redactions = [Redaction(*label, place, key, count) for (label, place, key), count in found.items()]
        found.clear()
        previews.append(Preview(trace.trace_id, trace.spans, redactions))
    return previews


def redacted(redact: Policy, requests: Sequence[bytes]) -> bytes:
    """Return all traces as they would leave, in one request. Raises MalformedRequest."""
    return assemble([one.trace for one in replay.redact(requests, redact)])


def total(previews: Sequence[Preview]) -> dict[Label, int]:
    """Sum up by detector and action, the most frequent first."""
    counts: Counter[Label] = Counter()
    for one in previews:
        for redaction in one.redactions:
            counts[redaction.detector, redaction.action] += redaction.times
    return dict(counts.most_common())


def as_text(previews: Sequence[Preview]) -> str:
    """Format previews for a terminal, with the totals at the end."""
    lines = []
    for one in previews:
        if one.redactions:
            lines.append(f"trace {one.trace_id.hex()} ({one.spans} span{'s' * (one.spans != 1)})")
        for redaction in one.redactions:
            where = redaction.place if redaction.key is None else f"{redaction.place} {printable(redaction.key)}"
            lines.append(f"  {redaction.times:>5}  {redaction.detector} {redaction.action}: {where}")
    changed = sum(bool(one.redactions) for one in previews)
    lines.append(f"{changed} of {len(previews)} traces would be changed" + (":" if changed else ""))
    lines += [f"  {count:>5}  {detector} {action}" for (detector, action), count in total(previews).items()]
    return "\n".join(lines)
