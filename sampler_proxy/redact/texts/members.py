"""Defines a member of an object in a text, and how its value is encoded there."""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]([0-9A-Fa-f]{2})\\u[dD]([c-fC-F][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.)|\Z)", re.DOTALL
)
_KNOWN = {b"\\\\": b"\\", b'\\"': b'"'}  # by far the most, where JSON lies in JSON
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


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


def quoted(value: bytes, quote: int = 0x22) -> bytes:
    """Encode a text as JSON string, quotes included; bytes that are not UTF-8 become U+FFFD. Within other quotes these
    are escaped."""
    encoded = json.dumps(value.decode(errors="replace"), ensure_ascii=False).encode()
    if quote == 0x22:
        return encoded
    mark = bytes((quote,))
    return mark + encoded[1:-1].replace(b'\\"', b'"').replace(mark, b"\\" + mark) + mark


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
