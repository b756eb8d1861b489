"""Decodes texts in which characters are escaped, as URLs, JSON, HTML and many languages do it, and maps positions back.

An escape hides what stands beside it (`%22AKIA...`: no word begins there), and what it stands for.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import Sign, signs

PATTERN = (
    r"""%[0-9A-Fa-f]{2}|\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|["'/\\nrtbf])"""
    r"""|&(?:quot|apos|amp|#0{0,4}(?:34|38|39|96)|#[xX]0{0,4}(?:22|26|27|60));|\x1b\[[0-9;]*m"""
)
"""RE2: where it matches nothing, nothing is escaped."""
SIGNS = (
    Sign("%", then="0-9A-Fa-f", times=2),
    Sign("\\", then=r"ux\"'/\\nrtbf"),
    *signs("&quot; &apos; &amp; &# \x1b["),
)
"""What it cannot match without."""
MAX_LEVELS = 3
"""Escapes over escapes that are resolved."""

_ESCAPE = re.compile(PATTERN.encode())
_SIMPLE = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_ENTITIES = {b"&quot;": b'"', b"&apos;": b"'", b"&amp;": b"&"}  # HTML's; beside them only what has a number

Origin = Callable[[int], int]
"""Maps a position in a decoded text to the position in the original; works for both ends of a range."""


def same(position: int) -> int:
    """Return the position itself: the Origin of a text that is not decoded."""
    return position


def decoded(text: bytes) -> list[tuple[bytes, Origin]]:
    """Return the text with one level of escapes resolved, with two, and so on; nothing where there are none. Each
    escape becomes one byte: a space, where it stands for a character beyond a byte. Linear; raises nothing."""
    levels: list[tuple[bytes, Origin]] = []
    outer: Origin = same
    while len(levels) < MAX_LEVELS:
        # A text may be nothing but escapes: little is done in Python for each.
        spans = [match.span() for match in _ESCAPE.finditer(text)]
        if not spans:
            break
        budget.spend(len(spans) // 2)
        shifts = [0, *accumulate([end - start - 1 for start, end in spans])]
        places = [start - shift for (start, _), shift in zip(spans, shifts, strict=False)]
        text = _ESCAPE.sub(_replacement, text)
        outer = _through(places, shifts, outer)
        levels.append((text, outer))
    return levels


class _Characters(dict[bytes, bytes]):
    """Keeps what escapes stand for, save those with four digits, which are many."""

    def __missing__(self, escape: bytes) -> bytes:
        found = _character(escape)
        if len(escape) < 6:
            self[escape] = found
        return found


_CHARACTERS = _Characters()


def _replacement(escape: re.Match[bytes]) -> bytes:
    return _CHARACTERS[escape[0]]


def _character(escape: bytes) -> bytes:
    if escape[:1] == b"%":
        return bytes((int(escape[1:], 16),))
    if escape[:1] == b"&":
        named = _ENTITIES.get(escape)
        digits = escape[2:-1].lower()
        return named or bytes((int(digits[1:], 16) if digits[:1] == b"x" else int(digits),))
    if escape[:1] == b"\x1b":  # a colour
        return b" "
    kind = escape[1:2]
    if kind in (b"u", b"x"):
        code = int(escape[2:], 16)
        return bytes((code,)) if code < 0x80 or (kind == b"x" and code < 0x100) else b" "
    return _SIMPLE.get(kind, kind)


def _through(places: list[int], shifts: list[int], outer: Origin) -> Origin:
    return lambda position: outer(position + shifts[bisect_left(places, position)])
