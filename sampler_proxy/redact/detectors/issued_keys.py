"""Detects keys by the forms that `providers.py` lists: signs say where a key may begin, a table by its first two bytes
which forms these can be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampler_proxy.redact.detectors.providers import AROUND, FORMS, Around, Check, Form, looks_random
from sampler_proxy.redact.detectors.types import SEPARATOR, Detector, Range, Sign, merged, signs, until_settled
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.signs import Signs

_LONGEST = 256
"""Bytes of an open part that are read before it is judged: the time for a text of prefixes alone stays linear."""
_WORD_GOES_ON = re.compile(rb"[0-9A-Za-z+/=_-]*+")
# Colours of terminals end in a letter, which belongs to no word.
_COLOUR = re.compile(rb"\[[0-9;]{0,12}m\Z")
_OPEN = re.compile(r"\{([0-9]+),\}")
_FIRST = re.compile(r"\[([^\]]+)\](?![?*])(?:\{([0-9]+))?")
_SIGNED = 16


class _Compiled(NamedTuple):
    pattern: re.Pattern[bytes]
    """The prefix, then the rest as a group."""
    before: re.Pattern[bytes] | None
    check: Check


def _compiled(form: Form) -> _Compiled:
    prefixes = "|".join(map(re.escape, form.prefixes.split()))
    rest = _OPEN.sub(rf"{{\1,{_LONGEST}}}+", form.rest)
    before = re.compile(f"[{form.before}]{{2}}".encode()) if form.before else None
    return _Compiled(re.compile(f"(?:{prefixes})({rest})".encode()), before, form.check)


def _first(form: Form) -> tuple[str, int] | None:
    """Read the class of what follows a prefix, and how often it does at least; None where it may be of several."""
    first = _FIRST.match(form.rest)
    return None if first is None or "|" in form.rest else (first[1], min(int(first[2] or 1), _SIGNED))


def _signs(form: Form) -> tuple[Sign, ...]:
    """Make signs of a form: its prefixes, with as much of what follows as is of one class."""
    first = _first(form)
    return signs(form.prefixes, then=first[0], times=first[1]) if first else signs(form.prefixes)


def _prefixed(forms: Sequence[Form]) -> Callable[[bytes], list[Range]]:
    """Make a `find` for forms with a prefix."""
    begins = Signs([[sign for form in forms for sign in _signs(form)]])
    by_start: dict[bytes, list[_Compiled]] = {}
    for form in forms:
        compiled = _compiled(form)
        for start in sorted({prefix[:2] for prefix in form.prefixes.split()}):
            by_start.setdefault(start.encode(), []).append(compiled)

    def find(text: bytes) -> list[Range]:
        found = []
        at = end = 0
        for start in begins.places(text + SEPARATOR):
            if start < at:
                continue
            for form in by_start[text[start : start + 2]]:
                key = form.pattern.match(text, start)
                if not key:
                    continue
                if not looks_random(key[1]):
                    at = max(at, key.end())  # nor is a part of it
                elif (start == end or _may_stand(text, start, form.before)) and form.check(key[1]):
                    at = start + len(key[0].rstrip(b"."))
                    if at - start >= _LONGEST and (more := _WORD_GOES_ON.match(text, at)):
                        at = more.end()
                    end = at
                    found.append(Range(start, end))
                    break
        return found

    return find


def _may_stand(text: bytes, start: int, before: re.Pattern[bytes] | None) -> bool:
    """Tell whether what stands before a key makes no other word of it: two characters that words are made of."""
    if before is None or not before.match(text, max(0, start - 2), start):
        return True
    return text[start - 1] == 0x6D and _COLOUR.search(text, max(0, start - 16), start) is not None


def _around(forms: Sequence[Around]) -> Callable[[bytes], list[Range]]:
    """Make a `find` for forms with their sign elsewhere."""
    patterns = [(re.compile(form.hint.encode()), regex(form.pattern), form.check) for form in forms]

    def find(text: bytes) -> list[Range]:
        return [
            Range(*match.span(1))
            for hint, pattern, check in patterns
            if hint.search(text)
            for match in pattern.finditer(text)
            if check(match.group(1))
        ]

    return find


_BY_PREFIX = _prefixed(FORMS)
_BY_SIGN = _around(AROUND)


def _issued(text: bytes) -> list[Range]:
    return merged(_BY_PREFIX(text) + _BY_SIGN(text))


PROVIDER_KEY = Detector(
    "provider_key",
    "",
    until_settled(_issued),
    signs=tuple(sign for form in FORMS for sign in _signs(form))
    + tuple(sign for form in AROUND for sign in form.signs),
)
