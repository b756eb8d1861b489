"""Sifts many texts at once: finds where there may be something to redact, which is nearly always nowhere.

Two questions are asked about all that a view looks for: its detectors, and what makes texts to be read otherwise
(escapes, keys in quotes, forms, statements, URLs). The first is about many values, joined by SEPARATOR: which of them
have a sign? The second is about each of these alone: does the pattern match? What has no signs, as the patterns of
users, is in one RE2 set instead. What that is asked about ends in CANARY: a set that does not report the canary has run
out of memory, and what it says of the rest is void.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import re2

from sampler_proxy.redact import regexes
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import SEPARATOR, Detector
from sampler_proxy.redact.detectors.types import Digits, Sign
from sampler_proxy.redact.signs import Signs
from sampler_proxy.redact.texts import announced, embedded, encoded, keyed, statements

CANARY = b"\x00sampler-proxy\x00"


def _nothing(_: bytes) -> list[catalogue.Range]:
    return []


_CANARY_BYTES = Detector("", r"\x00sampler-proxy\x00", _nothing)
_CANARY_CHARACTERS = Detector("", r"\x00sampler-proxy\x00", _nothing, utf8=True)
_URL = Detector("", "://", _nothing, signs=(Sign("://"),))
_FORM = Detector("", r"(?m)^[0-9A-Za-z_.~%\[\]+*$\x80-\xff-]+=[^\x00\s]*&", _nothing, signs=(Sign("&"),))
_STATEMENT = Detector("", statements.PATTERN, _nothing, signs=statements.SIGNS)
_ESCAPED = Detector("", encoded.PATTERN, _nothing, signs=encoded.SIGNS)
# Names of values: outside of the strings of JSON without escapes, and in them, too.
_KEYED = (
    Detector(
        "",
        f"{keyed.PATTERN}|{announced.PATTERN}|{embedded.BARE_KEY}",
        _nothing,
        signs=(*keyed.SIGNS, *announced.SIGNS, *embedded.SIGNS),
    ),
    Detector("", keyed.IN_STRINGS, _nothing, signs=keyed.SIGNS_IN_STRINGS),
)

Region = tuple[int, int]
"""A half-open range of bytes."""


class Sieve:
    """The signs and patterns of one view. Hits are indices: those of `detectors`, then `escaped` and `keyed`, then
    others."""

    def __init__(self, detectors: Sequence[Detector], *, sql: bool, urls: bool) -> None:
        """Compile the patterns. `sql`, `urls`: whether statements, and URLs, are looked for. Raises ValueError for
        patterns that are too large together."""
        self.escaped = len(detectors)
        self.keyed = frozenset(range(len(detectors) + 1, len(detectors) + 1 + len(_KEYED)))
        asked = [*detectors, _ESCAPED, *_KEYED, _FORM, *([_STATEMENT] if sql else []), *([_URL] if urls else [])]
        self._searches = [_search(detector) for detector in asked]
        self._signed = [index for index, detector in enumerate(asked) if detector.signs]
        self._signs = _signs(tuple(asked[index].signs for index in self._signed))
        self._in_set = [index for index, detector in enumerate(asked) if not detector.signs]
        canaries = [_CANARY_BYTES, *([_CANARY_CHARACTERS] if any(detector.utf8 for detector in asked) else [])]
        self._canaries = list(range(len(self._in_set), len(self._in_set) + len(canaries)))
        self._set = catalogue.sieve([*(asked[index] for index in self._in_set), *canaries]) if self._in_set else None

    def hits(self, text: bytes) -> list[int]:
        """Return the hits in a text; all that are in the set where it has run out of memory."""
        signed = {group for _, _, groups in self._signs.values(text + SEPARATOR) for group in groups}
        hits = [self._signed[group] for group in signed if self._matches(group, text)]
        if self._set is not None:
            hits += [self._in_set[i] for i in self._reported(text + SEPARATOR + CANARY)]
        return sorted(hits)

    def only_names(self, text: bytes) -> bool:
        """Tell whether nothing may be found in JSON without escapes but values by their names."""
        return self.hits(text) in ([], [self.escaped + 1])

    def sift(self, joined: bytes) -> list[Region] | None:
        """Return the regions of values, joined by SEPARATOR and ended by CANARY, outside of which there is nothing to
        find: disjoint and in order; None where there is nothing at all. Raises nothing: all of it is one region
        then."""
        try:
            regions = [
                (start, end)
                for start, end, groups in self._signs.values(joined)
                if any(self._matches(group, joined[start:end]) for group in groups)
            ]
            for i in self._reported(joined) if self._set is not None else ():
                search = self._searches[self._in_set[i]]
                regions += (search and _places(search, joined)) or [(0, len(joined))]  # a hit has a place
            return _merged(regions) or None
        except Exception:
            return [(0, len(joined))]

    def _matches(self, group: int, value: bytes) -> bool:
        search = self._searches[self._signed[group]]
        return search is None or search.search(value) is not None

    def _reported(self, joined: bytes) -> list[int]:
        """Ask the set, and return what of it may match: all of it where it has run out of memory."""
        reported = self._set(joined) if self._set is not None else []
        count = len(self._in_set)
        return [i for i in reported if i < count] if set(self._canaries) <= set(reported) else list(range(count))


@functools.lru_cache(maxsize=8)
def _signs(groups: tuple[tuple[Sign | Digits, ...], ...]) -> Signs:
    """Compile signs, which many views share."""
    return Signs(groups)


def _search(detector: Detector) -> re2._Regexp | None:
    """Compile a detector's pattern by itself; None for one that always matches."""
    if not detector.pattern:
        return None
    pattern = detector.pattern if detector.utf8 else detector.pattern.encode()
    return re2.compile(pattern, regexes.options(utf8=detector.utf8, groups=False))


def _places(search: re2._Regexp, joined: bytes) -> list[Region]:
    """Find where a pattern matches: once in each of the joined values, since they are looked at whole."""
    places = []
    at = 0
    while at >= 0 and (match := search.search(joined, at)):
        places.append(match.span())
        at = joined.find(SEPARATOR, max(match.end() - len(SEPARATOR), match.start()))
    return places


def _merged(regions: list[Region]) -> list[Region]:
    merged: list[Region] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
