"""Finds the members of objects (and of forms) in a text, with the bytes that each takes: of JSON, and of what is nearly
JSON.

So `{"password": "x"}` in an attribute is redacted by key like an attribute itself. What programs print is often no JSON
(`{'a': None}`, `{a: NaN}`, a tab in a string, a body that is cut off, a line of a log around it). It is read as far as
brackets and quotes carry it: what may not stand where it does takes nothing from the members behind it.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sampler_proxy.redact.regexes import regex

BARE_KEY = (
    r"""(?:[{\[(,;\n"'`]|\A)\s*[:$@]?[A-Za-z_][0-9A-Za-z_.$-]*\s*(?:=>|:)\s*["'`]"""
    r"""|[{\[(]\s*[A-Za-z_][0-9A-Za-z_.$-]*\s*=\s*["'`]"""
)
"""RE2: a key without quotes before a string."""
BARE_MEMBER = r"[{,]\s*[A-Za-z_$][0-9A-Za-z_.$-]*\s*:"
"""RE2: a key without quotes, or a colon after the first word behind a comma."""
QUOTES = b"\"'`"


class Member(NamedTuple):
    """A member of an object, an element of an array, or a field of a form. `start` and `end` bound the bytes of the
    value, quotes included; `encoded` makes what may replace them."""

    key: str
    """Decoded. Of an element of an array: the key of the nearest object member around it, "" where there is none."""
    start: int
    end: int
    is_string: bool
    text: bytes
    """Of a string: its value, decoded, as UTF-8. Of a number, `true`, `null` and the like: its bytes as they stand. Of
    all else (an object, an array, `Some("x")`): empty. The containers and strings in it come as members of their
    own."""
    form: bool = False
    """A field of a form; its value counts as string."""
    around: int = -1
    """Where the bracket stands that the member is in."""
    quote: int = 0x22
    """The byte that quotes a string."""

    @property
    def holds_others(self) -> bool:
        """Tell whether it is an object, an array, or another value that is no single token."""
        return not self.is_string and not self.text

    def inside(self, text: bytes, offset: int = 0) -> tuple[int, int]:
        """Return where in the text around it the value stands without its quotes, from an offset on."""
        if not self.is_string or self.form:
            return self.start, self.end
        closed = self.end - self.start > 1 and text[self.end - 1] == self.quote
        return min(self.start + 1 + offset, self.end - closed), self.end - closed

    def encoded(self, value: bytes) -> bytes:
        """Encode a text as a value of the same kind: a string in the same quotes, or a field of a form."""
        if self.form:
            return quote_from_bytes(value, safe="*?~[]:").encode()
        return quoted(value, self.quote)


class Reading(NamedTuple):
    """Holds the members of a text. `whole`: it is JSON, or a form, from the beginning to the end."""

    members: list[Member]
    whole: bool


# A token. Possessive quantifiers keep it linear, and without a stack.
# A quote before a letter or digit is part of its string: `"a 5"er, or "so""`.
_STRINGS = {
    quote: rb"%c[^%c\\]*+(?:(?:\\.|%c(?=[0-9A-Za-z_\x80-\xff]))[^%c\\]*+)*+%c" % ((quote,) * 5) for quote in QUOTES
}
_REST = (
    # A comment; what a string may have before its quote.
    rb"(//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|[bBuUrRfFnN]{1,2}(?=[\"']))"
    rb"|((?:[^\s{}\[\](),;:\"'`=]|://|(?<=\w)'(?=\w)|=(?![>\s\"'`]))++)"
    rb"|(.))"
)
# Most members of an object, and strings in an array, by one match each.
_INSIDE = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*+'
_MEMBER = re.compile(rb"\s*+" + _INSIDE + rb":\s*+(?:" + _INSIDE + rb"|([-0-9tfn][\w.+-]*+)\s*+)(?:,|(?=}))", re.DOTALL)
_ELEMENT = re.compile(rb"\s*+" + _INSIDE + rb"(?:,|(?=\]))", re.DOTALL)
_SIGN, _STRING, _SKIPPED, _BARE, _ODD = 1, 2, 3, 4, 5
_OPENING = re.compile(rb"[{\[(]")
_BEFORE_STRING = re.compile(rb"=?\s*+[\"'`]")
_CLOSING = {0x7D: 0x7B, 0x5D: 0x5B, 0x29: 0x28}
_NAMED_CALL = re.compile(
    rb"(?<![A-Za-z0-9_])((?:Secret(?:Str|String|Bytes|Value|Text)?|Sensitive(?:Str|String|Value)?|Password|ApiKey)(?:::new|\.of)?)\Z"
)
_LONGEST_CALL = 24

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]([0-9A-Fa-f]{2})\\u[dD]([c-fC-F][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.)|\Z)", re.DOTALL
)
_KNOWN = {b"\\\\": b"\\", b'\\"': b'"'}  # by far the most, where JSON lies in JSON
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}

_FORM_KEY = r"[A-Za-z0-9_.~%\[\]+*$\x80-\xff-]+"
_FORM_VALUE = r"[A-Za-z0-9_.~%*+!()@:/,;$?\[\]\x80-\xff-]*"
_FORM = regex(rf"{_FORM_KEY}={_FORM_VALUE}(?:&{_FORM_KEY}={_FORM_VALUE})+")
_FIELD = re.compile(rb"([^&=]+)=([^&]*)")


def like_json(text: bytes) -> bool:
    """Tell whether a text begins as an object or array does."""
    return text.lstrip()[:1] in (b"{", b"[")


def read(text: bytes) -> Reading:
    """Read a text that begins with a bracket, or a form (`a=1&password=x`: two fields or more, no space, nothing but
    what forms are made of); another has no members. Raises nothing; linear time."""
    if like_json(text):
        return Reading(members(text), is_json(text))
    if b"&" in text and _FORM.fullmatch(text):
        return Reading(_form_fields(text), True)
    return Reading([], False)


def members(text: bytes) -> list[Member]:
    """Find every member at any depth of the brackets in a text, in the order in which they begin (an object comes
    before what it holds), and the strings and containers in arrays; duplicate keys are kept. What is open at the end
    reaches to the end. Raises nothing; linear time, without recursion.

    Of JSON these are its members (RFC 8259). Elsewhere a key is what stands before `:`, `=` or `=>` in an object; in
    round and square brackets too, if it is in quotes or its value is. `,` and `;` separate members, as does a key where
    no comma stands before it. Quotes of any kind make strings, `//` and `/*` comments."""
    return _Reader(text).found


def quoted(value: bytes, quote: int = 0x22) -> bytes:
    """Encode a text as JSON string, quotes included; bytes that are not UTF-8 become U+FFFD. Within other quotes these
    are escaped."""
    encoded = json.dumps(value.decode(errors="replace"), ensure_ascii=False).encode()
    if quote == 0x22:
        return encoded
    mark = bytes((quote,))
    return mark + encoded[1:-1].replace(b'\\"', b'"').replace(mark, b"\\" + mark) + mark


def _refused(_: str) -> NoReturn:
    raise ValueError


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refused)


def is_json(text: bytes) -> bool:
    """Tell whether a text is JSON (RFC 8259), of no more levels than the standard library reads."""
    try:
        _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _tokens(quotes: bytes) -> re.Pattern[bytes]:
    """Compile the pattern of a token. `quotes`: those that may begin a string."""
    strings = b"|".join(_STRINGS[quote] for quote in quotes) or rb"(?!)"
    return re.compile(rb"\s*+(?:([{}\[\](),;]|=>?|:(?!//))|(" + strings + rb")|" + _REST, re.DOTALL)


_TOKENS = {
    quotes: _tokens(quotes)
    for quotes in (bytes(q for i, q in enumerate(QUOTES) if some >> i & 1) for some in range(1 << len(QUOTES)))
}


class _Open:
    """A bracket that is open, and the item in it that is being read: a member, or an element."""

    __slots__ = ("before", "bracket", "end", "first", "inherited", "key", "last", "member", "start", "value")

    def __init__(self, bracket: int, start: int, inherited: str, member: int) -> None:
        self.bracket = bracket
        self.start = start
        self.inherited = inherited
        """The key of elements, which have none of their own."""
        self.member = member
        """The container's index among the members; -1: it is none."""
        self.next()

    def next(self) -> None:
        """Begin the next item."""
        self.key: str | None = None
        self.first: re.Match[bytes] | None = None
        """The first token, which may be the key."""
        self.last: re.Match[bytes] | None = None
        """The last token of a value that has others before it: the next key, where a comma is missing."""
        self.value = -1
        """The value's index among the members; -1: none has begun; -2: it is no member."""
        self.end = -1
        """Where the value ends that is more than one token; -1: it is one."""
        self.before = -1
        """Where it ended before its last token."""


class _Reader:
    """Reads the members of a text, in `found`."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.found: list[Member] = []
        self._stack: list[_Open] = []
        self._count = {0x7B: 0, 0x5B: 0, 0x28: 0}
        self._read()

    def _read(self) -> None:
        text, stack = self.text, self._stack
        quotes = QUOTES
        at = 0
        while True:
            if not stack:
                bracket = _OPENING.search(text, at)
                if bracket is None:
                    return
                at = bracket.start()
            elif (top := stack[-1]).value == -1 and top.first is None and top.key is None and quotes is QUOTES:
                at = self._simple(top, at)
            token = _TOKENS[quotes].match(text, at)
            if token is None:
                break
            kind = token.lastindex
            at = token.end()
            if kind == _SIGN:
                self._sign(token, text[token.start(_SIGN)])
            elif kind == _ODD and text[at - 1] in quotes:  # it is not closed, nor is any like it behind it
                top = stack[-1]
                if top.value == -1 and top.first is None and (top.key is not None or top.bracket != 0x7B):
                    self._add(top, at - 1, len(text), unescaped(text[at:]), text[at - 1])
                    break
                quotes = quotes.replace(text[at - 1 : at], b"")
                self._token(token, top)
            elif kind != _SKIPPED:
                self._token(token, stack[-1])
        for top in stack:
            self._end_value(top)

    def _simple(self, top: _Open, at: int) -> int:
        """Read members that are not nested, up to another, and return where that is."""
        text, start, append = self.text, top.start, self.found.append
        if top.bracket == 0x7B:
            while simple := _MEMBER.match(text, at):
                at = simple.end()
                key, string, bare = simple.groups()
                name = unescaped(key).decode(errors="replace")
                low, high = simple.span(simple.lastindex or 0)
                if bare is None:
                    append(Member(name, low - 1, high + 1, True, unescaped(string), False, start))
                else:
                    append(Member(name, low, high, False, bare, False, start))
        elif top.bracket == 0x5B:
            while simple := _ELEMENT.match(text, at):
                at = simple.end()
                low, high = simple.span(1)
                append(Member(top.inherited, low - 1, high + 1, True, unescaped(simple[1]), False, start))
        return at

    def _sign(self, token: re.Match[bytes], sign: int) -> None:
        if sign in self._count:
            self._open(token.start(_SIGN), sign, self._stack[-1] if self._stack else None)
        elif sign in _CLOSING:
            self._close(_CLOSING[sign], token.end())
        elif sign in b",;":
            self._end_value(self._stack[-1])
            self._stack[-1].next()
        else:
            self._separate(token, self._stack[-1])

    def _open(self, start: int, sign: int, top: _Open | None) -> None:
        key, member = "", -1
        if top is not None:
            self._begin_value(top)
            key = top.inherited if top.key is None else top.key
            member = self._add(top, start, len(self.text), b"")
            top.last = None
        if sign == 0x28 and (call := _NAMED_CALL.search(self.text, max(0, start - _LONGEST_CALL), start)):
            key = call[1].decode()
        self._stack.append(_Open(sign, start, key, member))
        self._count[sign] += 1

    def _close(self, opening: int, end: int) -> None:
        while self._count[opening]:
            closed = self._stack[-1]
            self._end_value(closed)
            self._stack.pop()
            self._count[closed.bracket] -= 1
            if closed.member >= 0:
                self.found[closed.member] = self.found[closed.member]._replace(end=end)
                if self._stack[-1].end >= 0:
                    self._stack[-1].end = end
            if closed.bracket == opening:
                return

    def _separate(self, token: re.Match[bytes], top: _Open) -> None:
        """Go on behind what may separate a key from its value."""
        if (first := top.first) is not None:
            if first.lastindex == _STRING or top.bracket == 0x7B or _BEFORE_STRING.match(self.text, token.end()):
                top.key, top.first = _key(first), None
            else:
                self._begin_value(top)
        elif (last := top.last) is not None and token[_SIGN] != b"=":
            if last.lastindex == _STRING:
                self.found.pop()
            top.end = top.before
            self._end_value(top)
            top.next()
            top.key = _key(last)

    def _token(self, token: re.Match[bytes], top: _Open) -> None:
        if top.key is None and top.value == -1 and top.first is None:
            top.first = token
            return
        self._begin_value(top)
        top.last = token if top.value != -1 else None
        self._value(top, token)

    def _begin_value(self, top: _Open) -> None:
        """Take the item's first token, if there is one, for the beginning of its value."""
        if (first := top.first) is not None:
            top.first = None
            self._value(top, first)

    def _value(self, top: _Open, token: re.Match[bytes]) -> None:
        kind = token.lastindex or 0
        start, end = token.span(kind)
        if kind == _STRING:
            self._add(top, start, end, unescaped(token[kind][1:-1]), self.text[start])
        elif top.key is None and top.value < 0:
            top.value = -2
        else:
            self._add(top, start, end, token[kind])

    def _add(self, top: _Open, start: int, end: int, text: bytes, quote: int | None = None) -> int:
        """Add a token, or a container, to the value of an item, and return its index. `quote`: of a string."""
        found = self.found
        key = top.inherited if top.key is None else top.key
        if top.value == -1:
            top.value = len(found)
        elif top.value >= 0:
            first = found[top.value]
            if not first.holds_others:  # the last of those found: what is around both tokens comes before it
                found[top.value :] = [first._replace(is_string=False, text=b"", quote=0x22), *[first] * first.is_string]
            top.before = first.end if top.end < 0 else top.end
            top.end = end
            if quote is None and text:
                return -1
        found.append(Member(key, start, end, quote is not None, text, False, top.start, quote or 0x22))
        return len(found) - 1

    def _end_value(self, top: _Open) -> None:
        self._begin_value(top)
        if top.value >= 0 and top.end >= 0:
            self.found[top.value] = self.found[top.value]._replace(end=top.end)


def _key(token: re.Match[bytes]) -> str:
    if token.lastindex == _STRING:
        return unescaped(token[_STRING][1:-1]).decode(errors="replace")
    return token[token.lastindex or 0].strip(b"$@-").decode(errors="replace")


def unescaped(inside: bytes) -> bytes:
    """Decode what stands between the quotes of a JSON string."""
    return _ESCAPE.sub(_character, inside) if b"\\" in inside else inside


def _character(escape: re.Match[bytes]) -> bytes:
    simple = _KNOWN.get(escape[0])
    if simple is not None:
        return simple
    _, low, code, simple = escape.groups()
    if low is not None:
        pair = int(escape[0][2:6], 16), int(escape[0][8:12], 16)
        return chr(0x10000 + ((pair[0] - 0xD800) << 10) + (pair[1] - 0xDC00)).encode()
    if code is not None:
        return chr(int(code, 16)).encode(errors="replace")
    return _SIMPLE.get(simple, simple) if simple is not None else b""


def _form_fields(text: bytes) -> list[Member]:
    found = []
    for field in _FIELD.finditer(text):
        key = unquote_to_bytes(field[1].replace(b"+", b" ")).decode(errors="replace")
        found.append(Member(key, *field.span(2), True, unquote_to_bytes(field[2].replace(b"+", b" ")), form=True))
    return found
