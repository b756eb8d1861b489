"""Detects keys by the forms that `providers.py` lists: one RE2 says where a key may begin, a table by its first two
bytes which forms these can be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampler_proxy.redact.detectors.providers import (
    AROUND,
    FORMS,
    LETTERS,
    Around,
    Check,
    Form,
    is_scrambled,
    looks_random,
)
from sampler_proxy.redact.detectors.types import Detector, Range, merged, until_settled
from sampler_proxy.redact.regexes import regex

_LONGEST = 256
"""Bytes of an open part that are read before it is judged: the time for a text of prefixes alone stays linear."""
_WORD_GOES_ON = re.compile(rb"[0-9A-Za-z+/=_-]*+")
# Colours of terminals end in a letter, which belongs to no word.
_COLOUR = re.compile(rb"\[[0-9;]{0,12}m\Z")
_OPEN = re.compile(r"\{([0-9]+),\}")
_FIRST = re.compile(r"(\[[^\]]+\])(?:\{([0-9]+))?")
_HINTED, _SIGNED = 8, 3
_SCRAMBLED = 28
"""Characters of a key that may be glued to a word before it."""


class _Compiled(NamedTuple):
    pattern: re.Pattern[bytes]
    """The prefix, then the rest as a group."""
    before: re.Pattern[bytes] | None
    glued: bool
    """Whether a word may go over into it: its prefix ends no words."""
    check: Check


def _compiled(form: Form) -> _Compiled:
    prefixes = "|".join(map(re.escape, form.prefixes.split()))
    rest = _OPEN.sub(rf"{{\1,{_LONGEST}}}+", form.rest)
    before = re.compile(f"[{form.before}]{{2}}".encode()) if form.before else None
    return _Compiled(re.compile(f"(?:{prefixes})({rest})".encode()), before, form.before == LETTERS, form.check)


def _hint(form: Form, size: int = _HINTED) -> str:
    """Write as RE2 what must be there: the prefix, and up to `size` characters behind it."""
    prefixes = "|".join(map(re.escape, form.prefixes.split()))
    first = _FIRST.match(form.rest)
    behind = f"{first[1]}{{{min(int(first[2] or 1), size)}}}" if first else f"[!-~]{{{size}}}"
    return f"(?:{prefixes}){behind}"


# Nearly all keys: a delimiter, and a long word behind it. So they take a few states of the set's automaton, and not one
# for each letter of each prefix.
_LONG = 17
_AFTER_DELIMITER = rf"[_.:$~-][0-9A-Za-z_-]{{{_LONG}}}"
_DELIMITERS = "_.:$~-"
_PART_OF_WORD = re.compile(r"\[([0-9A-Za-z_-]+)\](?:\{([0-9]+)(?:,[0-9]*)?\})?|([0-9A-Za-z_-])")
_BEHIND_DELIMITER = re.compile(rf"\\?[{_DELIMITERS}](?![^\[]*\])|\)\?")


def _is_long_word(form: Form) -> bool:
    """Tell whether every key of a form has a delimiter and a long word behind it: the prefix ends in one, as do the
    optional parts of the tables, or one stands inside."""
    if re.sub(r"\([^()]*\)", "", form.rest).count("|"):
        return False
    at_start = all(prefix[-1] in _DELIMITERS for prefix in form.prefixes.split())
    starts = [0] if at_start else []
    starts += [one.end() for one in _BEHIND_DELIMITER.finditer(form.rest) if at_start or one[0] != ")?"]
    return any(_word_from(form.rest, start) >= _LONG for start in starts)


def _word_from(rest: str, at: int) -> int:
    """Return the least length of the word that begins at a position of a pattern."""
    length = 0
    while part := _PART_OF_WORD.match(rest, at):
        at = part.end()
        if rest[at : at + 1] in ("?", "*"):
            break
        length += int(part[2] or 1)
    return length


def _prefixed(forms: Sequence[Form]) -> Callable[[bytes], list[Range]]:
    """Make a `find` for forms with a prefix."""
    begin = regex("|".join(map(_hint, forms)))
    by_start: dict[bytes, list[_Compiled]] = {}
    for form in forms:
        compiled = _compiled(form)
        for start in sorted({prefix[:2] for prefix in form.prefixes.split()}):
            by_start.setdefault(start.encode(), []).append(compiled)

    def find(text: bytes) -> list[Range]:
        found = []
        at = end = 0
        while match := begin.search(text, at):
            start = match.start()
            at = start + 1
            for form in by_start[text[start : start + 2]]:
                key = form.pattern.match(text, start)
                if not key:
                    continue
                if not looks_random(key[1]):
                    at = max(at, key.end())  # nor is a part of it
                elif (
                    start == end or _may_stand(text, start, form.before) or (form.glued and _is_glued(key))
                ) and form.check(key[1]):
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


def _is_glued(key: re.Match[bytes]) -> bool:
    """Tell whether a key is one though a word before it goes over into it (`uploadhf_...`): what stands behind its
    delimiter has capitals and small letters as no words have them."""
    rest = key[1]
    glued = key.string[key.start() - 1 : key.start()].isalpha() and key.string[key.start(1) - 1] in b"_.-"
    return glued and len(rest) >= _SCRAMBLED and is_scrambled(rest, 30)


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
    "|".join(
        (
            _AFTER_DELIMITER,
            *(_hint(form, _SIGNED) for form in FORMS if not _is_long_word(form)),
            *(form.sign for form in AROUND if form.sign),
        )
    ),
    until_settled(_issued),
    finer="|".join((*map(_hint, FORMS), *(form.hint for form in AROUND))),
)
