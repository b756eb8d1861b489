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
from urllib.parse import unquote_to_bytes

from sampler_proxy.redact.detectors.types import Sign, signs
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.texts.brackets import members
from sampler_proxy.redact.texts.members import Member

BARE_KEY = (
    r"""(?:[{\[(,;\n"'`]|\A)\s*[:$@]?[A-Za-z_][0-9A-Za-z_.$-]*\s*(?:=>|:=?)\s*(?:[A-Za-z_][0-9A-Za-z_.:]*\(\s*)?["'`]"""
    r"""|[{\[(]\s*[A-Za-z_][0-9A-Za-z_.$-]*\s*=\s*["'`]|(?:\{|[0-9A-Za-z_]\()[A-Za-z_][0-9A-Za-z_.$-]*="""
    r"""|\[[A-Za-z_][0-9A-Za-z_.$-]*:\[|[\s{\[(,]:[A-Za-z_][0-9A-Za-z_.-]*\s+["'`]|\{\s*:?[A-Za-z_][0-9A-Za-z_]*\s*,\s*(?:<<)?["'`]"""
)
"""RE2: a key without quotes before a string, or in what looks like an object or call."""
SIGNS = (
    *signs("\" ' `", before=r"\s(=:>,<"),
    Sign("{", through="0-9A-Za-z_.$-", until="="),
    Sign("(", through="0-9A-Za-z_.$-", until="=", before="0-9A-Za-z_"),
    Sign(":["),
)
"""What `BARE_KEY` cannot match without."""

_FORM_KEY = r"[A-Za-z0-9_.~%\[\]+*$\x80-\xff-]+"
_FORM_VALUE = r"[A-Za-z0-9_.~%*+!()@:/,;$?\[\]\x80-\xff-]*"
_FORM = regex(rf"{_FORM_KEY}={_FORM_VALUE}(?:&{_FORM_KEY}={_FORM_VALUE})+")
_FIELD = re.compile(rb"([^&=]+)=([^&]*)")


class Reading(NamedTuple):
    """Holds the members of a text. `whole`: it is JSON, or a form, from the beginning to the end."""

    members: list[Member]
    whole: bool


# A token. Possessive quantifiers keep it linear, and without a stack.
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


def _form_fields(text: bytes) -> list[Member]:
    found = []
    for field in _FIELD.finditer(text):
        key = unquote_to_bytes(field[1].replace(b"+", b" ")).decode(errors="replace")
        found.append(Member(key, *field.span(2), True, unquote_to_bytes(field[2].replace(b"+", b" ")), form=True))
    return found
