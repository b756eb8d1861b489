"""Finds the values behind quoted keys in texts that are no JSON as a whole: `HTTP 400: {"token": "x"}`, JSON in a
string, what JavaScript and Python print.

So that key rules hold there too. Unlike `embedded` it makes nothing of how things nest: a key is what stands in quotes
before a colon (or `=>`), wherever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sampler_proxy.redact.texts.embedded import unescaped

PATTERN = r"""["'`]\s*(?::|=>)"""
"""RE2: where it matches nothing, there are no keys."""
MAX_QUOTED_KEY_BYTES = 256
"""Of a longer key only its end is read."""

_BEHIND_KEY = re.compile(rb"""["'`]\s*+(?::(?!:)|=>)\s*+""")
_BARE = re.compile(rb"""[^,;}\])\n"'`]*""")
_SIGN = re.compile(rb"""["'`{}\[\]]""")
_OPENING = re.compile(rb"[{\[(,:]\s*\\*\Z")


class QuotedKey(NamedTuple):
    """A key in quotes, before a colon or `=>`."""

    text: bytes
    """The key without quotes and escapes."""
    quote: int
    """The byte that quotes the key."""
    level: int
    """The number of backslashes before each quote."""
    end: int
    """The position behind what separates the key from its value."""


class KeyedValue(NamedTuple):
    """The value of a quoted key. `start` and `end`: without the value's quotes. `text`: of a string, without
    escapes."""

    start: int
    end: int
    text: bytes


def keys(text: bytes) -> Iterator[QuotedKey]:
    """Find the quoted keys, in order. Linear; raises nothing."""
    for match in _BEHIND_KEY.finditer(text):
        quote = match.start()
        level = _backslashes(text, quote)
        stop = quote - level
        low = max(0, stop - MAX_QUOTED_KEY_BYTES)
        start = stop
        for _ in range(4):  # a quote with more backslashes before it belongs to the key
            start = text.rfind(text[quote : quote + 1], low, start)
            if start < 0 or _backslashes(text, start) <= level:
                break
        yield QuotedKey(_plain(text[start + 1 if start >= 0 else low : stop], level), text[quote], level, match.end())


def value_of(text: bytes, key: QuotedKey) -> KeyedValue:
    """Find the value of a key: a string up to the quote that ends it, an object or array up to its bracket, any other
    up to the next sign that could end it. Where nothing ends the value it reaches to the end of the text."""
    start = key.end
    opening = start
    while opening < len(text) and text[opening] == 0x5C:
        opening += 1
    sign = text[opening : opening + 1]
    if sign in (b'"', b"'", b"`"):
        end = _closing(text, sign, opening - start, opening + 1)
        return KeyedValue(opening + 1, end, _plain(text[opening + 1 : end], opening - start))
    if sign in (b"{", b"["):
        return KeyedValue(start, _bracket(text, start, key), b"")
    bare = _BARE.match(text, start)
    end = bare.end() if bare else start
    inside = text[start:end].rstrip()
    return KeyedValue(start, start + len(inside), inside)


def _backslashes(text: bytes, at: int) -> int:
    """Count the backslashes before a position; 16 stands for more."""
    before = text[max(0, at - 16) : at]
    return len(before) - len(before.rstrip(b"\\"))


def _closing(text: bytes, quote: bytes, level: int, start: int) -> int:
    """Find where a string ends, before the backslashes of its quote."""
    at = start
    while (at := text.find(quote, at)) >= 0:
        count = _backslashes(text, at)
        if level == 0 and count < 16 and count % 2 == 0:
            return at  # those before it are characters
        if level and count <= level and at - count >= start:
            return at - count
        at += 1
    return len(text)


def _bracket(text: bytes, start: int, key: QuotedKey) -> int:
    depth = 0
    at = start
    while sign := _SIGN.search(text, at):
        at = sign.end()
        found = sign[0]
        if found in (b"{", b"["):
            depth += 1
        elif found in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return at
        elif found[0] == key.quote and _OPENING.search(text[max(start, at - 24) : at - 1]):
            level = _backslashes(text, at - 1)
            end = _closing(text, found, level, at)
            at = min(len(text), end + level + 1)
    return len(text)


def _plain(inside: bytes, level: int) -> bytes:
    for _ in range((level + 1).bit_length()):  # each level of strings doubles the backslashes
        inside = unescaped(inside)
    return inside
