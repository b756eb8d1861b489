"""Compiles patterns with RE2 as this room uses it: options, the largest pattern, and refusals that never quote one (the
environment may hold it)."""

from __future__ import annotations

import re2

MAX_PATTERN = 4096
"""Characters of one pattern."""
SET_MEMORY = 32 << 20
"""Bytes for the automaton of a set of detectors."""


def options(*, utf8: bool, max_mem: int | None = None, groups: bool = True) -> re2.Options:
    """Return options for patterns about characters (`utf8`; the dot matches line breaks) or about bytes (a byte that is
    not UTF-8 is matched by classes that exclude, and hides nothing). Without `groups`, only where a pattern matches is
    found, which is faster. RE2 writes nothing to stderr: it would quote the pattern."""
    found = re2.Options()
    found.log_errors = False
    found.dot_nl = utf8
    found.never_capture = not groups
    if not utf8:
        found.encoding = re2.Options.Encoding.LATIN1
    if max_mem is not None:
        found.max_mem = max_mem
    return found


CHARACTERS = options(utf8=True)
BYTES = options(utf8=False)


def compiled(pattern: str) -> re2._Regexp:
    """Compile a user's pattern, over characters. Raises ValueError with the reason that RE2 gives."""
    try:
        return re2.compile(pattern, CHARACTERS)
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not a regular expression (RE2): {said.partition(':')[0]}") from None
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate): write the whole one") from None


def regex(pattern: str) -> re2._Regexp:
    """Compile one of our patterns, about bytes; escapes such as `\\xff` in it stand for bytes."""
    return re2.compile(pattern.encode("ascii"), BYTES)
