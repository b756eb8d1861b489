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

from sampler_proxy.redact.detectors.catalogue import SEPARATOR, Detector
from sampler_proxy.redact.key_rules import KeyRules
from sampler_proxy.redact.lanes import (
    ANY_TYPE,
    AS_IT_IS,
    BATCHED,
    DELETED,
    FAILURE,
    MASK_TEXT,
    MASKED,
    OVERSIZE,
    Family,
    Label,
    Lane,
    Look,
)
from sampler_proxy.redact.section import MASK, Action
from sampler_proxy.redact.sieve import CANARY, Sieve
from sampler_proxy.redact.texts import embedded, encoded, keyed, statements, stores
from sampler_proxy.redact.texts.urls import rewrite

MAX_NESTED = 4
"""JSON in a string in JSON: deeper, the string is masked whole."""
MAX_SUSPECTS = 64
"""Members of JSON that must be looked at by themselves, beyond one in 24 bytes: with more, all of it is masked."""
_ROUNDS = 4
"""How often a text is searched anew after its findings have been replaced."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_REPLACED = "\ufffd".encode()
_NOTHING = (MASK_TEXT, b"?")  # what has been masked, or obfuscated
_HASHED = re.compile(rb"hash:[0-9a-f]{32}")
_WITHOUT_ESCAPES = re.compile(rb"[0-9A-Za-z*:_.@ -]*")
_MAY_BE_KEY = re.compile(rb'"(?=([^"\\]*)"\s*:)')  # without lookahead in RE2; linear, as it ends at the next quote


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

    def apply(self, lane: Lane, text: bytes, counts: Counter[Label]) -> bytes:
        """Redact a text in a lane, and count the redactions."""
        treatment = lane.treatment
        if treatment is Look.TEXT:
            return self.text(text, counts)
        if treatment is Look.BYTES:
            return self._in_bytes(text, counts)
        if treatment is Look.URL:
            return self.text(self._stripped(text, counts), counts)
        if isinstance(treatment, Family):
            return self._detected(self._obfuscated(treatment, text, counts), counts)
        assert isinstance(treatment, Action)
        assert lane.label is not None
        counts[lane.label] += 1
        return self.act(treatment, text)

    def _in_bytes(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Redact bytes: masked whole where a text in them would change."""
        spaced = text.replace(_REPLACED, b" ")
        return text if self.text(spaced, counts) == spaced else MASK_TEXT

    def _obfuscated(self, family: Family, statement: bytes, counts: Counter[Label]) -> bytes:
        result = stores.obfuscate(family, statement)
        counts["sql", "obfuscate"] += result != statement
        return result

    def _stripped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Strip URLs."""
        result = rewrite(text, **self._urls) if self._urls else text
        counts["urls", "strip"] += result != text
        return result

    def text(self, text: bytes, counts: Counter[Label], depth: int = 0) -> bytes:
        """Redact a text: the members of JSON or a form, statements, URLs, and what detectors find. `depth`: strings of
        JSON around it."""
        like_json = _like_json(text)
        if like_json and self.plain(text) and self._says_nothing(text):
            return text
        members = embedded.members(text) if like_json or b"&" in text else []
        if members and depth > MAX_NESTED:
            counts[FAILURE] += 1
            return MASK_TEXT
        # What is behind the last member: brackets, or what was no JSON any more.
        rest = text[max((member.end for member in members if not _holds_others(member)), default=0) :]
        if like_json and (label := self._unread(rest)):
            counts[label[0], "mask"] += 1
            return MASK_TEXT
        if members:
            text = self._members(text, members, counts, depth)
        if not members or (self._sql and statements.begins(rest) is not None) or (self._urls and b"://" in rest):
            text = self._reshaped(text, counts)
        return self._detected(text, counts, not members)

    def _reshaped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Obfuscate the statement, and strip the URLs, in a text."""
        if self._sql and (start := statements.begins(text)) is not None:
            text = text[:start] + self._obfuscated(Family.SQL, text[start:], counts)
        if self._urls and b"://" in text:
            text = self._stripped(text, counts)
        return text

    def _members(self, text: bytes, members: Sequence[embedded.Member], counts: Counter[Label], depth: int) -> bytes:
        """Redact the members of JSON, or of a form, each by its key or as a text of its own."""
        suspects = set() if self.plain(text) else self._suspects(members)
        if len(suspects) > MAX_SUSPECTS + len(text) // 24:
            counts[OVERSIZE] += 1
            return MASK_TEXT
        out: list[bytes] = []
        done = exempt = 0
        for member in members:
            if member.start < done or member.start < exempt:  # inside of one that has been seen to
                continue
            lane = self._key_rules.member_lane(member.key)
            if lane.kind == AS_IT_IS:
                exempt = member.end
            elif lane.kind in (DELETED, MASKED) or (lane.kind == ANY_TYPE and _holds_others(member)):
                assert lane.label is not None
                counts[lane.label[0], "mask"] += member.text != MASK_TEXT
                out += [text[done : member.start], member.encoded(MASK_TEXT)]
                done = member.end
            elif not _holds_others(member) and (lane.kind != BATCHED or member.start in suspects):
                if lane.kind == BATCHED:
                    value = self.text(member.text, counts, depth + 1)
                else:
                    value = self.apply(lane, member.text, counts)
                if value != member.text:
                    out += [text[done : member.start], member.encoded(value)]
                    done = member.end
        return b"".join((*out, text[done:]))

    def _suspects(self, members: Sequence[embedded.Member]) -> set[int]:
        """Find where the members begin whose texts must be looked at by themselves, unless a rule says otherwise."""
        leaves = [member for member in members if not _holds_others(member)]
        regions = self._sieve.sift(SEPARATOR.join((*(member.text for member in leaves), CANARY))) or []
        found = set()
        following = iter([*regions, (sys.maxsize, sys.maxsize)])
        low, high = next(following)
        at = 0
        for member in leaves:
            while high < at:
                low, high = next(following)
            end = at + len(member.text)
            if low <= end or _like_json(member.text):
                found.add(member.start)
            at = end + len(SEPARATOR)
        return found

    def plain(self, text: bytes) -> bool:
        """Tell whether nothing may be found in a text of JSON but by its keys: without escapes what a member holds is
        seen in the whole, save for a form."""
        if b"\\" in text or b"&" in text or b"'" in text:
            return False
        return self._sieve.only_keys(text)

    def _says_nothing(self, text: bytes) -> bool:
        """Tell whether no key of JSON without escapes falls under a rule. Whatever may be a key is taken for one."""
        keys = set(_MAY_BE_KEY.findall(text))
        return all(self._key_rules.member_lane(key.decode("utf-8", "replace")).kind == BATCHED for key in keys)

    def _unread(self, text: bytes) -> Label | None:
        """Return the label of a rule that a key falls under in what is nearly JSON, and was not read; None for none."""
        for key in keyed.keys(text):
            lane = self._key_rules.member_lane(key.text.decode("utf-8", "replace"))
            if lane.kind in (DELETED, MASKED, ANY_TYPE):
                return lane.label
        return None

    def _detected(self, text: bytes, counts: Counter[Label], by_key: bool = True) -> bytes:
        """Replace what detectors find, again until nothing is found. `by_key`: replace the values of quoted keys,
        too."""
        for _ in range(_ROUNDS):
            found = self._find(text, by_key)
            if not found:
                return text
            hashes = any(one.action.word == "hash" for one in found)
            if hashes:  # a hash is not hashed again: all that is to be found must be found before
                found = self._rest(text, found, by_key)
            out, done = [], 0
            for one in found:
                out += [text[done : one.start], self._replacement(one, text[one.start : one.end], counts)]
                done = one.end
            changed = b"".join((*out, text[done:]))
            if changed == text or hashes:
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

    def _rest(self, text: bytes, found: list[_Finding], by_key: bool) -> list[_Finding]:
        """Find the other secrets once the findings are blotted out: secrets that touch hide each other."""
        for _ in range(_ROUNDS):
            blotted = bytearray(text)
            for one in found:
                blotted[one.start : one.end] = b"*" * (one.end - one.start)
            more = [one for one in self._find(bytes(blotted), by_key) if blotted[one.start : one.end].strip(b"*")]
            if not more:
                return found
            found = _joined(found + more)
        return [_Finding(0, len(text), found[0].name, MASK)]

    def _find(self, text: bytes, by_key: bool) -> list[_Finding]:
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
            for index in hits:
                if index < len(self._detectors):
                    detector, action = self._detectors[index], self._actions[index]
                    for look in looks if not detector.utf8 else looks[:1]:
                        for start, end in detector.find(look):
                            if end > start:
                                found.append(_Finding(place(start), place(end), detector.name, action))
            if by_key and self._sieve.keyed in hits:
                found += self._by_key(level, place)
        return _joined(found)

    def _by_key(self, text: bytes, place: encoded.Origin) -> list[_Finding]:
        """Find the values whose quoted keys fall under rules."""
        found = []
        done = 0
        for key in keyed.keys(text):
            if key.end < done:
                continue
            lane = self._key_rules.member_lane(key.text.decode("utf-8", "replace"))
            if lane.kind not in (DELETED, MASKED, ANY_TYPE):
                continue
            assert lane.label is not None
            start, end, value = keyed.value_of(text, key)
            done = end
            if start < end and text[start:end] not in _NOTHING and not _HASHED.fullmatch(text[start:end]):
                action = Action(lane.label[1]) if lane.kind == ANY_TYPE else MASK
                found.append(_Finding(place(start), place(end), lane.label[0], action, lane, value))
        return found

    def act(self, action: Action, text: bytes) -> bytes:
        """Mask or hash a secret, or keep its last characters where at least four others are hidden."""
        if action.word == "hash":
            return b"hash:" + hmac.digest(self._hash_key, text, "sha256")[:16].hex().encode()
        if action.word == "keep_last":
            characters = text.decode("utf-8", "replace")
            if len(characters) >= action.last + len(MASK_TEXT):
                return MASK_TEXT + characters[-action.last :].encode()
        return MASK_TEXT


def _like_json(text: bytes) -> bool:
    return text.lstrip()[:1] in (b"{", b"[")


def _holds_others(member: embedded.Member) -> bool:
    """Tell whether a member is an object or array."""
    return not member.is_string and not member.text


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
