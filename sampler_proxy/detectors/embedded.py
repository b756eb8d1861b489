"""Members of JSON objects (and of forms) that are the value of a string, with the bytes each takes.

So that `{"password": "x"}` in an attribute is redacted by key like an attribute itself.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_BYTES = 1 << 20
MAX_DEPTH = 64


class Member(NamedTuple):
    """`start` and `end` bound the bytes of the value, quotes included; `encoded` makes what may replace them."""

    key: str
    """Decoded. Of an element of an array: the key of the nearest object member around it, "" where there is none."""
    start: int
    end: int
    is_string: bool
    text: bytes
    """Of a string: its value, decoded, as UTF-8. Otherwise the bytes of the value as they stand."""
    form: bool = False
    """A field of a form; its value counts as string."""

    def encoded(self, value: bytes) -> bytes:
        raise NotImplementedError


def members(text: bytes) -> list[Member]:
    """Every member at any depth, in the order in which they begin (an object comes before what it holds); duplicate keys
    are kept. Empty where the text as a whole is neither a JSON object nor array (RFC 8259; space around it allowed),
    nests deeper than `MAX_DEPTH`, or is longer than `MAX_BYTES`. Raises nothing; linear time.

    A text that is a form (`a=1&password=x`: two fields or more, no space, nothing but what forms are made of) gives its
    fields.
    """
    raise NotImplementedError


def quoted(value: bytes) -> bytes:
    """A text as JSON string, quotes included; bytes that are not UTF-8 become U+FFFD."""
    raise NotImplementedError
