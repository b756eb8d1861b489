"""Reads numbers as people format them: digits of other scripts, dashes and spaces beyond ASCII, entities of HTML.

A detector of numbers searches the text as it is, and once more folded into ASCII; what it finds there is mapped back.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from operator import add, sub

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import Range, Sign, merged, signs

Find = Callable[[bytes], list[Range]]

_ENTITY = r"&(?:amp;)?#?[0-9A-Za-z]{2,8};"
_SIGN = (
    r"\xc2[\xa0\xad\xb7]|\xe2\x80[\x80-\x95\xa0-\xa7\xaa-\xaf]|\xe2\x81[\x83\x9f\xa0]|\xe2\x88\x92|\xe3\x80\x80"
    rf"|\xef\xb9[\x98\xa3]|\xef\xbb\xbf|\xef\xbc[\x8b-\x8f\xbf]|{_ENTITY}"
)
SEPARATOR = rf"(?:[ \t+./_-]|%20|{_SIGN})"
"""RE2 and `re`: one sign that may stand between the groups of a number, folded or not."""
OTHER_DIGIT = (
    r"(?:\xef\xbc[\x90-\x99]|\xd9[\xa0-\xa9]|\xdb[\xb0-\xb9]|\xe0[\xa5\xa7\xa9\xab\xad\xaf\xb1\xb3\xb5][\xa6-\xaf]"
    r"|\xe0[\xb9\xbb][\x90-\x99]|\xf0\x9d\x9f[\x8e-\xbf])"
)
"""RE2 and `re`: a decimal digit that is not ASCII."""
OTHER_DIGIT_SIGNS = (
    Sign("\xef\xbc", then=r"\x90-\x99"),
    Sign("\xd9", then=r"\xa0-\xa9"),
    Sign("\xdb", then=r"\xb0-\xb9"),
    *signs("\xe0\xa5 \xe0\xa7 \xe0\xa9 \xe0\xab \xe0\xad \xe0\xaf \xe0\xb1 \xe0\xb3 \xe0\xb5", then=r"\xa6-\xaf"),
    *signs("\xe0\xb9 \xe0\xbb", then=r"\x90-\x99"),
    Sign("\xf0\x9d\x9f", then=r"\x8e-\xbf"),
)

_TO_FOLD = re.compile(rf"(%20|{_SIGN}|{OTHER_DIGIT}|\xef\xbc[\xa1-\xba]|\xef\xbd[\x81-\x9a])".encode("latin-1"))
_MAX_KNOWN = 1024
_WORTH_IT = re.compile(rf"%20|[\x80-\xff]|{_ENTITY}".encode("latin-1"))


def folding(find: Find) -> Find:
    """Make a detector's search see numbers of all scripts: as the text is, and folded."""

    def found(text: bytes) -> list[Range]:
        plain = find(text)
        if not _WORTH_IT.search(text):
            return plain
        parts = _TO_FOLD.split(text)  # what stays and what is folded, by turns; a text may be nothing but the latter
        if len(parts) == 1:
            return plain
        signs = parts[1::2]
        budget.spend(len(signs) // 2)
        parts[1::2] = pieces = [_KNOWN[sign] for sign in signs]
        sizes = list(map(len, pieces))
        shifts = [0, *accumulate(map(sub, map(len, signs), sizes))]
        places = list(accumulate(map(add, map(len, parts[::2]), sizes)))  # where what was folded ends
        folded = b"".join(parts)
        # A range begins behind, and ends before, what was folded into nothing.
        return merged(
            [
                *plain,
                *(
                    Range(start + shifts[bisect_left(places, start + 1)], end + shifts[bisect_left(places, end + 1)])
                    for start, end in find(folded)
                ),
            ]
        )

    return found


class _Folded(dict[bytes, bytes]):
    """Keeps what signs are folded into: what has no width into nothing, what is no part of a number into itself."""

    def __missing__(self, sign: bytes) -> bytes:
        character = html.unescape(html.unescape(sign.decode())) if sign[:1] == b"&" else sign.decode("utf-8", "replace")
        found = sign if len(character) != 1 else _ascii(character, sign)
        if len(self) < _MAX_KNOWN:
            self[sign] = found
        return found


def _ascii(character: str, sign: bytes) -> bytes:
    plain = unicodedata.normalize("NFKC", character)
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return b"%d" % digit
    kind = unicodedata.category(character)
    if kind == "Cf":
        return b""
    if kind in ("Pd", "Zs") or character in "\u2043\u2212":
        return b" " if kind == "Zs" else b"-"
    if character in "\u00b7\u2027\u2022":
        return b"."
    return plain.encode() if plain.isascii() and len(plain) == 1 else sign


_KNOWN = _Folded({b"%20": b" "})
