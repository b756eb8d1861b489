"""Sifts many texts at once: finds where there may be something to redact, which is nearly always nowhere.

One RE2 set is asked about all that a view looks for: its detectors, and what makes texts to be read otherwise (escapes,
keys in quotes, forms, statements, URLs). Values are joined by SEPARATOR, and what is asked about ends in CANARY: a set
that does not report the canary has run out of memory, and what it says of the rest is void.
"""

from __future__ import annotations

from collections.abc import Sequence

import re2

from sampler_proxy.redact import regexes
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import SEPARATOR, Detector
from sampler_proxy.redact.texts import announced, embedded, encoded, keyed, statements

CANARY = b"\x00sampler-proxy\x00"


def _nothing(_: bytes) -> list[catalogue.Range]:
    return []


_CANARY_BYTES = Detector("", r"\x00sampler-proxy\x00", _nothing)
_CANARY_CHARACTERS = Detector("", r"\x00sampler-proxy\x00", _nothing, utf8=True)
_URL = Detector("", "://", _nothing)
_FORM = Detector("", r"(?m)^[0-9A-Za-z_.~%\[\]+*$\x80-\xff-]+=[^\x00\s]*&", _nothing)
_STATEMENT = Detector("", statements.PATTERN, _nothing)
_ESCAPED = Detector("", encoded.PATTERN, _nothing)
# Names of values: outside of the strings of JSON without escapes, and in them, too.
_KEYED = (
    Detector("", f"{keyed.PATTERN}|{announced.PATTERN}|{embedded.BARE_KEY}", _nothing),
    Detector("", keyed.IN_STRINGS, _nothing),
)

Region = tuple[int, int]
"""A half-open range of bytes."""


class Sieve:
    """The patterns of one view. Hits are indices: those of `detectors`, then `escaped` and `keyed`, then others."""

    def __init__(self, detectors: Sequence[Detector], *, sql: bool, urls: bool) -> None:
        """Compile the patterns. `sql`, `urls`: whether statements, and URLs, are looked for. Raises ValueError for
        patterns that are too large together."""
        self.escaped = len(detectors)
        self.keyed = frozenset(range(len(detectors) + 1, len(detectors) + 1 + len(_KEYED)))
        asked = [*detectors, _ESCAPED, *_KEYED, _FORM, *([_STATEMENT] if sql else []), *([_URL] if urls else [])]
        canaries = [_CANARY_BYTES, *([_CANARY_CHARACTERS] if any(detector.utf8 for detector in asked) else [])]
        self._canaries = list(range(len(asked), len(asked) + len(canaries)))
        self._searches = [_search(detector) for detector in asked]
        self._finer = {index: regexes.regex(one.finer) for index, one in enumerate(asked) if one.finer}
        self._sieve = catalogue.sieve([*asked, *canaries])

    def hits(self, text: bytes) -> list[int]:
        """Return the hits in a text; all there are where the set has run out of memory."""
        hits = self._sieve(text + SEPARATOR + CANARY)
        if hits == self._canaries:
            return []
        if not set(self._canaries) <= set(hits):
            return list(range(len(self._searches)))
        kept = [hit for hit in hits if hit not in self._finer or self._finer[hit].search(text)]
        return [] if kept == self._canaries else kept

    def only_names(self, text: bytes) -> bool:
        """Tell whether nothing may be found in JSON without escapes but values by their names."""
        return [hit for hit in self.hits(text) if hit != self.escaped + 1] in ([], self._canaries)

    def sift(self, joined: bytes) -> list[Region] | None:
        """Return the regions of values, joined by SEPARATOR and ended by CANARY, outside of which there is nothing to
        find: disjoint and in order; None where there is nothing at all. Raises nothing: all of it is one region
        then."""
        try:
            hits = self._sieve(joined)
            if hits == self._canaries:
                return None
            if not set(self._canaries) <= set(hits):
                return [(0, len(joined))]
            regions: list[Region] = []
            for index in hits:
                if index < len(self._searches):
                    if (search := self._searches[index]) is None:
                        return [(0, len(joined))]
                    places = _places(search, joined) or [(0, len(joined))]  # a hit has a place
                    finer = self._finer.get(index)
                    regions += places if finer is None else _confirmed(places, finer, joined)
            return _merged(regions) or None
        except Exception:
            return [(0, len(joined))]


def _search(detector: Detector) -> re2._Regexp | None:
    """Compile a detector's pattern by itself; None for one that always matches."""
    if not detector.pattern:
        return None
    if detector.utf8:
        return re2.compile(detector.pattern, regexes.CHARACTERS)
    return re2.compile(detector.pattern.encode(), regexes.BYTES)


def _places(search: re2._Regexp, joined: bytes) -> list[Region]:
    """Find where a pattern matches: once in each of the joined values, since they are looked at whole."""
    places = []
    at = 0
    while at >= 0 and (match := search.search(joined, at)):
        places.append(match.span())
        at = joined.find(SEPARATOR, max(match.end() - len(SEPARATOR), match.start()))
    return places


def _confirmed(places: list[Region], finer: re2._Regexp, joined: bytes) -> list[Region]:
    """Keep the places in whose value a finer pattern matches."""
    kept = []
    for start, end in places:
        before, behind = joined.rfind(SEPARATOR, 0, start), joined.find(SEPARATOR, end)
        value = joined[before + len(SEPARATOR) if before >= 0 else 0 : behind if behind >= 0 else len(joined)]
        if finer.search(value):
            kept.append((start, end))
    return kept


def _merged(regions: list[Region]) -> list[Region]:
    merged: list[Region] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
