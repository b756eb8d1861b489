"""Parses and formats numbers with units, as people write them in the configuration.

Durations are nanoseconds, sizes bytes, both below 2**63; a probability lies in [0, 1] and is 0 or at least 2**-56, the
smallest that a sampling threshold can express. A `ValueError` says what to write instead and never repeats the text,
which may have come from the environment. `parse_*` reads the text of `format_*` back as the same value.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

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

# Other words for a unit, in lower case -> what is to be written. They only serve the refusals.
_MEANT_DURATIONS = {
    "n": "ns", "nsec": "ns", "nsecs": "ns", "nanos": "ns", "nanosecond": "ns", "nanoseconds": "ns",
    "u": "us", "usec": "us", "usecs": "us", "micros": "us", "microsecond": "us", "microseconds": "us",
    "msec": "ms", "msecs": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "d": "h", "day": "h", "days": "h", "w": "h", "week": "h", "weeks": "h",
}  # fmt: skip
_EXAMPLES = {"ns": "500ns", "us": "500us", "ms": "500ms", "s": "30s", "m": "10m", "h": "24h"}
_MEANT_SIZES = {
    "k": "kB", "kilo": "kB", "m": "MB", "mega": "MB", "g": "GB", "giga": "GB", "t": "TB", "tera": "TB",
    "ki": "KiB", "kibi": "KiB", "mi": "MiB", "mebi": "MiB", "gi": "GiB", "gibi": "GiB", "ti": "TiB", "tebi": "TiB",
}  # fmt: skip
_MEANT_PERIODS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "m": "min", "mins": "min", "minute": "min", "minutes": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
}  # fmt: skip

# Digits are bounded so that a hostile number costs nothing; [0-9], since \d takes every script's digits.
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,60})?"
_DURATION_PART = re.compile(rf"({_NUMBER})({'|'.join(sorted(_DURATION_UNITS, key=len, reverse=True))})")
DURATION_PATTERN = rf"(?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+"
SIZE_PATTERN = rf"{_NUMBER} ?(?:B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?"
PERCENTAGE_PATTERN = rf"{_NUMBER} ?%"

RATE_PATTERN = rf"{_NUMBER} ?(?:traces?|spans?|bytes|[kKMGT]i?B)/(?:s|min|h)"
FREQUENCY_PATTERN = rf"{_NUMBER}/(?:s|min|h)"
SIZE_RATE_PATTERN = rf"{_NUMBER} ?(?:[kKMGT]i?B)?/(?:s|min|h)"

_RATE = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)/([a-z]+)")
_FREQUENCY = re.compile(rf"({_NUMBER})/([a-z]+)")
_PERIODS = {"s": 1, "min": 60, "h": 3600}
_COUNTED = {"trace": "traces", "traces": "traces", "span": "spans", "spans": "spans", "bytes": "bytes"}
_SMALLEST_RATE = Fraction(1, 10**6)
_LARGEST_RATE = 10**15

_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)")
_PERCENTAGE = re.compile(rf"({_NUMBER}) ?%")

_LIMIT = 1 << 63
_SMALLEST_PROBABILITY = Fraction(1, 1 << 56)


def parse_duration_ns(text: str) -> int:
    """Parse `30s`, `500ms`, `1h30m`, `1.5s`; a unit is required, even with 0. Fractions of a nanosecond are cut off."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"not a duration with its unit: {_duration_meant(text)}")
    total = sum((Fraction(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text)), Fraction())
    if total >= _LIMIT:
        raise ValueError("too long: a duration is at most 292 years")
    return int(total)


def _duration_meant(text: str) -> str:
    """Say what to write instead of a duration that is none, in units of ours, never in words of the text."""
    whole = re.fullmatch(rf"(?: *{_NUMBER} *[A-Za-zµμ]+)*(?: *{_NUMBER})? *", text)
    parts = re.findall(r"[0-9.]+ *([A-Za-zµμ]*)", text) if whole else []
    for unit in parts:
        lower = unit.lower()
        known = unit if unit in _DURATION_UNITS else lower if lower in _DURATION_UNITS else _MEANT_DURATIONS.get(lower)
        if known is not None and unit != known:
            return f"write for example {_EXAMPLES[known.replace('μ', 'u').replace('µ', 'u')]}"
    if parts and "" not in parts and " " in text:
        return "write it without spaces, for example 30s, 500ms or 1h30m"
    return "write for example 30s, 500ms or 1h30m"


def _size_meant(unit: str) -> str:
    """Return examples in the units that another spelling of a unit most likely means; empty where nobody can know."""
    lower = unit.lower()
    prefix = _MEANT_SIZES.get(re.sub(r"b(?:ytes?|its?)?$", "", lower))
    if prefix is None:
        return ""
    return f"1{prefix}" if "i" in prefix else f"1{prefix} or 1{prefix[0].upper()}iB"


def format_duration(ns: int) -> str:
    """Format in the largest unit that needs no fraction."""
    if ns:
        for unit, size in (("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND), ("us", MICROSECOND)):
            if ns % size == 0:
                return f"{ns // size}{unit}"
        return f"{ns}ns"
    return "0s"


def parse_size(text: str) -> int:
    """Parse `1GiB`, `512MB`, `1.5MiB` or a number of bytes. KiB and above are powers of 1024, kB and above of 1000."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _SIZE_UNITS:
        meant = _size_meant(match[2]) if match else ""
        raise ValueError(f"not a size: write for example {meant or '1GiB, 512MB or a number of bytes'}")
    size = Fraction(match[1]) * _SIZE_UNITS[match[2]]
    if size.denominator != 1:
        raise ValueError("not a whole number of bytes: write for example 1GiB, 512MB or a number of bytes")
    if size >= _LIMIT:
        raise ValueError("too large: a size is below 8388608TiB")
    return int(size)


def format_size(size: int) -> str:
    """Format in the largest binary unit that needs no fraction."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_probability(text: str, instead: str = "") -> float:
    """Parse `all`, `none` or a percentage. `instead`: what else could be written, for the refusal."""
    if text in ("all", "none"):
        return float(text == "all")
    match = _PERCENTAGE.fullmatch(text)
    if not match:
        if instead:
            raise ValueError(f"write all, none, a percentage such as 1% or 0.01%, {instead}")
        raise ValueError("write all, none or a percentage such as 1% or 0.01%")
    probability = Fraction(match[1]) / 100
    if probability > 1:
        raise ValueError("more than 100%: write all, none or a percentage from 0% to 100%")
    if 0 < probability < _SMALLEST_PROBABILITY:
        raise ValueError("smaller than one in 2^56, which sampling cannot express: write a larger percentage, or none")
    return float(probability)


def format_probability(probability: float) -> str:
    """Format as `all`, `none` or a percentage."""
    if probability in (0, 1):
        return "all" if probability else "none"
    return f"{(Decimal(repr(probability)) * 100).normalize():f}%"


class Rate(NamedTuple):
    """A number of traces, spans or bytes per second."""

    per_second: float
    unit: str  # traces, spans or bytes

    def __str__(self) -> str:
        number, period = _shortest(self.per_second)
        return f"{number} {self.unit}/{period}"


def parse_rate(text: str) -> Rate:
    """Parse `100 traces/s`, `6000 spans/min`, `5MB/s`."""
    match = _RATE.fullmatch(text)
    wanted = "write for example 100 traces/s, 6000 spans/min or 5MB/s"
    if not match or match[3] not in _PERIODS or not (match[2] in _COUNTED or match[2] in _SIZE_UNITS):
        if _PERCENTAGE.fullmatch(text) or text in ("all", "none"):
            raise ValueError("not a rate: a percentage, all or none is written without target, as in keep: 1%")
        meant = _rate_meant(text)
        raise ValueError(f"not a rate: {f'write for example {meant}' if meant else wanted}")
    unit = _COUNTED.get(match[2], "bytes")
    factor = 1 if match[2] in _COUNTED else _SIZE_UNITS[match[2]]
    return Rate(_per_second(Fraction(match[1]) * factor, match[3], wanted), unit)


def parse_frequency(text: str, *, sizes: bool = False) -> float:
    """Parse `5000/s` or `1/min` into a number per second; with `sizes` also `5MB/s` into bytes per second."""
    wanted = "write for example 5MB/s" if sizes else "write for example 100/s or 1/min"
    if sizes and (match := _RATE.fullmatch(text)) and match[2] in _SIZE_UNITS:
        number = Fraction(match[1]) * _SIZE_UNITS[match[2]]
    else:
        match = _FREQUENCY.fullmatch(text)
        number = Fraction(match[1]) if match else Fraction()
    if not match or match[match.lastindex or 0] not in _PERIODS:
        meant = _rate_meant(text, counted=False, sizes=sizes)
        raise ValueError(f"no number per second, minute or hour: {f'write for example {meant}' if meant else wanted}")
    return _per_second(number, match[match.lastindex or 0], wanted)


def _rate_meant(text: str, *, counted: bool = True, sizes: bool = True) -> str:
    """Return an example of the rate that another spelling of unit or period most likely means; empty where nobody can
    know. `counted`: a rate says whether it counts traces, spans or bytes. `sizes`: it may count bytes, in a size."""
    match = re.fullmatch(rf"{_NUMBER} *([A-Za-z]*) *(?:(?:/|per) *([A-Za-z]*))?", text)
    if not match:
        return ""
    unit, written = match[1], (match[2] or "s").lower()
    period = _MEANT_PERIODS.get(written, written)
    if period not in _PERIODS:
        return ""
    if unit.lower() in _COUNTED:
        return f"100 {_COUNTED[unit.lower()]}/{period}" if counted else f"100/{period}"
    if sizes and unit:
        examples = f"5{unit}" if unit in _SIZE_UNITS else _size_meant(unit).replace("1", "5")
        return examples and " or ".join(f"{example}/{period}" for example in examples.split(" or "))
    return "" if unit or counted else f"{'5MB' if sizes else 100}/{period}"


def format_frequency(per_second: float) -> str:
    """Format per second, or per minute or hour where that is much shorter."""
    return "/".join(_shortest(per_second))


def _per_second(number: Fraction, period: str, wanted: str) -> float:
    rate = number / _PERIODS[period]
    if rate > _LARGEST_RATE:
        raise ValueError(f"too large: {wanted}")
    if rate < _SMALLEST_RATE:
        raise ValueError(f"less than once in eleven days: {wanted}")
    return float(rate)


def _shortest(per_second: float) -> tuple[str, str]:
    found = []
    for period, seconds in _PERIODS.items():
        for number in (round(per_second * seconds, 6), per_second * seconds):
            if number / seconds == per_second:
                found.append((f"{Decimal(repr(number)).normalize():f}", period))
    return min(found, key=lambda one: max(len(one[0]), 6))
