"""What a detector is: a cheap pattern that must match, and a function that makes sure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Range(NamedTuple):
    """Half-open, in bytes of the text looked at."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of secret.

    `find` gives what was found and checked: sorted, disjoint ranges of the secret itself (of `Bearer abc` the `abc`, of
    a URL with credentials its `user:password`). It raises nothing, whatever the bytes, and takes time linear in them.

    `pattern` (RE2, unanchored) is the necessary condition: where it matches nothing, `find` finds nothing. It keeps
    that promise inside joined texts too (see `SEPARATOR`); that it matches says little.
    """

    name: str
    pattern: str
    find: Callable[[bytes], list[Range]]
    utf8: bool = False
    """Whether `pattern` is about characters (one written by a user) or about bytes (all of ours)."""
