"""Detects secrets that their name announces: query parameters, fields of forms and connection strings, command lines,
and what people write (`password: x`).

In a list that `&` or `;` separates the name is enough. In text it is not, since `token: 5 of 7`, `pass: 12 fail: 3` and
the `pin=5` of an I/O port are about something else. There

- a name that means nothing else (`password`, `api_key`) is believed, unless what follows is a word that prose or code
  puts there (`password: required`, `password=null`); after a colon also unless it begins a sentence (`password: must
  be`), which lets a password of letters alone pass if text follows on its line;
- a name that has other meanings (`token`, `pass`, `sid`, `signature`) needs a value that no word or count is: 6
  characters with a digit and a letter, or 16; `otp` and `pin` 4 to 8 digits, `cvv` and `cvc` 3 or 4;
- `auth`, `session`, `sas`, `sig` and their kin are not asked about.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sampler_proxy.redact.detectors.types import Detector, Range, is_placeholder

# Compared in lower case and without `_`, `-`, `.`; of `user[password]` the innermost name. First: names as a whole;
# second: their ends. Keys of attributes have patterns of their own (`presets.py`); a test holds both together.
SECRET_PARAMETERS = frozenset(
    b"assertion auth authorization awsaccesskeyid bearer clientassertion connectsid cvc cvv googleaccessid jwt otp pass"
    b" pin pw samlart samlrequest samlresponse sas sessid session sid phpsessid sig subscriptionkey totp"
    b" ocpapimsubscriptionkey xamzcredential xgoogcredential".split()
)
SECRET_ENDINGS = (
    b"password",
    b"passwd",
    b"passphrase",
    b"passcode",
    b"pwd",
    b"secret",
    b"token",
    b"apikey",
    b"secretkey",
    b"accesskey",
    b"privatekey",
    b"encryptionkey",
    b"signingkey",
    b"signature",
    b"sessionid",
    b"credentials",
)
# Tokens that only say where to go on.
_CURSORS = re.compile(rb"(?:next|page|sync|continuation|cursor|start|resume|change|skip|paging|pagination)\w*token")

# In text: names to be believed, and those that are if their value looks like a secret.
_PLAIN = (
    *(b"password", b"passwd", b"passphrase", b"passcode", b"pwd", b"secret"),
    *(b"apikey", b"secretkey", b"accesskey", b"privatekey", b"encryptionkey", b"signingkey"),
)
_AMBIGUOUS = (b"token", b"signature", b"sessionid")
_AMBIGUOUS_NAMES = frozenset(
    b"authorization bearer jwt pass pw sid phpsessid sessid connectsid xamzcredential xgoogcredential".split()
)
_NUMBERS = {b"otp": (4, 8), b"totp": (4, 8), b"pin": (4, 8), b"cvv": (3, 4), b"cvc": (3, 4)}
_PROSE = frozenset(
    b"a an and any are as attempts be blank by can cannot changed check count do does empty error expired fail failed"
    b" failure false field for format from got has hash if in incorrect input int invalid is it length less like match"
    b" matches mismatch missing more must needs new nil no none not null of off ok on only optional option or policy"
    b" prompt rejected required reset same set should str string strong than that the this to too true undefined unset"
    b" update updated used user valid value was weak when will with wrong yes you your".split()
)

_NAME = rb"[A-Za-z0-9_.%\[\]$-]"
# The name; what separates it from the value; an option of a command line. The possessive quantifier keeps it linear.
_NAMED = re.compile(
    rb"(?<![A-Za-z0-9_.%\[\]$-])(?:"
    rb"(--?[A-Za-z]" + _NAME + rb"{0,63}+)[ \t]{1,3}(?=[^\s=-])"
    rb"|(" + _NAME + rb"{1,64}+)([ \t]{0,3}(?:=>|=(?![=~])|:(?![:/]))[ \t]{0,3}))"
    rb"|(?<=%3[Ff])(" + _NAME + rb"{1,64}+)=|(?<=%26)(" + _NAME + rb"{1,64}+)="
)
# A semicolon ends a value only among those that semicolons separate.
_VALUE = re.compile(rb"""[^&#\s"<>]+""")
_VALUE_IN_LIST = re.compile(rb"""[^&;#\s"<>]+""")
_QUOTED = re.compile(rb""""((?:[^"\\\n]|\\.)*)|'((?:[^'\\\n]|\\.)*)|`([^`\n]*)|(?:\\{1,7}["'])([^"'\\\n]*)""")
_BARE = re.compile(rb"""[^\s"'<>&;]+""")
_AROUND = b".,;:!?)}]\\"
_PARAMETER_REFERENCE = re.compile(rb"[$:@?][A-Za-z0-9_]*|%s")
_SCHEME = re.compile(rb"[A-Za-z]{3,16} (?=[^\s])")
_GOES_ON = re.compile(rb"[.,:]? [^\s]")
_WORDS = re.compile(rb"[A-Za-z/._-]+")
_CODE = re.compile(rb"[(){}]|\.[A-Za-z_]+\.")
_TRIVIAL = frozenset((b"true", b"false", b"null", b"none", b"nil", b"undefined", b"yes", b"no", b"ok", b"on", b"off"))


def is_secret_parameter(name: bytes) -> bool:
    """Tell whether a name announces a secret in a URL or form."""
    return _secret_name(name) is not None


@lru_cache(4096)
def _secret_name(name: bytes) -> bytes | None:
    """Normalize a name; None where it announces no secret."""
    plain = name.lower().replace(b"%5b", b"[").replace(b"%5d", b"]").rstrip(b"]").rpartition(b"[")[2]
    plain = plain.replace(b"_", b"").replace(b"-", b"").replace(b".", b"")
    if plain in SECRET_PARAMETERS or (plain.endswith(SECRET_ENDINGS) and not _CURSORS.search(plain)):
        return plain
    return None


def _url_secrets(text: bytes) -> list[Range]:
    found: list[Range] = []
    at = 0
    quote = text.find(b"'")
    while match := _NAMED.search(text, at):
        start = match.end()
        option, name, separator, *encoded = match.groups()
        at = start
        plain = _secret_name(option or name or encoded[0] or encoded[1])
        if plain is None:
            continue
        place = _in_list(text, match, plain, quote) if option is None and separator in (None, b"=") else None
        if place is None:
            place = _in_text(text, start, plain, separator)
        if place is not None and place.start < place.end:
            at = place.end
            if not is_placeholder(text[place.start : place.end]):
                found.append(place)
    return found


def _in_list(text: bytes, match: re.Match[bytes], plain: bytes, quote: int) -> Range | None:
    """Find the value where the name stands in a URL, a form or a list that semicolons separate."""
    first, start = match.start(), match.end()
    if text[first] == 0x5B:
        return None
    before = text[first - 1 : first]
    if before == b" " and text[first - 2 : first - 1] in (b"?", b"&", b";", b"#"):
        before = text[first - 2 : first - 1]
    at_line = first == 0 or before in (b"\n", b"\r") or (before == b" " and (first == 1 or text[first - 2] == 0x0A))
    if match[2] is not None and not at_line and before not in (b"?", b"&", b";", b"#"):
        return None
    value = (_VALUE_IN_LIST if at_line or before == b";" else _VALUE).match(text, start)
    if value is None:
        return None
    end = value.end()
    if 0 <= quote < start:  # the URL may stand in quotes
        end = (text.find(b"'", start, end) + 1 or end + 1) - 1
    unsure = end < len(text) or before == b" " or plain in _NUMBERS or text[start:end].lower() in _TRIVIAL
    if at_line and unsure and text[end : end + 1] not in (b"&", b";"):
        return None  # the first word of a text, or all of it
    return Range(start, end)


def _in_text(text: bytes, start: int, plain: bytes, separator: bytes | None) -> Range | None:
    """Find the value in text; None where what follows the name is none."""
    if plain in (b"authorization", b"proxyauthorization") and (scheme := _SCHEME.match(text, start)):
        start = scheme.end()
    if quoted := _QUOTED.match(text, start):
        start, end = quoted.span(quoted.lastindex or 0)
        sentence = False
    elif bare := _BARE.match(text, start):
        value = bare.group().rstrip(_AROUND)
        end = start + len(value)
        sentence = separator is not None and b":" in separator and _GOES_ON.match(text, end) is not None
    else:
        return None
    value = text[start:end]
    if _is_value(value, plain, sentence):
        return Range(start, end)
    return None


def _is_value(value: bytes, plain: bytes, sentence: bool) -> bool:
    """Tell whether a value may be a secret. `sentence`: more words follow it on its line."""
    if not value or value.lower() in _TRIVIAL or _PARAMETER_REFERENCE.fullmatch(value) or b"://" in value:
        return False
    if limits := _NUMBERS.get(plain):
        return value.isdigit() and limits[0] <= len(value) <= limits[1]
    if plain.endswith(_PLAIN):
        if value.lower() in _PROSE or (value.isdigit() and len(value) < 4):
            return False
        return not (sentence and (_WORDS.fullmatch(value) or value[:1] in (b"[", b"{", b"(")))
    if plain in _AMBIGUOUS_NAMES or plain.endswith(_AMBIGUOUS):
        digit = any(0x30 <= byte <= 0x39 for byte in value)
        letter = any(byte >= 0x41 for byte in value)
        return (len(value) >= 6 and digit and letter) or (len(value) >= 16 and not _CODE.search(value))
    return False


URL_SECRETS = Detector(
    "url_secrets",
    r"(?i)(?:pass|pwd|pw|token|secret|key|sig|auth|sess|sid|otp|jwt|sas|saml|credential|assertion|googleaccessid|pin"
    r"|cv[vc]|bearer)[A-Za-z0-9_.%\[\]$-]*(?:[ \t]{0,3}(?:[:=]|=>)[ \t]{0,3}[^&;#\s]|[ \t]{1,3}[^\s=-])",
    _url_secrets,
)
