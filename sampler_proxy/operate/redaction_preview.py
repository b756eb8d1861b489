"""Previews redaction on a file of traces: counts by detector, action and place, and never a value.

Every trace is redacted as the service redacts a kept one, by the policy of the configuration. A key is shown as it
would leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sampler_proxy.errors import printable
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact.detectors.catalogue import DETECTORS
from sampler_proxy.redact.lanes import Label
from sampler_proxy.redact.policy import Policy

MAX_PLACES = 10_000
"""Different places that are counted by key; keys of senders may have no end."""
_SETTINGS = {
    "key": "except: [KEY], or a rule of your own for it under keys",
    "allow_only": "allow_only: {SCOPE: [KEY]}",
    "sql": "sql: keep",
    "urls": "urls: [], or the steps that you want",
    "oversize": "none: it is too large to be judged",
    "failure": "none: it cannot be judged",
    "unknown_field": "none: this version does not know the field",
}

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

    @property
    def where(self) -> str:
        """Return the place, with the attribute's key."""
        return self.place if self.key is None else f"{self.place} {printable(self.key)}"

    @property
    def setting(self) -> str:
        """Name what in the section redact would change it. KEY stands for a key, which may need quotes in YAML."""
        if (known := _SETTINGS.get(self.detector)) is not None:
            return known
        if self.detector not in DETECTORS:
            return f"your pattern {self.detector} under values"
        return f"values: [{{detect: {self.detector}, action: keep, only: FILTER}}]"


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
    return list(_previews(redact, requests))


def by_key(redact: Policy | None, requests: Sequence[bytes]) -> list[Redaction]:
    """Count the redactions of all traces by detector, action and place, the most frequent first: of more than
    MAX_PLACES different ones the first. Raises MalformedRequest."""
    found: Counter[tuple[str, str, str, str | None]] = Counter()
    for one in _previews(redact, requests):
        for redaction in one.redactions:
            if redaction[:4] in found or len(found) < MAX_PLACES:
                found[redaction[:4]] += redaction.times
    return [Redaction(*what, times) for what, times in sorted(found.items(), key=lambda one: (-one[1], str(one[0])))]


def _previews(redact: Policy | None, requests: Sequence[bytes]) -> Iterator[Preview]:
    """Preview trace by trace."""
    found: Counter[tuple[Label, str, str | None]] = Counter()

    def observe(message: int, field: int, key: bytes | None, label: Label, count: int) -> None:
        if field == 0 and key is None:
            place = _WHOLE[message]
        else:
            place = _PLACES.get((message, field), "unknown field" if key is None else "attribute")
        found[label, place, None if key is None else key.decode("utf-8", "replace")] += count

    for trace, _, _ in replay.redact(requests, redact, observe):
        redactions = [Redaction(*label, place, key, count) for (label, place, key), count in found.items()]
        found.clear()
        yield Preview(trace.trace_id, trace.spans, redactions)


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
            lines.append(f"  {redaction.times:>5}  {redaction.detector} {redaction.action}: {redaction.where}")
    changed = sum(bool(one.redactions) for one in previews)
    lines.append(f"{changed} of {len(previews)} traces would be changed" + (":" if changed else ""))
    lines += [f"  {count:>5}  {detector} {action}" for (detector, action), count in total(previews).items()]
    return "\n".join(lines)


def keys_as_text(redactions: Sequence[Redaction]) -> str:
    """Format redactions by key for a terminal, each with the setting that would change it."""
    lines = [
        f"{one.times:>7}  {one.detector} {one.action}: {one.where}; to change it: {one.setting}" for one in redactions
    ]
    return "\n".join(lines or ["nothing would be changed"])
