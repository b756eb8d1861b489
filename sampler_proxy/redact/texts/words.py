"""Obfuscates statements in languages that we do not know: the command stays, and a name behind it."""

from __future__ import annotations

import re

MASK = b"?"

_PART = rb"(?:[A-Za-z_]+|(?<![A-Za-z0-9])[0-9]{1,9}(?![A-Za-z0-9]))"
NAME = re.compile(rb"(?:[A-Za-z_]+)(?:[-.:/$]" + _PART + rb")*+")
"""A name without digits, but for numbers that stand by themselves: `orders.v1` is none, since `hunter2` is none."""

_MASKED = re.compile(rb"(?:\?|\[\d+ other arguments\]|\.\.\.|\xe2\x80\xa6)(?:,|;)?")
_PUT_IN = b"****"  # lanes.MASK_TEXT
_WORD = re.compile(rb"\S+")
MAX_NAME = 64


def is_masked(word: bytes) -> bool:
    """Tell whether a word is what obfuscation leaves, ours or that of others, or a value that was masked in part."""
    return _MASKED.fullmatch(word) is not None or (_PUT_IN in word and is_name(word.replace(_PUT_IN, b"x")))


def is_name(word: bytes) -> bool:
    """Tell whether a word is a name, and nothing that could be a secret."""
    return len(word) <= MAX_NAME and NAME.fullmatch(word) is not None


def obfuscate(text: bytes) -> bytes:
    """Return the first word and the second where they are names, and one `?` for the rest from the first that is none.
    What is already obfuscated stays. Idempotent, raises nothing."""
    for number, found in enumerate(_WORD.finditer(text)):
        if not is_masked(found[0]) and (number > 1 or not is_name(found[0].rstrip(b";"))):
            return text[: found.start()] + MASK + text[len(text.rstrip()) :]
    return text
