"""What is found in one value, and what becomes of it. Which value it is, and under which rule: see `redact`.

All of it works on bytes that are UTF-8, and may raise: `View.apply` masks what it cannot judge.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import re2

from sampler_proxy import detectors
from sampler_proxy.config_redact import MASK, Action
from sampler_proxy.detectors import SEPARATOR, Detector, embedded
from sampler_proxy.detectors.sql import obfuscate
from sampler_proxy.detectors.urls import rewrite

MASKED = b"****"
MAX_NESTED = 4
"""JSON in a string in JSON: deeper, the string is masked whole."""
MAX_MEMBER_KEYS = 4096
_ROUNDS = 4

# How the values in a lane are gone about.
AS_IT_IS, JOINED, ALONE, LEAVES, DELETED, WHOLE = range(6)
"""Not at all; in one go with others; alone; alone, and whatever type the value has; no more; replaced by the mask."""

Label = tuple[str, str]
"""Of the metric: what found it, and what became of it."""

Result = tuple[bytes, tuple[tuple[Label, int], ...]]
"""What replaces a value, and what that counts as."""

Observer = Callable[[int, int, bytes | None, Label, int], object]
"""Told of each redaction: message and field (as `_proto` numbers them), the attribute's key, label, how often."""

OVERSIZE: Label = ("oversize", "mask")
FAILURE: Label = ("failure", "mask")
UNKNOWN: Label = ("unknown_field", "delete")

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_REPLACED = "\ufffd".encode()

CANARY = b"\x00sampler-proxy\x00"
"""Ends whatever is sifted. A set that does not see it has run out of memory, and what it says of the rest is void."""


def _nothing(_: bytes) -> list[detectors.Range]:
    return []


_CANARY_BYTES = Detector("", r"\x00sampler-proxy\x00", _nothing)
_CANARY_CHARACTERS = Detector("", r"\x00sampler-proxy\x00", _nothing, utf8=True)
_URL = Detector("", "://", _nothing)
_FORM = Detector("", r"(?m)^[0-9A-Za-z_.%+*$\[\]-]+=[^\x00\s]*&", _nothing)
# A statement within a text: its verb, and enough of what must follow that prose is seldom taken for one.
_SQL = (
    r"(?i)\b(select\b[^\x00]*\bfrom\b|update\s+\S+(?:\s+\S+){0,3}?\s+set\s+\S+?\s*=|delete\s+from\b[^\x00]*\bwhere\b"
    r"|(?:insert|replace)\s+(?:\w+\s+){0,2}?into\s+\S+?\s*(?:\(|values\b|select\b|set\b)|merge\s+into\b[^\x00]*\busing\b)"
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


class Lane(NamedTuple):
    kind: int
    label: Label | None = None
    """What a rule counts as, by which all in this lane are deleted or masked."""
    apply: Callable[[bytes, Counter[Label]], bytes] | None = None
    """What becomes of a value, which is counted."""


class Values:
    """`urls`: the arguments of `urls.rewrite`; None to leave URLs alone. `lane_of`: of a member of JSON, by its key."""

    def __init__(
        self,
        active: Sequence[tuple[Detector, Action]],
        *,
        sql: bool,
        urls: dict[str, bool] | None,
        hash_key: bytes,
        lane_of: Callable[[bytes], Lane],
    ) -> None:
        self._detectors = [detector for detector, _ in active]
        self._actions = [action for _, action in active]
        self._sql = sql
        self._urls = urls
        self._hash_key = hash_key
        self._lane_of = lane_of
        self._member_lanes: dict[str, Lane] = {}
        asked = [*self._detectors, _FORM, *([_STATEMENT] if sql else []), *([_URL] if urls else [])]
        canaries = [_CANARY_BYTES, *([_CANARY_CHARACTERS] if any(detector.utf8 for detector in asked) else [])]
        self._canaries = list(range(len(asked), len(asked) + len(canaries)))
        self._searches = [_search(detector.pattern, detector.utf8) if detector.pattern else None for detector in asked]
        self._sieve = detectors.sieve([*asked, *canaries])

    def sift(self, joined: bytes) -> list[tuple[int, int]] | None:
        """Of values joined by SEPARATOR and ended by `CANARY`: the ranges outside of which there is nothing to find,
        disjoint and in order; None where there is nothing at all."""
        try:
            hits = self._sieve(joined)
            if hits == self._canaries:
                return None
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

    def in_bytes(self, text: bytes, counts: Counter[Label]) -> bytes:
        spaced = text.replace(_REPLACED, b" ")
        return text if self.text(spaced, counts) == spaced else MASKED

    def statement(self, text: bytes, counts: Counter[Label]) -> bytes:
        result = obfuscate(text)
        counts["sql", "obfuscate"] += result != text
        return self._detected(result, counts)

    def url(self, text: bytes, counts: Counter[Label]) -> bytes:
        return self.text(self._count_urls(text, self._rewritten(text), counts), counts)

    def _rewritten(self, text: bytes) -> bytes:
        return rewrite(text, **self._urls) if self._urls else text

    def _count_urls(self, text: bytes, result: bytes, counts: Counter[Label]) -> bytes:
        counts["urls", "strip"] += result != text
        return result

    def text(self, text: bytes, counts: Counter[Label], depth: int = 0) -> bytes:
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
            lane = self._member_lane(member.key)
            if lane.kind == AS_IT_IS:
                exempt = member.end
            elif lane.kind in (DELETED, WHOLE) or (lane.kind == LEAVES and _holds_others(member)):
                assert lane.label is not None
                counts[lane.label[0], "mask"] += member.text != MASKED
                out += [text[done : member.start], member.encoded(MASKED)]
                done = member.end
            elif not _holds_others(member) and not (plain and lane.kind == JOINED):
                if lane.kind == JOINED:
                    value = self.text(member.text, counts, depth + 1)
                else:
                    assert lane.apply is not None
                    value = lane.apply(member.text, counts)
                if value != member.text:
                    out += [text[done : member.start], member.encoded(value)]
                    done = member.end
        return b"".join((*out, text[done:]))

    def _member_lane(self, key: str) -> Lane:
        lane = self._member_lanes.get(key)
        if lane is None:
            if len(self._member_lanes) == MAX_MEMBER_KEYS:
                self._member_lanes.clear()
            lane = self._member_lanes[key] = self._lane_of(key.encode("utf-8", "replace"))
        return lane

    def _plain(self, text: bytes) -> bool:
        """Whether there is nothing in JSON but by the keys: without escapes what a member holds is seen in the whole,
        save for a form."""
        if b"\\" in text or b"&" in text or b"'" in text:
            return False
        return self._sieve(text + SEPARATOR + CANARY) == self._canaries

    def _says_nothing(self, text: bytes) -> bool:
        """Whether no key of JSON without escapes falls under a rule. Whatever may be a key is taken for one."""
        keys = set(_MAY_BE_KEY.findall(text))
        return all(self._member_lane(key.decode("utf-8", "replace")).kind == JOINED for key in keys)

    def _unread(self, text: bytes) -> Label | None:
        """Of what is nearly JSON, and was not read: the rule that one of its keys falls under."""
        for match in _FIND_MEMBER_KEY.finditer(text):
            lane = self._lane_of(match.group(1) or match.group(2) or b"")
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
                out += [text[done:start], self.act(action, text[start:end])]
                done = end
            text = b"".join((*out, text[done:]))
            if any(one.action.word == "hash" for one in found):  # a hash is not hashed again
                return text
        counts[FAILURE] += 1
        return MASKED

    def _find(self, text: bytes) -> list[_Found]:
        """Disjoint, in order. Where several overlap the first one's name counts; if their actions differ, it is
        masked."""
        hits = self._sieve(text + SEPARATOR + CANARY)
        if hits == self._canaries:
            return []
        if not set(self._canaries) <= set(hits):
            hits = list(range(len(self._detectors)))
        found = []
        for index in hits:
            if index < len(self._detectors):
                detector, action = self._detectors[index], self._actions[index]
                # Once more without the letters of other scripts, which may stand next to a secret without a space.
                looked_at = [text] if detector.utf8 or text.isascii() else [text, _NOT_ASCII.sub(b" ", text)]
                places = [place for each in looked_at for place in detector.find(each) if place.end > place.start]
                found += [_Found(*place, detector.name, action) for place in places]
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

    def act(self, action: Action, text: bytes) -> bytes:
        if action.word == "hash":
            return b"hash:" + hmac.digest(self._hash_key, text, "sha256")[:16].hex().encode()
        if action.word == "keep_last":
            characters = text.decode("utf-8", "replace")
            if len(characters) >= action.last + len(MASKED):
                return MASKED + characters[-action.last :].encode()
        return MASKED


def _holds_others(member: embedded.Member) -> bool:
    """Whether it is an object or array."""
    return not member.is_string and not member.text


def _merged(regions: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
