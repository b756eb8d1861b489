"""Makes detectors of users' patterns, and the sieve: one RE2 set that asks all patterns at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import re2

from sampler_proxy.redact import regexes
from sampler_proxy.redact.detectors.types import Detector, Range


def custom(name: str, pattern: str) -> Detector:
    """Make a detector of a user's pattern (RE2 syntax, over characters; the dot matches line breaks). It finds each
    match, or the match's first group (a match in which that group took no part counts whole); empty ones are left out.

    Raises ValueError with a message that says what is wrong and what to write.
    """
    if not pattern:
        raise ValueError("an empty pattern finds nothing: write what the secret looks like, in RE2 syntax")
    if len(pattern) > regexes.MAX_PATTERN:
        raise ValueError(f"a pattern has at most {regexes.MAX_PATTERN} characters: split it in several")
    compiled = regexes.compiled(pattern)
    if compiled.fullmatch(b""):
        raise ValueError("the pattern matches the empty text: write what must be there, with + rather than *")
    grouped = compiled.groups > 0

    def find(text: bytes) -> list[Range]:
        found = []
        for match in compiled.finditer(text):
            start, end = match.span(1) if grouped and match.start(1) >= 0 else match.span()
            if start < end:
                found.append(Range(start, end))
        return found

    return Detector(name, _anywhere(pattern), find, utf8=True)


def _anywhere(pattern: str) -> str:
    """Return the pattern as it holds inside joined texts, where the edges of a value are line breaks. A pattern whose
    edges cannot be kept becomes the empty one, which always matches (the detector is then asked every time)."""
    if any(sign in pattern for sign in (r"\A", r"\z", r"\Q")) or "(?" in pattern.replace("(?:", "").replace("(?P<", ""):
        return ""
    return f"(?m:{pattern})"


def sieve(detectors: Sequence[Detector]) -> Callable[[bytes], list[int]]:
    """Compile the patterns of `detectors` into one set. The function returned takes a text, or many joined by
    `SEPARATOR`, and returns the ascending indices of the detectors that may find something; the others find nothing in
    any of the joined values.

    Raises ValueError where the patterns together are too large to compile.
    """
    ours = _one_set([(i, one.pattern) for i, one in enumerate(detectors) if not one.utf8], utf8=False)
    theirs = _one_set([(i, one.pattern) for i, one in enumerate(detectors) if one.utf8], utf8=True)
    if theirs is None:
        return ours or (lambda _: [])
    if ours is None:
        return theirs
    return lambda text: sorted(ours(text) + theirs(text))


def _one_set(patterns: list[tuple[int, str]], *, utf8: bool) -> Callable[[bytes], list[int]] | None:
    """Compile patterns into one RE2 set. RE2 matches a set with a DFA alone, whose states are made when first met; that
    there is room for them is found out when the set compiles."""
    if not patterns:
        return None
    together = re2.Set.SearchSet(regexes.options(utf8=utf8, max_mem=regexes.SET_MEMORY))
    try:
        for _, pattern in patterns:
            together.Add(pattern.encode())
        together.Compile()
    except re2.error:
        raise ValueError("the patterns are too large together: write fewer, or shorter ones") from None
    match = together.Match
    if [index for index, _ in patterns] == list(range(len(patterns))):
        return lambda text: match(text) or []
    indices = [index for index, _ in patterns]
    return lambda text: [indices[i] for i in match(text) or ()]
