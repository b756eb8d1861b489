"""Finds the members of JSON objects (and of forms) in the value of a string, with the bytes that each takes.

So `{"password": "x"}` in an attribute is redacted by key like an attribute itself.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sampler_proxy.redact.regexes import regex

MAX_BYTES = 256 * 1024


class Member(NamedTuple):
    """A member of an object, an element of an array, or a field of a form. `start` and `end` bound the bytes of the
    value, quotes included; `encoded` makes what may replace them."""

    key: str
    """Decoded. Of an element of an array: the key of the nearest object member around it, "" where there is none."""
    start: int
    end: int
    is_string: bool
    text: bytes
    """Of a string: its value, decoded, as UTF-8. Of a number, `true`, `false`, `null`: its bytes as they stand. Of an
    object or array: empty (what it holds comes as members of its own)."""
    form: bool = False
    """A field of a form; its value counts as string."""

    def encoded(self, value: bytes) -> bytes:
        """Encode a text as a value of the same kind: a string of JSON, or a field of a form."""
        return quote_from_bytes(value, safe="*?~[]:").encode() if self.form else quoted(value)


# The tokens of RFC 8259; the possessive quantifiers keep it linear, and without a stack.
_TOKEN = re.compile(
    rb"[ \t\r\n]*+(?:([{}\[\],:])"
    rb'|("[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*+)*+")'
    rb"|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null))"
)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]([0-9A-Fa-f]{2})\\u[dD]([c-fC-F][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.)|\Z)", re.DOTALL
)
_KNOWN = {b"\\\\": b"\\", b'\\"': b'"'}  # by far the most, where JSON lies in JSON
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}

_FORM_KEY = r"[A-Za-z0-9_.~%\[\]+*$\x80-\xff-]+"
_FORM_VALUE = r"[A-Za-z0-9_.~%*+!()@:/,;$?\[\]\x80-\xff-]*"
_FORM = regex(rf"{_FORM_KEY}={_FORM_VALUE}(?:&{_FORM_KEY}={_FORM_VALUE})+")
_FIELD = re.compile(rb"([^&=]+)=([^&]*)")


def members(text: bytes) -> list[Member]:
    """Find every member at any depth, in the order in which they begin (an object comes before what it holds), and the
    strings and containers in arrays; duplicate keys are kept. Raises nothing; linear time.

    Where the text stops being JSON (cut off by a limit on values, followed by something else), the members until there;
    a value that is open there reaches to the end. So a text that is no JSON gives none, nor does one longer than
    `MAX_BYTES`.

    A text that is a form (`a=1&password=x`: two fields or more, no space, nothing but what forms are made of) gives its
    fields.
    """
    if len(text) > MAX_BYTES:
        return []
    if text.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        return _json_members(text)
    if b"&" in text and _FORM.fullmatch(text):
        return _form_fields(text)
    return []


def quoted(value: bytes) -> bytes:
    """Encode a text as JSON string, quotes included; bytes that are not UTF-8 become U+FFFD."""
    return json.dumps(value.decode(errors="replace"), ensure_ascii=False).encode()


class _Open(NamedTuple):
    """A container that is being read."""

    is_object: bool
    key: str
    """The key of an array's elements, which have none of their own: that of the array."""
    member: int
    """The container's index among the members; -1 for the outermost."""


class _Expected(Enum):
    """Kinds of token that may come next; the end is that of the container."""

    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()


_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _COMMA_OR_END = _Expected


def _json_members(text: bytes) -> list[Member]:
    """Read JSON token by token, without recursion, up to the first token that may not stand where it does."""
    found: list[Member] = []
    stack: list[_Open] = []
    key = ""  # of the value that comes next
    expected = _VALUE
    at = 0
    while token := _TOKEN.match(text, at):
        start, at = token.span(token.lastindex or 0)
        sign = text[start : start + 1]
        if expected in (_VALUE, _VALUE_OR_END) and sign in (b"{", b"["):
            stack.append(_Open(sign == b"{", key, len(found) if stack else -1))
            if len(stack) > 1:
                found.append(Member(key, start, len(text), False, b""))  # its end is not known yet
            expected = _KEY_OR_END if sign == b"{" else _VALUE_OR_END
        elif (sign == b"}" and stack[-1].is_object and expected in (_KEY_OR_END, _COMMA_OR_END)) or (
            sign == b"]" and not stack[-1].is_object and expected in (_VALUE_OR_END, _COMMA_OR_END)
        ):
            closed = stack.pop()
            if not stack:
                return found
            found[closed.member] = found[closed.member]._replace(end=at)
            key = stack[-1].key
            expected = _COMMA_OR_END
        elif expected is _COMMA_OR_END and sign == b",":
            expected = _KEY if stack[-1].is_object else _VALUE
            key = stack[-1].key
        elif expected is _COLON and sign == b":":
            expected = _VALUE
        elif expected in (_KEY, _KEY_OR_END) and sign == b'"':
            key = unescaped(text[start + 1 : at - 1]).decode(errors="replace")
            expected = _COLON
        elif expected in (_VALUE, _VALUE_OR_END) and token.lastindex != 1:
            if sign == b'"':
                found.append(Member(key, start, at, True, unescaped(text[start + 1 : at - 1])))
            elif stack[-1].is_object:
                found.append(Member(key, start, at, False, text[start:at]))
            expected = _COMMA_OR_END
        else:
            at = start
            break
    if expected in (_VALUE, _VALUE_OR_END):
        found += _open_value(text, at, key, stack[-1].is_object)
    return found


def _open_value(text: bytes, at: int, key: str, in_object: bool) -> list[Member]:
    """Read the value that begins behind the last token and is cut off, or is none of JSON: up to the end."""
    space = _SPACE.match(text, at)
    at = space.end() if space else at
    if at < len(text) and text[at] == 0x22:
        return [Member(key, at, len(text), True, unescaped(text[at + 1 :]))]
    return [Member(key, at, len(text), False, text[at:])] if at < len(text) and in_object else []


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
