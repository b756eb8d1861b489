"""Finds the names in a text that may announce a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import Sign, signs
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.secret_names import TAIL, Announces, in_text

MAX_NAME = 256
"""Bytes of a name that are read: the last ones."""
KEYS = (Announces.KEY_LIKE, Announces.MIXED_KEY)
"""What is worth something only where the value looks like a key."""

# What a name must hold. The first ones may stand anywhere in it, the others end it; in prose, spaces may be in them.
_OF_KEYS = (
    r"api|access|private|encryption|decryption|signing|signature|subscription|account|shared|master|functions?"
    r"|application|auth|hmac|jwt|ssh|security|secret|storage"
)
_OF_CODES = (
    r"mfa|fa|factor|login|reset|confirmation|otp|recovery|verification|backup|security|sms|auth|authorization|access"
    r"|device"
)
_ANYWHERE = (
    rf"(?:{_OF_KEYS})[ _.-]?key|pass[_.-]?(?:word|wd|phrase|code)|secret|credential|authorization|cookie|[cx]srf"
    r"|client[ _.-]?assertion|honeycomb|seed[ _.-]?phrase|(?:access|refresh)[ _.-]?token"
)
_AT_END = (
    r"pwd|pswd|pass|pw|token|jwt|jwe|otp|pin|cvv|cvc|psk|session[ _.-]?id|sess_?id|sid|signature(?: 256)?|auth|bearer"
    r"|saml[ _.-]?response|connection[ _.-]?string|code[ _.-]?verifier|requirepass|masterauth"
    rf"|(?:{_OF_CODES})[ _.-]?codes?"
)
_IN_LISTS = r"sas|sig|session|assertion|saml[_.-]?(?:art|request)|access[_.-]?(?:key[_.-]?)?id"
_KEY_LIKE = r"keys?|code|pat"
_CHARACTER = r"[A-Za-z0-9_.%\[\]$-]"
_NAMES = regex(rf"(?i){_CHARACTER}*(?:{_ANYWHERE}|{_AT_END}|{_IN_LISTS}|{_KEY_LIKE}){_CHARACTER}*")
_KEY_RUN = re.compile(rb"[A-Za-z0-9+/=_.~%-]{16}")

# What must follow: signs or spaces, and then something; of what needs a key, as many characters.
_THEN = r"(?:[^A-Za-z0-9_.\s\x00]+\s*|\s+)[^\s\x00]"
_END = rf"{TAIL}[.\[\]%$-]*"
PATTERN = (
    rf"(?:{_ANYWHERE}){_CHARACTER}*{_THEN}|(?:{_AT_END}){_END}{_THEN}|(?:{_IN_LISTS})[\]%5d]*=[^\s\x00]"
    rf"|(?:{_KEY_LIKE}){_END}[^A-Za-z0-9_.\x00][^\x00]*[A-Za-z0-9+/=_.~%-]{{16}}"
)
"""RE2, of any case: where it matches nothing, no name is followed by a value."""
_WORDS = (
    "assertion auth bearer code cookie credential csrf xsrf cvv cvc honeycomb jwt jwe key otp pass pat phrase pin psk"
    " pswd pw saml secret sid signature string token verifier sessid sess_id sess.id sess-id sessionid session_id"
    " session.id session-id"
)
SIGNS = (
    *signs(_WORDS, through="0-9A-Za-z_.", until=r"\x01-\xff", any_case=True),
    *(Sign(text, through="0-9A-Za-z_.", until=r"\x01-\xff", any_case=True) for text in ("sess id", "session id")),
    *signs("sas sig session accessid access_id access.id access-id", then=r"\]%5Dd=", any_case=True),
)
"""What `PATTERN` cannot match without."""


class SecretName(NamedTuple):
    """A name that announces a secret, with what it is worth."""

    start: int
    end: int
    text: bytes
    kind: Announces


def secret_names(text: bytes) -> Iterator[SecretName]:
    """Find the names that may announce a secret, in order."""
    keys: bool | None = None  # whether there is anything that could be a key
    for match in _NAMES.finditer(text):
        budget.spend(3)
        start, end = match.span()
        while end > start and text[end - 1] in b".-%$[":
            end -= 1
        if text[end - 1] == 0x5D and b"[" not in text[start:end]:
            end -= 1
        while start < end and text[start] in b".[" and not (text[start] == 0x5B and text[end - 1] == 0x5D):
            start += 1
        if text[start : start + 2] == b"-D":  # a property of Java's
            start += 2
        start = max(start, end - MAX_NAME)
        name = text[start:end].strip(b"[]") if text[start] == 0x5B else text[start:end]
        kind = in_text(name)
        if kind is Announces.NOTHING:
            continue
        if kind in KEYS:
            if keys is None:
                keys = _KEY_RUN.search(text) is not None
            if not keys:
                continue
        yield SecretName(start, end, name, kind)
