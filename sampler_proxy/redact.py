"""What is redacted, and how: the section `redact` as something that answers. `_redact` asks, position by position.

A value's *lane* says how it is looked at: as text, as a statement, as a URL, by a key rule, not at all. Lanes are small
numbers; those below `OWN` always mean the same. What comes out of a lane depends on the value alone, so that it can be
remembered. `only` makes a `View` of the policy for each combination of filters that hold for a span.

Everything here fails closed: what raises, or is too large to be looked at, is masked whole, and counted.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import re2

from sampler_proxy import detectors
from sampler_proxy.config_redact import MASK, Action, KeyRule, Redact, ValueRule, compile_keys
from sampler_proxy.detectors import SEPARATOR, Detector, embedded
from sampler_proxy.detectors.sql import obfuscate
from sampler_proxy.detectors.urls import rewrite
from sampler_proxy.traceql.plan import Compiled

MASKED = b"****"
MAX_VALUE_BYTES = 64 * 1024
"""A longer text is masked whole."""
MAX_NESTED = 4
"""JSON in a string in JSON: deeper, the string is masked whole."""
MAX_VIEWS = 32
MAX_MEMBER_KEYS = 4096
_ROUNDS = 4

# Where an attribute stands.
SPAN, RESOURCE, SCOPE, EVENT, LINK, NESTED = range(6)
_ALLOWED = ("span", "resource", "scope", "event", "link")

# Lanes, and how the values in them are gone about.
EXEMPT, TEXT, KEY, BYTES, NAME, OWN = range(6)
AS_IT_IS, JOINED, ALONE, LEAVES, DELETED, WHOLE = range(6)
"""Not at all; in one go with others; alone; alone, and whatever type the value has; no more; replaced by the mask."""

# Keys whose values are statements, or URLs and paths.
SQL_KEYS = frozenset({"db.statement", "db.query.text", "sql.query"})
URL_KEYS = frozenset(
    {
        *("url.full", "url.path", "url.query", "url.original", "http.url", "http.target", "http.path"),
        *("http.request.header.referer", "http.referer"),
    }
)

COMMON_KEYS = (
    *("*password*", "*passwd*", "*passphrase*", "*pwd", "*secret*", "*credential*", "*authorization*", "*cookie*"),
    *("*api_key*", "*api-key*", "*apikey*", "*access_key*", "*access-key*", "*accesskey*", "*private_key*"),
    *("*private-key*", "*privatekey*", "*encryption_key*", "*signing_key*", "*csrf*", "*xsrf*", "*cvv", "*cvc"),
    *("token", "*.token", "*_token", "*-token", "*accesstoken", "*refreshtoken", "*authtoken", "*idtoken"),
    *("*session_id", "*session-id", "*sessionid", "db.query.parameter.*", "db.operation.parameter.*"),
)
STRICT_KEYS = (
    *COMMON_KEYS,
    *("user.name", "user.full_name", "user.email", "enduser.*", "client.address", "client.socket.address"),
    *("net.peer.ip", "net.sock.peer.addr", "http.client_ip", "*forwarded*", "*.phone*", "*.birth*", "db.user"),
    *("*request.body", "*response.body", "*request_body", "*response_body", "messaging.message.body"),
    *("gen_ai.*.messages", "gen_ai.prompt*", "gen_ai.completion*", "gen_ai.system_instructions"),
)
STRICT_URLS = ("strip_query", "strip_credentials", "strip_ids")

Label = tuple[str, str]
"""Of the metric: what found it, and what became of it."""

Result = tuple[bytes, tuple[tuple[Label, int], ...]]
"""What replaces a value, and what that counts as."""

Observer = Callable[[int, int, bytes | None, Label, int], object]
"""Told of each redaction: message and field (as `_proto` numbers them), the attribute's key, label, how often."""

OVERSIZE: Label = ("oversize", "mask")
FAILURE: Label = ("failure", "mask")
UNKNOWN: Label = ("unknown_field", "delete")

_REPLACED = "\ufffd".encode()

_CANARY = b"\x00sampler-proxy\x00"
"""Ends whatever is sifted. A set that does not see it has run out of memory, and what it says of the rest is void."""


def _nothing(_: bytes) -> list[detectors.Range]:
    return []


_CANARY_BYTES = Detector("", r"\x00sampler-proxy\x00", _nothing)
_CANARY_CHARACTERS = Detector("", r"\x00sampler-proxy\x00", _nothing, utf8=True)
_URL = Detector("", "://", _nothing)
_FORM = Detector("", r"(?m)^[0-9A-Za-z_.%+*$\[\]-]+=[^\x00\s]*&", _nothing)
_SQL = (
    r"(?i)(?:^|[^0-9a-z_])((?:select\s[^\x00]*\sfrom|update\s[^\x00]*\sset"
    r"|(?:insert|merge|replace)\s+into|delete\s+from)\s)"
)
_STATEMENT = Detector("", _SQL, _nothing)
_MEMBER_KEY = r"""(?s)"((?:[^"\\]|\\.)*)"\s*:|'((?:[^'\\]|\\.)*)'\s*:"""


def _options(utf8: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = utf8  # as detectors have it
    if not utf8:
        options.encoding = re2.Options.Encoding.LATIN1
    return options


def _search(pattern: str, utf8: bool = False) -> re2._Regexp:
    return re2.compile(pattern if utf8 else pattern.encode(), _options(utf8))


_FIND_SQL = _search(_SQL)
_BEGINS_SQL = _search(r"(?i)^\s*(?:with|explain|analyze)\s")
_FIND_MEMBER_KEY = _search(_MEMBER_KEY)
_MAY_BE_KEY = re.compile(rb'"(?=([^"\\]*)"\s*:)')  # without lookahead in RE2; linear, as it ends at the next quote


class _Found(NamedTuple):
    start: int
    end: int
    name: str
    action: Action


class _Lane(NamedTuple):
    kind: int
    label: Label | None = None
    apply: Callable[[bytes, Counter[Label]], bytes] | None = None


class Policy:
    """`hash_key`: what the configuration says, or what the file holds that it names. `filters`: the selection of what
    `only_of` lists, in that order; None where there is nothing."""

    def __init__(self, config: Redact, hash_key: bytes = b"", filters: Compiled | None = None) -> None:
        self.config = config
        self.hash_key = hash_key
        self.filters = filters
        self.marker = config.marker
        self._only = only_of(config)
        self._views: dict[int, View] = {}

    @property
    def everything(self) -> int:
        """The mask of all filters."""
        return (1 << len(self._only)) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and (self.config, self.hash_key) == (other.config, other.hash_key)

    __hash__ = None  # type: ignore[assignment]

    def view(self, mask: int) -> View:
        """For spans for which these filters hold, a bit each. There are at most MAX_VIEWS; for what comes then all
        filters are taken to hold."""
        if mask not in self._views and len(self._views) >= MAX_VIEWS:
            mask = self.everything
        if mask not in self._views:
            self._views[mask] = View(self.config, self.hash_key, self._mask(mask))
        return self._views[mask]

    def _mask(self, mask: int) -> Callable[[str | None], bool]:
        return lambda only: only is None or bool(mask >> self._only.index(only) & 1)

    def text(self, text: bytes) -> bytes:
        """A text that is to be shown to somebody, as it would leave, all filters taken to hold. Of a key-value pair it
        knows the value only."""
        result = self.view(self.everything).apply(NAME, text)
        return text if result is None else result[0]


def only_of(config: Redact) -> list[str]:
    """The different filters, in the order in which they appear."""
    rules: tuple[KeyRule | ValueRule, ...] = (*config.keys, *config.values)
    return list(dict.fromkeys(rule.only for rule in rules if rule.only is not None))


class View:
    """The policy as it is for one combination of filters. Nothing it does raises anything but MemoryError."""

    def __init__(self, config: Redact, hash_key: bytes, holds: Callable[[str | None], bool]) -> None:
        preset = config.preset
        self._hash_key = hash_key
        self._sql = (config.sql or ("obfuscate" if preset else "keep")) == "obfuscate"
        urls = config.urls if config.urls is not None else STRICT_URLS if preset == "strict" else ()
        self._urls = {step: step in urls for step in STRICT_URLS} if urls else None
        self._detectors, self._actions = _active(config, holds)
        self._sieve_of(self._detectors)
        keys = {"common": COMMON_KEYS, "strict": STRICT_KEYS}.get(preset or "", ())
        rules = [rule for rule in config.keys if holds(rule.only)]
        self._key_actions = [*(rule.action for rule in rules), *[MASK] * len(keys)]
        self._key_rules = _KeySet([*(rule.match for rule in rules), *keys])
        self._except = _KeySet(config.except_)
        allowed = [getattr(config.allow_only, scope) for scope in _ALLOWED]
        self._allowed = [None if patterns is None else _KeySet(patterns) for patterns in allowed]
        named = _Lane(ALONE, None, self._url_text) if self._urls else _Lane(JOINED, None, self._text)
        self.lanes = [
            _Lane(AS_IT_IS),
            _Lane(JOINED, None, self._text),
            _Lane(JOINED, None, self._text),
            _Lane(JOINED, None, self._bytes),
            named,
        ]
        self._not_allowed = self._lane(_Lane(DELETED, ("allow_only", "delete")))
        self._not_allowed_named = self._lane(_Lane(WHOLE, ("allow_only", "mask")))
        self._masked = self._lane(_Lane(WHOLE, ("key", "mask")))
        self._query = self._lane(_Lane(WHOLE, ("urls", "mask")))
        self._statement = self._lane(_Lane(ALONE, None, self._sql_text))
        self._url = self._lane(_Lane(ALONE, None, self._url_text))
        self._by_action: dict[Action, int] = {MASK: self._masked}
        self._member_lanes: dict[str, int] = {}

    def _lane(self, lane: _Lane) -> int:
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
        if allowed is not None and allowed.first(key) is None:
            return self._not_allowed_named if named else self._not_allowed
        if self._except.first(key) is not None:
            return EXEMPT
        rule = self._key_rules.first(key)
        if rule is not None:
            action = self._key_actions[rule]
            if action not in self._by_action:
                self._by_action[action] = self._lane(self._lane_of(action))
            lane = self._by_action[action]
            return self._masked if named and self.lanes[lane].kind == DELETED else lane
        if self._sql and key in SQL_KEYS:
            return self._statement
        if self._urls and key in URL_KEYS:
            return self._query if self._urls["strip_query"] and key == "url.query" else self._url
        return TEXT

    def _lane_of(self, action: Action) -> _Lane:
        label = ("key", action.word)
        if action.word == "delete":
            return _Lane(DELETED, label)

        def apply(text: bytes, counts: Counter[Label]) -> bytes:
            counts[label] += 1
            return self._act(action, text)

        return _Lane(LEAVES, label, apply)

    # Values.

    def sift(self, joined: bytes) -> list[tuple[int, int]] | None:
        """Of values joined by SEPARATOR and ended by `_CANARY`: the ranges outside of which there is nothing to find,
        disjoint and in order; None where there is nothing at all."""
        hits = self._sieve(joined)
        if hits == self._canaries:
            return None
        try:
            if not set(self._canaries) <= set(hits):
                return [(0, len(joined))]
            regions: list[tuple[int, int]] = []
            for index in hits:
                if index < len(self._searches):
                    if (search := self._searches[index]) is None:
                        return [(0, len(joined))]
                    places = [match.span() for match in search.finditer(joined)]
                    regions += places or [(0, len(joined))]  # a hit has a place
            return _merged(regions)
        except Exception:
            return [(0, len(joined))]

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
        return None if result == mended else (result, tuple(counts.items()))

    def _bytes(self, text: bytes, counts: Counter[Label]) -> bytes:
        spaced = text.replace(_REPLACED, b" ")
        return text if self._text(spaced, counts) == spaced else MASKED

    def _sql_text(self, text: bytes, counts: Counter[Label]) -> bytes:
        result = obfuscate(text)
        counts["sql", "obfuscate"] += result != text
        return self._detected(result, counts)

    def _url_text(self, text: bytes, counts: Counter[Label]) -> bytes:
        return self._text(self._count_urls(text, self._rewritten(text), counts), counts)

    def _rewritten(self, text: bytes) -> bytes:
        return rewrite(text, **self._urls) if self._urls else text

    def _count_urls(self, text: bytes, result: bytes, counts: Counter[Label]) -> bytes:
        counts["urls", "strip"] += result != text
        return result

    def _text(self, text: bytes, counts: Counter[Label], depth: int = 0) -> bytes:
        like_json = text.lstrip()[:1] in (b"{", b"[")
        if like_json and self._plain(text) and self._says_nothing(text):
            return text
        members = embedded.members(text) if like_json or b"&" in text else []
        if members and depth == MAX_NESTED:
            counts[FAILURE] += 1
            return MASKED
        # What is behind the last member: brackets, or what was no JSON any more.
        rest = text[max((member.end for member in members if not _holds_others(member)), default=0) :]
        if like_json and (label := self._unread(rest)):
            counts[label[0], "mask"] += 1
            return MASKED
        if members:
            text = self._members(text, members, counts, depth)
        if not members or (self._sql and _FIND_SQL.search(rest)) or (self._urls and b"://" in rest):
            text = self._reshaped(text, counts)
        return self._detected(text, counts)

    def _reshaped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Without the literals of statements in it, and what URLs lose."""
        if self._sql and (match := _FIND_SQL.search(text)):
            start = 0 if _BEGINS_SQL.search(text) else match.start(1)
            result = text[:start] + obfuscate(text[start:])
            counts["sql", "obfuscate"] += result != text
            text = result
        if self._urls and b"://" in text:
            text = self._count_urls(text, self._rewritten(text), counts)
        return text

    def _members(self, text: bytes, members: Sequence[embedded.Member], counts: Counter[Label], depth: int) -> bytes:
        """Of JSON, or a form: its members, each by its key or as a text of its own."""
        plain = self._plain(text)
        out: list[bytes] = []
        done = exempt = 0
        for member in members:
            if member.start < done or member.start < exempt:  # inside of one that has been seen to
                continue
            lane = self.lanes[self._member_lane(member.key)]
            if lane.kind == AS_IT_IS:
                exempt = member.end
            elif lane.kind in (DELETED, WHOLE) or (lane.kind == LEAVES and _holds_others(member)):
                assert lane.label is not None
                counts[lane.label[0], "mask"] += member.text != MASKED
                out += [text[done : member.start], member.encoded(MASKED)]
                done = member.end
            elif not _holds_others(member) and not (plain and lane.kind == JOINED):
                if lane.kind == JOINED:
                    value = self._text(member.text, counts, depth + 1)
                else:
                    assert lane.apply is not None
                    value = lane.apply(member.text, counts)
                if value != member.text:
                    out += [text[done : member.start], member.encoded(value)]
                    done = member.end
        return b"".join((*out, text[done:]))

    def _member_lane(self, key: str) -> int:
        lane = self._member_lanes.get(key)
        if lane is None:
            if len(self._member_lanes) == MAX_MEMBER_KEYS:
                self._member_lanes.clear()
            lane = self._member_lanes[key] = self.key(NESTED, key.encode("utf-8", "replace"))
        return lane

    def _plain(self, text: bytes) -> bool:
        """Whether there is nothing in JSON but by the keys: without escapes what a member holds is seen in the whole,
        save for a form."""
        if b"\\" in text or b"&" in text or b"'" in text:
            return False
        return self._sieve(text + SEPARATOR + _CANARY) == self._canaries

    def _says_nothing(self, text: bytes) -> bool:
        """Whether no key of JSON without escapes falls under a rule. Whatever may be a key is taken for one."""
        keys = set(_MAY_BE_KEY.findall(text))
        return all(self._member_lane(key.decode("utf-8", "replace")) == TEXT for key in keys)

    def _unread(self, text: bytes) -> Label | None:
        """Of what is nearly JSON, and was not read: the rule that one of its keys falls under."""
        for match in _FIND_MEMBER_KEY.finditer(text):
            lane = self.lanes[self.key(NESTED, match.group(1) or match.group(2) or b"")]
            if lane.kind in (DELETED, WHOLE, LEAVES):
                return lane.label
        return None

    def _detected(self, text: bytes, counts: Counter[Label]) -> bytes:
        for _ in range(_ROUNDS):
            found = self._find(text.replace(_REPLACED, b"   "))  # what was no text ends what stands beside it
            if not found:
                return text
            out, done = [], 0
            for start, end, name, action in found:
                counts[name, action.word] += 1
                out += [text[done:start], self._act(action, text[start:end])]
                done = end
            text = b"".join((*out, text[done:]))
            if any(one.action.word == "hash" for one in found):  # a hash is not hashed again
                return text
        counts[FAILURE] += 1
        return MASKED

    def _find(self, text: bytes) -> list[_Found]:
        """Disjoint, in order. Where several overlap the first one's name counts; if their actions differ, it is
        masked."""
        hits = self._sieve(text + SEPARATOR + _CANARY)
        if hits == self._canaries:
            return []
        if not set(self._canaries) <= set(hits):
            hits = list(range(len(self._detectors)))
        found = []
        for index in hits:
            if index < len(self._detectors):
                detector, action = self._detectors[index], self._actions[index]
                found += [
                    _Found(*place, detector.name, action) for place in detector.find(text) if place.end > place.start
                ]
        found.sort(key=lambda one: one[:2])
        merged: list[_Found] = []
        for one in found:
            if merged and one.start < merged[-1].end:
                last = merged[-1]
                action = last.action if last.action == one.action else MASK
                merged[-1] = _Found(last.start, max(last.end, one.end), last.name, action)
            else:
                merged.append(one)
        return merged

    def _act(self, action: Action, text: bytes) -> bytes:
        if action.word == "hash":
            return b"hash:" + hmac.digest(self._hash_key, text, "sha256")[:16].hex().encode()
        if action.word == "keep_last":
            characters = text.decode("utf-8", "replace")
            if len(characters) >= action.last + len(MASKED):
                return MASKED + characters[-action.last :].encode()
        return MASKED

    def _sieve_of(self, active: Sequence[Detector]) -> None:
        asked = [*active, _FORM]
        if self._sql:
            asked.append(_STATEMENT)
        if self._urls:
            asked.append(_URL)
        canaries = [_CANARY_BYTES, *([_CANARY_CHARACTERS] if any(detector.utf8 for detector in asked) else [])]
        self._canaries = list(range(len(asked), len(asked) + len(canaries)))
        self._searches = [_search(detector.pattern, detector.utf8) if detector.pattern else None for detector in asked]
        self._sieve = detectors.sieve([*asked, *canaries])


def _holds_others(member: embedded.Member) -> bool:
    """Whether it is an object or array."""
    return not member.is_string and not member.text


def _active(config: Redact, holds: Callable[[str | None], bool]) -> tuple[list[Detector], list[Action]]:
    """The detectors to use and what is done to what they find: of several entries for one the first that applies."""
    actions: dict[str, Action] = {}
    known = dict(detectors.DETECTORS)
    for rule in config.values:
        if holds(rule.only):
            name = rule.detect or rule.name
            assert name is not None
            actions.setdefault(name, rule.action)
            if rule.pattern is not None and name not in known:
                known[name] = detectors.custom(name, rule.pattern)
    preset = {"common": detectors.COMMON, "strict": detectors.STRICT}.get(config.preset or "", ())
    for name in preset:
        actions.setdefault(name, MASK)
    names = [name for name, action in actions.items() if action.word != "keep"]
    return [known[name] for name in names], [actions[name] for name in names]


def _merged(regions: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class _KeySet:
    """Key patterns in order. The last of the set matches anything: where it is silent, the set has run out of
    memory."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self._set = compile_keys([*self._patterns, "*"]) if self._patterns else None

    def first(self, key: str) -> int | None:
        """The index of the first that matches."""
        if self._set is None:
            return None
        hits = self._set.Match(key) or []
        last = len(self._patterns)
        if last not in hits:
            hits = [i for i, pattern in enumerate(self._patterns) if compile_keys([pattern, "*"]).Match(key) != [1]]
            hits.append(last)
        first = min(hits)
        return first if first < last else None
