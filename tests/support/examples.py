"""Texts that a pattern matches: random ones, and of each alternative some."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MANY = 3


def examples(pattern: str, count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield as many texts of a pattern, which `re` understands and which is about bytes. Assertions do not count: what
    is yielded may fail them."""
    rng = random.Random(seed)
    parsed = _parser.parse(pattern.encode("latin-1"))
    for _ in range(count):
        yield _text(parsed, rng, bool(parsed.state.flags & re.IGNORECASE))


def _text(nodes: Any, rng: random.Random, any_case: bool) -> bytes:
    return b"".join(_of_node(str(kind), value, rng, any_case) for kind, value in nodes)


def _of_node(kind: str, value: Any, rng: random.Random, any_case: bool) -> bytes:
    if kind == "LITERAL":
        return _cased(bytes((value,)), rng, any_case)
    if kind == "NOT_LITERAL":
        return bytes((rng.choice([byte for byte in range(256) if byte != value]),))
    if kind == "ANY":
        return bytes((rng.choice([byte for byte in range(256) if byte != 0x0A]),))
    if kind == "IN":
        return _cased(bytes((rng.choice(_members(value)),)), rng, any_case)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = value
        times = rng.choice((least, rng.randint(least, min(int(most), least + MANY))))
        return b"".join(_text(inner, rng, any_case) for _ in range(times))
    if kind == "SUBPATTERN":
        _, added, removed, inner = value
        return _text(inner, rng, (any_case or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE)
    if kind == "BRANCH":
        return _text(rng.choice(value[1]), rng, any_case)
    assert kind in ("AT", "ASSERT", "ASSERT_NOT"), kind
    return b""


def _members(items: Any) -> list[int]:
    found: set[int] = set()
    for kind, value in items:
        if str(kind) == "LITERAL":
            found.add(value)
        elif str(kind) == "RANGE":
            found.update(range(value[0], value[1] + 1))
        elif str(kind) == "CATEGORY":
            name = {
                "CATEGORY_SPACE": r"\s",
                "CATEGORY_WORD": r"\w",
                "CATEGORY_DIGIT": r"\d",
                "CATEGORY_NOT_SPACE": r"\S",
            }
            found.update(b for b in range(256) if re.match(name[str(value)].encode(), bytes((b,))))
    if any(str(kind) == "NEGATE" for kind, _ in items):
        return [byte for byte in range(256) if byte not in found]
    return sorted(found)


def _cased(text: bytes, rng: random.Random, any_case: bool) -> bytes:
    return text.swapcase() if any_case and rng.random() < 0.3 else text
