"""Redacts one value: finds secrets in its text, and replaces them. Rules for keys are `KeyRules`' part.

Works on bytes that are UTF-8, and may raise: `View.apply` masks a value on which it does.
"""

from __future__ import annotations

import hmac
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.catalogue import SEPARATOR, Detector
from sampler_proxy.redact.detectors.connections import password_behind_user
from sampler_proxy.redact.detectors.secret_values import looks_like_key
from sampler_proxy.redact.key_rules import MAX_CACHED_KEY_BYTES, MAX_CACHED_KEYS, KeyRules
from sampler_proxy.redact.lanes import (
    ANY_TYPE,
    AS_IT_IS,
    BATCHED,
    DELETED,
    FAILURE,
    MASK_TEXT,
    MASKED,
    SINGLE,
    Family,
    Label,
    Lane,
    Look,
)
from sampler_proxy.redact.section import MASK, Action
from sampler_proxy.redact.sieve import CANARY, Sieve
from sampler_proxy.redact.texts import announced, brackets, embedded, encoded, keyed, statements, stores
from sampler_proxy.redact.texts.embedded import like_json
from sampler_proxy.redact.texts.json_names import names_in_json
from sampler_proxy.redact.texts.members import Member
from sampler_proxy.redact.texts.urls import rewrite

MAX_NESTED = 4
"""JSON in a string in JSON: deeper, the string is masked whole."""
STEPS_OF_TEXT = 10
STEPS_OF_STATEMENT = 16
STEPS_OF_MEMBER = 1
STEPS_OF_FINDING = 3
BYTES_A_STEP = 128
"""What it takes to read a text of its own, or a statement; to ask of a member what its rule is; to replace what is
found; and what a detector reads in a step: see `budget.py`."""
_ROUNDS = 4
"""How often a text is searched anew after its findings have been replaced."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_REPLACED = "\ufffd".encode()
_HASHED = re.compile(rb"hash:[0-9a-f]{32}")
_WITHOUT_ESCAPES = re.compile(rb"[0-9A-Za-z*:_.@ -]*")
_QUOTED_KEY = re.compile(rb"""["'`][^"'`\n]*["'`](?=\s*+(?:=>|:))""")
_NONE = re.compile(
    rb"[*\xe2\x80\xa2]*|\?|~|-+|[xX]{3,}"
    rb"|(?i:[<(\[{]?(?:null|nil|none|undefined|true|false|n/a|empty|unset)?[>)\]}]?)"
    rb"|(?i:[\[<({*]{0,3}(?:redacted|filtered|masked|hidden|removed|omitted|scrubbed|sanitized|obfuscated|protected)[\])}>*]{0,3})"
)
_LONGEST_NONE = 64


class _Finding(NamedTuple):
    """A range of a text that is to be replaced, because of a detector or of a key's rule."""

    start: int
    end: int
    name: str
    action: Action
    lane: Lane | None = None
    """The lane of a key's value; None for what a detector found."""
    text: bytes = b""
    """The key's value, without its escapes."""


class Values:
    """Redacts texts under one view of the policy. Used on any thread."""

    def __init__(
        self,
        active: Sequence[tuple[Detector, Action]],
        sieve: Sieve,
        key_rules: KeyRules,
        *,
        sql: bool,
        urls: Mapping[str, bool] | None,
        hash_key: bytes,
    ) -> None:
        """Prepare a view's values. `active`: detectors, each with the action on its findings; `sieve` has the same
        ones. `sql`: statements lose their literals. `urls`: the arguments of `urls.rewrite`; None to leave URLs
        alone."""
        self._detectors = [detector for detector, _ in active]
        self._actions = [action for _, action in active]
        self._sieve = sieve
        self._key_rules = key_rules
        self._sql = sql
        self._urls = urls
        self._hash_key = hash_key
        self._innocent: set[bytes] = set()
        """Names that fall under no rule."""

    def apply(self, lane: Lane, text: bytes, counts: Counter[Label], depth: int = 0) -> bytes:
        """Redact a text in a lane, and count the redactions. `depth`: strings of JSON around it."""
        treatment = lane.treatment
        if treatment is Look.TEXT:
            return self.text(text, counts, depth)
        if treatment is Look.BYTES:
            return self._in_bytes(text, counts)
        if treatment is Look.URL:
            return self.text(self._stripped(text, counts), counts, depth)
        if treatment is Look.USER:
            return self.text(self._without_password(text, counts), counts, depth)
        if treatment in (Look.KEY_LIKE, Look.MIXED_KEY):
            if looks_like_key(text.strip(), mixed=treatment is Look.MIXED_KEY):
                counts["key", "mask"] += 1
                return MASK_TEXT
            return self.text(text, counts, depth)
        if isinstance(treatment, Family):
            return self._detected(self._obfuscated(treatment, text, counts), counts, by_key=True)
        assert isinstance(treatment, Action)
        assert lane.label is not None
        counts[lane.label] += 1
        return self.act(treatment, text)

    def _in_bytes(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Redact bytes: masked whole where a text in them would change."""
        spaced = text.replace(_REPLACED, b" ")
        return text if self.text(spaced, counts) == spaced else MASK_TEXT

    def _obfuscated(self, family: Family, statement: bytes, counts: Counter[Label]) -> bytes:
        budget.spend(STEPS_OF_STATEMENT)
        result = stores.obfuscate(family, statement)
        counts["sql", "obfuscate"] += result != statement
        return result

    def _without_password(self, user: bytes, counts: Counter[Label]) -> bytes:
        """Mask the password behind a user's name."""
        if password := password_behind_user(user):
            counts["key", "mask"] += 1
            return user[: password.start] + MASK_TEXT + user[password.end :]
        return user

    def _stripped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Strip URLs."""
        result = rewrite(text, **self._urls) if self._urls else text
        counts["urls", "strip"] += result != text
        return result

    def text(self, text: bytes, counts: Counter[Label], depth: int = 0) -> bytes:
        """Redact a text: the members of JSON or a form, statements, URLs, and what detectors find. `depth`: strings of
        JSON around it."""
        budget.spend(STEPS_OF_TEXT)
        if like_json(text) and self.plain(text) and self._says_nothing(text) and embedded.is_json(text):
            return text
        members, whole = embedded.read(text)
        if members and depth > MAX_NESTED:
            counts[FAILURE] += 1
            return MASK_TEXT
        changing = self._sql and statements.begins(text) is not None
        if members or changing:
            budget.spend(STEPS_OF_TEXT)
        named: bytes | None = None
        if not whole and (members or changing):  # before the names go with what is around them
            named = self._detected(text, counts, by_key=True, by_form=False, members=members)
            members = members if named == text else embedded.read(named).members
            text = named
        outside = b"" if whole else _outside(text, members) if members else text
        if members:
            text = self._members(text, members, counts, depth)
        if (changing and statements.begins(outside) is not None) or (self._urls and b"://" in outside):
            text = self._reshaped(text, counts)
        return self._detected(text, counts, by_key=not whole and text != named)

    def _reshaped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Obfuscate the statement, and strip the URLs, in a text."""
        if self._sql and (start := statements.begins(text)) is not None:
            text = text[:start] + self._obfuscated(Family.SQL, text[start:], counts)
        if self._urls and b"://" in text:
            text = self._stripped(text, counts)
        return text

    def _members(self, text: bytes, members: Sequence[Member], counts: Counter[Label], depth: int) -> bytes:
        """Redact the members of JSON, or of a form, each by its key or as a text of its own."""
        suspects = set() if self.plain(text) else self._suspects(members)
        named = self._named(text, members)
        out: list[bytes] = []
        done = exempt = 0
        for index, member in enumerate(members):
            if member.start < done or member.start < exempt:  # inside of one that has been seen to
                continue
            lane, offset = named[index] if index in named else (self._key_rules.member_lane(member.key), 0)
            value: bytes | None = None
            if lane.kind == AS_IT_IS:
                exempt = member.end
            elif lane.kind in (DELETED, MASKED) or (lane.kind == ANY_TYPE and member.holds_others):
                assert lane.label is not None
                inside = text[member.start : member.end] if member.holds_others else member.text[offset:]
                if not _stands_for_none(inside):
                    counts[lane.label[0], "mask"] += 1
                    value = member.text[:offset] + MASK_TEXT
            elif not member.holds_others and (lane.kind != BATCHED or index in suspects):
                if lane.kind == BATCHED:
                    value = self.text(member.text, counts, depth + 1)
                else:
                    value = member.text[:offset] + self.apply(lane, member.text[offset:], counts, depth + 1)
            if value is not None and value != member.text:
                out += [text[done : member.start], member.encoded(value)]
                done = member.end
        return b"".join((*out, text[done:]))

    def _named(self, text: bytes, members: Sequence[Member]) -> dict[int, tuple[Lane, int]]:
        """Find the members that fall under a rule by a name that stands elsewhere, and secrets in command lines: their
        lanes, and where in their texts the values begin."""
        budget.spend(STEPS_OF_MEMBER * len(members))
        found = {}
        for index, name, offset in announced.announced(text, members):
            lane = self._key_rules.member_lane(name)
            if _falls_under_rule(lane):
                found[index] = (lane, offset)
        if arrays := announced.commands(text, members):
            found |= self._in_commands(members, arrays)
        return {
            index: one
            for index, one in found.items()
            if (own := self._key_rules.member_lane(members[index].key)).kind != AS_IT_IS and not _falls_under_rule(own)
        }

    def _in_commands(self, members: Sequence[Member], arrays: Sequence[Sequence[int]]) -> dict[int, tuple[Lane, int]]:
        """Find what detectors find in the arguments of commands, had they been written in a line."""
        lines = SEPARATOR.join(b" ".join(members[index].text for index in indices) for indices in arrays)
        secrets = iter([*self._find(lines, by_key=False, by_form=True), _Finding(sys.maxsize, sys.maxsize, "", MASK)])
        found = {}
        secret = next(secrets)
        at = 0
        for indices in arrays:
            for index in indices:
                end = at + len(members[index].text)
                while secret.end <= at:
                    secret = next(secrets)
                if secret.start < end:
                    lane = Lane(ANY_TYPE, (secret.name, secret.action.word), secret.action)
                    found[index] = (lane, max(0, secret.start - at))
                at = end + 1
            at += len(SEPARATOR) - 1
        return found

    def _suspects(self, members: Sequence[Member]) -> set[int]:
        """Find the indices of the members whose texts must be looked at by themselves, unless a rule says otherwise."""
        leaves = [(index, member) for index, member in enumerate(members) if not member.holds_others]
        regions = self._sieve.sift(SEPARATOR.join((*(member.text for _, member in leaves), CANARY))) or []
        found = set()
        following = iter([*regions, (sys.maxsize, sys.maxsize)])
        low, high = next(following)
        at = 0
        for index, member in leaves:
            while high < at:
                low, high = next(following)
            end = at + len(member.text)
            if low <= end or like_json(member.text):
                found.add(index)
            at = end + len(SEPARATOR)
        return found

    def plain(self, text: bytes) -> bool:
        """Tell whether nothing may be found in a text of JSON but by names: without escapes what a member holds is seen
        in the whole, save for a form."""
        if b"\\" in text or b"&" in text or b"'" in text:
            return False
        return self._sieve.only_names(text)

    def _says_nothing(self, text: bytes) -> bool:
        """Tell whether no key of JSON without escapes falls under a rule, nor what may be the name of another member.
        Whatever may be a key is taken for one."""
        names = names_in_json(text, announced.COMMON_NAMES, announced.COMMON_VALUES)
        if names is None:
            return False
        return names <= self._innocent or all(self._is_innocent(name) for name in names)

    def _detected(
        self,
        text: bytes,
        counts: Counter[Label],
        *,
        by_key: bool,
        by_form: bool = True,
        members: Sequence[Member] = (),
    ) -> bytes:
        """Replace what detectors find (`by_form`), and the values of what names announce (`by_key`), again until
        nothing is found. `members`: of the text, if they are known."""
        for _ in range(_ROUNDS):
            found = self._find(text, by_key, by_form, members)
            members = ()
            if not found:
                return text
            hashes = any(one.action.word == "hash" for one in found)
            if hashes:  # a hash is not hashed again: all that is to be found must be found before
                found = self._rest(text, found, by_key, by_form)
            budget.spend(STEPS_OF_FINDING * len(found))
            out, done = [], 0
            for one in found:
                out += [text[done : one.start], self._replacement(one, text[one.start : one.end], counts)]
                done = one.end
            changed = b"".join((*out, text[done:]))
            if changed == text or hashes or all(_is_quoted(text, one) for one in found):
                return changed
            text = changed
        counts[FAILURE] += 1
        return MASK_TEXT

    def _replacement(self, found: _Finding, text: bytes, counts: Counter[Label]) -> bytes:
        """Redact one finding, and count it."""
        if found.lane is None or found.lane.treatment is None:
            result = self.act(found.action, text)
        else:
            result = self.apply(found.lane, found.text, Counter())
            if result == found.text:
                return text
            if not _WITHOUT_ESCAPES.fullmatch(result):
                result = MASK_TEXT
        counts[found.name, found.action.word] += result != text
        return result

    def _rest(self, text: bytes, found: list[_Finding], by_key: bool, by_form: bool) -> list[_Finding]:
        """Find the other secrets once the findings are blotted out: secrets that touch hide each other."""
        for _ in range(_ROUNDS):
            blotted = bytearray(text)
            for one in found:
                blotted[one.start : one.end] = b"*" * (one.end - one.start)
            more = [
                one for one in self._find(bytes(blotted), by_key, by_form) if blotted[one.start : one.end].strip(b"*")
            ]
            if not more:
                return found
            found = _joined(found + more)
        return [_Finding(0, len(text), found[0].name, MASK)]

    def _find(self, text: bytes, by_key: bool, by_form: bool, members: Sequence[Member] = ()) -> list[_Finding]:
        """Find what is to be replaced: disjoint, in order. Where findings overlap the first one's name counts; if their
        actions differ, they are masked."""
        text = text.replace(_REPLACED, b"   ")  # what was no text ends what stands beside it
        hits = self._sieve.hits(text)
        if not hits:
            return []
        levels: list[tuple[bytes, encoded.Origin]] = []
        if self._sieve.escaped in hits and (levels := encoded.decoded(text)):
            hits = self._sieve.hits(SEPARATOR.join((text, *(level for level, _ in levels))))
        found = []
        for level, place in [(text, encoded.same), *levels]:
            looks = _looks(level)
            for index in hits if by_form else ():
                if index < len(self._detectors):
                    detector, action = self._detectors[index], self._actions[index]
                    for look in looks if not detector.utf8 else looks[:1]:
                        budget.spend(1 + len(look) // BYTES_A_STEP)
                        for start, end in detector.find(look):
                            if end > start:
                                found.append(_Finding(place(start), place(end), detector.name, action))
            if by_key and not self._sieve.keyed.isdisjoint(hits):
                found += self._by_key(level, place, members if level is text else ())
        return _joined(found)

    def _by_key(self, text: bytes, place: encoded.Origin, members: Sequence[Member] = ()) -> list[_Finding]:
        """Find the values that fall under rules by their quoted keys, as members, or by another name."""
        found = []
        done = 0
        for key in keyed.keys(text, self._innocent):
            if key.end >= done and (lane := self._lane_of_name(key.text)):
                budget.spend(STEPS_OF_FINDING)
                start, end, value = keyed.value_of(text, key)
                done = end
                found += self._by_rule(lane, text, (start, end), value, place)
        for name, start, end in announced.beside(text):
            if lane := self._lane_of_name(name):
                found += self._by_rule(lane, text, (start, end), text[start:end], place)
        members = members or brackets.members(text)
        named = self._named(text, members)
        for index, member in enumerate(members):
            lane, offset = named.get(index) or (self._lane_by_key(member.key), 0)
            if lane is not None:
                found += self._by_rule(lane, text, member.inside(text, offset), member.text[offset:], place)
        return found

    def _by_rule(
        self, lane: Lane, text: bytes, span: tuple[int, int], value: bytes, place: encoded.Origin
    ) -> list[_Finding]:
        """Make a finding of a value that falls under a rule for its key; none where it says nothing, or where the rule
        goes by the value and has nothing against it: others may find something in it."""
        budget.spend(STEPS_OF_FINDING)
        start, end = span
        if start >= end or _stands_for_none(text[start:end]) or _HASHED.fullmatch(text[start:end]):
            return []
        if lane.kind == SINGLE and not looks_like_key(value.strip(), mixed=lane.treatment is Look.MIXED_KEY):
            return []
        assert lane.label is not None
        action = Action(lane.label[1]) if lane.kind == ANY_TYPE else MASK
        return [_Finding(place(start), place(end), lane.label[0], action, lane, value)]

    def _is_innocent(self, name: bytes) -> bool:
        """Tell whether a name falls under no rule, and keep it in mind."""
        if self._key_rules.member_lane(name.decode("utf-8", "replace")).kind != BATCHED:
            return False
        if len(self._innocent) > MAX_CACHED_KEYS:
            self._innocent.clear()
        if len(name) <= MAX_CACHED_KEY_BYTES:
            self._innocent.add(name)
        return True

    def _lane_of_name(self, name: bytes) -> Lane | None:
        """Return the lane of a name that falls under a rule; None for another."""
        if name in self._innocent or self._is_innocent(name):
            return None
        return self._lane_by_key(name.decode("utf-8", "replace"))

    def _lane_by_key(self, key: str) -> Lane | None:
        """Return the lane of a key that falls under a rule; None for another."""
        lane = self._key_rules.member_lane(key)
        return lane if _falls_under_rule(lane) else None

    def act(self, action: Action, text: bytes) -> bytes:
        """Mask or hash a secret, or keep its last characters where at least four others are hidden."""
        if action.word == "hash":
            return b"hash:" + hmac.digest(self._hash_key, text, "sha256")[:16].hex().encode()
        if action.word == "keep_last":
            characters = text.decode("utf-8", "replace")
            if len(characters) >= action.last + len(MASK_TEXT):
                return MASK_TEXT + characters[-action.last :].encode()
        return MASK_TEXT


def _falls_under_rule(lane: Lane) -> bool:
    """Tell whether a lane is that of keys whose values are, or may be, secret."""
    return lane.kind in (DELETED, MASKED, ANY_TYPE) or (lane.kind == SINGLE and lane.label is not None)


def _is_quoted(text: bytes, one: _Finding) -> bool:
    """Tell whether a finding is a key's value in quotes: no other secret touches it."""
    if one.lane is None or not one.start:
        return False
    quote = text[one.start - 1 : one.start]
    return quote in (b'"', b"'") and text[one.end : one.end + 16].lstrip(b"\\")[:1] == quote


def _stands_for_none(value: bytes) -> bool:
    """Tell whether a value under a key says only that there is none, or that it has been redacted."""
    return len(value) < _LONGEST_NONE and _NONE.fullmatch(value) is not None


def _outside(text: bytes, members: Sequence[Member]) -> bytes:
    """Blot out the strings among the members of what is nearly JSON: what they hold is looked at by itself."""
    parts = []
    done = 0
    for member in members:
        if member.is_string:
            parts += [text[done : member.start], b" " * (member.end - member.start)]
            done = member.end
    return _QUOTED_KEY.sub(b"\x00", b"".join((*parts, text[done:])))


def _looks(text: bytes) -> list[bytes]:
    """Return the text, and once more without the letters of other scripts, which may stand next to a secret without a
    space. A text that is not UTF-8 (once decoded) has the latter only."""
    if text.isascii():
        return [text]
    without = _NOT_ASCII.sub(b" ", text)
    try:
        text.decode()
    except UnicodeDecodeError:
        return [without]
    return [text, without]


def _joined(found: list[_Finding]) -> list[_Finding]:
    """Sort findings, and unite those that overlap."""
    merged: list[_Finding] = []
    for one in sorted(found, key=lambda one: (one.start, one.lane is None, one.end)):
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            if last.lane is not None and one.end <= last.end:
                continue  # a rule for the key says what becomes of all of it
            same = last.action == one.action and last.lane is one.lane
            merged[-1] = _Finding(last.start, max(last.end, one.end), last.name, last.action if same else MASK)
        else:
            merged.append(one)
    return merged
