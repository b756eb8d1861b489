"""Numbers with units, as people write them in the configuration: text in, exact integers (or a probability) out, and
back.

Durations are nanoseconds, sizes bytes, both below 2**63; a probability lies in [0, 1] and is 0 or at least 2**-56, the
smallest that a sampling threshold can express. A `ValueError` says what to write instead and never repeats the text,
which may have come from the environment. What `format_*` gives is what `parse_*` reads back as the same value.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

# Those of Go's time.ParseDuration; both spellings of the micro sign.
_DURATION_UNITS = {
    "ns": 1,
    "us": MICROSECOND,
    "µs": MICROSECOND,
    "μs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": TIB,
}

# Digits are bounded so that a hostile number costs nothing; [0-9], since \d takes every script's digits.
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,60})?"
_DURATION_PART = re.compile(rf"({_NUMBER})({'|'.join(sorted(_DURATION_UNITS, key=len, reverse=True))})")
DURATION_PATTERN = rf"(?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+"
SIZE_PATTERN = rf"{_NUMBER} ?(?:B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?"
PERCENTAGE_PATTERN = rf"{_NUMBER} ?%"

_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)")
_PERCENTAGE = re.compile(rf"({_NUMBER}) ?%")

_LIMIT = 1 << 63
_SMALLEST_PROBABILITY = Fraction(1, 1 << 56)


def parse_duration_ns(text: str) -> int:
    """`30s`, `500ms`, `1h30m`, `1.5s`; a unit is required, also with 0. What is finer than a nanosecond is cut off."""
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration with its unit: write for example 30s, 500ms or 1h30m")
    total = sum((Fraction(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text)), Fraction())
    if total >= _LIMIT:
        raise ValueError("too long: a duration is at most 292 years")
    return int(total)


def format_duration(ns: int) -> str:
    """In the largest unit that needs no fraction."""
    if ns:
        for unit, size in (("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND), ("us", MICROSECOND)):
            if ns % size == 0:
                return f"{ns // size}{unit}"
        return f"{ns}ns"
    return "0s"


def parse_size(text: str) -> int:
    """`1GiB`, `512MB`, `1.5MiB`, or a plain number of bytes. KiB and above are powers of 1024, kB and above of 1000."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _SIZE_UNITS:
        raise ValueError("not a size: write for example 1GiB, 512MB or a number of bytes")
    size = Fraction(match[1]) * _SIZE_UNITS[match[2]]
    if size.denominator != 1:
        raise ValueError("not a whole number of bytes: write for example 1GiB, 512MB or a number of bytes")
    if size >= _LIMIT:
        raise ValueError("too large: a size is below 8388608TiB")
    return int(size)


def format_size(size: int) -> str:
    """In the largest binary unit that needs no fraction."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_probability(text: str) -> float:
    """`all`, `none` or a percentage."""
    if text in ("all", "none"):
        return float(text == "all")
    match = _PERCENTAGE.fullmatch(text)
    if not match:
        raise ValueError("write all, none or a percentage such as 1% or 0.01%")
    probability = Fraction(match[1]) / 100
    if probability > 1:
        raise ValueError("more than 100%: write all, none or a percentage from 0% to 100%")
    if 0 < probability < _SMALLEST_PROBABILITY:
        raise ValueError("smaller than one in 2^56, which sampling cannot express: write a larger percentage, or none")
    return float(probability)


def format_probability(probability: float) -> str:
    if probability in (0, 1):
        return "all" if probability else "none"
    return f"{(Decimal(repr(probability)) * 100).normalize():f}%"
