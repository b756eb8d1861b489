"""Detects secrets that their name announces: query parameters, fields of forms and connection strings, options,
headers, elements of XML, YAML, and what people write (`password: x`, `the password is x`).

A name is found by the words that announce a secret (`names.py`); what stands around it says how its value is
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

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors import commands, name_value_pairs, names
from sampler_proxy.redact.detectors.names import KEYS, SecretName
from sampler_proxy.redact.detectors.prose import CODES_SIGN, CODES_SIGNS, codes, if_secret, in_prose
from sampler_proxy.redact.detectors.reading import (
    HTML_QUOTE,
    MAX_JUDGED,
    Value,
    behind_scheme,
    read,
    read_below,
    read_cookies,
    read_parameters,
)
from sampler_proxy.redact.detectors.secret_values import (
    is_prose,
    is_secret,
    is_stand_in,
    is_told,
    looks_like_key,
    says_nothing,
)
from sampler_proxy.redact.detectors.types import Detector, Range, just_before, merged
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.secret_names import Announces, in_text

# `=` may stand behind a quote (`"password" = x`); a colon there is `texts/keyed.py`'s.
_SIGN = re.compile(
    rb"(?:&" + HTML_QUOTE + rb"|[\"'`](?=[ \t]{0,3}=[^=>~]))?[*\]]{0,2}(?:[ ]?\([A-Za-z ]{1,16}\))?[ \t]{0,16}("
    rb":[ \t]{0,3}[A-Za-z_&'][\w<>\[\]:|?&']{0,40}+[ \t]{1,3}=(?=[ \t])"  # with a type: `password: String = x`
    rb"|:=|\|\|=|\?\?=|[+?|]=|={2,3}|=>|->|=(?!~)|:(?!:|//)|\xe2\x86\x92)(?:\*\*(?=[ \t]))?([ \t]{0,16})"
)
_OPTION_GAP = re.compile(rb"[ \t]{1,3}(?=[^\s=-])")
_SETS = re.compile(rb"\b(?:set|setx|env|setenv) (?://[^\s]{0,40}:)?\Z", re.IGNORECASE)
_GOES_ON = re.compile(rb"[.,:]?[ \t]+(?![\w.-]{1,40}+[ ]?[:=])[^\s]")
_COLOUR = re.compile(rb"\x1b\[[0-9;]{0,16}m")
# Words may stand in brackets, too.
_ALL_IN_BRACKETS = re.compile(rb"[\[{<]([^\r\n,()\[\]{}<>\"'`]{1,512}+)[\]}>](?=[\s,;\"')}\]]|\Z)")
_SAID_INSTEAD = regex(
    r"(?i)your|example|here|redact|hidden|mask|filter|remov|omit|protect|sensitive|secret|conceal|scrub|shown|empty"
    r"|password"
)
_PHRASE = re.compile(rb"[a-z]{3,12}(?: [a-z]{3,12}){2,23}+(?![\w.])")
_TEMPLATE = re.compile(rb"(?:\{\{[^}\n]{0,256}\}\}|[$#%]\{[^}\n]{0,256}\}|<[A-Za-z][^<>=\n]{0,256}>)(?=[\s\"'&;,)]|\Z)")
_AT_HOST = re.compile(rb"@(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}(?:[:/]|\Z)")
_MAY_BE_KEY = re.compile(rb"[^\s]{0,64}?[0-9]")
_LIST_GOES_ON = re.compile(rb"[&;](?:amp;)?[ ]?(?:\Z|[\w.%\[\]-][\w .%\[\]-]{0,40}=)")
_TYPE = re.compile(rb"\[?[A-Z][A-Za-z]*+!?\]?!?(?=\s*+[,)=])")
_ANOTHER = re.compile(rb"[a-z_][a-z_.]{0,32}=(?=[^\s=])")
_ARN = regex(r"(?i)\b(?:arn|urn):[^\s\"',]*\z")
_BEFORE_NAME_OF_PAIR = (b'"', b"'", b"=", b":", b">")
_SPACED_PAIR = (b": ", b"= ", b"> ")

# A semicolon ends a value only among those that semicolons separate.
_VALUE = re.compile(rb"""[^&#\s"<>]+""")
_VALUE_IN_LIST = re.compile(rb"""[^&;#\s"<>]+""")


def _url_secrets(text: bytes) -> list[Range]:
    if b"\x1b[" in text:
        text = _COLOUR.sub(_spaces, text)
    found: list[Range] = []
    done = 0
    quote = text.find(b"'")
    for name in names.secret_names(text):
        if name.start < done:
            continue
        budget.spend(5)
        place = _of_name(text, name, quote)
        if place is not None and place.start < place.end:
            done = place.end
            found.append(place)
    found += name_value_pairs.find(text)
    found += commands.find(text)
    found += codes(text)
    return merged(found) if len(found) > 1 else found


def _of_name(text: bytes, name: SecretName, quote: int) -> Range | None:
    """Find the value of a name by what stands around the name; None where none is a secret."""
    before = text[name.start - 1 : name.start]
    if before in (b"&", b"?") and text[name.end : name.end + 1] == b"=" and text[name.end + 1 : name.end + 2].isalnum():
        place = _in_list(text, name, name.end + 1, quote)
        return None if place is None or says_nothing(text[place.start : place.end]) else place
    if (value := name_value_pairs.value_of(text, name.end)) is not None and (
        _names_value(text, name, before) or _stands_alone(text, value, name)
    ):
        place = if_secret(text, value, name)
        if place is not None:
            return place
    if before in (b"<", b":", b";"):
        element = name_value_pairs.element(text, name.start, name.end)
        if element is not None:
            return if_secret(text, element, name)
    if text.endswith(b"checksum/", 0, name.start):
        return None
    spaced = text[name.end : name.end + 1] == b" " and text[name.end + 1 : name.end + 2].isalnum()
    if not spaced and (sign := _SIGN.match(text, name.end)):
        if not sign[2] and (bracket := _ALL_IN_BRACKETS.match(text, sign.end())):
            return _bracketed(bracket, name)
        if _TEMPLATE.match(text, sign.end()):
            return None
        if sign[1] == b"=" and not sign[2] and sign.start(1) == name.end:
            place = _in_list(text, name, sign.end(), quote)
            if place is not None:
                return None if says_nothing(text[place.start : place.end]) else place
        if name.kind is Announces.PARAMETER:
            return None
        return None if _in_arn(text, name, sign) else _signed(text, name, sign)
    option = text[name.start] == 0x2D
    sets = before in (b" ", b":") and text[max(0, name.start - 48) : name.start].lower()
    if option or (sets and (b"set" in sets or b"env" in sets) and _SETS.search(sets)):
        gap = _OPTION_GAP.match(text, name.end)
        return if_secret(text, read(text, gap.end()), name) if gap else None
    if before == b"/" or name.kind is Announces.PARAMETER:
        return None
    return in_prose(text, name)


def _names_value(text: bytes, name: SecretName, before: bytes) -> bool:
    """Tell whether a name is the name in a pair (`name="..."`)."""
    if before not in _BEFORE_NAME_OF_PAIR and text[name.start - 2 : name.start] not in _SPACED_PAIR:
        return False
    return name_value_pairs.is_name_of_pair(text, name.start)


def _stands_alone(text: bytes, value: Value, name: SecretName) -> bool:
    """Tell whether the value of what may be a pair, cut off before its name, can be nothing but a secret."""
    if not value.quoted and text[value.end : value.end + 1] == b":":
        return False  # a name itself: `kind: Secret`, `data:`, `password: x`
    behind_tag = text[max(0, value.start - 48) : value.start].rstrip().endswith(b">")
    if behind_tag and text[value.end : value.end + 1] not in (b"<", b"&", b""):
        return False
    return is_told(text[value.start : value.end], name.kind, name.text, quoted=True)


def _bracketed(bracket: re.Match[bytes], name: SecretName) -> Range | None:
    """Find the value in brackets (`password=[x]`), unless it stands for one: `<your-password>`, `[hidden]`."""
    inside = bracket[1]
    if (b"=" in inside and b" " in inside) or in_text(inside) is not Announces.NOTHING or _SAID_INSTEAD.search(inside):
        return None
    start, end = bracket.span(1)
    if name.text.lower().endswith(b"authorization"):
        start = behind_scheme(bracket.string, start)
    return Range(start, end) if is_secret(inside, name.kind, name.text, quoted=True) else None


def _spaces(colour: re.Match[bytes]) -> bytes:
    return b" " * len(colour[0])


def _in_arn(text: bytes, name: SecretName, sign: re.Match[bytes]) -> bool:
    """Tell whether a name is a part of something that colons separate (`arn:aws:secretsmanager:...:secret:name`)."""
    if sign[1] != b":" or sign[2]:
        return False
    before = text[max(0, name.start - 2) : name.start]
    if before[1:] == b"/" and (before[:1].isalnum() or before[:1] in (b"_", b".", b"-", b"~", b"}")):
        return True  # /etc/passwd:root
    if before[-1:] != b":":
        return False
    return just_before(_ARN, text, name.start, 200)


def _signed(text: bytes, name: SecretName, sign: re.Match[bytes]) -> Range | None:
    """Find the value behind a sign."""
    start = sign.end()
    lower = name.text.lower()
    colon = sign[1] == b":"
    if sign[2] and sign[1] == b"=" and sign.start(1) == name.end and _ANOTHER.match(text, start):
        return None  # an empty field of logfmt
    if colon and not sign[2] and text[max(0, name.start - 3) : name.start] == b"://":
        return None  # a user, or a host, of a URL
    if colon and name.text[:1] == b"$" and _TYPE.match(text, start):
        return None  # a parameter of GraphQL
    below = read_below(text, start)
    if below is not None:
        inside = text[below.start : below.end]
        told = is_told(inside, name.kind, name.text, quoted=False) or b"\n" in inside or inside.isdigit()
        return if_secret(text, below, name) if told or below.quoted else None
    if lower.endswith(b"cookie"):
        value = read_cookies(text, start, only_first=lower.endswith(b"set-cookie"))
        if value is not None and not is_stand_in(text[value.start : value.end]):
            return Range(value.start, value.end)
        return None
    if lower.endswith(b"authorization"):
        if line := read_parameters(text, start):
            return Range(line.start, line.end)
        start = behind_scheme(text, start)
    if name.kind in KEYS and not _MAY_BE_KEY.match(text, start):
        return None
    if lower.endswith(b"phrase") and (phrase := _PHRASE.match(text, start)) and not is_prose(phrase[0]):
        return Range(*phrase.span())
    value = read(text, start)
    if value is None:
        return None
    if colon and not sign[2] and lower.endswith(b"token") and (host := _AT_HOST.search(text, start, value.end)):
        value = value._replace(end=host.start())  # x-access-token:V@host/path
    inside = text[value.start : value.end]
    if (
        sign[1] in (b"==", b"===")
        and not value.quoted
        and not is_told(inside, name.kind, name.text, quoted=value.quoted)
    ):
        return None
    sentence = colon and sign[2] != b"" and not value.quoted and _GOES_ON.match(text, value.end) is not None
    return if_secret(text, value, name, sentence=sentence)


def _in_list(text: bytes, name: SecretName, start: int, quote: int) -> Range | None:
    """Find the value where the name stands in a URL, a form or a list that semicolons separate."""
    first = name.start
    before = text[first - 1 : first]
    if before == b" " and text[first - 2 : first - 1] in (b"?", b"&", b";", b"#"):
        before = text[first - 2 : first - 1]
    at_line = first == 0 or before in (b"\n", b"\r") or (before == b" " and (first == 1 or text[first - 2] == 0x0A))
    if not at_line and before not in (b"?", b"&", b";", b"#"):
        return None
    if at_line and text[start : start + 1] == b"'":
        return None
    pattern = _VALUE_IN_LIST if at_line or before == b";" else _VALUE
    disjoint = at_line and name.kind not in KEYS
    value = pattern.match(text, start, len(text) if disjoint else start + MAX_JUDGED + 1)
    if value is None:
        return None
    end = value.end()
    if 0 <= quote < start:  # the URL may stand in quotes
        end = (text.find(b"'", start, end) + 1 or end + 1) - 1
    inside = text[start:end]
    unsure = (
        end < len(text)
        or before == b" "
        or name.kind is Announces.DIGITS
        or inside.lower() in (b"true", b"false", b"null")
    )
    if at_line and unsure and not _LIST_GOES_ON.match(text, end):
        return None  # the first word of a text, or all of it
    if name.kind in KEYS and not looks_like_key(inside, mixed=name.kind is Announces.MIXED_KEY):
        return None
    if at_line and not is_secret(inside, name.kind, name.text) and end == len(text):
        return None
    if end - start > MAX_JUDGED and not disjoint and (rest := pattern.match(text, end)):
        end = rest.end()
    return Range(start, end)


URL_SECRETS = Detector(
    "url_secrets",
    f"(?i){names.PATTERN}|{name_value_pairs.PATTERN}|{CODES_SIGN}|{commands.PATTERN}",
    _url_secrets,
    signs=(*names.SIGNS, *commands.SIGNS, *CODES_SIGNS, *name_value_pairs.SIGNS),
)
