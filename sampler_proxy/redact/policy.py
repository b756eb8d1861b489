"""What is redacted, and how: the section `redact` as something that answers. `_redact` asks, position by position.

A value's *lane* says how it is looked at: as text, as a statement, as a URL, by a key rule, not at all. Lanes are small
numbers; those below `OWN` always mean the same. What comes out of a lane depends on the value alone, so that it can be
remembered. `only` makes a `View` of the policy for each combination of filters that hold for a span. What several spans
share, or somebody is shown, is seen by a view that does at least what each of theirs does.

Everything here fails closed: what raises, or is too large to be looked at, is masked whole, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import Detector
from sampler_proxy.redact.presets import COMMON_KEYS, SQL_KEYS, STRICT_KEYS, STRICT_URLS, URL_KEYS
from sampler_proxy.redact.section import MASK, Action, KeyRule, Redact, ValueRule, compile_keys
from sampler_proxy.redact.values import (
    ALONE,
    AS_IT_IS,
    DELETED,
    FAILURE,
    JOINED,
    LEAVES,
    MASKED,
    OVERSIZE,
    WHOLE,
    Label,
    Lane,
    Values,
)
from sampler_proxy.traceql.compiler import Compiled

MAX_VALUE_BYTES = 64 * 1024
"""A longer text is masked whole."""
MAX_VIEWS = 32
"""Different views of a policy; combinations that come later get the strictest."""

# Where an attribute stands.
SPAN, RESOURCE, SCOPE, EVENT, LINK, NESTED = range(6)
_ALLOWED = ("span", "resource", "scope", "event", "link")

# Lanes.
EXEMPT, TEXT, KEY, BYTES, NAME, OWN = range(6)

Result = tuple[bytes, tuple[tuple[Label, int], ...]]
"""What replaces a value, and what that counts as."""

Observer = Callable[[int, int, bytes | None, Label, int], object]
"""Told of each redaction: message and field (as `_proto` numbers them; 0: all of it), the attribute's key, label, how
often."""


Applies = Callable[[str | None], tuple[bool, bool]]
"""Of an `only`: whether it holds for some, and for every one, of the spans that a view is for."""


class Policy:
    """`hash_key`: what the configuration says, or what the file holds that it names. `filters`: the selection of what
    `only_of` lists, in that order; None where there is nothing. Raises ValueError for patterns that are too large
    together: those of `strict`, which looks for all that any view looks for."""

    def __init__(self, config: Redact, hash_key: bytes = b"", filters: Compiled | None = None) -> None:
        self.config = config
        self.hash_key = hash_key
        self.filters = filters
        self.marker = config.marker
        self._only = only_of(config)
        self._views: dict[tuple[int, int], View] = {}
        self.strict = View(config, hash_key, self._applies(self.everything, 0))

    @property
    def everything(self) -> int:
        """The mask of all filters."""
        return (1 << len(self._only)) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and (self.config, self.hash_key) == (other.config, other.hash_key)

    __hash__ = None  # type: ignore[assignment]

    def view(self, some: int, every: int | None = None) -> View:
        """For spans of which each filter in `some` holds for one or more, and each in `every` for all, a bit each;
        `every` is left out where it is the same. The first MAX_VIEWS combinations have one of their own, the others
        `strict`. Does not raise: a view that cannot be made masks everything."""
        wanted = (some, some if every is None else every)
        if not self._only:
            return self.strict
        if wanted not in self._views and len(self._views) < MAX_VIEWS:
            try:
                self._views[wanted] = View(self.config, self.hash_key, self._applies(*wanted))
            except Exception:  # patterns that are too large together in this combination
                self._views[wanted] = _MaskedView()
        return self._views.get(wanted, self.strict)

    def _applies(self, some: int, every: int) -> Applies:
        def applies(only: str | None) -> tuple[bool, bool]:
            if only is None:
                return True, True
            index = self._only.index(only)
            return bool(some >> index & 1), bool(every >> index & 1)

        return applies

    def text(self, text: bytes) -> bytes:
        """A text that is to be shown to somebody, as the strictest view has it. Of a key-value pair it knows the value
        only."""
        result = self.strict.apply(NAME, text)
        return text if result is None else result[0]

    def value(self, place: int, key: bytes, text: bytes) -> bytes:
        """The same of an attribute's value, which is MASKED where its key says that it must not be seen at all."""
        view = self.strict
        lane = view.key(place, key)
        kind = view.lanes[lane].kind
        if kind == AS_IT_IS:
            return text
        if kind in (DELETED, WHOLE):
            return MASKED
        result = view.apply(lane, text)
        return text if result is None else result[0]


def only_of(config: Redact) -> list[str]:
    """The different filters, in the order in which they appear."""
    rules: tuple[KeyRule | ValueRule, ...] = (*config.keys, *config.values)
    return list(dict.fromkeys(rule.only for rule in rules if rule.only is not None))


class View:
    """The policy as it is for one combination of filters. What is asked of it raises nothing but MemoryError, and may
    be asked on any thread. Where it is not sure which of several rules comes first, the strongest action is taken.
    Raises ValueError for patterns that are too large together."""

    def __init__(self, config: Redact, hash_key: bytes, applies: Applies) -> None:
        preset = config.preset
        self._sql = (config.sql or ("obfuscate" if preset else "keep")) == "obfuscate"
        urls = config.urls if config.urls is not None else STRICT_URLS if preset == "strict" else ()
        self._urls = {step: step in urls for step in STRICT_URLS} if urls else None
        values = self._values = Values(
            _active(config, applies),
            sql=self._sql,
            urls=self._urls,
            hash_key=hash_key,
            lane_of=lambda key: self.lanes[self.key(NESTED, key)],
        )
        self.sift = values.sift
        keys = {"common": COMMON_KEYS, "strict": STRICT_KEYS}.get(preset or "", ())
        rules = [rule for rule in config.keys if applies(rule.only)[0]]
        self._key_actions = [*(rule.action for rule in rules), *[MASK] * len(keys)]
        self._certain = [*(applies(rule.only)[1] for rule in rules), *[True] * len(keys)]
        self._key_rules = _KeySet([*(rule.match for rule in rules), *keys])
        self._except = _KeySet(config.except_)
        allowed = [getattr(config.allow_only, scope) for scope in _ALLOWED]
        self._allowed = [None if patterns is None else _KeySet(patterns) for patterns in allowed]
        named = Lane(ALONE, None, values.url) if self._urls else Lane(JOINED, None, values.text)
        self.lanes = [
            Lane(AS_IT_IS),
            Lane(JOINED, None, values.text),
            Lane(JOINED, None, values.text),
            Lane(JOINED, None, values.in_bytes),
            named,
        ]
        self._not_allowed = self._lane(Lane(DELETED, ("allow_only", "delete")))
        self._not_allowed_named = self._lane(Lane(WHOLE, ("allow_only", "mask")))
        self._masked = self._lane(Lane(WHOLE, ("key", "mask")))
        self._query = self._lane(Lane(WHOLE, ("urls", "mask")))
        self._statement = self._lane(Lane(ALONE, None, values.statement))
        self._url = self._lane(Lane(ALONE, None, values.url))
        # All lanes are there from the start: several threads may ask.
        self._by_action: dict[Action, int] = {MASK: self._masked}
        for action in self._key_actions:
            if action not in self._by_action:
                self._by_action[action] = self._lane(self._lane_of(action))

    def _lane(self, lane: Lane) -> int:
        self.lanes.append(lane)
        return len(self.lanes) - 1

    # Keys.

    def key(self, place: int, key: bytes, named: bool = False) -> int:
        """The lane of an attribute's value. `named`: by an entity reference, so that it must stay."""
        try:
            return self._key(place, key.decode("utf-8", "replace"), named)
        except Exception:
            return self._masked

    def _key(self, place: int, key: str, named: bool) -> int:
        allowed = self._allowed[place] if place < NESTED else None
        if allowed is not None and not allowed.matches(key):
            return self._not_allowed_named if named else self._not_allowed
        if self._except.matches(key):
            return EXEMPT
        rules = self._key_rules.matches(key)
        action = _strongest((self._key_actions[rule], self._certain[rule]) for rule in rules)
        if action is not None:
            if action.word == "keep_last" and not any(self._certain[rule] for rule in rules):
                action = MASK  # where no rule applies, detectors might hide what it would keep
            lane = self._by_action[action]
            return self._masked if named and self.lanes[lane].kind == DELETED else lane
        if self._sql and key.lower() in SQL_KEYS:
            return self._statement
        if self._urls and key.lower() in URL_KEYS:
            return self._query if self._urls["strip_query"] and key.lower() == "url.query" else self._url
        return TEXT

    def _lane_of(self, action: Action) -> Lane:
        label = ("key", action.word)
        if action.word == "delete":
            return Lane(DELETED, label)

        def apply(text: bytes, counts: Counter[Label]) -> bytes:
            counts[label] += 1
            return self._values.act(action, text)

        return Lane(LEAVES, label, apply)

    def plain(self, text: bytes) -> bool:
        """Whether there is nothing to look for in a text of JSON but its keys, which costs little."""
        try:
            return self._values.plain(text)
        except Exception:
            return False

    def apply(self, lane: int, text: bytes) -> Result | None:
        """What becomes of a value; None if it may stay as it is."""
        counts: Counter[Label] = Counter()
        if len(text) > MAX_VALUE_BYTES:
            return MASKED, ((OVERSIZE, 1),)
        try:
            mended = text.decode("utf-8", "replace").encode()
            function = self.lanes[lane].apply
            assert function is not None
            result = function(mended, counts)
        except Exception:  # of ours or of a library's: not a word of it, it might quote the value
            return MASKED, ((FAILURE, 1),)
        return None if result == mended else (result, tuple((label, n) for label, n in counts.items() if n))


class _MaskedView(View):
    """In place of one that cannot be made: everything is masked, and counted as a failure."""

    def __init__(self) -> None:
        self.lanes = [Lane(AS_IT_IS), *[Lane(ALONE)] * (OWN - 1), Lane(WHOLE, FAILURE)]
        self.sift = lambda joined: [(0, len(joined))]

    def key(self, place: int, key: bytes, named: bool = False) -> int:  # noqa: ARG002 (as View has it)
        return OWN

    def plain(self, text: bytes) -> bool:  # noqa: ARG002 (as View has it)
        return False

    def apply(self, lane: int, text: bytes) -> Result | None:  # noqa: ARG002 (as View has it)
        return None if text in (b"", MASKED) else (MASKED, ((FAILURE, 1),))


def _strength(action: Action) -> tuple[int, int]:
    return ("keep", "keep_last", "hash", "mask", "delete").index(action.word), -action.last


def _strongest(matching: Iterable[tuple[Action, bool]]) -> Action | None:
    """Of rules that match, from the top, each with whether it is certain that it applies: the first that is certain
    decides, unless one before it is stronger. None: none matches."""
    strongest = None
    for action, certain in matching:
        if strongest is None or _strength(action) > _strength(strongest):
            strongest = action
        if certain:
            break
    return strongest


def _active(config: Redact, applies: Applies) -> list[tuple[Detector, Action]]:
    """The detectors to use and what is done to what they find: of several entries for one the first that applies."""
    matching: dict[str, list[tuple[Action, bool]]] = {}
    known = dict(catalogue.DETECTORS)
    for rule in config.values:
        some, every = applies(rule.only)
        if some:
            name = rule.detect or rule.name
            assert name is not None
            matching.setdefault(name, []).append((rule.action, every))
            if rule.pattern is not None and name not in known:
                known[name] = catalogue.custom(name, rule.pattern)
    preset = {"common": catalogue.COMMON, "strict": catalogue.STRICT}.get(config.preset or "", ())
    for name in preset:
        matching.setdefault(name, []).append((MASK, True))
    actions = {name: _strongest(rules) for name, rules in matching.items()}
    return [(known[name], action) for name, action in actions.items() if action is not None and action.word != "keep"]


class _KeySet:
    """Key patterns in order. The last of the set matches anything: where it is silent, the set has run out of
    memory."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self._set = compile_keys([*self._patterns, "*"]) if self._patterns else None

    def matches(self, key: str) -> list[int]:
        """The indices of those that match, in order."""
        if self._set is None:
            return []
        hits = self._set.Match(key) or []
        last = len(self._patterns)
        if last not in hits:
            return [i for i, pattern in enumerate(self._patterns) if compile_keys([pattern, "*"]).Match(key) != [1]]
        return sorted(hits)[:-1]
