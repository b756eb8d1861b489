"""Finds the value of a name in what people write: `the password is V`, `token V expired`, `setPassword("V")`, tuples
and tables."""

from __future__ import annotations

import re

from sampler_proxy.redact.detectors import name_value_pairs
from sampler_proxy.redact.detectors.names import SecretName
from sampler_proxy.redact.detectors.reading import Value, read
from sampler_proxy.redact.detectors.secret_values import is_secret, is_told
from sampler_proxy.redact.detectors.types import Range
from sampler_proxy.redact.secret_names import Announces

# What stands between a name and its value in prose.
_TELLS = re.compile(
    rb"[\"'`]?(?:[ \t]{1,3}(?:(?:with|is|was|are|be|to|set|reset|now|changed|updated|provided|given|used|supplied"
    rb"|received|sent|entered|value|equals|has|been|as|currently|key|code|token|string|which|rejected|accepted|invalid|not|found)"
    rb"(?=[ \t:=(])|(?:for|of|by|from|on|in|user)[ \t]{1,3}"
    rb"(?:(?:the|user|account|host|your|my|this|login)[ \t]{1,3}){0,2}[^\s:]{1,64}+)){0,6}+"
    rb"[ \t]{0,3}[:=]?[ \t]{1,3}(?=[^\s=:-])"
)
# No value of prose is without one of these, nor further away.
_MAY_BE_TOLD = re.compile(rb"[0-9\"'`!@#$%^&*\\\xc2\xe2]")
_REACH = 256
_IN_BRACKETS = re.compile(rb"[(\[{<]([^\s()\[\]{}<>\"'`]{1,512}+)[)\]}>](?=[\s,;\"')}\]]|\Z)")
_TUPLE = re.compile(
    rb"[\"']?,[ \t]{0,3}(?=[^\s,)\]])|[ \t]{0,16}\|[ \t]{1,3}(?=[^\s|-])|\t(?=[^\s])|</t[dh]>\s{0,16}<t[dh]>(?=[^<\s])"
)
_KEYWORD = re.compile(rb"[ \t]{1,3}(?=\")")  # of Clojure's
_CALLED = re.compile(rb"\([ \t]{0,3}(?=[\"'`]|\\{1,7}[\"'])")
_ATTRIBUTE = re.compile(rb"[A-Za-z][A-Za-z:._-]{0,32}=(?:\\{0,3}[\"']|&quot;)")
_OWNERS = (b"client", b"app", b"webhook", b"shared", b"api", b"oauth", b"consumer", b"jwt", b"signing")
_BEFORE_TUPLE = (b"(", b"[", b"{", b",", b" ", b":", b"|", b"\n", b"\t", b">")


def if_secret(text: bytes, value: Value | None, name: SecretName, *, sentence: bool = False) -> Range | None:
    """Return where a value stands, if it is a secret behind that name. `sentence`: more words follow on its line."""
    if value is None:
        return None
    inside = text[value.start : value.end]
    if is_secret(inside, name.kind, name.text, sentence=sentence, quoted=value.quoted):
        return value.whole(text)
    return None


def in_prose(text: bytes, name: SecretName) -> Range | None:
    """Find the value that prose gives; None where it gives none that is a secret."""
    if not _MAY_BE_TOLD.search(text, name.end, name.end + _REACH):
        return None
    if called := _CALLED.match(text, name.end):
        return None if name.text.lower() == b"secret" else if_secret(text, read(text, called.end()), name)
    before = text[name.start - 1 : name.start]
    if before == b":" and (keyword := _KEYWORD.match(text, name.end)):
        return if_secret(text, read(text, keyword.end()), name)
    kind = name.kind
    if name.text.lower() == b"secret" and _word_before(text, name.start) not in _OWNERS:
        kind = Announces.KEY_LIKE  # Kubernetes' secrets have names
    if before in _BEFORE_TUPLE and (sign := _TUPLE.match(text, name.end)):
        return _in_tuple(text, sign, name, kind)
    tells = _TELLS.match(text, name.end)
    if tells is None or _ATTRIBUTE.match(text, tells.end()):
        return None
    if bracket := _IN_BRACKETS.match(text, tells.end()):
        return Range(*bracket.span(1)) if is_told(bracket[1], kind, name.text, quoted=True) else None
    return _if_told(text, read(text, tells.end()), name, kind)


def _word_before(text: bytes, start: int) -> bytes:
    return text[max(0, start - 9) : start - 1].rpartition(b" ")[2].lower()


def _in_tuple(text: bytes, sign: re.Match[bytes], name: SecretName, kind: Announces) -> Range | None:
    """Find the value in `(password, V)`, or in the next cell of a table."""
    if sign[0].endswith(b">"):
        return if_secret(text, name_value_pairs.content(text, sign.end()), name)
    value = read(text, sign.end())
    if value is None:
        return None
    end = value.start + len(text[value.start : value.end].rstrip(b"])"))
    in_cell = not sign[0].lstrip(b"\"'").startswith(b",")
    return _if_told(text, value._replace(end=end, quoted=value.quoted or in_cell), name, kind)


def _if_told(text: bytes, value: Value | None, name: SecretName, kind: Announces) -> Range | None:
    if value is None or not is_told(text[value.start : value.end], kind, name.text, quoted=value.quoted):
        return None
    return value.whole(text)
