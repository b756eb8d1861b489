"""Obfuscates SQL: statements lose their literals, and their shape remains.

Nobody says which dialect a statement is in, and they disagree about what ends a literal. So it is read as the standard
has it (with PostgreSQL's additions) and, where the difference could show, as MySQL has it too; what either takes for a
literal or a comment goes. Fails closed: what is not readable as SQL in every way it was tried becomes `?`, as do the
few forms (Oracle's q-quotes, triple quotes, quotes in brackets, data after the statement) that others read otherwise.
"""

from __future__ import annotations

import re
from typing import ClassVar

import re2
from sqlglot.errors import SqlglotError, TokenError
from sqlglot.tokenizer_core import Token, TokenType
from sqlglot.tokens import Tokenizer

from sampler_proxy.redact.regexes import BYTES, regex

MAX_BYTES = 16 * 1024
MAX_SIGNS = 768
"""Commas and the like that a statement may have, beyond three in eight bytes: each costs like a word."""

UNREADABLE = b"?"


class _Standard(Tokenizer):
    """Standard SQL as words, signs and literals; what keywords mean is of no interest here."""

    KEYWORDS: ClassVar[dict[str, TokenType]] = {}
    COMMANDS: ClassVar[set[TokenType]] = set()
    IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ['"', "`"]
    BYTE_STRINGS: ClassVar[list[str | tuple[str, str]]] = [("e'", "'"), ("E'", "'")]  # PostgreSQL's, with escapes
    BYTE_STRING_ESCAPES: ClassVar[list[str]] = ["'", "\\"]
    HEREDOC_STRINGS: ClassVar[list[str | tuple[str, str]]] = ["$"]
    HEREDOC_TAG_IS_IDENTIFIER = True
    SINGLE_TOKENS: ClassVar[dict[str, TokenType]] = {**Tokenizer.SINGLE_TOKENS, "$": TokenType.PARAMETER}
    VAR_SINGLE_TOKENS: ClassVar[set[str]] = {"$"}


class _MySQL(_Standard):
    STRING_ESCAPES: ClassVar[list[str]] = ["'", '"', "\\"]
    IDENTIFIER_ESCAPES: ClassVar[list[str]] = ["\\"]
    COMMENTS: ClassVar[list[str | tuple[str, str]]] = ["--", "#", ("/*", "*/")]
    NESTED_COMMENTS = False
    DASH_COMMENT_REQUIRES_BOUNDARY = True


_STANDARD = _Standard()
_MYSQL = _MySQL()

_KEPT = frozenset(_Standard.SINGLE_TOKENS.values()) - {TokenType.UNKNOWN} | {TokenType.VAR}

# What a statement begins with. Without this, a command of Redis or a plain sentence would pass as words.
_BEGINS_LIKE_SQL = regex(
    r"(?is)\A[\s(;]*(?:(?:SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|REPLACE|UPSERT|VALUES|TABLE|CREATE|ALTER|DROP|TRUNCATE|RENAME"
    r"|COMMENT\s+ON|GRANT|REVOKE|EXPLAIN|DESCRIBE|DESC|ANALYZE|VACUUM|REINDEX|OPTIMIZE|SHOW|USE|CALL|EXEC|EXECUTE|DO|DECLARE"
    r"|PREPARE|DEALLOCATE|FETCH|CLOSE|OPEN|COPY|LOAD|UNLOAD|LOCK|UNLOCK|LISTEN|NOTIFY|UNLISTEN|BEGIN|START|COMMIT|ROLLBACK"
    r"|SAVEPOINT|RELEASE|END|ABORT|PRAGMA|ATTACH|DETACH|RESET|DISCARD|REFRESH|IF|BATCH|APPLY)(?:[\s(;*/'\"`-]|\z)"
    r"|SET\s+(?:[\w.@\"`]+\s*:?=|[\w.]+\s+TO\s|(?:SESSION|LOCAL|GLOBAL|TRANSACTION|NAMES|ROLE|CONSTRAINTS)\b))"
)

# Where dialects that are not tried would find literals that begin or end elsewhere.
_AMBIGUOUS = regex(
    r"(?is)[\x00-\x08\x0e-\x1f\x7f]"  # neither space nor anything else
    r"|\b[nu]?q'"  # Oracle: q'[it's]'
    r"|(?:\A|[^'])'''(?:[^']|\z)|\"\"\""  # BigQuery: '''it's'''
    r"|\[[A-Z_][\w ]*['\"]"  # Transact-SQL: [it's]
    r"|(?:--[^\s]|#)[^\n]*['\"`][^\n]*\n"  # a comment for some only, with a quote in it
    r"|\bINSERT\b.*\bFORMAT\s+\w+\s+\S|\bCOPY\b[^;]*;\s*\S"  # data after the statement: ClickHouse, PostgreSQL
)
_MAY_DIFFER = regex(r"(?s)\\|#(?:[^>]|\z)|--[^\s]|/\*.*/\*")

# Replaced before tokenising, by others of the same length: parameters, which begin like dollar quotes; UUIDs, which
# Cassandra writes without quotes; PostgreSQL's `#>` and `#>>`, which begin like a comment.
_PARAMETER = re.compile(r"(?<![\w$])\$(?![A-Za-z_]\w*\$|\$)([0-9]?)", re.ASCII)
_UUID = re.compile(r"(?<!\w)[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?!\w)", re.ASCII)

_NAME = re.compile(r"[A-Za-z_\x80-\xff][\w$ .:\x80-\xff-]{0,127}", re.ASCII)
_PREFIXES = frozenset(("N", "X", "B", "R", "U", "E"))

# A name in double quotes after these is an error where double quotes make strings, so that it tells the dialect.
_BEFORE_TABLES = frozenset(("JOIN", "INTO", "UPDATE", "TABLE"))

_ITEM = r"(?:[-+]?\s*\?|%s|%\(\w+\)s|[:@]\w+|NULL|DEFAULT|TRUE|FALSE|\w+\(\))"
_LIST = rf"\(\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*\)"
_IN = re2.compile(rf"(?i)(\bIN)\s*{_LIST}".encode(), BYTES)
_ROWS = re2.compile(rf"(?i)(\bVALUES\s*{_LIST})(?:\s*,\s*{_LIST})+".encode(), BYTES)

# The same with numbers in them, before anything is read: reading costs by the word and sign, and these have most.
# Nothing goes that could begin or end a literal or a comment.
_NUMBER_OR_ITEM = rf"(?:[-+]?[0-9]+(?:\.[0-9]+)?|{_ITEM})"
_NUMBERS = rf"\(\s*{_NUMBER_OR_ITEM}(?:\s*,\s*{_NUMBER_OR_ITEM})*\s*\)"
_IN_NUMBERS = re2.compile(rf"(?i)(\bIN)\s*{_NUMBERS}".encode(), BYTES)
_ROWS_OF_NUMBERS = re2.compile(rf"(?i)(\bVALUES\s*{_NUMBERS})(?:\s*,\s*{_NUMBERS})+".encode(), BYTES)

_NO_SIGNS = bytes(byte for byte in range(256) if chr(byte).isalnum() or byte in b"_ \t\r\n'" or byte >= 0x80)

# What becomes of a character, by what most a reading asks for.
_KEEP, _DROP, _MASK = range(3)
_RUNS = re.compile(rb"\x00+|\x01+|\x02+")


def obfuscate(statement: bytes) -> bytes:
    """Return the statement with `?` for every literal and without its comments; lists of `IN` become `IN (?)`, rows of
    `VALUES` after the first are left out where they hold nothing but literals and parameters. Idempotent.

    Words in double quotes stay where the statement shows that they are names; they may be MySQL's strings.

    `b"?"` for what cannot be tokenised, does not begin like SQL, is longer than `MAX_BYTES`, or has far more signs than
    statements have (beside lists of numbers and parameters). Raises nothing.
    """
    if not statement.strip():
        return statement
    if len(statement) > MAX_BYTES or _AMBIGUOUS.search(statement.replace(b"#>", b"->")):
        return UNREADABLE
    statement = _ROWS_OF_NUMBERS.sub(rb"\1", _IN_NUMBERS.sub(rb"\1 (?)", statement))
    if len(statement.translate(None, _NO_SIGNS)) > MAX_SIGNS + len(statement) * 3 // 8:
        return UNREADABLE
    written = statement.decode("latin-1")  # a byte is a character, so that places are places in the bytes
    try:
        fates = _read(_STANDARD, written)
        if _MAY_DIFFER.search(statement):
            fates = bytearray(map(max, fates, _read(_MYSQL, written)))
    except SqlglotError:
        return UNREADABLE
    shape = _ROWS.sub(rb"\1", _IN.sub(rb"\1 (?)", _render(statement, fates)))
    return shape if _BEGINS_LIKE_SQL.search(shape) else UNREADABLE


def _read(tokenizer: Tokenizer, written: str) -> bytearray:
    """Decide the fate of each character in one reading. May raise `SqlglotError`."""
    readable = _PARAMETER.sub(_other_sign, written).replace("#>", "->")
    readable = _UUID.sub(lambda found: "0" * len(found[0]), readable)
    tokens = tokenizer.tokenize(readable)
    fates = bytearray(len(written))
    names, labels = _double_quotes(tokens, written)
    end = 0
    number_ends = -1
    before: tuple[str, str] = ("", "")
    for token in tokens:
        start, stop = token.start, token.end + 1
        if not written[end:start].isspace():
            fates[end:start] = bytes((_DROP,)) * (start - end)
        end = stop
        word = token.text.upper() if token.token_type is TokenType.VAR else ""
        if token.token_type is TokenType.IDENTIFIER:
            if written[start] == "`" and any(quote in token.text for quote in ("'", '"', "$$")):
                raise TokenError("a back quote may be an operator, and the quote after it begin a string")
            keep = written[start] == "`" or ((names or (labels and before[1] == "AS")) and _is_name(token, written))
        else:
            keep = token.token_type in _KEPT and not (word and start == number_ends)  # 0x1F, 3L
        if before == ("IDENTIFIED", "BY"):
            keep = False  # Oracle's passwords need no quotes
        if not keep:
            fates[start:stop] = bytes((_MASK,)) * (stop - start)
            if before[1] in _PREFIXES and start and fates[start - 1] == _KEEP and written[start - 1].isalpha():
                fates[start - 1] = _MASK
            number_ends = stop if token.token_type in (TokenType.NUMBER, TokenType.VAR) else -1
        before = (before[1], word)
    if not written[end:].isspace():
        fates[end:] = bytes((_DROP,)) * (len(written) - end)
    return fates


def _other_sign(found: re.Match[str]) -> str:
    return "0" + found[1] if found[1] else "@"


def _is_name(token: Token, written: str) -> bool:
    return _NAME.fullmatch(written, token.start + 1, token.end) is not None


def _double_quotes(tokens: list[Token], written: str) -> tuple[bool, bool]:
    """Tell whether words in double quotes are names: all of them, as one stands where a string would be an error (next
    to a dot, or where a table must); those after AS, as it gives labels to columns."""
    selects = [False]  # by depth of parentheses: FROM inside of a function is followed by a value
    before = ("", "")
    names = False
    words = set()
    for i, token in enumerate(tokens):
        kind = token.token_type
        word = token.text.upper() if kind is TokenType.VAR else ""
        words.add(word)
        if kind is TokenType.L_PAREN:
            selects.append(False)
        elif kind is TokenType.R_PAREN and len(selects) > 1:
            selects.pop()
        elif word in ("SELECT", "DELETE"):
            selects[-1] = True
        elif kind is TokenType.IDENTIFIER and written[token.start] == '"' and _is_name(token, written):
            dotted = any(tokens[j].token_type is TokenType.DOT for j in (i - 1, i + 1) if 0 <= j < len(tokens))
            table = before[1] in _BEFORE_TABLES or (before[1] == "FROM" and selects[-1] and before[0] != "DISTINCT")
            names = names or dotted or table
        before = (before[1], word)
    if "IDENTIFIED" in words:  # by a password, or AS its hash
        return False, False
    return names, "SELECT" in words and not words & {"FUNCTION", "PROCEDURE"}


def _render(statement: bytes, fates: bytearray) -> bytes:
    parts = []
    for run in _RUNS.finditer(fates):
        start, end = run.span()
        fate = fates[start]
        if fate == _KEEP:
            parts.append(statement[start:end])
        elif fate == _MASK:
            parts.append(b"?")
        elif start and end < len(statement):
            parts.append(b" ")
    return b"".join(parts)
