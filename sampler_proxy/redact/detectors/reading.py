"""Reads the value that stands behind a name in a text: in quotes, bare, behind a scheme, on the next line."""

from __future__ import annotations

import re
from typing import NamedTuple

from sampler_proxy.redact.detectors.types import Range

MAX_JUDGED = 1024
"""Bytes of a value that are judged: what is longer is taken for a secret."""


class Value(NamedTuple):
    """Bounds of a value, without its quotes."""

    start: int
    end: int
    quoted: bool
    rest: re.Pattern[bytes] | None = None
    """What the rest of a value is made of that is longer than MAX_JUDGED: names within it are not to read it again."""

    def whole(self, text: bytes) -> Range:
        """Return the bounds with the rest of the value."""
        rest = self.rest.match(text, self.end) if self.rest else None
        return Range(self.start, rest.end() if rest else self.end)


HTML_QUOTE = rb"(?:quot|apos|#34|#39|#x22|#x27|QUOT);"
_OPENING = re.compile(
    rb"(?:(?:!!?[a-z]+|&[\w-]{1,40})[ \t]+|<<(?=\"))?+"  # a tag or anchor of YAML, a binary of Erlang
    rb"(?:(?:new[ \t]+)?[A-Za-z_][\w.:]{0,40}[(][ \t]{0,3}(?=[\"'`]|\\{1,7}[\"'])"  # Secret("V")
    rb"|(?:Some|Just|Ok|Right|Secret|SecretStr|SecretString|Optional|Value|String|Box|Sensitive)[(\[][ \t]{0,3}"
    rb"|Just[ \t]|[bBrRuUfFNn@]{1,2}(?=[\"']))?+"
)
_QUOTED = re.compile(
    rb'"""([^"]*)'
    rb'|"((?:[^"\\\n]++|\\.)*+)'
    rb"|'((?:[^'\\\n]++|\\.)*+)"
    rb"|`([^`\n]*)"
    rb"|\\{1,7}[\"']([^\"'\\\n]*)"
    rb"|&" + HTML_QUOTE + rb"((?:[^&\n]++|&(?!" + HTML_QUOTE + rb"))*+)"
    rb"|\xe2\x80[\x98\x9c]((?:[^\xe2\n]++|\xe2(?!\x80[\x98\x99\x9c\x9d]))*+)"
    rb"|\xc2\xab[ ]?((?:[^\xc2\n]++|\xc2(?![\xab\xbb]))*+)",
    re.DOTALL,
)
# What else could end a bare value is part of it, unless a space or another name follows: `p&ss;word`.
_NEXT = rb"(?=\s|\Z|[A-Za-z_][\w.-]{0,40}[ ]?[=:]|[\"'<>)\]}]|(?:lt|gt|amp|quot|apos|#\w{2,4});)"
_BARE = re.compile(rb"(?:[^\s\"'<>&;,|]++|[&;,|](?!" + _NEXT + rb")|<(?![/A-Za-z!?]))++")
_AROUND = b".,;:!?)}]\\"
_PAIRED = {0x29: b"(", 0x7D: b"{", 0x5D: b"["}
_SCHEME = re.compile(rb"[A-Za-z][\w-]{2,20}[ \t]{1,3}(?=[^\s])")
_PARAMETERS = re.compile(rb"[\[\"']{0,2}[A-Za-z][\w-]{2,20}[ \t]{1,3}([\w-]{1,40}=[^=\s][^\r\n]*)")
_COOKIE = rb"[^\s=;,\"'<>]{1,128}=[^\s;\"'<>]*+"
_FIRST = re.compile(_COOKIE)
_PAIRS = re.compile(_COOKIE + rb"(?:;[ ]?" + _COOKIE + rb")*+")
_BLOCK = re.compile(rb"[ \t]*+(?:![\w!]+[ \t]*+)?+([|>][-+0-9]{0,2}[ \t]*+)?+\r?\n(?:[ \t]*+\r?\n)?+([ \t]*+)")
_ITEM = re.compile(rb"- +(?=[^\s\-])[^\r\n]*")
_NEXT_ITEM = re.compile(rb"\r?\n([ \t]*+)- +(?=[^\s\-])[^\r\n]*")
_TOKEN = re.compile(rb"([\"'`]?)([^\s\"'`]++)\1[,;]?+[ \t]*+(?=\r?\n|\Z)")


def read(text: bytes, at: int) -> Value | None:
    """Read the value at a position: a string in quotes (also escaped, or of HTML's or typographers' quotes), what a
    constructor is given, or all up to a space, a quote, or what begins the next field."""
    opening = _OPENING.match(text, at)
    begin = opening.end() if opening else at
    if quoted := _QUOTED.match(text, begin):
        return Value(*quoted.span(quoted.lastindex or 0), True)
    if bare := _BARE.match(text, begin, begin + MAX_JUDGED + 1):
        end = bare.end()
        if end - begin >= MAX_JUDGED:
            return Value(begin, end, False, _BARE)
        return Value(begin, _without_punctuation(text, begin, end), False)
    return None


def _without_punctuation(text: bytes, start: int, end: int) -> int:
    """Find where a bare value ends without the punctuation of the sentence around it; brackets that it opens belong to
    it."""
    while end > start and text[end - 1] in _AROUND:
        opened = _PAIRED.get(text[end - 1])
        if opened is not None and opened in text[start : end - 1]:
            break
        end -= 1
    return end


def behind_scheme(text: bytes, at: int) -> int:
    """Find where the credentials in a header begin (RFC 9110, 11.4): behind their scheme, if there is one."""
    scheme = _SCHEME.match(text, at)
    return scheme.end() if scheme else at


def read_parameters(text: bytes, at: int) -> Value | None:
    """Read the parameters of credentials (`Digest username="x", response="y"`), up to the end of the line; None where
    there are none."""
    parameters = _PARAMETERS.match(text, at)
    return Value(parameters.start(1), parameters.end(1), False) if parameters else None


def read_cookies(text: bytes, at: int, *, only_first: bool) -> Value | None:
    """Read the cookies in a header (RFC 6265): all pairs; of one that sets a cookie the value only."""
    pairs = (_FIRST if only_first else _PAIRS).match(text, at)
    if pairs is None:
        return None
    return Value(at + pairs[0].index(b"=") + 1 if only_first else at, pairs.end(), False)


def read_below(text: bytes, at: int) -> Value | None:
    """Read the value on the lines below a name: a block of YAML, or one word that is all of its line."""
    below = _BLOCK.match(text, at)
    if below is None:
        return None
    indent = below[2]
    if below[1]:
        if not indent:
            return None
        end = below.end()
        while True:
            line = text.find(b"\n", end)
            if line < 0:
                return Value(below.end(), len(text), True)
            if not text.startswith(indent, line + 1):
                return Value(below.end(), line, True)
            end = line + 1
    if item := _ITEM.match(text, below.end()):  # of a list
        start = below.end() + 2
        while following := _NEXT_ITEM.match(text, item.end()):
            if following[1] != indent:
                break
            item = following
        return Value(start, item.end(), True)
    word = _TOKEN.match(text, below.end())
    return None if word is None else Value(*word.span(2), bool(word[1]))
