"""The rules whose rate adapts: their controllers, from one rule set to the next, over a restart, and for who looks on.

A rule that has not changed keeps its controller, and what that has learned, through a reload; what counts as the same
rule is its `identity`. Controllers learn under the pipeline's lock; what here reads one is called under it, too.
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
from sampler_proxy.rules.rate import Target
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.trace_key import room_of, values_of
from sampler_proxy.storage import learned as stored
from sampler_proxy.traceql.program import Field, Slot

TOP_KEYS = 20

_PLACES = {
    Field.SPAN_ATTRIBUTE: (Place.SPAN,),
    Field.RESOURCE_ATTRIBUTE: (Place.RESOURCE,),
    Field.SCOPE_ATTRIBUTE: (Place.SCOPE,),
    Field.ANY_ATTRIBUTE: (Place.SPAN, Place.RESOURCE),
}


class _Adapting(NamedTuple):
    rule: Rule
    keep: Adaptive
    fields: dict[str, Slot]  # what tells its traces apart, as the file calls it; one for each value of a key
    target: Target


class Prepared(NamedTuple):
    keeps: list[float | Keep]
    """How much each rule keeps."""
    adapting: dict[str, _Adapting]


class Learned(NamedTuple):
    """By the rules' identities."""

    seen: dict[str, tuple[float, list[tuple[bytes, float]]]]  # level; text and demand of each key
    unseen: dict[str, stored.Learned]

    def hashed(self, fingerprint: Callable[[bytes], bytes]) -> dict[str, stored.Learned]:
        """As it is saved. Texts are cut, so that two keys may have the same."""
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
    def __init__(self, seed: int) -> None:
        """`seed`: 64 bits that senders cannot know."""
        self._seed = seed
        self._adapting: dict[str, _Adapting] = {}
        self._restored: Mapping[str, stored.Learned] = {}
        self._unseen: Mapping[str, stored.Learned] = {}
        self._told: set[str] = set()
        self._fingerprint: Callable[[bytes], bytes] | None = None

    def prepare(self, loaded: Loaded) -> Prepared:
        """For a rule set that may be about to decide. When it does, `adopt` it."""
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
        """This rule set decides from now on."""
        self._adapting = prepared.adapting
        self._restored = {}  # was for the first one: a rule that comes back later begins anew

    def restore(self, learned: Mapping[str, stored.Learned], fingerprint: Callable[[bytes], bytes]) -> None:
        """What the rules of the first rule set begin with. Before `prepare`."""
        self._restored = self._unseen = learned
        self._fingerprint = fingerprint

    def learned(self) -> Learned:
        """All that is to be saved; small, and made under the lock. What a former process had learned is part of it: of
        a rule that has seen no trace yet; of keys that have not been seen again, twice."""
        seen = {name: (learned.level, learned.demands) for name, learned in self._learned()}
        unseen = {name: self._unseen[name] for name in self._adapting if name in self._unseen}
        self._unseen = {name: one for name, one in unseen.items() if name not in seen or name not in self._told}
        self._told |= seen.keys()
        return Learned(seen, unseen)

    def _learned(self) -> Iterator[tuple[str, rate.Learned]]:
        for name, one in self._adapting.items():
            learned = one.target.learned()
            if learned.demands:  # else it has seen nothing
                yield name, learned

    def values(self, now_ns: int) -> dict[metrics.Metric, dict[tuple[str, ...], float | metrics.HistogramValue]]:
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
        """JSON, for people: each rule with its keys of the largest demand, their values as `policy` lets them be
        seen."""
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
    """Equal for rules that are equal, references in them expanded."""
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
