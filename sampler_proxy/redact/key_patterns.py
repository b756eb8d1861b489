"""Parses patterns for attribute keys (globs, and RE2 between slashes), and matches ordered sets of them.

A glob (`*` any characters, `?` one) knows no upper and lower case; either kind is matched against the whole key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import re2

from sampler_proxy.redact import regexes
from sampler_proxy.settings import Text


@dataclass(frozen=True, slots=True)
class KeyPattern(Text):
    """The configuration's type for one pattern."""

    def parse(self, value: object) -> str:
        text = Text.parse(self, value)
        if len(text) > 2 and text.startswith("/") and not _between_slashes(text):
            raise ValueError(
                "begins with a slash, but does not end with one: write /RE2/, with flags inside: /(?i)RE2/"
            )
        compile_keys([text])
        return text

    what = "a glob such as *password*, or /RE2/"


def _between_slashes(pattern: str) -> bool:
    return len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/")


def expression(pattern: str) -> str:
    """Translate a key pattern into RE2."""
    if _between_slashes(pattern):
        return pattern[1:-1]
    translated = "".join({"*": ".*", "?": "."}.get(character) or re2.escape(character) for character in pattern)
    return f"(?i:{translated})"


def literally(key: str) -> str:
    """Write the pattern that matches this key, in upper and lower case."""
    if "*" in key or "?" in key or key.startswith("/"):
        return f"/(?i){re2.escape(key)}/"
    return key


def check_pattern(pattern: str) -> None:
    """Raise ValueError where a pattern is too long, or no RE2. The message does not quote the pattern: the environment
    may have given it."""
    if len(pattern) > regexes.MAX_PATTERN:
        raise ValueError(f"longer than {regexes.MAX_PATTERN} characters: write several")
    regexes.compiled(pattern)


def compile_keys(patterns: Iterable[str]) -> re2.Set:
    """Compile key patterns into a set that is matched against whole keys. Raises ValueError."""
    found = re2.Set.FullMatchSet(regexes.CHARACTERS)
    for pattern in patterns:
        check_pattern(expression(pattern))
        found.Add(expression(pattern))
    try:
        found.Compile()
    except re2.error:
        raise ValueError("too large together: write fewer or simpler patterns") from None
    return found


class KeySet:
    """Key patterns in order. The last of the compiled set matches any key: where it is silent, RE2 has run out of
    memory, and the patterns are asked one by one."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self._set = compile_keys([*self._patterns, "*"]) if self._patterns else None

    def matches(self, key: str) -> list[int]:
        """Return the ascending indices of the patterns that match a key."""
        if self._set is None:
            return []
        hits = self._set.Match(key) or []
        last = len(self._patterns)
        if last not in hits:
            return [i for i, pattern in enumerate(self._patterns) if compile_keys([pattern, "*"]).Match(key) != [1]]
        return sorted(hits)[:-1]
