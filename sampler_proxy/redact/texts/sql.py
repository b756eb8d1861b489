"""Obfuscates SQL: statements lose their literals, and their shape remains.

A literal is what any reading of the statement takes for one (`sql_readings.py`); what is not closed reaches to the end.
Bare words are names and keywords, which stay: so a text must begin like SQL, and where a grammar has passwords without
quotes (`IDENTIFIED BY x`, `PASSWORD x`) these go, too. A statement without literals and comments stays byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import re2

from sampler_proxy.redact.regexes import BYTES, regex
from sampler_proxy.redact.texts import sql_verbs
from sampler_proxy.redact.texts.sql_readings import DROP, MASK, Part, Reading, read

MAX_BYTES = 16 * 1024
"""What a longer statement has beyond becomes `?`."""

MAX_QUOTED = 1024
"""Words in quotes that are looked at: with more, none in double quotes is taken for a name."""

UNREADABLE = b"?"

# Data that follows the statement: ClickHouse, PostgreSQL.
_DATA = regex(r"(?s)\b(?i:INSERT)\b.*\b(?i:FORMAT)\s+[A-Z]\w*\s()\S|\b(?i:COPY)\b[^;]*\b(?i:STDIN)\b[^;]*;\s*()\S")

_NAME = re.compile(rb"[\"`\[][A-Za-z_\x80-\xff][\w$ .:\x80-\xff-]{0,127}[\"`\]]")

# A name in double quotes after these is an error where double quotes make strings, so that it tells the dialect.
_BEFORE_TABLES = frozenset((b"JOIN", b"INTO", b"UPDATE", b"TABLE"))
_WORDS = re.compile(rb"[()]|[A-Za-z_\x80-\xff][\w$\x80-\xff]*+|(?<![\w$\x80-\xff])[^\s\w\x80-\xff()]")

_ITEM = r"(?:[-+]?\s*\?|%s|%\(\w+\)s|[:@]\w+|\$[0-9]+|NULL|DEFAULT|TRUE|FALSE|\w+\(\))"
_LIST = rf"\(\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*\)"
_IN = re2.compile(rf"(?i)(\bIN)\s*{_LIST}".encode(), BYTES)
_ROWS = re2.compile(rf"(?i)(\bVALUES\s*{_LIST})(?:\s*,\s*{_LIST})+".encode(), BYTES)

_SPACES = re.compile(rb"\s*+")
_RUNS = re.compile(rb"\x00+|\x01+|\x02+")


def obfuscate(statement: bytes) -> bytes:
    """Return the statement with `?` for every literal and without its comments. Where it had literals, lists of `IN`
    become `IN (?)`, and rows of `VALUES` after the first are left out where they hold nothing but literals and
    parameters. Idempotent.

    Words in double quotes stay where the statement shows that they are names; they may be MySQL's strings. What is
    beyond `MAX_BYTES`, or begins a literal that does not end, becomes one `?`. `b"?"` for what does not begin like SQL.
    Raises nothing.
    """
    if not statement.strip():
        return statement
    if not sql_verbs.may_begin(statement):
        return UNREADABLE
    shape, had_literals = _shape(statement, names=True)
    if not sql_verbs.begin(shape):
        return UNREADABLE
    if had_literals:
        shape = _ROWS.sub(rb"\1", _IN.sub(rb"\1 (?)", shape))
    return sql_verbs.without_bare_secrets(shape)


def without_literals(text: bytes, *, names: bool = True) -> bytes:
    """Return a text whose literals are written as in SQL with `?` for them, and without comments; what is beyond
    `MAX_BYTES` becomes one `?`. `names`: double quotes may hold names. Raises nothing."""
    return _shape(text, names)[0]


def _shape(text: bytes, names: bool) -> tuple[bytes, bool]:
    """Return a text without literals and comments, and whether it had literals."""
    whole = len(text) <= MAX_BYTES
    if not whole:
        cut = text[: MAX_BYTES - 2]  # so that with the mark it is not too long again
        text = cut[: max(map(cut.rfind, (b" ", b"\n")))]
    parts = _parts(text, names)
    shape = _render(text, parts) if parts else text
    had_literals = any(part.fate == MASK for part in parts)
    return (shape, had_literals) if whole else (shape.removesuffix(b" ?") + b" ?", had_literals)


def _parts(statement: bytes, names: bool) -> list[Part]:
    """Find the parts that do not stay, disjoint and in order: what any reading takes for one."""
    found = [_leaving(statement, reading, names) for reading in read(statement)]
    if (data := _DATA.search(statement)) is not None:
        found.append([Part(max(data.start(1), data.start(2)), len(statement), MASK)])
    if all(parts == found[0] for parts in found):
        return found[0]
    fates = bytearray(len(statement))
    for fate in (DROP, MASK):
        for parts in found:
            for part in parts:
                if part.fate == fate:
                    fates[part.start : part.end] = bytes((fate,)) * (part.end - part.start)
    return [Part(*run.span(), run[0][0]) for run in _RUNS.finditer(fates) if run[0][0]]


def _leaving(statement: bytes, reading: Reading, may_be_names: bool) -> list[Part]:
    """Return the parts of a reading that do not stay: all but names in quotes."""
    quoted = sum(part.quoted for part in reading.parts)
    if not quoted:
        return reading.parts
    judged = may_be_names and quoted <= MAX_QUOTED
    names, labels = _double_quotes(statement, reading.parts) if judged else (False, set[int]())
    return [
        part
        for part in reading.parts
        if not (
            part.quoted
            and _NAME.fullmatch(statement, part.start, part.end)
            and (statement[part.start] != ord('"') or names or part.start in labels)
        )
    ]


def _double_quotes(statement: bytes, parts: Sequence[Part]) -> tuple[bool, set[int]]:
    """Tell whether words in double quotes are names: all of them, as one stands where a string would be an error (next
    to a dot, or where a table must); or where those begin that AS gives to columns for labels."""
    selects = [False]  # by depth of parentheses: FROM inside of a function is followed by a value
    before = [b"", b""]
    names = False
    labels = set()
    words = set()
    done = 0
    for part in (*parts, Part(len(statement), len(statement), DROP)):
        for found in _WORDS.finditer(statement, done, part.start):
            word = found[0].upper()
            words.add(word)
            if word == b"(":
                selects.append(False)
            elif word == b")" and len(selects) > 1:
                selects.pop()
            elif word in (b"SELECT", b"DELETE"):
                selects[-1] = True
            before = [before[1], word]
        done = part.end
        if part.quoted and statement[part.start] == ord('"') and _NAME.fullmatch(statement, part.start, part.end):
            dotted = statement[part.start - 1 : part.start] == b"." or statement[part.end : part.end + 1] == b"."
            table = before[1] in _BEFORE_TABLES or (before[1] == b"FROM" and selects[-1] and before[0] != b"DISTINCT")
            names = names or dotted or table
            if before[1] == b"AS":
                labels.add(part.start)
        if part.fate == MASK:
            before = [before[1], b""]
    if b"IDENTIFIED" in words:  # by a password, or AS its hash
        return False, set()
    return names, labels if b"SELECT" in words and not words & {b"FUNCTION", b"PROCEDURE"} else set()


def _render(statement: bytes, parts: Sequence[Part]) -> bytes:
    """Write a statement without the parts: `?` for those that touch, a space for comments in its middle."""
    out: list[bytes] = []
    done = 0
    for part in parts:
        between = statement[done : part.start]
        if part.fate == MASK:
            out += [between] if part.start == done and out[-1:] == [b"?"] else [between, b"?"]
            done = part.end
        else:
            if (before := between.rstrip()) or out[-1:] != [b" "]:
                out += [before, b" "] if before or done else []
            done = _SPACES.match(statement, part.end).end()  # type: ignore[union-attr]
    return b"".join((*out, statement[done:])) if done < len(statement) else b"".join(out).rstrip()
