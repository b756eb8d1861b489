"""Finds the values behind quoted keys in texts that are no JSON as a whole: `HTTP 400: {"token": "x"}`, JSON in a
string, what JavaScript, Python, Ruby and PHP print.

So that key rules hold there too. Unlike `brackets` it makes nothing of how things nest, so that no damage around a key
and its value matters: a key is what stands in quotes before a colon (or `=>`, `=`, `->`), wherever it is, and in pairs
of Erlang and Lisp (`{<<"key">>,<<"x">>}`, `("key" . "x")`). The forms of PHP are here too: `["key"]=> string(1) "x"`
(var_dump), `[key] => x` (print_r), `s:3:"key";s:1:"x";` (serialize).
Before a string a key needs no quotes, where one may begin: in a bracket, in a line, or behind another string.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import NamedTuple

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import Sign, signs
from sampler_proxy.redact.texts.members import unescaped

_BEHIND = r"(?:>>)?\s*[\])]?\s*(?::|=|->)"
PATTERN = r"""["'`](?:>>)?\s*[\])]?\s*(?::|=|->)|["'`];[A-Za-z]:|\{<<["'`]|\(["'`][^"'`\x00\n]*["'`]\s+\.\s"""
"""RE2: quoted keys."""
IN_STRINGS = rf"[`']{_BEHIND}|[`'];[A-Za-z]:|[0-9A-Za-z_]\]\s*=>"
"""RE2: keys that a string of JSON without escapes may hold."""
SIGNS = signs("\" ' `", then=r">\s\]):=;-")
"""What `PATTERN` cannot match without."""
SIGNS_IN_STRINGS = (*signs("' `", then=r">\s\]):=;-"), Sign("]", then=r"\s=", before="0-9A-Za-z_"))
"""What `IN_STRINGS` cannot match without."""
MAX_QUOTED_KEY_BYTES = 256
"""Of a longer key only its end is read."""

_BEHIND_KEY = re.compile(
    rb"""["'`](?:(>>\s*+,\s*+(?=<<["'`])|\s++\.\s++(?=["'`]))|(?::protected|:"[\w\\]{1,128}":private)?+(?:>>)?\s*+[\])]?\s*+(?::(?!:)=?|=>|={1,3}(?![=~])|->)\s*+|(;)(?:s:[0-9]++:|[a-zA-Z]:))"""
    rb"|(?<=[0-9A-Za-z_])(\])\s*+=>[ \t]*+"
    rb"""|(?:^|["'`][ \t]++|[{\[(,;])[ \t]*+([A-Za-z_][0-9A-Za-z_.-]{0,127}+)\s*+(?::=?|=>)\s*+"""
    rb"""(?=(?:[A-Za-z_][\w.:]*+\()?["'`])"""
    rb"""|(?<![0-9A-Za-z_:]):([A-Za-z_][0-9A-Za-z_.-]{0,127}+)[ \t]++(?=["'`])|\{([a-z_]\w*+),[ ]?(?=<<["'`])""",
    re.MULTILINE,
)
_BARE = re.compile(rb"""[^,;}\])\n"'`]*""")
# What may stand before the quote of a value, or its bracket: `string(3) "x"`, `b"x"`; `Some("x")`, `new Secret {..}`.
_PREFIX = re.compile(rb"""(?:[bBuUrRfFnN@$]{1,2}|<<|[A-Za-z_&*][\w.:<>]*+(?:\([0-9]*+\))?[ \t]++)(?=\\*["'`])""")
_CALL = re.compile(rb"(?:new\s++)?[A-Za-z_&*$][\w.:<>]*+[ \t]*+(?=[({\[])")
_NESTED = re.compile(rb"(?:Array|[\w\\]++ Object)\s*+(?=\()")  # of print_r
# A value of print_r reaches to the end of its line, or to what comes next.
_TO_NEXT = re.compile(rb"[^\n]*?(?=[ \t]++\[[^\[\]\n]{1,128}\][ \t]*+=>|[ \t]*+\)[ \t]*+(?:\n|\Z)|\n|\Z)")
_SIGN = re.compile(rb"""["'`{}\[\]()]""")
_WITHIN = re.compile(rb"[0-9A-Za-z_\x80-\xff]")
_OPENING = re.compile(rb"[{\[(,:>=]\s*\\*\Z")
_CLOSING = {b"{": b"}", b"[": b"]", b"(": b")"}


class QuotedKey(NamedTuple):
    """A key in quotes, before a colon or the like."""

    text: bytes
    """The key without quotes and escapes."""
    quote: int
    """The byte that quotes the key; `]` for one of print_r; 0: none, but there is one before the value."""
    level: int
    """The number of backslashes before each quote."""
    end: int
    """The position behind what separates the key from its value."""
    width: int = 1
    """The number of signs in each quote: two in a field of CSV."""


class KeyedValue(NamedTuple):
    """The value of a quoted key. `start` and `end`: without the value's quotes. `text`: of a string, without
    escapes."""

    start: int
    end: int
    text: bytes


def keys(text: bytes, innocent: Container[bytes] = ()) -> Iterator[QuotedKey]:
    """Find the quoted keys, in order, save those that are innocent as they stand. Linear; raises nothing but
    SpentError."""
    for match in _BEHIND_KEY.finditer(text):
        budget.spend(1)
        quote = match.start()
        if bare := match[4] or match[5] or match[6]:
            yield QuotedKey(bare, 0, 0, match.end())
            continue
        if match[3] is not None:
            start = text.rfind(b"[", max(0, quote - MAX_QUOTED_KEY_BYTES), quote)
            if start >= 0:
                yield QuotedKey(text[start + 1 : quote], 0x5D, 0, match.end())
            continue
        level = _backslashes(text, quote) if text[quote - 1 : quote] == b"\\" else 0
        stop = quote - level
        mark = text[quote : quote + 1]
        width = 1
        if text[quote - 1 : quote] == mark and _WITHIN.match(text, quote - 2):
            width, stop = 2, quote - 1
        low = max(0, stop - MAX_QUOTED_KEY_BYTES)
        start = stop
        for _ in range(4):  # a quote with more backslashes before it belongs to the key
            start = text.rfind(mark, low, start)
            if start <= 0 or text[start - 1] != 0x5C or _backslashes(text, start) <= level:
                break
        inside = text[start + 1 if start >= 0 else low : stop]
        if inside in innocent or (match[1] and not text[:start].endswith((b"{<<", b"("))):
            continue
        yield QuotedKey(_plain(inside, level), text[quote], level, match.end(), width)


def value_of(text: bytes, key: QuotedKey) -> KeyedValue:
    """Find the value of a key: a string up to the quote that ends it, an object, array or call up to its bracket, any
    other up to the next sign that could end it. Where nothing ends the value it reaches to the end of the text."""
    start = key.end
    if prefix := _PREFIX.match(text, start):
        start = prefix.end()
    opening = start
    while opening < len(text) and text[opening] == 0x5C:
        opening += 1
    sign = text[opening : opening + 1]
    if sign in (b'"', b"'", b"`"):
        width = 3 if text[opening : opening + 3] == sign * 3 else key.width
        if text[opening : opening + width] == sign * width:
            opening += width - 1
            end = _closing(text, sign * width, opening - start if width == 1 else 0, opening + 1)
            return KeyedValue(opening + 1, end, _plain(text[opening + 1 : end], opening - start if width == 1 else 0))
    call = (_CALL if key.quote != 0x5D else _NESTED).match(text, start)
    if sign in (b"{", b"[") or call:
        return KeyedValue(start, _bracket(text, call.end() if call else opening), b"")
    bare = (_BARE if key.quote != 0x5D else _TO_NEXT).match(text, start)
    end = bare.end() if bare else start
    inside = text[start:end].rstrip()
    return KeyedValue(start, start + len(inside), inside)


def _backslashes(text: bytes, at: int) -> int:
    """Count the backslashes before a position; 16 stands for more."""
    before = text[max(0, at - 16) : at]
    return len(before) - len(before.rstrip(b"\\"))


def _closing(text: bytes, quote: bytes, level: int, start: int) -> int:
    """Find where a string ends, before the backslashes of its quote. One before a letter or digit is rather part of the
    string, where there is another behind it."""
    at = start
    first = len(text)
    while (at := text.find(quote, at)) >= 0:
        count = _backslashes(text, at)
        if level == 0 and count < 16 and count % 2 == 0:  # those before it are characters
            if not _WITHIN.match(text, at + len(quote)):
                return at
            first = min(first, at)
        if level and count <= level and at - count >= start:
            return at - count
        at += 1
    return first


def _bracket(text: bytes, start: int) -> int:
    """Find the end of a bracket: the one like it that closes it."""
    opening = text[start : start + 1]
    closing = _CLOSING[opening]
    depth = 0
    at = start
    while sign := _SIGN.search(text, at):
        at = sign.end()
        found = sign[0]
        if found == opening:
            depth += 1
        elif found == closing:
            depth -= 1
            if depth == 0:
                return at
        elif found[0] in b"\"'`" and _OPENING.search(text[max(start, at - 24) : at - 1]):
            level = _backslashes(text, at - 1)
            end = _closing(text, found, level, at)
            at = min(len(text), end + level + 1)
    return len(text)


def _plain(inside: bytes, level: int) -> bytes:
    for _ in range((level + 1).bit_length()):  # each level of strings doubles the backslashes
        inside = unescaped(inside)
    return inside
