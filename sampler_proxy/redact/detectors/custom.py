"""Detectors from a user's pattern, and the one question to all patterns at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import re2

from sampler_proxy.redact.detectors.types import BYTES, Detector, Range

_CHARACTERS = re2.Options()
_CHARACTERS.dot_nl = True
_CHARACTERS.log_errors = False

MAX_PATTERN = 4096

ROUNDS = 8


def custom(name: str, pattern: str) -> Detector:
    """A detector for what a user's pattern (RE2 syntax, over characters; the dot matches line breaks) matches, or for
    its first group where it has one (a match in which that group took no part counts whole).

    Raises ValueError with a message that says what is wrong and what to write. Empty matches find nothing.
    """
    if not pattern:
        raise ValueError("an empty pattern finds nothing: write what the secret looks like, in RE2 syntax")
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters: split it in several")
    try:
        compiled = re2.compile(pattern, _CHARACTERS)
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not a regular expression (RE2 syntax): {said}") from None
    except UnicodeEncodeError:
        raise ValueError("the pattern holds half a character (a lone surrogate): write the whole one") from None
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
    """The pattern as it holds inside joined texts, where the edges of a value are line breaks; where what it says about
    edges cannot be kept, one that always matches (the detector is then asked every time)."""
    if any(sign in pattern for sign in (r"\A", r"\z", r"\Q")) or "(?" in pattern.replace("(?:", "").replace("(?P<", ""):
        return ""
    return f"(?m:{pattern})"


def sieve(detectors: Sequence[Detector]) -> Callable[[bytes], list[int]]:
    """What tells, of a text or of many joined by `SEPARATOR`, which of `detectors` (as ascending indices) may find
    something in it. The others find nothing in any of the joined values.

    Raises ValueError where the patterns together are too large to compile.
    """
    ours = _one_set([(i, one.pattern) for i, one in enumerate(detectors) if not one.utf8], BYTES)
    theirs = _one_set([(i, one.pattern) for i, one in enumerate(detectors) if one.utf8], _CHARACTERS)
    if theirs is None:
        return ours or (lambda _: [])
    if ours is None:
        return theirs
    return lambda text: sorted(ours(text) + theirs(text))


def find_all(detectors: Sequence[Detector], text: bytes) -> list[tuple[Range, int]]:
    """What these detectors find in a text, as sorted, disjoint ranges, each with the index of its detector; overlapping
    ones become one range, which goes to the first of their detectors in `detectors`.

    Finds more than the detectors one by one where secrets touch (`4111111111111111AKIA...`): each hides from the other
    detector where the other begins. So it looks again with what was found blotted out, up to `ROUNDS` times; whoever
    masks all of it finds nothing in what remains.
    """
    found: list[tuple[Range, int]] = []
    for _ in range(ROUNDS):
        seen = len(found)
        for index, detector in enumerate(detectors):
            found += ((one, index) for one in detector.find(text) if text[one.start : one.end].strip(b"*"))
        if len(found) == seen:
            break
        blotted = bytearray(text)
        for (start, end), _ in found[seen:]:
            blotted[start:end] = b"*" * (end - start)
        text = bytes(blotted)
    merged: list[tuple[Range, int]] = []
    for (start, end), index in sorted(found):
        if merged and start < merged[-1][0].end:
            (first, last), other = merged[-1]
            merged[-1] = Range(first, max(last, end)), min(index, other)
        else:
            merged.append((Range(start, end), index))
    return merged


def _one_set(patterns: list[tuple[int, str]], options: re2.Options) -> Callable[[bytes], list[int]] | None:
    """RE2 matches a set with a DFA alone, whose states are made when first met; that it has room for them is found out
    when it compiles."""
    if not patterns:
        return None
    roomy = re2.Options()
    for option in re2.Options.NAMES:
        setattr(roomy, option, getattr(options, option))
    roomy.max_mem = 32 << 20
    together = re2.Set.SearchSet(roomy)
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
