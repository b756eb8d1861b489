"""Defines a detector: a cheap pattern that must match, and a function that makes sure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import re2


class Range(NamedTuple):
    """A half-open range of bytes in the text that was searched."""

    start: int
    end: int


SEPARATOR = b"\n\x00\n"
"""The bytes between joined values, and nowhere else (not before the first). The line breaks let `^` and `$` see the
edges of a value, and none of our patterns reaches across one; the zero byte is rare in users' patterns."""


class Sign(NamedTuple):
    """A text that is found without a pattern, with what stands around it. Classes are written as between the brackets
    of a pattern, about bytes; beyond the edges of a value there are line breaks."""

    text: str
    then: str = ""
    """A class: what follows, `times` over."""
    times: int = 1
    through: str = ""
    """A class: what is skipped behind that."""
    until: str = ""
    """A class: what must then follow; the end of the value is `\\x00`."""
    before: str = ""
    """A class: what must stand before the text."""
    any_case: bool = False


class Digits(NamedTuple):
    """A number of so many digits, three of them in a row, with up to three separators between any two."""

    least: int
    groups: tuple[int, int, int] = (0, 0, 0)
    """How the digits are grouped: at least so many, then so many, then at least so many; zeros for in any way. Where
    a separator may be a code with digits of its own, any way will do."""


def signs(
    texts: str,
    *,
    then: str = "",
    times: int = 1,
    through: str = "",
    until: str = "",
    before: str = "",
    any_case: bool = False,
) -> tuple[Sign, ...]:
    """Make a sign of each of some texts, separated by spaces, with the same around them."""
    return tuple(Sign(text, then, times, through, until, before, any_case) for text in texts.split(" "))


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of secret.

    `find` returns the checked findings: sorted, disjoint ranges of the secret itself (of `Bearer abc` the `abc`, of a
    URL with credentials its `user:password`). It raises nothing, whatever the bytes, and takes time linear in them.

    `pattern` (RE2, unanchored) is a necessary condition: where it matches nothing, `find` finds nothing. It keeps that
    promise inside joined texts too (see `SEPARATOR`); that it matches says little.
    """

    name: str
    pattern: str
    find: Callable[[bytes], list[Range]]
    utf8: bool = False
    """Whether `pattern` is about characters (one written by a user) or about bytes (all of ours)."""
    signs: tuple[Sign | Digits, ...] = ()
    """A cheaper condition: a value without any of these has nothing that `find` finds, and `pattern` is not asked about
    it. Empty for none. Where these say all, `pattern` is empty: it always matches."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Sort ranges, and unite those that overlap."""
    disjoint: list[Range] = []
    for start, end in sorted(ranges):
        if disjoint and start < disjoint[-1].end:
            disjoint[-1] = Range(disjoint[-1].start, max(disjoint[-1].end, end))
        else:
            disjoint.append(Range(start, end))
    return disjoint


_ROUNDS = 3


def until_settled(find: Callable[[bytes], list[Range]]) -> Callable[[bytes], list[Range]]:
    """Make a `find` that looks again with its findings blotted out: of secrets that touch, each may hide where another
    one ends."""

    def settled(text: bytes) -> list[Range]:
        found = find(text)
        more = found
        for _ in range(_ROUNDS):
            if not more:
                break
            blotted = bytearray(text)
            for start, end in found:
                blotted[start:end] = b"*" * (end - start)
            more = find(bytes(blotted))
            found = merged(found + more)
        return found

    return settled


WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
DIGITS = frozenset(b"0123456789")

_PLACEHOLDER = re.compile(
    rb"\*+|[$%]?\{[^}]*\}|\$\(?[A-Z][A-Z0-9_]*\)?|<[^>]*>|%s|\?+|%7B[^%]*%7D|x{3,}|X{3,}|\[[A-Za-z_ -]+\]|\.{3,}"
    rb"|(?i:redacted|masked|hidden)"
)


def is_placeholder(value: bytes) -> bool:
    """Tell whether a value only stands for a secret, as a mask or a template's variable does."""
    return _PLACEHOLDER.fullmatch(value) is not None


def just_before(pattern: re2._Regexp, text: bytes, end: int, reach: int = 32) -> bool:
    """Tell whether a pattern that ends in `\\z` matches the `reach` bytes before `end`: RE2 looks past an `endpos`."""
    return pattern.search(text[max(0, end - reach) : end]) is not None


def stands_alone(text: bytes, start: int, end: int) -> bool:
    """Tell whether neither neighbour of a range is a letter, a digit or an underscore."""
    return not (start and text[start - 1] in WORD) and not (end < len(text) and text[end] in WORD)
