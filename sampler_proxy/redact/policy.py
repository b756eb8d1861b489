"""Compiles the section `redact` into a policy: what is redacted, and how. The walker asks, text by text.

`only` makes a `View` of the policy for each combination of filters that hold for a span. What several spans share, or
somebody is shown, is seen by a view that does at least what each of theirs does.

Everything here fails closed: what raises, or is too large to be looked at, is masked whole, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import Detector
from sampler_proxy.redact.key_rules import Applies, KeyRules, strongest
from sampler_proxy.redact.lanes import (
    AS_IT_IS,
    DELETED,
    FAILURE,
    MASK_TEXT,
    MASKED,
    MAX_VALUE_BYTES,
    NAME,
    OVERSIZE,
    OWN,
    SINGLE,
    Label,
    Lane,
)
from sampler_proxy.redact.presets import STRICT_URLS
from sampler_proxy.redact.section import MASK, Action, KeyRule, Redact, ValueRule
from sampler_proxy.redact.sieve import Region, Sieve
from sampler_proxy.redact.values import Values
from sampler_proxy.traceql.compiler import Compiled

MAX_VIEWS = 32
"""Different views of a policy; combinations that come later get the strictest."""

Result = tuple[bytes, tuple[tuple[Label, int], ...]]
"""What replaces a value, and how often each label counts for it."""

Observer = Callable[[int, int, bytes | None, Label, int], object]
"""Called for each redaction with message and field (as `otlp/protobuf.pxd` numbers them; field 0: all of the message),
the attribute's key, the label, and how often."""


class Policy:
    """The section `redact`, compiled. `hash_key`: the key of `hash`, whether the configuration or a file holds it.
    `filters`: the compiled expressions of `only_of`, in that order; None where there are none. Raises ValueError for
    patterns that are too large together: those of `strict`, which looks for all that any view looks for."""

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
        """Return the view for spans of which each filter in `some` holds for one or more, and each in `every` for all,
        a bit each; `every` is left out where it is the same. The first MAX_VIEWS combinations have a view of their own,
        the others `strict`. Raises nothing: a view that cannot be made masks everything."""
        wanted = (some, some if every is None else every)
        if not self._only:
            return self.strict
        if wanted not in self._views and len(self._views) < MAX_VIEWS:
            try:
                self._views[wanted] = View(self.config, self.hash_key, self._applies(*wanted))
            except Exception:  # patterns that are too large together in this combination
                self._views[wanted] = _MaskingView()
        return self._views.get(wanted, self.strict)

    def _applies(self, some: int, every: int) -> Applies:
        def applies(only: str | None) -> tuple[bool, bool]:
            if only is None:
                return True, True
            index = self._only.index(only)
            return bool(some >> index & 1), bool(every >> index & 1)

        return applies

    def text(self, text: bytes) -> bytes:
        """Redact a text that is to be shown to somebody, with the strictest view. Of a key-value pair take `value`,
        which sees the key too."""
        result = self.strict.apply(NAME, text)
        return text if result is None else result[0]

    def value(self, place: int, key: bytes, text: bytes) -> bytes:
        """Redact an attribute's value that is to be shown to somebody: MASK_TEXT where a rule for its key deletes or
        masks it."""
        view = self.strict
        lane = view.key_rules.lane_of(place, key)
        kind = view.key_rules.lanes[lane].kind
        if kind == AS_IT_IS:
            return text
        if kind in (DELETED, MASKED):
            return MASK_TEXT
        result = view.apply(lane, text)
        return text if result is None else result[0]


def only_of(config: Redact) -> list[str]:
    """List the different filters, in the order in which they appear."""
    rules: tuple[KeyRule | ValueRule, ...] = (*config.keys, *config.values)
    return list(dict.fromkeys(rule.only for rule in rules if rule.only is not None))


class View:
    """The policy for one combination of filters: lanes by key, results by lane and text. Once it is built it raises
    nothing but MemoryError, and may be used on any thread. Raises ValueError for patterns that are too large
    together."""

    def __init__(self, config: Redact, hash_key: bytes, applies: Applies) -> None:
        sql = (config.sql or ("obfuscate" if config.preset else "keep")) == "obfuscate"
        steps = config.urls if config.urls is not None else STRICT_URLS if config.preset == "strict" else ()
        urls = {step: step in steps for step in STRICT_URLS} if steps else None
        active = _active(config, applies)
        self._sieve = Sieve([detector for detector, _ in active], sql=sql, urls=urls is not None)
        self.key_rules = KeyRules(config, applies, sql=sql, urls=urls)
        self._values = Values(active, self._sieve, self.key_rules, sql=sql, urls=urls, hash_key=hash_key)

    def sift(self, joined: bytes) -> list[Region] | None:
        """Return where in joined values something may be found: see `Sieve.sift`."""
        return self._sieve.sift(joined)

    def plain(self, text: bytes) -> bool:
        """Tell whether there is nothing to look for in a text of JSON but its keys, which costs little."""
        try:
            return self._values.plain(text)
        except Exception:
            return False

    def apply(self, lane: int, text: bytes) -> Result | None:
        """Return what becomes of a value; None if it may stay as it is."""
        counts: Counter[Label] = Counter()
        if len(text) > MAX_VALUE_BYTES:
            return MASK_TEXT, ((OVERSIZE, 1),)
        budget.begin(len(text))
        try:
            repaired = text.decode("utf-8", "replace").encode()
            result = self._values.apply(self.key_rules.lanes[lane], repaired, counts)
        except budget.SpentError:
            return MASK_TEXT, ((OVERSIZE, 1),)
        except Exception:  # of ours or of a library's: not a word of it, it might quote the value
            return MASK_TEXT, ((FAILURE, 1),)
        finally:
            budget.end()
        return None if result == repaired else (result, tuple((label, n) for label, n in counts.items() if n))


class _MaskingKeyRules(KeyRules):
    """Puts every key into one lane, which masks and counts as a failure."""

    statement = OWN

    def __init__(self) -> None:
        self.lanes = [Lane(AS_IT_IS), *[Lane(SINGLE)] * (OWN - 1), Lane(MASKED, FAILURE)]

    def lane_of(self, place: int, key: bytes, named: bool = False) -> int:  # noqa: ARG002 (as KeyRules has it)
        return OWN

    def statement_lane(self, system: bytes) -> int:  # noqa: ARG002 (as KeyRules has it)
        return OWN


class _MaskingView(View):
    """Masks everything, counted as a failure: stands in for a view that cannot be made."""

    def __init__(self) -> None:
        self.key_rules = _MaskingKeyRules()

    def sift(self, joined: bytes) -> list[Region] | None:
        return [(0, len(joined))]

    def plain(self, text: bytes) -> bool:  # noqa: ARG002 (as View has it)
        return False

    def apply(self, lane: int, text: bytes) -> Result | None:  # noqa: ARG002 (as View has it)
        return None if text in (b"", MASK_TEXT) else (MASK_TEXT, ((FAILURE, 1),))


def _active(config: Redact, applies: Applies) -> list[tuple[Detector, Action]]:
    """Return the detectors to use, each with the action on its findings: of several entries for one the first that
    applies."""
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
    actions = {name: strongest(rules) for name, rules in matching.items()}
    return [(known[name], action) for name, action in actions.items() if action is not None and action.word != "keep"]
