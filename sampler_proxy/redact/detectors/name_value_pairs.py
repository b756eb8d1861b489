"""Finds values that stand apart from their names: in elements of XML, beside them in a pair (`name="password"
value="x"`), in the parts of a multipart body, and in what databases say of a key that is taken."""

from __future__ import annotations

import re

from sampler_proxy.redact.detectors.reading import Value, read
from sampler_proxy.redact.detectors.secret_values import is_secret, is_stand_in
from sampler_proxy.redact.detectors.types import Range, just_before
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.secret_names import Announces, in_text

_PAIR = regex(
    r"""(?i)(?:(?:\A|[^A-Za-z])(?:name|key|id|field|header|variable|param|parameter|property|attribute|k)["']?\s{0,3}"""
    r"""(?:[:=]|=>)\s{0,3}(?:\\{0,3}["'])?|<(?:name|key|header)>\s{0,3})\z"""
)
_VALUE_OF_PAIR = re.compile(
    rb"""\\{0,3}["']?(?:[,;]?\s{0,40}(?:type[=:]\s?["']?\w+["']?[,;]?\s{1,8})?\\{0,3}["']?\b"""
    rb"""(?:value|val|v|content|data)\\{0,3}["']?\s{0,3}(?:[:=]|=>)\s{0,3}"""
    rb"""|(?:\s[^<>]{0,80})?>(?=[^<\s])|</(?:name|key|header)>\s{0,40}<(?:value|string|data)>"""
    rb"""|(?:;[^\r\n]{0,80})?\r?\n(?:[A-Za-z-]{1,40}:[^\r\n]{0,80}\r?\n){0,3}\r?\n(?=[^\r\n-])"""
    rb"""|(?:;[^\r\n\\]{0,80})?\\r\\n(?:[A-Za-z-]{1,40}:[^\r\n\\]{0,80}\\r\\n){0,3}\\r\\n)""",
    re.IGNORECASE,
)
_TAG_BEFORE = regex(r"(?:<|&lt;)(?:[A-Za-z][\w.-]{0,32}:)?\z")
_TAG_END = re.compile(rb"(?:[\s][^<>]{0,200}+)?(?:>|&gt;)\s{0,40}(?:(?:<|&lt;)!\[CDATA\[)?")
_CONTENT = re.compile(rb"(?:[^<&\]]|&(?!lt;)|\](?!\]>))++")
_TAKEN = re.compile(rb"\(([^()\n]{1,200}(?:\([^()\n]{0,80}\)[^()\n]{0,80})?)\)[ ]?=[ ]?\(([^\n]{1,1000}?)\)(?= |\.|,|\"|\Z|\n)")
_COLUMN = re.compile(rb"(?:[a-z]+\()?\"?([A-Za-z_][\w$]*)")
_DUPLICATE = re.compile(rb"Duplicate entry '((?:[^'\n]|'(?! for key)){1,1000})' for key '([^'\n]{1,200})'")
PATTERN = r"\)\s?=\s?\(|Duplicate entry '"
"""RE2: where it matches nothing, `find` finds nothing."""


def is_name_of_pair(text: bytes, start: int) -> bool:
    """Tell whether what begins at a position is the name in a pair (`name="..."`)."""
    return just_before(_PAIR, text, start)


def value_of(text: bytes, end: int) -> Value | None:
    """Read the value of a pair whose name ends at a position; None where there is none."""
    pair = _VALUE_OF_PAIR.match(text, end)
    if pair is None:
        return None
    if pair[0].endswith(b">"):
        return _content(text, pair.end())
    if pair[0].endswith((b"\n", b"\\n")):
        line = re.compile(rb"[^\r\n\\]*").match(text, pair.end())
        return Value(*line.span(), True) if line else None
    return read(text, pair.end())


def element(text: bytes, start: int, end: int) -> Value | None:
    """Read the content of an element of XML by where its name stands in the tag that opens it; None for no tag."""
    if not just_before(_TAG_BEFORE, text, start, 48):
        return None
    tag = _TAG_END.match(text, end)
    if tag is None or tag[0].rstrip().endswith((b"/>", b"/&gt;")):
        return None
    return _content(text, tag.end())


def _content(text: bytes, at: int) -> Value | None:
    content = _CONTENT.match(text, at)
    if content is None:
        return None
    return Value(at, at + len(content[0].rstrip()), True)


def find(text: bytes) -> list[Range]:
    """Find the secrets in what databases say of a key that is taken."""
    found = []
    if b"=" in text and b"(" in text:
        for taken in _TAKEN.finditer(text):
            found += _of_columns(taken)
    if b"Duplicate entry" in text:
        for duplicate in _DUPLICATE.finditer(text):
            name = duplicate[2].rpartition(b".")[2]
            kind = max(in_text(name), *(in_text(name[: at.start()]) for at in re.finditer(rb"_", name)), Announces.NOTHING)
            if is_secret(duplicate[1], kind, name, quoted=True):
                found.append(Range(*duplicate.span(1)))
    return found


def _of_columns(taken: re.Match[bytes]) -> list[Range]:
    """Find the secrets among the values of PostgreSQL's `Key (a, b)=(1, 2)`."""
    columns = [_COLUMN.match(column.strip()) for column in taken[1].split(b",")]
    kinds = [in_text(column[1]) if column else Announces.NOTHING for column in columns]
    if max(kinds) < Announces.AMBIGUOUS:
        return []
    values = taken[2].split(b", ")
    if len(values) != len(kinds):
        return [Range(*taken.span(2))] if not is_stand_in(taken[2]) else []
    found = []
    at = taken.start(2)
    for kind, value in zip(kinds, values, strict=True):
        if kind >= Announces.AMBIGUOUS and value and not is_stand_in(value) and value != b"null":
            found.append(Range(at, at + len(value)))
        at += len(value) + 2
    return found
