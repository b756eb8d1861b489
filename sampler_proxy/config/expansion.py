"""Expands `${env:NAME}` and `${env:NAME:-default}` in a text, and records where each character of it was written.

As in the OpenTelemetry Collector: `$$` stands for `$`, a lone `$` for itself, and the default is taken where the
variable is not set (one that is set and empty stays empty). Stricter than it: a variable that is not set and has no
default is a problem, as is any other `${...}`; and the content of a variable is never expanded again. Problems name
variables, never their content.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

_SPECIAL = re.compile(r"\$\$|\$\{([^}]*)(\})?")
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


MAX_PROBLEMS = 20
"""Of one text; behind the last nothing more is looked for."""


class Piece(NamedTuple):
    """The text from `at` on was written at `written_at`: character by character if `verbatim`, else as a reference."""

    at: int
    written_at: int
    verbatim: bool


class Expanded(NamedTuple):
    """A text with its references replaced."""

    text: str
    pieces: tuple[Piece, ...]
    problems: tuple[tuple[int, str], ...]
    """Offset in the unexpanded text, and message; where there are any, the text is of no use."""
    values: tuple[str, ...]
    """The content of each reference, which may be secret."""

    def written_at(self, offset: int) -> int:
        """Return the offset, in the unexpanded text, of a character of the text (or of its end)."""
        piece = self.pieces[bisect_right(self.pieces, offset, key=lambda piece: piece.at) - 1]
        return piece.written_at + (offset - piece.at if piece.verbatim else 0)


class TooLongError(Exception):
    """A text that would be longer than there is room for."""


def expand(written: str, environ: Mapping[str, str], room: int) -> Expanded:
    """Replace the references in a text. Problems are part of the result. Raises TooLongError where that has more than
    `room` characters."""
    if len(written) > room:
        raise TooLongError
    parts: list[str] = []
    pieces = [Piece(0, 0, True)]
    problems: list[tuple[int, str]] = []
    values: list[str] = []
    length = done = 0

    def add(part: str, written_at: int, verbatim: bool) -> None:
        nonlocal length
        if length + len(part) > room:
            raise TooLongError
        if part:
            parts.append(part)
            pieces.append(Piece(length, written_at, verbatim))
            length += len(part)

    for special in _SPECIAL.finditer(written):
        add(written[done : special.start()], done, True)
        done = special.end()
        if special[0] == "$$":
            add("$", special.start(), False)
            continue
        try:
            values.append(_value(special[1], special[2] is not None, environ))
            add(values[-1], special.start(), False)
        except ValueError as problem:
            problems.append((special.start(), str(problem)))
            if len(problems) == MAX_PROBLEMS:
                break
    add(written[done:], done, True)
    if done == len(written):
        pieces.append(Piece(length, done, True))  # the end of the text, after a reference
    return Expanded("".join(parts), tuple(pieces), tuple(problems), tuple(values))


def _value(body: str, closed: bool, environ: Mapping[str, str]) -> str:
    """Look up one reference, given what stands between its braces. Raises ValueError."""
    if not closed:
        raise ValueError("`${` without its `}`: write ${env:NAME}, or $${ for the characters themselves")
    reference = _REFERENCE.fullmatch(body)
    if not reference:
        raise ValueError(
            "not a reference: write ${env:NAME} or ${env:NAME:-default}, or $${ for the characters themselves"
        )
    name, default = reference.groups()
    if default is not None and "${" in default:
        raise ValueError("a reference inside a default is not supported: write the default itself")
    if name in environ:
        return environ[name]
    if default is None:
        raise ValueError(f"environment variable {name} is not set: set it, or write ${{env:{name}:-default}}")
    return str(default).replace("$$", "$")
