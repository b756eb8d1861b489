"""Judges what stands behind a name that announces a secret: is it one, or a word, a count, a reference, a mask?"""

from __future__ import annotations

import re

from sampler_proxy.redact.detectors.reading import MAX_JUDGED
from sampler_proxy.redact.secret_names import Announces, in_text

MIN_KEY = 16
"""Characters of a value that looks like a key."""

# What stands for a secret: masks, variables and parameters of many languages, and what programs print in place of one.
_STAND_IN = re.compile(
    rb"\*+|\?+|\.{3,}|-+|_+|[xX]{3,}|#+|(?:\xe2\x80\xa2)+|(?:\xe2\x97\x8f)+|\*+[^*\s]{0,4}\*+"
    rb"|[$#%@!]?\{[^}]*\}\}?|<[^>]*>|\[[A-Za-z_ -]{0,24}\]|\([A-Za-z_ -]{0,24}\)|%7B[^%]*%7D|&lt;[^&]*&gt;|%s"
    rb"|hash:[0-9a-f]{32}|(?i:\W{0,2}(?:redacted|filtered|masked|sanitized|scrubbed|obfuscated)\W{0,2})"
)
_WORDS_OF_MASKS = frozenset(b"redacted filtered masked sanitized scrubbed obfuscated".split())
_VARIABLE = re.compile(
    rb"[$:@?][A-Za-z0-9_]*|\$[A-Za-z_][\w:.]*|%\(\w+\)s|%[A-Za-z_]\w*%|\$\([^)]*\)?+|\$[A-Za-z_]\w*\)[\w\s{}()]*"
)
_TRIVIAL = frozenset(
    b"true false null none nil undefined yes no ok on off unset empty optional required default nan ~ n/a".split()
)
_PROSE = frozenset(
    b"a about after again all already an and another any are as at attempts authentication be because been before"
    b" blank but by can cannot change changed check code contains correct could count database did do does doesn"
    b" email empty encrypted error expired expires failed failure false field file for format from generated got had"
    b" has hash have if in incorrect input int into invalid is isn it its itself length less like login longer made"
    b" manager match matches may mechanism mismatch missing more must needs never new nil no none not now null of off"
    b" ok on only option optional or otherwise policy present prompt provided provider received rejected required"
    b" reset rule same see sent server set should so some str string strong successful supplied than that the then"
    b" there this to too true type undefined unless unset until update updated use used user using valid value very"
    b" via was wasn we weak were when where which while will with without would wrong yes you your".split()
)
_CALL = re.compile(rb"(?:new )?[A-Za-z_$][\w$.:>-]*\([^()]*\)?+\)*")
_MEMBER = re.compile(rb"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*(?:\(\)?|\[[^\]]*\]?)?)+")
_KEYS = (Announces.KEY_LIKE, Announces.MIXED_KEY)
_JOINTS = re.compile(rb"\.|->|::|\?\.")
_OBJECTS = frozenset(
    b"self this config cfg conf os process env environ user req request settings options opts data form params props"
    b" state ctx context app secrets credentials creds event body args flags values system java".split()
)
_CODE = re.compile(rb"[(){}]|\.[A-Za-z_]+\.")
_WORDS = re.compile(rb"[A-Za-z/._-]+")
_DATE = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{1,2}:[0-9]{2}.*")
_FILE = re.compile(rb"(?:[A-Za-z]:)?[\w.~@-]*[/\\][^=+]*|[\w-]+\.[a-z]{2,5}(?::[0-9]+)?")
_PATH = re.compile(rb"(?:[A-Za-z]:\\|/|\./|~/|\.\./)[^\s=+]*")
_UNIT = re.compile(
    rb"v?[0-9.,:]+[A-Za-z%]{0,7}|[A-Z]?[a-z]+-?[0-9]{0,2}|[A-Z]+[0-9]{0,3}|[A-Z]{2,}(?:[_-][A-Z0-9]+)+|[A-Za-z]+:?"
)
_UUID = re.compile(rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_KEY = re.compile(rb"[A-Za-z0-9+/=_.~%-]{1,1024}")
_PARTS = re.compile(rb"[/._=+~%-]+")
_NO_LETTERS = bytes(byte for byte in range(0x80) if not chr(byte).isalpha())
_DIGITS = {b"cvv": (3, 4), b"cvc": (3, 4)}


def is_stand_in(value: bytes) -> bool:
    """Tell whether a value only stands for a secret: a mask, a variable, a parameter, `[hidden]`."""
    if len(value) > MAX_JUDGED:
        return False
    if value[:1].isalnum() and value[:1] not in b"xXhH" and value.lower().rstrip(b"]>)*") not in _WORDS_OF_MASKS:
        return False
    return _STAND_IN.fullmatch(value) is not None


def says_nothing(value: bytes) -> bool:
    """Tell whether a value is none, or only stands for one."""
    return is_stand_in(value) or value.lower() in _TRIVIAL


def looks_like_key(value: bytes, least: int = MIN_KEY, *, mixed: bool = False) -> bool:
    """Tell whether a value looks like a key that somebody generated: `least` characters or more of base64, hexadecimal
    or the like, neither words nor numbers, a path, a UUID or a date. `mixed`: only of upper and lower case."""
    if len(value) < least or not _HAS_DIGIT.search(value) or _KEY.fullmatch(value) is None or _UUID.fullmatch(value):
        return False
    parts = _PARTS.split(value[:_JUDGED_AS_KEY])
    if any(len(part) > 2 and part.isalpha() for part in parts):  # words: judge what is joined to them
        value = max(parts, key=len)
        if len(value) < least + 4:
            return False
    kinds = value[:_JUDGED_AS_KEY].translate(_KINDS)
    size, digits, signs = len(kinds), kinds.count(b"0"), kinds.count(b"-")
    both = b"a" in kinds and b"A" in kinds
    if (
        (mixed and not both)
        or not digits
        or digits * (32 if both else 6) < size
        or (size - digits - signs) * 8 < size
        or signs * 5 > size
    ):
        return False
    # Between random characters the kind changes more often than in words: `order-items-2024`, `CamelCase2`.
    return len(_RUNS.findall(kinds)) * 9 > size * 2


_JUDGED_AS_KEY = 64
"""Characters of a value by which it is judged whether it looks like a key."""
_HAS_DIGIT = re.compile(rb"[0-9]")
_RUNS = re.compile(rb"A*a+|A+|0+|-+")
_KINDS = bytes(
    0x30 if 48 <= byte < 58 else 0x61 if 97 <= byte < 123 else 0x41 if 65 <= byte < 91 else 0x2D for byte in range(256)
)


def is_mixed(value: bytes, size: int = 6) -> bool:
    """Tell whether a value is no word and no count: it has a digit and a letter."""
    return len(value) >= size and any(0x30 <= byte <= 0x39 for byte in value) and any(byte >= 0x41 for byte in value)


def _is_digits(value: bytes, name: bytes) -> bool:
    low, high = next((_DIGITS[end] for end in _DIGITS if name.lower().endswith(end)), (4, 8))
    return value.isdigit() and low <= len(value) <= high


def is_prose(words: bytes) -> bool:
    """Tell whether one of several words is what prose says of a secret."""
    return any(word in _PROSE for word in words.split())


def is_reference(value: bytes) -> bool:
    """Tell whether a value is code that yields the secret (`os.environ[...]`, `config.password`, `generate(x)`)."""
    if _CALL.fullmatch(value):
        return True
    if (b"." not in value and b"-" not in value and b":" not in value) or not _MEMBER.fullmatch(value):
        return False
    parts = _JOINTS.split(value)
    return parts[0].lower() in _OBJECTS or in_text(parts[-1].rstrip(b"()[]")) is not Announces.NOTHING


def is_secret(value: bytes, kind: Announces, name: bytes, *, sentence: bool = False, quoted: bool = False) -> bool:
    """Tell whether a value behind a name in text is a secret. `sentence`: more words follow it on its line. `quoted`:
    it stands in quotes."""
    if len(value) > MAX_JUDGED:
        return kind >= Announces.AMBIGUOUS
    if not value or is_stand_in(value) or value.lower() in _TRIVIAL or b"://" in value or _VARIABLE.fullmatch(value):
        return False
    if not quoted and is_reference(value):
        return False
    if kind is Announces.DIGITS:
        return _is_digits(value, name) or (is_mixed(value) if b"code" in name.lower() else looks_like_key(value))
    if kind is Announces.CERTAIN:
        if value.isdigit() and len(value) < 4:
            return False
        if value.strip(b".,:;!?()").lower() in _PROSE:
            return False
        if name in (b"PWD", b"OLDPWD") and _PATH.match(value):
            return False
        return not (sentence and (_WORDS.fullmatch(value) or value[:1] in b"[{("))
    if kind is Announces.AMBIGUOUS:
        value = value.replace(b"****", b"")  # what was masked in it
        return is_mixed(value) or (len(value) >= 16 and not _CODE.search(value) and b" " not in value)
    return kind in _KEYS and looks_like_key(value, mixed=kind is Announces.MIXED_KEY)


def is_told(value: bytes, kind: Announces, name: bytes, *, quoted: bool) -> bool:
    """Tell whether a value that prose gives (`the password is V`, `token V expired`) is a secret: no word, date, file,
    path, version or unit."""
    value = value[:MAX_JUDGED]
    if not value or is_stand_in(value) or b"***" in value or b"://" in value or _VARIABLE.fullmatch(value):
        return False
    if kind is Announces.DIGITS:
        return _is_digits(value, name) or (b"code" in name.lower() and is_mixed(value, 8))
    if not quoted and is_reference(value):
        return False
    if name.lower().endswith(b"passcode") and value.isdigit():
        return 4 <= len(value) <= 12
    if _DATE.fullmatch(value) or _FILE.fullmatch(value) or (not quoted and _UNIT.fullmatch(value)):
        return kind >= Announces.AMBIGUOUS and looks_like_key(value)
    if kind is not Announces.CERTAIN:
        least = 12 if kind is Announces.AMBIGUOUS else MIN_KEY
        return looks_like_key(value, least, mixed=kind is Announces.MIXED_KEY) or (
            kind is Announces.AMBIGUOUS and quoted and is_mixed(value, 8)
        )
    if quoted:
        if b" " in value or value.strip(b".,").lower() in _PROSE:
            return False
        return len(value) >= 8 or (len(value) >= 4 and not value.isalpha())
    letters = len(value.translate(None, _NO_LETTERS))
    return len(value) >= 6 and 0 < letters < len(value) and not _WORDS.fullmatch(value)
