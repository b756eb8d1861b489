"""What is found in one value, and what becomes of it. Which value it is, and under which rule: see `redact`.

All of it works on bytes that are UTF-8, and may raise: `View.apply` masks what it cannot judge.
"""

from __future__ import annotations

import hmac
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import re2

from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import SEPARATOR, Detector
from sampler_proxy.redact.section import MASK, Action
from sampler_proxy.redact.texts import embedded, encoded, keyed, statements
from sampler_proxy.redact.texts.sql import obfuscate
from sampler_proxy.redact.texts.urls import rewrite

MASKED = b"****"
MAX_NESTED = 4
"""JSON in a string in JSON: deeper, the string is masked whole."""
MAX_MEMBER_KEYS = 4096
MAX_KEY = 4096
"""Bytes. What a longer key holds is masked, as elsewhere."""
MAX_REMEMBERED_KEY = 256
MAX_SUSPECTS = 64
"""Members of JSON that must be looked at by themselves, beyond one in 24 bytes: with more, all of it is masked."""
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


def _nothing(_: bytes) -> list[catalogue.Range]:
    return []


_CANARY_BYTES = Detector("", r"\x00sampler-proxy\x00", _nothing)
_CANARY_CHARACTERS = Detector("", r"\x00sampler-proxy\x00", _nothing, utf8=True)
_URL = Detector("", "://", _nothing)
_FORM = Detector("", r"(?m)^[0-9A-Za-z_.~%\[\]+*$\x80-\xff-]+=[^\x00\s]*&", _nothing)
_STATEMENT = Detector("", statements.PATTERN, _nothing)
_ESCAPED = Detector("", encoded.PATTERN, _nothing)
_KEYED = Detector("", keyed.PATTERN, _nothing)
_HASHED = re.compile(rb"hash:[0-9a-f]{32}")
_WITHOUT_ESCAPES = re.compile(rb"[0-9A-Za-z*:_.@ -]*")


def _options(utf8: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = utf8  # as detectors have it
    if not utf8:
        options.encoding = re2.Options.Encoding.LATIN1
    return options


def _search(pattern: str, utf8: bool = False) -> re2._Regexp:
    return re2.compile(pattern if utf8 else pattern.encode(), _options(utf8))


_MAY_BE_KEY = re.compile(rb'"(?=([^"\\]*)"\s*:)')  # without lookahead in RE2; linear, as it ends at the next quote


class _Found(NamedTuple):
    start: int
    end: int
    name: str
    action: Action
    lane: Lane | None = None
    """Of the value of a key, with what it says."""
    text: bytes = b""


class Lane(NamedTuple):
    kind: int
    label: Label | None = None
    """What a rule counts as, by which all in this lane are deleted or masked."""
    apply: Callable[[bytes, Counter[Label]], bytes] | None = None
    """What becomes of a value, which is counted."""


_TOO_LONG = Lane(WHOLE, OVERSIZE)


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
        self._escaped = len(active)
        self._keyed = len(active) + 1
        self._sql = sql
        self._urls = urls
        self._hash_key = hash_key
        self._lane_of = lane_of
        self._member_lanes: dict[str, Lane] = {}
        asked = [*self._detectors, _ESCAPED, _KEYED, _FORM, *([_STATEMENT] if sql else []), *([_URL] if urls else [])]
        canaries = [_CANARY_BYTES, *([_CANARY_CHARACTERS] if any(detector.utf8 for detector in asked) else [])]
        self._canaries = list(range(len(asked), len(asked) + len(canaries)))
        self._searches = [_search(detector.pattern, detector.utf8) if detector.pattern else None for detector in asked]
        self._sieve = catalogue.sieve([*asked, *canaries])

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
                    regions += _places(search, joined) or [(0, len(joined))]  # a hit has a place
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
        like_json = _like_json(text)
        if like_json and self.plain(text) and self._says_nothing(text):
            return text
        members = embedded.members(text) if like_json or b"&" in text else []
        if members and depth > MAX_NESTED:
            counts[FAILURE] += 1
            return MASKED
        # What is behind the last member: brackets, or what was no JSON any more.
        rest = text[max((member.end for member in members if not _holds_others(member)), default=0) :]
        if like_json and (label := self._unread(rest)):
            counts[label[0], "mask"] += 1
            return MASKED
        if members:
            text = self._members(text, members, counts, depth)
        if not members or (self._sql and statements.begins(rest) is not None) or (self._urls and b"://" in rest):
            text = self._reshaped(text, counts)
        return self._detected(text, counts, not members)

    def _reshaped(self, text: bytes, counts: Counter[Label]) -> bytes:
        """Without the literals of statements in it, and what URLs lose."""
        if self._sql and (start := statements.begins(text)) is not None:
            result = text[:start] + obfuscate(text[start:])
            counts["sql", "obfuscate"] += result != text
            text = result
        if self._urls and b"://" in text:
            text = self._count_urls(text, self._rewritten(text), counts)
        return text

    def _members(self, text: bytes, members: Sequence[embedded.Member], counts: Counter[Label], depth: int) -> bytes:
        """Of JSON, or a form: its members, each by its key or as a text of its own."""
        suspects = set() if self.plain(text) else self._suspects(members)
        if len(suspects) > MAX_SUSPECTS + len(text) // 24:
            counts[OVERSIZE] += 1
            return MASKED
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
            elif not _holds_others(member) and (lane.kind != JOINED or member.start in suspects):
                if lane.kind == JOINED:
                    value = self.text(member.text, counts, depth + 1)
                else:
                    assert lane.apply is not None
                    value = lane.apply(member.text, counts)
                if value != member.text:
                    out += [text[done : member.start], member.encoded(value)]
                    done = member.end
        return b"".join((*out, text[done:]))

    def _suspects(self, members: Sequence[embedded.Member]) -> set[int]:
        """Where the members begin whose texts must be looked at by themselves, unless a rule says otherwise."""
        leaves = [member for member in members if not _holds_others(member)]
        regions = self.sift(SEPARATOR.join((*(member.text for member in leaves), CANARY))) or []
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

    def _member_lane(self, key: str) -> Lane:
        lane = self._member_lanes.get(key)
        if lane is None:
            encoded_key = key.encode("utf-8", "replace")
            if len(encoded_key) > MAX_KEY:
                return _TOO_LONG
            lane = self._lane_of(encoded_key)
            if len(encoded_key) <= MAX_REMEMBERED_KEY:
                if len(self._member_lanes) == MAX_MEMBER_KEYS:
                    self._member_lanes.clear()
                self._member_lanes[key] = lane
        return lane

    def plain(self, text: bytes) -> bool:
        """Whether there is nothing in JSON but by the keys: without escapes what a member holds is seen in the whole,
        save for a form."""
        if b"\\" in text or b"&" in text or b"'" in text:
            return False
        return [hit for hit in self._sieve(text + SEPARATOR + CANARY) if hit != self._keyed] == self._canaries

    def _says_nothing(self, text: bytes) -> bool:
        """Whether no key of JSON without escapes falls under a rule. Whatever may be a key is taken for one."""
        keys = set(_MAY_BE_KEY.findall(text))
        return all(self._member_lane(key.decode("utf-8", "replace")).kind == JOINED for key in keys)

    def _unread(self, text: bytes) -> Label | None:
        """Of what is nearly JSON, and was not read: the rule that one of its keys falls under."""
        for key in keyed.keys(text):
            lane = self._member_lane(key.text.decode("utf-8", "replace"))
            if lane.kind in (DELETED, WHOLE, LEAVES):
                return lane.label
        return None

    def _detected(self, text: bytes, counts: Counter[Label], by_key: bool = True) -> bytes:
        """`by_key`: whether to look for keys in it, too."""
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
        return MASKED

    def _replacement(self, found: _Found, text: bytes, counts: Counter[Label]) -> bytes:
        if found.lane is None or found.lane.apply is None:
            result = self.act(found.action, text)
        else:
            result = found.lane.apply(found.text, Counter())
            if result == found.text:
                return text
            if not _WITHOUT_ESCAPES.fullmatch(result):
                result = MASKED
        counts[found.name, found.action.word] += result != text
        return result

    def _rest(self, text: bytes, found: list[_Found], by_key: bool) -> list[_Found]:
        """What else there is once that is blotted out: secrets that touch hide each other."""
        for _ in range(_ROUNDS):
            blotted = bytearray(text)
            for one in found:
                blotted[one.start : one.end] = b"*" * (one.end - one.start)
            more = [one for one in self._find(bytes(blotted), by_key) if blotted[one.start : one.end].strip(b"*")]
            if not more:
                return found
            found = _joined(found + more)
        return [_Found(0, len(text), found[0].name, MASK)]

    def _find(self, text: bytes, by_key: bool) -> list[_Found]:
        """Disjoint, in order. Where several overlap the first one's name counts; if their actions differ, it is
        masked."""
        text = text.replace(_REPLACED, b"   ")  # what was no text ends what stands beside it
        hits = self._hits(text)
        if not hits:
            return []
        levels: list[tuple[bytes, encoded.Place]] = []
        if self._escaped in hits and (levels := encoded.decoded(text)):
            hits = self._hits(SEPARATOR.join((text, *(level for level, _ in levels))))
        found = []
        for level, place in [(text, encoded.same), *levels]:
            looks = _looks(level)
            for index in hits:
                if index < len(self._detectors):
                    detector, action = self._detectors[index], self._actions[index]
                    for look in looks if not detector.utf8 else looks[:1]:
                        for start, end in detector.find(look):
                            if end > start:
                                found.append(_Found(place(start), place(end), detector.name, action))
            if by_key and self._keyed in hits:
                found += self._by_key(level, place)
        return _joined(found)

    def _hits(self, text: bytes) -> list[int]:
        hits = self._sieve(text + SEPARATOR + CANARY)
        if hits == self._canaries:
            return []
        return hits if set(self._canaries) <= set(hits) else list(range(len(self._searches)))

    def _by_key(self, text: bytes, place: encoded.Place) -> list[_Found]:
        """The values whose keys fall under rules."""
        found = []
        done = 0
        for key in keyed.keys(text):
            if key.end < done:
                continue
            lane = self._member_lane(key.text.decode("utf-8", "replace"))
            if lane.kind not in (DELETED, WHOLE, LEAVES):
                continue
            assert lane.label is not None
            start, end, value = keyed.value_of(text, key)
            done = end
            if start < end and text[start:end] != MASKED and not _HASHED.fullmatch(text[start:end]):
                action = Action(lane.label[1]) if lane.kind == LEAVES else MASK
                found.append(_Found(place(start), place(end), lane.label[0], action, lane, value))
        return found

    def act(self, action: Action, text: bytes) -> bytes:
        if action.word == "hash":
            return b"hash:" + hmac.digest(self._hash_key, text, "sha256")[:16].hex().encode()
        if action.word == "keep_last":
            characters = text.decode("utf-8", "replace")
            if len(characters) >= action.last + len(MASKED):
                return MASKED + characters[-action.last :].encode()
        return MASKED


def _like_json(text: bytes) -> bool:
    return text.lstrip()[:1] in (b"{", b"[")


def _holds_others(member: embedded.Member) -> bool:
    """Whether it is an object or array."""
    return not member.is_string and not member.text


def _looks(text: bytes) -> list[bytes]:
    """The text, and once more without the letters of other scripts, which may stand next to a secret without a space.
    What is not UTF-8 (once decoded) has the latter only."""
    if text.isascii():
        return [text]
    without = _NOT_ASCII.sub(b" ", text)
    try:
        text.decode()
    except UnicodeDecodeError:
        return [without]
    return [text, without]


def _joined(found: list[_Found]) -> list[_Found]:
    merged: list[_Found] = []
    for one in sorted(found, key=lambda one: (one.start, one.lane is None, one.end)):
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            if last.lane is not None and one.end <= last.end:
                continue  # a rule for the key says what becomes of all of it
            same = last.action == one.action and last.lane is one.lane
            merged[-1] = _Found(last.start, max(last.end, one.end), last.name, last.action if same else MASK)
        else:
            merged.append(one)
    return merged


def _places(search: re2._Regexp, joined: bytes) -> list[tuple[int, int]]:
    """Where it matches: once in each of the joined values, since they are looked at whole."""
    places = []
    at = 0
    while at >= 0 and (match := search.search(joined, at)):
        places.append(match.span())
        at = joined.find(SEPARATOR, max(match.end() - len(SEPARATOR), match.start()))
    return places


def _merged(regions: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
