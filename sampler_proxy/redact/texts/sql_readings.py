"""Reads SQL: where in a statement its literals and comments are, whatever dialect it is in.

Nobody says which dialect that is, and they disagree about where a literal or a comment ends. Each disagreement is a
`Trait` with a sign that it could matter here; a statement is read in every combination of the traits whose signs it
shows, and what any of the readings takes for a literal goes. A reading in which a string is glued to a word, or a
backslash stands outside of strings, does not count where others are without such faults and come to an end.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from typing import NamedTuple

MAX_READ = 32 * 1024
"""Bytes times readings."""
MAX_TRAITS = 3
"""Signs of more traits, or more than MAX_READ to read: everything is a literal from the first sign on."""
MAX_PARTS = 3072
"""In all readings together, each of which takes what is behind its share for a literal."""


class Trait(NamedTuple):
    """Something that dialects disagree about, and what shows that it could matter."""

    name: str
    sign: re.Pattern[bytes]


_ESCAPES = Trait("escapes", re.compile(rb"\\['\"\\]"))  # MySQL, BigQuery, Snowflake, ClickHouse, Spark: 'it\'s'
_HASH = Trait("hash", re.compile(rb"#(?![>{])"))  # MySQL: # begins a comment
_SPACED = Trait("spaced", re.compile(rb"--(?!\s)."))  # MySQL: -- without a space behind it is no comment
_SLASHES = Trait("slashes", re.compile(rb"//"))  # Snowflake, Cassandra, Cypher: // begins a comment
_FLAT = Trait("flat", re.compile(rb"/\*(?:[^*/]|\*(?!/)|/(?!\*))*+/\*"))  # all but PostgreSQL: comments do not nest
_TRIPLE = Trait("triple", re.compile(rb"(?<!')'''(?!')|\"\"\""))  # BigQuery: '''it's'''
_Q = Trait("q", re.compile(rb"(?i)(?<![\w$])[nu]?q'"))  # Oracle: q'[it's]'
_BRACKETS = Trait("brackets", re.compile(rb"(?i)\[[A-Z_][\w \x80-\xff]*+['\"`]"))  # Transact-SQL: [it's]
_TRAITS = (_ESCAPES, _HASH, _SPACED, _SLASHES, _FLAT, _TRIPLE, _Q, _BRACKETS)

KEEP, DROP, MASK = range(3)
"""What becomes of a part of a statement: what most a reading asks for."""


class Part(NamedTuple):
    """A part of a statement that is no plain word or sign. `quoted`: it stands in double quotes, back quotes or
    brackets, and may be a name."""

    start: int
    end: int
    fate: int
    quoted: bool = False


class Reading(NamedTuple):
    """A statement as some dialects have it. `odd`: hardly as it was meant; `ends`: no literal is open at its end."""

    parts: list[Part]
    odd: bool
    ends: bool


def read(statement: bytes) -> list[Reading]:
    """Read a statement in all ways that could matter, or else in one that is the strictest. Raises nothing."""
    signs = [(found.start(), trait) for trait in _TRAITS if (found := trait.sign.search(statement))]
    traits = [trait.name for _, trait in signs]
    if len(traits) > MAX_TRAITS or len(statement) << len(traits) > MAX_READ:
        first = min(at for at, _ in signs)
        parts = _read(_pattern(frozenset()), statement[:first], MAX_PARTS).parts
        return [Reading([*parts, Part(first, len(statement), MASK)], odd=False, ends=False)]
    sets = [frozenset(chosen) for size in range(len(traits) + 1) for chosen in combinations(traits, size)]
    readings = [_read(_pattern(chosen), statement, MAX_PARTS // len(sets)) for chosen in sets]
    sound = [reading for reading in readings if not reading.odd]
    return sound if sound and all(reading.ends for reading in sound) else readings


# What may directly follow a string. Other words do not, but for some alias.
_GLUED = re.compile(
    rb"(?i)(?!(?:AND|OR|THEN|WHEN|ELSE|END|AS|FROM|WHERE|ORDER|GROUP|HAVING|LIMIT|OFFSET|UNION|ON|IS|IN|NOT|LIKE|ILIKE"
    rb"|ESCAPE|BETWEEN|COLLATE|RETURNING|INTO|FOR|XOR|DIV|MOD|DESC|ASC)\b)[A-Za-z0-9_\x80-\xff]"
)
_NESTING = re.compile(rb"/\*|\*/")


def _read(pattern: re.Pattern[bytes], statement: bytes, most: int) -> Reading:
    """Read a statement in one way, up to so many parts."""
    parts: list[Part] = []
    odd = False
    at: int | None = 0
    while at is not None:
        begin, at = at, None
        for found in pattern.finditer(statement, begin):
            kind = found.lastgroup
            if len(parts) >= most:
                parts.append(Part(found.start(), len(statement), MASK))
                return Reading(parts, odd, ends=False)
            if kind == "mask":
                parts.append(Part(found.start(kind), found.end(), MASK))
            elif kind == "string":
                end = found.end()
                parts.append(Part(found.start(kind), end, MASK))
                odd = odd or _GLUED.match(statement, end) is not None
            elif kind == "quoted":
                end = found.end()
                parts.append(Part(found.start(kind), end, MASK, True))
                odd = odd or _GLUED.match(statement, end) is not None
            elif kind == "drop":
                parts.append(Part(found.start(kind), found.end(), DROP))
            elif kind == "odd":
                odd = True
            elif kind == "nested" and (end := _comment_end(statement, found.start(kind))):
                parts.append(Part(found.start(kind), end, DROP))
                at = end
                break
            elif kind in ("open", "nested"):
                parts.append(Part(found.start(kind), len(statement), MASK))
                return Reading(parts, odd, ends=False)
    return Reading(parts, odd, ends=True)


def _comment_end(statement: bytes, start: int) -> int:
    """Find the end of a comment that may hold others; 0 where it has none."""
    depth = 0
    for found in _NESTING.finditer(statement, start):
        depth += 1 if found[0] == b"/*" else -1
        if not depth:
            return found.end()
    return 0


_WORD = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*+"
_HEX = rb"[0-9A-Fa-f]"
_UUID = rb"(?<!\w)" + _HEX + rb"{8}-(?:" + _HEX + rb"{4}-){3}" + _HEX + rb"{12}(?!\w)"
_NUMBER = rb"[0-9](?:[\w.\x80-\xff]|(?<=[eE])[+-](?=[0-9]))*+"
_TAG = rb"\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]{0,62})?\$"
_PLACEHOLDERS = (
    rb"(?<![\w$])\$[0-9]{1,5}(?![\w$])",
    rb"(?<![\w:?\]])[:?@][0-9]{1,4}(?!\w)",
    rb"[#$]\{[\w.]{1,64}\}",
    rb"\{[0-9]{1,3}\}",
    rb"%[0-9]{1,3}\$[sd]\b",
    rb"<https?://[^\s<>\"'`\\]{1,512}>",  # a name in SPARQL
)
_TEMPORARY = rb"(?:(?<=(?i:from|join|into)\s)|(?<=(?i:update)\s)|(?<=(?i:table)\s)|(?<=\.))##?[A-Za-z_]\w*+"  # T-SQL
_ESCAPE = rb"(?<=(?i:escape)\s)N?'\\'|(?<=(?i:escape))'\\'"  # one character, in every dialect
_Q_STRING = rb"[NUnu]?[Qq]'(?:\[.*?\]'|\{.*?\}'|\(.*?\)'|<.*?>'|(?P<q>[^\s\[{(<]).*?(?P=q)')"
_TRIPLE_STRING = rb"'''(?:[^'\\]|\\.|'(?!''))*+'''|\"\"\"(?:[^\"\\]|\\.|\"(?!\"\"))*+\"\"\""
_E_STRING = rb"[Ee]'(?:[^'\\]|''|\\.)*+'"  # PostgreSQL
_DOLLARS = rb"(?P<tag>" + _TAG + rb").*?(?P=tag)"


@cache
def _pattern(traits: frozenset[str]) -> re.Pattern[bytes]:
    """Compile the parts of statements for one combination of traits. A literal that does not end is `open`."""

    def either(*patterns: bytes, **by_trait: bytes) -> bytes:
        return b"|".join((*(one for trait, one in by_trait.items() if trait in traits), *patterns))

    def string(quote: bytes) -> bytes:
        others = rb"[^%b\\]|\\." if "escapes" in traits else rb"[^%b]"
        return (rb"%b(?:" + others + rb"|%b%b)*+%b").replace(rb"%b", quote)

    prefix = either(rb"[NBXRUEnbxrue]", q=rb"[NUnu]?[Qq]")
    words = rb"(?!(?:" + prefix + rb")'|" + _UUID + rb")" + _WORD
    signs = rb"[\s(),.;=>+*|&!^~}\]]++|[<:?@%{]|#>>?|-(?!-)|/(?![*/])|\[(?![A-Za-z_])"
    kinds = {
        "string": either(
            *(_ESCAPE, _E_STRING, rb"[NBXRUnbxru]?" + string(b"'"), _DOLLARS), q=_Q_STRING, triple=_TRIPLE_STRING
        ),
        "quoted": either(string(b'"'), rb"`(?:[^`'\"$]|\$(?!\$))*+`", brackets=rb"\[(?=[A-Za-z_])[^\]]*+\]"),
        "mask": _UUID + b"|" + _NUMBER,
        "drop": either(
            rb"--(?=\s|\Z)[^\n]*+" if "spaced" in traits else rb"--[^\n]*+",
            hash=rb"#(?![>{])[^\n]*+",
            slashes=rb"//[^\n]*+",
            flat=rb"/\*.*?\*/",
        ),
        "nested": rb"(?!)" if "flat" in traits else rb"/\*",
        "open": rb"(?:(?:" + prefix + rb")?'|[\"`]|" + _TAG + rb"|/\*|[\x00-\x08\x0e-\x1f\x7f]).*",
        "odd": rb"\\",
    }
    # Most of a statement is words and signs: they are taken together, with what follows them.
    kept = rb"(?:" + either(words, *_PLACEHOLDERS, _TEMPORARY, signs) + rb")*+"
    rest = b"|".join(b"(?P<%b>%b)" % (kind.encode(), one) for kind, one in kinds.items())
    return re.compile(rb"(?s)" + kept + rb"(?:" + rest + rb"|.|\Z)")
