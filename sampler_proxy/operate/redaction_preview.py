"""Previews redaction on a file of traces: counts by detector, action and place, and never a value.

Every trace is redacted as the service redacts a kept one, by the policy of the configuration. A key is shown as it
would leave.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from sampler_proxy.errors import printable
from sampler_proxy.operate.redaction_members import members_by_key
from sampler_proxy.pipeline import replay
from sampler_proxy.pipeline.stamp import assemble
from sampler_proxy.redact import key_patterns
from sampler_proxy.redact.detectors.catalogue import DETECTORS
from sampler_proxy.redact.lanes import MASK_TEXT, Label
from sampler_proxy.redact.policy import Policy

MAX_PLACES = 10_000
"""Different places that are counted by key; keys of senders may have no end."""
_SETTINGS = {
    "sql": {"sql": "keep"},
    "urls": {"urls": []},
}
_WITHOUT_SETTING = {
    "oversize": "none, it is too large to be judged",
    "failure": "none, it cannot be judged",
    "unknown_field": "none, this version does not know the field",
    "key": "a rule of your own under keys, before the one that does it",
    "allow_only": "the key under allow_only",
}

# Messages whose attributes `allow_only` deletes, by number.
_SCOPES = {3: "resource", 4: "scope", 5: "span", 6: "event", 7: "link"}
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
    scope: str | None = None
    """The scope in `allow_only`, where that deleted the attribute."""
    members: tuple[str, ...] = ()
    """Of the JSON or form in the attribute: the names under which a key rule changes something."""

    def as_json(self) -> dict[str, object]:
        shown = {"detector": self.detector, "action": self.action, "place": self.place, "count": self.times}
        if self.key is not None:
            shown["key"] = self.key
        if self.members:
            shown["members"] = list(self.members)
        return shown

    @property
    def where(self) -> str:
        """Return the place, with the attribute's key and the names of members."""
        if self.key is None:
            return self.place
        members = f" (members {', '.join(map(printable, self.members))})" if self.members else ""
        return f"{self.place} {printable(self.key)}{members}"

    @property
    def setting(self) -> str:
        """Write the line of the section redact that would change it; where there is none, say why."""
        found = self._setting()
        if found is None:
            return _WITHOUT_SETTING.get(self.detector, f"your pattern {self.detector} under values")
        return yaml.safe_dump(found, default_flow_style=True, sort_keys=False, width=sys.maxsize).strip()[1:-1]

    def _setting(self) -> object | None:
        if (known := _SETTINGS.get(self.detector)) is not None:
            return known
        if self.detector in ("oversize", "failure", "unknown_field"):
            return None
        keys = [key for key in self.members or (self.key,) if key is not None and MASK_TEXT.decode() not in key]
        if keys:
            patterns = list(map(key_patterns.literally, keys))
            return {"except": patterns} if self.scope is None else {"allow_only": {self.scope: patterns}}
        return {"values": [{"detect": self.detector, "action": "keep"}]} if self.detector in DETECTORS else None


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
    found: dict[tuple[object, ...], Redaction] = {}
    for one in _previews(redact, requests):
        for redaction in one.redactions:
            what = (*redaction[:4], redaction.scope)
            if what in found:
                found[what] = redaction._replace(times=found[what].times + redaction.times)
            elif len(found) < MAX_PLACES:
                found[what] = redaction
    members = members_by_key(redact, requests) if redact is not None else {}
    return sorted(
        (
            one if one.detector != "key" else one._replace(members=_members_of(redact, one, members))
            for one in found.values()
        ),
        key=lambda one: (-one.times, str(one)),
    )


def _members_of(redact: Policy | None, redaction: Redaction, members: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return the names of the members that a key rule changed: none where the attribute itself falls under it."""
    key = redaction.key
    if redact is None or key is None or redact.strict.key_rules.member_lane(key).label is not None:
        return ()
    return tuple(sorted(members.get(key, ())))


def _previews(redact: Policy | None, requests: Sequence[bytes]) -> Iterator[Preview]:
    """Preview trace by trace."""
    found: Counter[tuple[Label, str, str | None, str | None]] = Counter()

    def observe(message: int, field: int, key: bytes | None, label: Label, count: int) -> None:
        if field == 0 and key is None:
            place = _WHOLE[message]
        else:
            place = _PLACES.get((message, field), "unknown field" if key is None else "attribute")
        scope = _SCOPES.get(message) if label[0] == "allow_only" and field == 0 else None
        found[label, place, None if key is None else key.decode("utf-8", "replace"), scope] += count

    for trace, _, _ in replay.redact(requests, redact, observe):
        redactions = [
            Redaction(*label, place, key, count, scope) for (label, place, key, scope), count in found.items()
        ]
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
