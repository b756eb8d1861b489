"""Keeps the rate controllers of rules with a target: from one rule set to the next, and over a restart.

A rule that has not changed keeps its controller, with all that it has learned, through a reload; rules are the same if
their `identity` is. Controllers learn under the pipeline's lock; every function here that reads one is called under it,
too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sampler_proxy import metrics
from sampler_proxy.config.check import Loaded
from sampler_proxy.config.model import Adaptive, Rule
from sampler_proxy.redact.lanes import MASK_TEXT, Place
from sampler_proxy.redact.policy import Policy
from sampler_proxy.rules import rate
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.rules.trace_key import room_of, values_of
from sampler_proxy.storage import learned as stored
from sampler_proxy.traceql.program import Field, Slot

TOP_KEYS = 20
"""Keys of a rule that `describe` shows: those of the largest demand."""

_PLACES = {
    Field.SPAN_ATTRIBUTE: (Place.SPAN,),
    Field.RESOURCE_ATTRIBUTE: (Place.RESOURCE,),
    Field.SCOPE_ATTRIBUTE: (Place.SCOPE,),
    Field.ANY_ATTRIBUTE: (Place.SPAN, Place.RESOURCE),
}


class _Adapting(NamedTuple):
    """A rule with a target, and its controller."""

    rule: Rule
    keep: Adaptive
    fields: dict[str, Slot]  # of `per`: as written -> where the value is read; a key has one value for each
    target: Target


class Prepared(NamedTuple):
    """The controllers of a rule set that may be about to decide."""

    keeps: list[float | Keep]
    """How much each rule keeps."""
    adapting: dict[str, _Adapting]  # by identity


class Learned(NamedTuple):
    """Learned rates to be saved, by the rules' identities."""

    seen: dict[str, tuple[float, list[tuple[bytes, float]]]]  # level; text and demand of each key
    unseen: dict[str, stored.Learned]  # from a former process

    def hashed(self, fingerprint: Callable[[bytes], bytes]) -> dict[str, stored.Learned]:
        """Hash the keys, for storage. Texts are cut, so two keys may have the same one; their demands are added."""
        found = {name: one for name, one in self.unseen.items() if name not in self.seen}
        for name, (level, keys) in self.seen.items():
            demands = dict(self.unseen[name].demands) if name in self.unseen else {}
            summed: dict[bytes, float] = {}
            for text, demand in keys:
                key = fingerprint(text)
                summed[key] = summed.get(key, 0.0) + demand
            found[name] = stored.Learned(level, {**demands, **summed})
        return found


class Rates:
    """The controllers of the active rule set, and learned rates that are restored into them and saved from them."""

    def __init__(self, seed: int) -> None:
        """Begin without controllers. `seed`: 64 bits that senders cannot know."""
        self._seed = seed
        self._adapting: dict[str, _Adapting] = {}
        self._restored: Mapping[str, stored.Learned] = {}  # for the controllers of the first rule set
        self._unseen: Mapping[str, stored.Learned] = {}  # restored, and still to be saved again
        self._saved_seen: set[str] = set()  # rules with traffic at an earlier `learned`
        self._fingerprint: Callable[[bytes], bytes] | None = None

    def prepare(self, loaded: Loaded) -> Prepared:
        """Make or reuse the controllers of a rule set that may be about to decide; once it does, `adopt` them."""
        adapting: dict[str, _Adapting] = {}
        keeps: list[float | Keep] = []
        for rule, fields in zip(loaded.config.rules, loaded.keys, strict=True):
            if not isinstance(rule.keep, Adaptive):
                keeps.append(rule.keep)
                continue
            name = identity(rule)
            known = self._adapting.get(name)
            target = known.target if known else self._target(name, rule.keep)
            adapting[name] = _Adapting(rule, rule.keep, fields, target)
            keeps.append(Keep(target, tuple(fields.values()), rule.keep.target.unit))
        return Prepared(keeps, adapting)

    def adopt(self, prepared: Prepared) -> None:
        """Make these the controllers that are read and saved."""
        self._adapting = prepared.adapting
        self._restored = {}  # for the first rule set only: a rule that comes back later begins anew

    def restore(self, learned: Mapping[str, stored.Learned], fingerprint: Callable[[bytes], bytes]) -> None:
        """Set what the controllers of the first rule set begin with. Call it before `prepare`."""
        self._restored = self._unseen = learned
        self._fingerprint = fingerprint

    def learned(self) -> Learned:
        """Collect what is to be saved; small, and made under the lock. Rates restored from a former process are part of
        it until their rule matches a trace, and twice more: by then keys that still come have been seen again."""
        seen = {name: (learned.level, learned.demands) for name, learned in self._learned()}
        unseen = {name: self._unseen[name] for name in self._adapting if name in self._unseen}
        self._unseen = {name: one for name, one in unseen.items() if name not in seen or name not in self._saved_seen}
        self._saved_seen |= seen.keys()
        return Learned(seen, unseen)

    def _learned(self) -> Iterator[tuple[str, rate.Learned]]:
        for name, one in self._adapting.items():
            learned = one.target.learned()
            if learned.demands:  # else there was no trace yet
                yield name, learned

    def values(self, now_ns: int) -> dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]]:
        """Read the metrics of all rules with a target."""
        found: dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]] = {
            metric: {}
            for metric in (
                metrics.TARGET_PER_SECOND,
                metrics.TARGET_DEMAND_PER_SECOND,
                metrics.TARGET_KEPT_PER_SECOND,
                metrics.TARGET_PROBABILITY,
                metrics.TARGET_KEYS,
            )
        }
        for one in self._adapting.values():
            stats = one.target.stats(now_ns)
            labels = (one.rule.name, one.keep.target.unit)
            found[metrics.TARGET_PER_SECOND][labels] = one.keep.target.per_second
            found[metrics.TARGET_DEMAND_PER_SECOND][labels] = stats.demand_per_s
            found[metrics.TARGET_KEPT_PER_SECOND][labels] = stats.kept_per_s
            found[metrics.TARGET_PROBABILITY][labels[:1]] = stats.probability
            found[metrics.TARGET_KEYS][labels[:1]] = stats.keys
        return found

    def describe(self, now_ns: int, policy: Policy | None) -> list[dict[str, object]]:
        """Describe, as JSON values, each rule with its keys of the largest demand, redacted by `policy`."""
        return [_describe(one, now_ns, policy) for one in self._adapting.values()]

    def _target(self, name: str, keep: Adaptive) -> Target:
        target = Target(
            per_second=keep.target.per_second,
            keyed=bool(keep.per),
            at_least=keep.at_least,
            at_most=keep.at_most,
            minimum_per_second=keep.minimum or 0.0,
            seed=self._seed,
        )
        if (learned := self._restored.get(name)) and self._fingerprint:
            target.restore(learned.level, dict(learned.demands), self._fingerprint)
        return target


def identity(rule: Rule) -> str:
    """Hash a rule, references expanded: equal rules have equal identities."""
    text = json.dumps(rule.model_dump(mode="json", by_alias=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _describe(one: _Adapting, now_ns: int, policy: Policy | None) -> dict[str, object]:
    stats = one.target.stats(now_ns)
    return {
        "rule": one.rule.name,
        "keep": one.rule.model_dump(mode="json", by_alias=True)["keep"],
        "unit": one.keep.target.unit,
        "target_per_second": one.keep.target.per_second,
        "demand_per_second": stats.demand_per_s,
        "kept_per_second": stats.kept_per_s,
        "probability": stats.probability,
        "keys": stats.keys,
        "top": [
            {
                "key": {
                    name: _shown(value, slot, len(one.fields), policy)
                    for (name, slot), value in zip(one.fields.items(), values_of(key.text), strict=False)
                },
                "demand_per_second": key.demand_per_s,
                "probability": key.probability,
            }
            for key in (one.target.top(TOP_KEYS) if one.fields else ())
        ],
    }


def _shown(value: str | None, slot: Slot, fields: int, policy: Policy | None) -> str | None:
    if value is None or policy is None:
        return value
    text = value.encode()
    if len(text) >= room_of(fields):
        return MASK_TEXT.decode()  # it has been cut, and half a secret would not be known for one
    places = _PLACES.get(slot.field)
    if places is None:
        return policy.text(text).decode()
    for place in places:
        text = policy.value(place, slot.key, text)
    return text.decode()
