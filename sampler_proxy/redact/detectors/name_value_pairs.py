"""Finds values that stand apart from their names: in elements of XML, beside them in a pair (`name="password"
value="x"`), in the parts of a multipart body, and in what databases say of a key that is taken."""

from __future__ import annotations

import re

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.reading import MAX_JUDGED, Value, read
from sampler_proxy.redact.detectors.secret_values import is_secret, says_nothing
from sampler_proxy.redact.detectors.types import Range, Sign, just_before
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.secret_names import Announces, in_text

_PAIR = regex(
    r"""(?i)(?:(?:\A|[^A-Za-z])(?:name|key|id|field|header|variable|param|parameter|property|attribute|k)["']?\s{0,3}"""
    r"""(?:[:=]|=>)\s{0,3}(?:\\{0,3}["'])?|<(?:name|key|header)>\s{0,3})\z"""
)
_VALUE_OF_PAIR = re.compile(
    rb"""\\{0,3}["']?(?:[,;]?\s{0,40}(?:type[=:]\s?["']?\w+["']?[,;]?\s{1,8})?\\{0,3}["']?\b"""
    rb"""(?:value|val|v|content|data)\\{0,3}["']?\s{0,3}(?:[:=]|=>)\s{0,3}"""
    rb"""|(?:\s[^<>*]{0,80})?(?<![=-])>\s{0,40}(?:<(?:value|string|data)>\s{0,40})?(?:<!\[CDATA\[)?(?=[^<\s])"""
    rb"""|</(?:name|key|header)>(?:\s{0,40}<(?:value|string|data)>){1,2}(?:<!\[CDATA\[)?"""
    rb"""|(?:;[^\r\n]{0,80})?\r?\n(?:[A-Za-z-]{1,40}:[^\r\n]{0,80}\r?\n){0,3}\r?\n(?=[^\r\n-])"""
    rb"""|(?:;[^\r\n\\]{0,80})?\\r\\n(?:[A-Za-z-]{1,40}:[^\r\n\\]{0,80}\\r\\n){0,3}\\r\\n)""",
    re.IGNORECASE,
)
_TAG_BEFORE = regex(r"(?:<|&lt;)(?:[A-Za-z][\w.-]{0,32}:)?\z")
_TAG_END = re.compile(rb"(?:[\s][^<>]{0,200}+)?(?:>|&gt;)\s{0,40}(?:(?:<|&lt;)!\[CDATA\[)?")
_CONTENT = re.compile(rb"(?:[^<&\]]++|&(?!lt;)|\](?!\]>))++")
_CLOSING = re.compile(rb"\)(?=[ .,\"]|\xc2|\n|\Z)")
_ANY_CLOSING = re.compile(rb"\)|\n|\Z")
_IDENTIFIER = re.compile(rb"[A-Za-z_][\w$]*")
_DUPLICATE = re.compile(
    rb"(?:Duplicate entry|[Ii]ncorrect [a-z ]{0,24}value:) '((?:[^'\n]|'(?! for (?:key|column))){1,128})'"
    rb" for (?:key|column) ['`]([^'\n ]{1,200})['`]"
)
_MAX_SUFFIX = 5
"""Words behind a column's name in that of an index: `token_unique_idx`."""
PATTERN = r"\)=\([^\s\x00]|Duplicate entry '|[Ii]ncorrect [a-z ]{0,24}value: '"
"""RE2: where it matches nothing, `find` finds nothing."""
SIGNS = (Sign(")=("), Sign("duplicate entry '", any_case=True), Sign("ncorrect ", any_case=True))
"""What `PATTERN` cannot match without."""


def is_name_of_pair(text: bytes, start: int) -> bool:
    """Tell whether what begins at a position is the name in a pair (`name="..."`)."""
    return just_before(_PAIR, text, start)


def value_of(text: bytes, end: int) -> Value | None:
    """Read the value of a pair whose name ends at a position; None where there is none."""
    pair = _VALUE_OF_PAIR.match(text, end)
    if pair is None:
        return None
    if pair[0].rstrip().endswith((b">", b"<![CDATA[")):
        return content(text, pair.end())
    if pair[0].endswith((b"\n", b"\\n")):
        line = re.compile(rb"[^\r\n\\]*").match(text, pair.end())
        return Value(*line.span(), True) if line else None
    return read(text, pair.end())


def element(text: bytes, start: int, end: int) -> Value | None:
    """Read the content of an element of XML by where its name stands in the tag that opens it; None for no tag."""
    if text[start - 1 : start] != b"<" and not just_before(_TAG_BEFORE, text, start, 48):
        return None
    tag = _TAG_END.match(text, end)
    if tag is None or tag[0].rstrip().endswith((b"/>", b"/&gt;")) or text[tag.end() : tag.end() + 1] == b"@":
        return None
    return content(text, tag.end())


def content(text: bytes, at: int) -> Value | None:
    """Read the content of an element of XML up to the next tag; None where there is none."""
    found = _CONTENT.match(text, at, at + MAX_JUDGED + 1)
    if found is None:
        return None
    if found.end() - at >= MAX_JUDGED:
        return Value(at, found.end(), True, _CONTENT)
    return Value(at, at + len(found[0].rstrip()), True)


def find(text: bytes) -> list[Range]:
    """Find the secrets in what databases say of a key that is taken."""
    found = []
    at = 0
    while (at := text.find(b")=(", at)) >= 0:
        budget.spend(4)
        low = max(0, at - 300)
        begin = max(text.rfind(sign, low, at) for sign in (b" (", b'"(', b"\xbb("))
        begin = begin + 1 if begin >= 0 else text.rfind(b"(", low, at)
        first = begin + 1 if begin >= 0 else max(low, text.rfind(b"\n", low, at) + 1)
        end = _CLOSING.search(text, at + 3, at + 1024)
        if end is None:
            end = _ANY_CLOSING.search(text, at + 3, at + 1024)
        if end is not None:
            found += _of_columns(text[first:at], Range(at + 3, end.start()), text)
            at = end.start()
        at += 1
    if b"Duplicate entry" in text or b"ncorrect " in text:
        for duplicate in _DUPLICATE.finditer(text):
            name = duplicate[2].rpartition(b".")[2].strip(b"`")
            kind = max(in_text(name.rsplit(b"_", words)[0]) for words in range(_MAX_SUFFIX))
            if is_secret(duplicate[1], kind, name, quoted=True):
                found.append(Range(*duplicate.span(1)))
    return found


def _of_columns(names: bytes, place: Range, text: bytes) -> list[Range]:
    """Find the secrets among the values of PostgreSQL's `Key (a, b)=(1, 2)`."""
    columns = [_IDENTIFIER.findall(column) for column in names.split(b",")]
    kinds = [max(map(in_text, column), default=Announces.NOTHING) for column in columns]
    if max(kinds) < Announces.AMBIGUOUS:
        return []
    inside = text[place.start : place.end]
    values = inside.split(b", ")
    if len(values) != len(kinds):
        return [place] if not says_nothing(inside) else []
    found = []
    at = place.start
    for kind, value in zip(kinds, values, strict=True):
        if kind >= Announces.AMBIGUOUS and value and not says_nothing(value):
            found.append(Range(at, at + len(value)))
        at += len(value) + 2
    return found
