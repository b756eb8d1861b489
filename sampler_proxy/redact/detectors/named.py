"""Detects secrets that their name announces: query parameters, fields of forms and connection strings, options, headers,
elements of XML, YAML, and what people write (`password: x`, `the password is x`).

A name is found by the words that announce a secret (`secret_names.py`); what stands around it says how its value is
written, and how much the name is worth:

- In a list that `&` or `;` separates the name is enough.
- Behind a sign (`=`, `:`, `=>`, `:=`, ...), in an option, a header or an element of XML a certain name (`password`) is
  believed, unless what follows is a word that prose or code puts there (`password: required`, `password=null`); after a
  colon also unless it begins a sentence (`password: must be`). A name that has other meanings (`token`, `pass`,
  `signature`) needs a value that is neither word nor count: `token: 5 of 7`, `pass: 12 fail: 3`, `pin=5` stay.
- In prose a value must be no word, date, path or unit: `password is incorrect` stays.
- A name that says little (`storage_key`, `code`) needs a value that looks like a key everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sampler_proxy.redact.detectors import commands, name_value_pairs
from sampler_proxy.redact.detectors.reading import HTML_QUOTE, Value, read, read_below, read_cookies, read_header
from sampler_proxy.redact.detectors.secret_values import is_secret, is_stand_in, is_told, looks_like_key
from sampler_proxy.redact.detectors.types import Detector, Range, just_before, merged
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.secret_names import Announces, in_text

# Letters that a name must have; the others are looked at more closely. Short ones end their word.
_LONG = (
    r"pass_?-?(?:word|wd|phrase|code)|passwd|secret|credential|authorization|cookie|[cx]srf|bearer|assertion|saml"
    r"|session|sess_?id|signature|verifier|google_?access_?id|connection[_.-]?string|seed_?phrase|honeycomb|requirepass"
    r"|masterauth"
)
_SHORT = r"pwd|pswd|pass|pw|token|key|keys|code|codes|pat|sid|sig|sas|auth|jwt|jwe|otp|pin|cvv|cvc"
_SHORT_TAIL = r"(?:[_.-]?(?:value|raw|old|new|current|header|hash|v?[0-9]+))*"
_NAME_CHARACTER = r"[A-Za-z0-9_.%\[\]$-]"
_ANY_NAME = rf"{_NAME_CHARACTER}*(?:(?:{_LONG}){_NAME_CHARACTER}*|(?:{_SHORT}){_SHORT_TAIL}[.\[\]%$-]*(?:[^A-Za-z0-9_]))"
_NAMES = regex(rf"(?i){_NAME_CHARACTER}*(?:{_LONG}|{_SHORT}){_NAME_CHARACTER}*")

_SIGN = re.compile(
    rb"(?:&" + HTML_QUOTE + rb")?[*\]]{0,2}[ \t]{0,16}(:[ \t]{0,3}[A-Za-z_&'][\w<>\[\]:|?&']{0,40}+[ \t]{1,3}=(?=[ \t])|:=|[+?|]=|={2,3}|=>|->|=(?!~)|:(?![:/])|\xe2\x86\x92)(?:\*\*(?=[ \t]))?([ \t]{0,16})"
)
_OPTION_GAP = re.compile(rb"[ \t]{1,3}(?=[^\s=-])")
_SETS = regex(r"(?i)\b(?:set|setx|env|setenv|put|register)[ \t]+(?:[a-z-]+[ \t]+)?\z")
_GOES_ON = re.compile(rb"[.,:]?[ \t]+[^\s]")
# What stands between a name and its value in prose.
_TELLS = re.compile(
    rb"(?:[ \t]{1,3}(?:(?:is|was|are|be|to|set|reset|now|changed|updated|provided|given|used|supplied|received|sent"
    rb"|entered|value|equals|has|been|as|currently|key|code|token|string|which|rejected|accepted|invalid|not|found)"
    rb"(?=[ \t:=(])|(?:for|of|by|from|on|in|user)[ \t]{1,3}"
    rb"(?:(?:the|user|account|host|your|my|this|login)[ \t]{1,3}){0,2}[^\s:]{1,64}+)){0,6}+[ \t]{0,3}[:=]?[ \t]{1,3}(?=[^\s=:-])"
)
_IN_BRACKETS = re.compile(rb"([(\[])([^\s()\[\]]+)[)\]]")
_TUPLE = re.compile(rb",[ \t]{0,3}(?=[^\s,)\]])")
_CALLED = re.compile(rb"\([ \t]{0,3}(?=[\"'`]|\\{1,7}[\"'])")
_TEMPLATE = re.compile(rb"(?:\{\{[^}\n]*\}\}|[$#%]\{[^}\n]*\}|<[A-Za-z][^<>=\n]*>)(?=[\s\"'&;,)]|\Z)")
_LIST_GOES_ON = re.compile(rb"[&;](?:amp;)?[ ]?(?:\Z|[\w.%\[\]-][\w .%\[\]-]{0,40}=)")
_ARN = regex(r"(?i)\b(?:arn|urn):[^\s\"',]*\z")
_WORD_BEFORE = regex(r"(?:\A|[^A-Za-z])([A-Za-z]{2,12}) \z")
_KEY_OF = frozenset(b"api access secret private encryption signing account storage auth application master".split())
_CODE_OF = frozenset(b"mfa otp recovery verification backup security sms auth authorization access device".split())

# A semicolon ends a value only among those that semicolons separate.
_VALUE = re.compile(rb"""[^&#\s"<>]+""")
_VALUE_IN_LIST = re.compile(rb"""[^&;#\s"<>]+""")


class _Name(NamedTuple):
    """A name that announces a secret, with what it is worth."""

    start: int
    end: int
    text: bytes
    kind: Announces


def _names(text: bytes) -> Iterator[_Name]:
    """Find the names that may announce a secret, in order."""
    for match in _NAMES.finditer(text):
        start, end = match.span()
        while end > start and text[end - 1] in b".-%$[":
            end -= 1
        if text[end - 1] == 0x5D and b"[" not in text[start:end]:
            end -= 1
        while start < end and text[start] in b".[" and not (text[start] == 0x5B and text[end - 1] == 0x5D):
            start += 1
        if end - start > 256:
            start = end - 256
        name = text[start:end].strip(b"[]") if text[start] == 0x5B else text[start:end]
        kind = in_text(name)
        if kind is Announces.KEY_LIKE and (before := _WORD_BEFORE.search(text[max(0, start - 16) : start])):
            others = _CODE_OF if name.lower().startswith(b"code") else _KEY_OF
            if before[1].lower() in others:
                kind = Announces.CERTAIN if others is _KEY_OF else Announces.AMBIGUOUS
        if kind is not Announces.NOTHING:
            yield _Name(start, end, name, kind)


def _url_secrets(text: bytes) -> list[Range]:
    found: list[Range] = []
    done = 0
    quote = text.find(b"'")
    for name in _names(text):
        if name.start < done:
            continue
        place = _of_name(text, name, quote)
        if place is not None and place.start < place.end:
            done = place.end
            found.append(place)
    found += name_value_pairs.find(text)
    found += commands.find(text)
    return merged(found) if len(found) > 1 else found


def _of_name(text: bytes, name: _Name, quote: int) -> Range | None:
    """Find the value of a name by what stands around the name; None where none is a secret."""
    if name_value_pairs.is_name_of_pair(text, name.start):
        value = name_value_pairs.value_of(text, name.end)
        if value is not None:
            return _if_secret(text, value, name)
    element = name_value_pairs.element(text, name.start, name.end)
    if element is not None:
        return _if_secret(text, element, name)
    sign = _SIGN.match(text, name.end)
    if sign is not None:
        if _TEMPLATE.match(text, sign.end()):
            return None
        if sign[1] == b"=" and not sign[2] and sign.start(1) == name.end:
            place = _in_list(text, name, sign.end(), quote)
            if place is not None:
                return None if is_stand_in(text[place.start : place.end]) else place
        return None if _in_arn(text, name, sign) else _signed(text, name, sign)
    option = text[name.start] == 0x2D or (text[name.start - 1 : name.start] == b"/" and text[name.end : name.end + 1] == b" ")
    if (gap := _OPTION_GAP.match(text, name.end)) and (option or just_before(_SETS, text, name.start)):
        return _if_secret(text, read(text, gap.end()), name)
    if option:
        return None
    return _in_prose(text, name)


def _if_secret(text: bytes, value: Value | None, name: _Name, *, sentence: bool = False) -> Range | None:
    if value is None:
        return None
    inside = text[value.start : value.end]
    if is_secret(inside, name.kind, name.text, sentence=sentence, quoted=value.quoted):
        return Range(value.start, value.end)
    return None


def _in_arn(text: bytes, name: _Name, sign: re.Match[bytes]) -> bool:
    """Tell whether a name is a part of something that colons separate (`arn:aws:secretsmanager:...:secret:name`)."""
    if sign[1] != b":" or sign[2] or text[name.start - 1 : name.start] != b":":
        return False
    return just_before(_ARN, text, name.start, 200)


def _signed(text: bytes, name: _Name, sign: re.Match[bytes]) -> Range | None:
    """Find the value behind a sign."""
    start = sign.end()
    lower = name.text.lower()
    colon = sign[1] == b":"
    below = read_below(text, start)
    if below is not None:
        inside = text[below.start : below.end]
        told = is_told(inside, name.kind, quoted=False) or b"\n" in inside or inside.isdigit()
        return _if_secret(text, below, name) if told or below.quoted else None
    if lower.endswith(b"cookie"):
        value = read_cookies(text, start, only_first=lower.endswith(b"set-cookie"))
        if value is not None and not is_stand_in(text[value.start : value.end]):
            return Range(value.start, value.end)
        return None
    value = read_header(text, start) if lower.endswith(b"authorization") else read(text, start)
    if value is None:
        return None
    inside = text[value.start : value.end]
    if sign[1] in (b"==", b"===") and not is_told(inside, name.kind, quoted=value.quoted):
        return None
    sentence = colon and not value.quoted and _GOES_ON.match(text, value.end) is not None
    return _if_secret(text, value, name, sentence=sentence)


def _in_list(text: bytes, name: _Name, start: int, quote: int) -> Range | None:
    """Find the value where the name stands in a URL, a form or a list that semicolons separate."""
    first = name.start
    before = text[first - 1 : first]
    if before == b" " and text[first - 2 : first - 1] in (b"?", b"&", b";", b"#"):
        before = text[first - 2 : first - 1]
    at_line = first == 0 or before in (b"\n", b"\r") or (before == b" " and (first == 1 or text[first - 2] == 0x0A))
    if not at_line and before not in (b"?", b"&", b";", b"#"):
        return None
    value = (_VALUE_IN_LIST if at_line or before == b";" else _VALUE).match(text, start)
    if value is None:
        return None
    end = value.end()
    if 0 <= quote < start:  # the URL may stand in quotes
        end = (text.find(b"'", start, end) + 1 or end + 1) - 1
    inside = text[start:end]
    unsure = end < len(text) or before == b" " or name.kind is Announces.DIGITS or inside.lower() in (b"true", b"false", b"null")
    if at_line and unsure and not _LIST_GOES_ON.match(text, end):
        return None  # the first word of a text, or all of it
    if name.kind is Announces.KEY_LIKE and not looks_like_key(inside):
        return None
    if at_line and not is_secret(inside, name.kind, name.text) and end == len(text):
        return None
    return Range(start, end)


def _in_prose(text: bytes, name: _Name) -> Range | None:
    """Find the value that prose gives: `the password is V`, `token V expired`, `setPassword("V")`, `(password, V)`."""
    if called := _CALLED.match(text, name.end):
        return _if_secret(text, read(text, called.end()), name)
    kind = name.kind
    if kind is Announces.CERTAIN and name.text.lower().endswith(b"secret"):
        kind = Announces.KEY_LIKE  # Kubernetes' secrets have names
    if text[name.start - 1 : name.start] in (b"(", b"[", b",", b" ", b":") and (comma := _TUPLE.match(text, name.end)):
        value = read(text, comma.end())
        if value is not None and is_told(text[value.start : value.end].rstrip(b"])"), kind, quoted=value.quoted):
            return Range(value.start, value.end)
        return None
    tells = _TELLS.match(text, name.end)
    if tells is None:
        return None
    if bracket := _IN_BRACKETS.match(text, tells.end()):
        return Range(*bracket.span(2)) if is_told(bracket[2], kind, quoted=True) else None
    value = read(text, tells.end())
    if value is not None and is_told(text[value.start : value.end], kind, quoted=value.quoted):
        return Range(value.start, value.end)
    return None


# What must follow a name: a value of some kind. In prose there must be a digit or a quote near.
_FOLLOWED = r"[^A-Za-z0-9\x00]{0,4}[\s:=>,|(&+*]"
URL_SECRETS = Detector(
    "url_secrets",
    rf"(?i)(?:{_LONG}){_NAME_CHARACTER}*[^A-Za-z0-9\x00][^\x00]|(?:{_SHORT}){_SHORT_TAIL}[^A-Za-z0-9\x00][^\x00]"
    rf"|{name_value_pairs.PATTERN}|{commands.PATTERN}",
    _url_secrets,
)
