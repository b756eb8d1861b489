"""Detects numbers given to people and to what they own: cards, bank accounts, social security, telephones."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator

from stdnum import iban as stdnum_iban
from stdnum import luhn, numdb
from stdnum.us import itin as stdnum_itin
from stdnum.us import ssn as stdnum_ssn

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.folding import OTHER_DIGIT, OTHER_DIGIT_SIGNS, SEPARATOR, folding
from sampler_proxy.redact.detectors.types import (
    DIGITS,
    WORD,
    Detector,
    Digits,
    Range,
    Sign,
    merged,
    signs,
    stands_alone,
)
from sampler_proxy.redact.regexes import regex

# Cards: ISO/IEC 7812. Ranges of the first four digits that issuers have, and how many digits there are in all.
_LONG = (16, 19)  # ids of 17 and 18 digits are common, such cards are not
_ISSUERS = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (2221, 2720, (16,)),  # Mastercard
    (5100, 5599, (16,)),
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (3000, 3059, (14, *_LONG)),  # Diners Club
    (3095, 3095, (14, *_LONG)),
    (3600, 3699, (14, *_LONG)),
    (3800, 3999, (14, *_LONG)),
    (6011, 6011, _LONG),  # Discover
    (6440, 6599, _LONG),
    (3528, 3589, _LONG),  # JCB
    (6200, 6299, (16, 17, 18, 19)),  # UnionPay
    (8100, 8199, (16, 17, 18, 19)),
    (2200, 2204, _LONG),  # Mir
    (6000, 6099, (16,)),  # RuPay, Hipercard
    (8200, 8299, (16,)),
    (5080, 5089, (16,)),
    (5060, 5069, (16, 18, 19)),  # Elo, Verve
    (6363, 6363, (16,)),
    (6370, 6399, (16, 18, 19)),  # InstaPayment, Maestro
    (6700, 6799, (16, 18, 19)),
    *((first, first, (16, 18, 19)) for first in (5018, 5019, 5020, 5038, 5893, 6304)),  # Maestro, Dankort
    (9792, 9792, (16,)),  # Troy
)
_LENGTHS = {first: lengths for low, high, lengths in reversed(_ISSUERS) for first in range(low, high + 1)}
_DOUBLED = bytes(0x30 + sum(divmod(2 * (byte - 0x30), 10)) if byte in DIGITS else byte for byte in range(256))

# 13 digits, with separators at most where they stand, after anything that is no digit; or digits of another script.
_BETWEEN = rf"{SEPARATOR}{{0,3}}"
_OTHER_DIGITS = rf"{OTHER_DIGIT}(?:{SEPARATOR}{{0,3}}{OTHER_DIGIT}){{2}}"
_CARD_PATTERN = (
    rf"(?:\b|[A-Za-z_]|%[0-9A-Fa-f]{{2}}|[\x80-\xff])[2-689][0-9]{{3}}{_BETWEEN}[0-9]{{4}}{_BETWEEN}[0-9]{{2}}"
    rf"{_BETWEEN}[0-9]{{2}}{_BETWEEN}[0-9]|{_OTHER_DIGITS}|%[Bb][0-9]{{12}}|;[0-9]{{12,19}}="
)
# In one piece; or in fours, of which the last may be shorter and one more may follow; or as American Express has it.
_GAP = rb"[ \t+./_-]{1,3}+"
_CARD = re.compile(
    rb"(?:(?<![0-9%])(?<!%[0-9A-Fa-f])|(?<=%[0-9A-Fa-f]{2}))([2-689][0-9]{3})(?:[0-9]{9,15}+(?![0-9])"
    rb"|(" + _GAP + rb")(?:[0-9]{4}" + _GAP + rb"[0-9]{4}" + _GAP + rb"[0-9]{1,4}+(?![0-9])"
    rb"(" + _GAP + rb"[0-9]{1,3}+(?![0-9]))?|[0-9]{6}" + _GAP + rb"[0-9]{4,5}+(?![0-9])))"
)
_SEPARATORS = b" \t+./_-"
# ISO/IEC 7813. The first track has sentinel, number, name, and what the issuer wrote; the second has no name. A chip
# writes D for the second one's sign. Either may be cut off.
_TRACK = re.compile(
    rb"(?:%[Bb]|(?<![0-9A-Za-z])[Bb])([0-9]{12,19}+)\^[^\^?\r\n\"]{2,26}+(?:\^(?:[^\^?\r\n\"]{0,64}+(?=\?)|[0-9A-Za-z]{0,64}+))?"
    rb"|;([0-9]{12,19}+)[=Dd][0-9]{4,40}+(?=\?)"
    rb"|(?<![0-9A-Za-z])([0-9]{13,19}+)[=Dd][0-9]{2}(?:0[1-9]|1[0-2])[1-9][0-9]{2,32}+[Ff]?(?![0-9A-Za-z])"
)
_ZERO_FRACTION = re.compile(rb"\.0{1,2}(?![0-9.])")
_HEX = frozenset(b"0123456789ABCDEFabcdef")


def _is_card(digits: bytes) -> bool:
    if len(digits) not in _LENGTHS.get(int(digits[:4]), ()):
        return False
    # What fails most often is asked without a detour first.
    if (sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - 0x30 * len(digits)) % 10:
        return False
    budget.spend(4)
    return luhn.is_valid(digits.decode("ascii"))


def _part_of_something_else(text: bytes, start: int, end: int) -> bool:
    """Tell whether a run of digits is part of a hexadecimal id, or of a decimal fraction that is not zero."""
    left, right = start, end
    while left and not _after_escape(text, start) and start - left < 64 and text[left - 1] in _HEX:
        left -= 1
    while right < len(text) and right - end < 64 and text[right] in _HEX:
        right += 1
    if (left, right) != (start, end) and stands_alone(text, left, right):
        return True
    return _between_dots(text, start, end) and not _ZERO_FRACTION.match(text, end)


def _between_dots(text: bytes, start: int, end: int) -> bool:
    """Tell whether a neighbour of the range is a dot with a digit on its other side."""
    if start > 1 and text[start - 1] == 0x2E and text[start - 2] in DIGITS:
        return True
    return end + 1 < len(text) and text[end] == 0x2E and text[end + 1] in DIGITS


def _after_escape(text: bytes, start: int) -> bool:
    """Tell whether a percent-encoded character stands before a position."""
    return start > 2 and text[start - 3] == 0x25


def _cards(text: bytes) -> list[Range]:
    return merged([*_tracks(text), *_numbers_of_cards(text)])


def _tracks(text: bytes) -> Iterator[Range]:
    """Find the data of magnetic tracks, without sentinels: number, name, and all behind. Their form says what they are,
    but for a second track without sentinels, whose number is checked."""
    for match in _TRACK.finditer(text):
        index = match.lastindex or 0
        if index < 3 or _is_card(match[index]):
            yield Range(match.start(index), match.end())


def _numbers_of_cards(text: bytes) -> list[Range]:
    found: list[Range] = []
    at = 0
    while match := _CARD.search(text, at):
        start, end = match.span()
        if match[2] is None:
            at = end
            digits = text[start:end]
            if _is_card(digits) and not _is_product(digits) and not _part_of_something_else(text, start, end):
                found.append(Range(start, end))
            continue
        at = match.end(1)
        for stop in (end, match.start(3)):
            if stop > start and _is_grouped_card(text, start, stop):
                found.append(Range(start, stop))
                at = stop
                break
    return found


def _is_product(digits: bytes) -> bool:
    """Tell whether 13 digits have the check digit of products (GS1: EAN), which cards of that length are far rarer
    than."""
    return len(digits) == 13 and (sum(digits[::2]) + 3 * sum(digits[1::2]) - 0x30 * 25) % 10 == 0


def _is_grouped_card(text: bytes, start: int, end: int) -> bool:
    if end < len(text) and text[end] in DIGITS:
        return False
    digits = text[start:end].translate(None, _SEPARATORS)
    if b"." in text[start:end] and (len(digits) == 13 or _between_dots(text, start, end)):
        return False
    return _is_card(digits)


CARD = Detector(
    "card",
    _CARD_PATTERN,
    folding(_cards),
    signs=(Digits(13), *signs("%B %b ;", then="0-9", times=12), *OTHER_DIGIT_SIGNS),
)


# The registry (ISO 13616, as stdnum has it): how a number goes on after its country and check digits.
_PART = re.compile(r"(\d+)!([nac])")
_KINDS = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
_REGISTRY = {
    country: _PART.findall(structure)
    for country in map("".join, itertools.product(string.ascii_uppercase, repeat=2))
    if (structure := numdb.get("iban").info(country)[0][1].get("bban"))
}
_BBANS = {
    country.encode(): re.compile(
        b"".join(b"(?:[ \\t+./_-]{0,3}+%s){%d}" % (_KINDS[kind].encode(), int(n)) for n, kind in parts), re.IGNORECASE
    )
    for country, parts in _REGISTRY.items()
}
_IBAN_COUNTRIES = "|".join(_REGISTRY)
# Not within a word, but for one in lower case before capitals.
_IBAN = re.compile(rb"(?:(?<![0-9A-Za-z])([A-Z]{2}|[a-z]{2})|(?<=[a-z])([A-Z]{2}))[0-9]{2}")
_VALUES_OF_LETTERS = str.maketrans({letter: str(10 + i) for i, letter in enumerate(string.ascii_uppercase)})


def _ibans(text: bytes) -> list[Range]:
    found: list[Range] = []
    done = 0
    for match in _IBAN.finditer(text):
        start, checked = match.span()
        bban = _BBANS.get((match[1] or match[2]).upper())
        rest = bban.match(text, checked) if bban and start >= done else None
        if rest and _ends_there(text, rest.end()) and _is_iban(text[start : rest.end()]):
            done = rest.end()
            found.append(Range(start, done))
    return found


def _ends_there(text: bytes, end: int) -> bool:
    """Tell whether a number may end at a position: a letter may follow a digit."""
    if end == len(text) or text[end] not in WORD or text[end] == 0x5F:
        return True
    return text[end] not in DIGITS and text[end - 1] in DIGITS


def _is_iban(candidate: bytes) -> bool:
    """Check an IBAN's case, which is one for all letters, and its check digits."""
    compact = candidate.translate(None, _SEPARATORS)
    upper = compact.upper()
    if compact not in (upper, compact.lower()):
        return False
    if int((upper[4:] + upper[:4]).decode().translate(_VALUES_OF_LETTERS)) % 97 != 1:
        return False
    budget.spend(20)
    return stdnum_iban.is_valid(upper.decode(), check_country=False)


IBAN = Detector(
    "iban",
    rf"(?:\b|[_a-z]|[\x80-\xff])(?:{_IBAN_COUNTRIES})[0-9]{{2}}(?:{_BETWEEN}[A-Z0-9]){{11}}"
    rf"|(?:\b|[_\x80-\xff])(?i:{_IBAN_COUNTRIES})[0-9]{{2}}(?:{_BETWEEN}[a-z0-9]){{11}}|{_OTHER_DIGITS}",
    folding(_ibans),
    signs=(
        *signs(" ".join(_REGISTRY), then="0-9", times=2, before="^0-9A-Z"),
        *signs(" ".join(_REGISTRY), then="0-9", times=2, before="^0-9A-Za-z", any_case=True),
        *OTHER_DIGIT_SIGNS,
    ),
)


# With dashes a number is taken for one wherever it stands; otherwise where a word says so: nine bare digits are more
# often something else.
_SSN = re.compile(
    rb"(?<![0-9])(?<![0-9][.-])(?<![^0-9A-Za-z_][A-Za-z])(?<!\A[A-Za-z])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9])(?!-[0-9A-Za-z])"
)
_SSN_WORD = r"(?:ssn|soc(?:ial)?[ ._-]?sec(?:urity)?|itin)"
_SSN_WORDS = "ssn itin socsec soc.sec soc_sec soc-sec socialsec social.sec social_sec social-sec"
_WITH_GAPS = rb"([0-9]{3})[ \t+./_-]{0,3}+([0-9]{2})[ \t+./_-]{0,3}+([0-9]{4})"
_NAMED_SSNS = (
    re.compile(rb"(?i)" + _SSN_WORD.encode() + rb"[^0-9\r\n]{0,24}(?<![0-9])" + _WITH_GAPS + rb"(?![0-9])"),
    re.compile(rb"(?i)(?<![0-9])" + _WITH_GAPS + rb"(?=[^0-9A-Za-z]{1,3}" + _SSN_WORD.encode() + rb")"),
)


def _ssns(text: bytes) -> list[Range]:
    """Find social security numbers (and taxpayers' numbers in their form): with dashes, or beside their name."""
    found = [Range(*match.span()) for match in _SSN.finditer(text) if _is_ssn(match[0])]
    for pattern in _NAMED_SSNS:
        for match in pattern.finditer(text):
            if _is_ssn(b"-".join(match.groups())):
                found.append(Range(match.start(1), match.end()))
    return merged(found)


def _is_ssn(number: bytes) -> bool:
    budget.spend(10)
    text = number.decode("ascii")
    return stdnum_ssn.is_valid(text) or (stdnum_itin.is_valid(text) and not text.startswith("987-65-432"))


SSN = Detector(
    "ssn",
    rf"[0-9]{{3}}(?:-|%2[Dd]|{SEPARATOR})[0-9]{{2}}(?:-|{SEPARATOR})[0-9]{{4}}"
    rf"|(?i:{_SSN_WORD})[^0-9\r\n]{{0,24}}[0-9]{{3}}{_BETWEEN}[0-9]{{2}}{_BETWEEN}[0-9]{{4}}"
    rf"|[0-9]{{9}}[^0-9A-Za-z]{{1,3}}(?i:{_SSN_WORD})|{_OTHER_DIGITS}",
    folding(_ssns),
    signs=(
        Digits(9, (3, 2, 4)),
        *signs(_SSN_WORDS, through=r"^0-9\r\n", until="0-9", any_case=True),
        *signs(_SSN_WORDS, before="^0-9A-Za-z", any_case=True),
        Sign("soc sec", any_case=True),
        Sign("social sec", any_case=True),
        *OTHER_DIGIT_SIGNS,
    ),
)


# Telephones: ITU-T E.164 with its country codes, and the national forms of three numbering plans.
_CALLING_CODE = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|21[1-368]|2[2-6][0-9]|29[0178]|35[0-9]|37[0-9]|38[0-35-79]|42[0-3]|50[0-9]|59[0-9]|67[02-9]|68[0-35-9]|69[0-2]"
    r"|80[08]|85[02356]|87[08]|88[0-368]|96[0-8]|97[0-79]|99[2-68])"
)
_PHONE = regex(
    rf"(?:\+{_CALLING_CODE}(?:[ .-]?\(?[0-9]{{1,4}}\)?){{2,6}}"  # +44 20 7946 0958
    r"|(?:\b1[ .-])?(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}"  # North America
    r"|\b0[1-9](?:[ .][0-9]{2}){4}"  # France
    r"|\b0[1-9][0-9]{1,3} [0-9]{3,4} [0-9]{3,4})"  # United Kingdom
)
_NOT_BEFORE_NATIONAL = WORD | frozenset(b"+.-/")


def _phones(text: bytes) -> list[Range]:
    found = []
    for match in _PHONE.finditer(text):
        start, end = match.span()
        digits = sum(byte in DIGITS for byte in match.group())
        if text[start] == 0x2B and not 8 <= digits <= 15:
            continue
        if start and text[start - 1] in (WORD if text[start] == 0x2B else _NOT_BEFORE_NATIONAL):
            continue
        if end < len(text) and (text[end] in WORD or text[end] == 0x2B):
            continue
        if end + 1 < len(text) and text[end] in b"-./" and text[end + 1] in WORD:
            continue
        if text[start] not in b"+0" and _services(match.group()):
            continue
        found.append(Range(start, end))
    return found


def _services(number: bytes) -> bool:
    """Tell whether the area or exchange of a number is N11, a service (411, 911)."""
    digits = bytes(byte for byte in number if byte in DIGITS)[-10:]
    return digits[1:3] == b"11" or digits[4:6] == b"11"


PHONE = Detector(
    "phone",
    r"\+[1-9](?:[ .()-]{0,3}[0-9]){5}|[2-9][0-9]{2}(?:[.-]|\) ?)[2-9][0-9]{2}[.-][0-9]{4}"
    r"|\b0[1-9](?:[ .][0-9]{2}){4}|\b0[1-9][0-9]{1,3} [0-9]{3,4} [0-9]{3}",
    _phones,
)
