"""Obfuscates what is asked of directories: filters and verbs of LDAP, and LDIF."""

from __future__ import annotations

import re

from sampler_proxy.redact.texts import words
from sampler_proxy.redact.texts.words import MASK

_FILTER = re.compile(rb"\s*(?:[A-Za-z]+[ \t]+)?(?:[A-Za-z_-]+=)?\([&|!(]*\s*[\w.;:-]+\s*[~<>:]?=|\s*\([&|!]")
# In a filter a value ends at its parenthesis, which is escaped (\29) within. A star alone asks whether there is one.
_VALUE = re.compile(rb"(\(\s*[\w.;:-]+\s*[~<>:]?=)(?!\*\)|\?\))[^()]*+")
_FRONT = re.compile(rb"[^(]*+")
_SPREAD = re.compile(rb"(\)\s*+)[^&|!()\s][^()]*+")  # what stands where nothing should
_LINE = re.compile(rb"(?m)^((?:dn|[A-Za-z][\w;-]*)::?[ \t]*)(\S[^\r\n]*)$")
_LDIF = re.compile(rb"(?i)\s*(?:dn|version):")
_KEPT = re.compile(rb"(?i)(?:changetype|add|delete|replace|increment|version|objectclass):")
_FOLDED = re.compile(rb"(?m)^[ \t]+(?!\?\s*$)\S[^\r\n]*$")


def begin(text: bytes) -> bool:
    """Tell whether a text begins like a filter, or like LDIF."""
    return bool(_FILTER.match(text) or _LDIF.match(text))


def obfuscate(text: bytes) -> bytes:
    """Return a filter, or LDIF, with `?` for its values; of other requests the verb. Idempotent, raises nothing."""
    if _LDIF.match(text):
        return _FOLDED.sub(MASK, _LINE.sub(_line, text))
    if not _FILTER.match(text):
        return words.obfuscate(text)
    front = _FRONT.match(text)
    assert front is not None
    rest = _SPREAD.sub(rb"\1" + MASK, _VALUE.sub(rb"\1" + MASK, text[front.end() :]))
    return (words.obfuscate(front[0]) if front[0].strip() else front[0]) + rest


def _line(found: re.Match[bytes]) -> bytes:
    return found[0] if _KEPT.match(found[1]) and words.is_name(found[2].strip()) else found[1] + MASK
