"""Finds the rule that an attribute's key falls under: keys in, lanes out. Knows nothing of values.

The order: `allow_only`, `except`, the rules of `keys` and the preset, names of secrets, keys that name statements and
URLs, names that may announce a secret. Where it is not certain which of several rules comes first, since spans with
different filters share the value, the strongest action is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sampler_proxy.redact import budget
from sampler_proxy.redact.key_patterns import KeySet
from sampler_proxy.redact.lanes import (
    ANY_TYPE,
    AS_IT_IS,
    BATCHED,
    DELETED,
    EXEMPT,
    MASKED,
    MAX_KEY_BYTES,
    OVERSIZE_LANE,
    SINGLE,
    TEXT,
    Family,
    Lane,
    Look,
    Place,
)
from sampler_proxy.redact.presets import COMMON_KEYS, SQL_KEYS, STRICT_KEYS, URL_KEYS, USER_KEYS
from sampler_proxy.redact.secret_names import Announces, announced
from sampler_proxy.redact.section import MASK, Action, Redact
from sampler_proxy.redact.texts.stores import family_of

MAX_CACHED_KEYS = 4096
"""Keys of JSON members whose lanes are cached; when there are more, the cache starts anew."""
MAX_CACHED_KEY_BYTES = 256
"""A longer key of a member is not cached."""
STEPS_OF_KEY = 6
"""What finding the lane of a key takes."""
_ALLOWED = ("span", "resource", "scope", "event", "link")

Applies = Callable[[str | None], tuple[bool, bool]]
"""Whether an `only` holds for some, and for every one, of the spans that a view is for."""


class KeyRules:
    """Lanes of attributes, by their keys. Raises nothing but MemoryError once it is built, and may be used on any
    thread."""

    statement: int
    """The lane of statements of which nobody says what language they are in."""

    def __init__(self, config: Redact, applies: Applies, *, sql: bool, urls: Mapping[str, bool] | None) -> None:
        """Compile the rules. `sql`: statements lose their literals; `urls`: what URLs lose, None to leave them alone.
        Raises ValueError for patterns that are too large together."""
        self._sql = sql
        self._urls = urls
        keys = {"common": COMMON_KEYS, "strict": STRICT_KEYS}.get(config.preset or "", ())
        rules = [rule for rule in config.keys if applies(rule.only)[0]]
        self._actions = [*(rule.action for rule in rules), *[MASK] * len(keys)]
        self._certain = [*(applies(rule.only)[1] for rule in rules), *[True] * len(keys)]
        self._key_rules = KeySet([*(rule.match for rule in rules), *keys])
        self._users = KeySet(USER_KEYS if keys else ())
        self._by_name = config.preset is not None
        self._except = KeySet(config.except_)
        allowed = [getattr(config.allow_only, scope) for scope in _ALLOWED]
        self._allowed = [None if patterns is None else KeySet(patterns) for patterns in allowed]
        self.lanes = [
            Lane(AS_IT_IS),
            Lane(BATCHED, None, Look.TEXT),
            Lane(BATCHED, None, Look.TEXT),
            Lane(BATCHED, None, Look.BYTES),
            Lane(SINGLE, None, Look.URL) if urls else Lane(BATCHED, None, Look.TEXT),
        ]
        self._not_allowed = self._add(Lane(DELETED, ("allow_only", "delete")))
        self._not_allowed_named = self._add(Lane(MASKED, ("allow_only", "mask")))
        self._key_like = self._add(Lane(SINGLE, ("key", "mask"), Look.KEY_LIKE))
        self._mixed_key = self._add(Lane(SINGLE, ("key", "mask"), Look.MIXED_KEY))
        self._masked = self._add(Lane(MASKED, ("key", "mask")))
        self._query = self._add(Lane(MASKED, ("urls", "mask")))
        self._statements = {family: self._add(Lane(SINGLE, None, family)) for family in Family}
        self.statement = self._statements[Family.BY_TEXT]
        self._url = self._add(Lane(SINGLE, None, Look.URL))
        self._user = self._add(Lane(SINGLE, None, Look.USER))
        # All lanes are there from the start: several threads may ask.
        self._by_action: dict[Action, int] = {MASK: self._masked}
        for action in self._actions:
            if action not in self._by_action:
                kind = DELETED if action.word == "delete" else ANY_TYPE
                treatment = None if action.word == "delete" else action
                self._by_action[action] = self._add(Lane(kind, ("key", action.word), treatment))
        self._member_lanes: dict[str, Lane] = {}

    def _add(self, lane: Lane) -> int:
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def lane_of(self, place: int, key: bytes, named: bool = False) -> int:
        """Return the lane of an attribute's value. `named`: an entity reference names the key, so that the attribute
        must stay."""
        try:
            return self._lane_of(place, key.decode("utf-8", "replace"), named)
        except Exception:
            return self._masked

    def _lane_of(self, place: int, key: str, named: bool) -> int:
        allowed = self._allowed[place] if place < Place.VALUE else None
        if allowed is not None and not allowed.matches(key):
            return self._not_allowed_named if named else self._not_allowed
        if self._except.matches(key):
            return EXEMPT
        rules = self._key_rules.matches(key)
        matching = [(self._actions[rule], self._certain[rule]) for rule in rules]
        name = announced(key) if self._by_name else Announces.NOTHING
        if name >= Announces.AMBIGUOUS:
            matching.append((MASK, True))
        action = strongest(matching)
        if action is not None:
            if action.word == "keep_last" and not any(certain for _, certain in matching):
                action = MASK  # where no rule applies, detectors might hide what it would keep
            lane = self._by_action[action]
            return self._masked if named and self.lanes[lane].kind == DELETED else lane
        if self._sql and key.lower() in SQL_KEYS:
            return self.statement
        if name is Announces.KEY_LIKE:
            return self._key_like
        if name is Announces.MIXED_KEY:
            return self._mixed_key
        if self._urls and key.lower() in URL_KEYS:
            return self._query if self._urls["strip_query"] and key.lower() == "url.query" else self._url
        return self._user if self._users.matches(key) else TEXT

    def statement_lane(self, system: bytes) -> int:
        """Return the lane of statements for a store, by its name."""
        return self._statements[family_of(system.decode("utf-8", "replace"))]

    def member_lane(self, key: str) -> Lane:
        """Return the lane of a member of JSON in a value, by its key; cached."""
        lane = self._member_lanes.get(key)
        if lane is None:
            budget.spend(STEPS_OF_KEY)
            encoded = key.encode("utf-8", "replace")
            if len(encoded) > MAX_KEY_BYTES:
                return OVERSIZE_LANE
            lane = self.lanes[self.lane_of(Place.VALUE, encoded)]
            if len(encoded) <= MAX_CACHED_KEY_BYTES:
                if len(self._member_lanes) >= MAX_CACHED_KEYS:
                    self._member_lanes.clear()
                self._member_lanes[key] = lane
        return lane


def strongest(matching: Iterable[tuple[Action, bool]]) -> Action | None:
    """Choose among the actions of matching rules, from the top, each with whether its rule certainly applies: the first
    certain one, unless one before it is stronger. None: no rule matches."""
    found = None
    for action, certain in matching:
        if found is None or _strength(action) > _strength(found):
            found = action
        if certain:
            break
    return found


def _strength(action: Action) -> tuple[int, int]:
    return ("keep", "keep_last", "hash", "mask", "delete").index(action.word), -action.last
