"""Detects numbers given to people and to what they own: cards, bank accounts, social security, telephones."""

from __future__ import annotations

import itertools
import re
import string

from stdnum import iban as stdnum_iban
from stdnum import luhn, numdb
from stdnum.us import ssn as stdnum_ssn

from sampler_proxy.redact.detectors.types import DIGITS, WORD, Detector, Range, stands_alone
from sampler_proxy.redact.regexes import regex

# Cards: ISO/IEC 7812. Ranges of the first four digits that issuers have, and how many digits there are in all.
_LONG = (16, 17, 18, 19)
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
    (6200, 6299, _LONG),  # UnionPay
    (8100, 8199, _LONG),
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

# 13 digits, with separators at most where they stand, after anything that is no digit; with dots in the usual groups
# only, since other numbers have dots.
_CARD_PATTERN = (
    r"(?:\b|[A-Za-z_]|%[0-9A-Fa-f]{2})([2-689][0-9]{3}(?:(?:[ +-]|%20|\xc2\xa0)?[0-9]{4}(?:[ +-]|%20|\xc2\xa0)?[0-9]{2}"
    r"(?:[ +-]|%20|\xc2\xa0)?[0-9]{2}(?:[ +-]|%20|\xc2\xa0)?[0-9]|\.(?:[0-9]{4}\.[0-9]{4}|[0-9]{6})\.[0-9]{4}))"
)
# In one piece; or in fours, of which the last may be shorter and one more may follow; or as American Express has it.
_CARD = re.compile(
    rb"(?:(?<![0-9%])(?<!%[0-9A-Fa-f])|(?<=%[0-9A-Fa-f]{2}))([2-689][0-9]{3})(?:[0-9]{9,15}+(?![0-9])"
    rb"|([ +.-]|%20|\xc2\xa0)(?:[0-9]{4}\2[0-9]{4}\2[0-9]{1,4}+(?![0-9])(\2[0-9]{1,3}+(?![0-9]))?"
    rb"|[0-9]{6}\2[0-9]{4,5}+(?![0-9])))"
)
_ZERO_FRACTION = re.compile(rb"\.0{1,2}(?![0-9.])")
_HEX = frozenset(b"0123456789ABCDEFabcdef")


def _is_card(digits: bytes) -> bool:
    if len(digits) not in _LENGTHS.get(int(digits[:4]), ()):
        return False
    # What fails most often is asked without a detour first.
    if (sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - 0x30 * len(digits)) % 10:
        return False
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
    found: list[Range] = []
    at = 0
    while match := _CARD.search(text, at):
        start, end = match.span()
        separator = match[2]
        if separator is None:
            at = end
            if _is_card(text[start:end]) and not _part_of_something_else(text, start, end):
                found.append(Range(start, end))
            continue
        at = match.end(1)
        for stop in (end, match.start(3)):
            if stop > start and _is_grouped_card(text, start, stop, separator):
                found.append(Range(start, stop))
                at = stop
                break
    return found


def _is_grouped_card(text: bytes, start: int, end: int, separator: bytes) -> bool:
    before = start > 0 and text[start - 1] in WORD and not _after_escape(text, start)
    if before or (end < len(text) and text[end] in WORD):
        return False
    digits = text[start:end].replace(separator, b"")
    if separator == b"." and (len(digits) not in (15, 16) or _between_dots(text, start, end)):
        return False
    return _is_card(digits)


CARD = Detector("card", _CARD_PATTERN, _cards)


# The registry (ISO 13616, as stdnum has it): how a number goes on after its country and check digits.
_PART = re.compile(r"(\d+)!([nac])")
_KINDS = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
_REGISTRY = {
    country: _PART.findall(structure)
    for country in map("".join, itertools.product(string.ascii_uppercase, repeat=2))
    if (structure := numdb.get("iban").info(country)[0][1].get("bban"))
}
_IBAN_LENGTHS = {country.encode(): 4 + sum(int(n) for n, _ in parts) for country, parts in _REGISTRY.items()}
_BBANS = {
    country.encode(): re.compile("".join(f"{_KINDS[kind]}{{{n}}}" for n, kind in parts).encode())
    for country, parts in _REGISTRY.items()
}
_IBAN_COUNTRIES = "|".join(_REGISTRY)
_IBAN = re.compile(rb"(?<![0-9A-Za-z_])([A-Za-z]{2})[0-9]{2}")
_VALUES_OF_LETTERS = str.maketrans({letter: str(10 + i) for i, letter in enumerate(string.ascii_uppercase)})


def _ibans(text: bytes) -> list[Range]:
    found: list[Range] = []
    done = 0
    for match in _IBAN.finditer(text):
        start = match.start()
        size = _IBAN_LENGTHS.get(match[1].upper())
        if size is None or start < done:
            continue
        for end in (start + size, start + size + (size - 1) // 4):  # in one piece, or in fours
            if end <= len(text) and not (end < len(text) and text[end] in WORD) and _is_iban(text[start:end]):
                found.append(Range(start, end))
                done = end
                break
    return found


def _is_iban(candidate: bytes) -> bool:
    """Check an IBAN: of one case, in one piece or in fours, in lower case without dashes, with its check digits. Cheap
    questions come first: a text may be made of what only begins like an IBAN."""
    upper = candidate.upper()
    if upper != candidate and (candidate.lower() != candidate or b"-" in candidate):
        return False
    compact = upper.replace(b"-", b"").replace(b" ", b"")
    if len(compact) != len(candidate) and any(candidate[i] not in b" -" for i in range(4, len(candidate), 5)):
        return False
    bban = _BBANS[compact[:2]].fullmatch(compact, 4)
    if bban is None or int((bban[0] + compact[:4]).decode().translate(_VALUES_OF_LETTERS)) % 97 != 1:
        return False
    return stdnum_iban.is_valid(compact.decode(), check_country=False)


# In lower case without dashes: hexadecimal ids have these.
IBAN = Detector(
    "iban",
    rf"\b(?:{_IBAN_COUNTRIES})[0-9]{{2}}[ -]?[A-Z0-9]{{4}}[ -]?[A-Z0-9]{{4}}[ -]?[A-Z0-9]{{3}}"
    rf"|\b(?i:{_IBAN_COUNTRIES})[0-9]{{2}} ?[a-z0-9]{{4}} ?[a-z0-9]{{4}} ?[a-z0-9]{{3}}",
    _ibans,
)


_SSN = regex(r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b")


def _ssns(text: bytes) -> list[Range]:
    """Find social security numbers, with their dashes only: nine bare digits are more often something else."""
    found = []
    for match in _SSN.finditer(text):
        start, end = match.span()
        longer = text[start - 1 : start] in (b"-", b".") or (
            text[end : end + 1] == b"-" and text[end + 1 : end + 2].isalnum()
        )
        if not longer and stdnum_ssn.is_valid(match.group().decode("ascii")):
            found.append(Range(start, end))
    return found


SSN = Detector("ssn", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", _ssns)


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
