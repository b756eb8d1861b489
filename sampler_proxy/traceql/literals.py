"""Reads constants from their text, and folds arithmetic between them, both as Go (and so Tempo) does.

Where Tempo is odd the plain thing is done: `2 ^ 3` is 8 (Tempo folds integers as 3 ^ 2), and an overflow of 64 bits or
a division by zero is refused.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from fractions import Fraction

from sampler_proxy import units
from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.ast import NUMERIC, Literal, Type

MIN_INT, MAX_INT = -(2**63), 2**63 - 1

_INTEGER = re.compile(r"[0-9]+", re.ASCII)
_DECIMAL = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
# Go's durations, any order and fractions; and Prometheus', in this order and whole, which adds days, weeks and years.
_GO_DURATION = re.compile(r"(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_LONG_DURATION = re.compile(r"(?:[0-9]+y)?(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?(?:[0-9]+ms)?")
_DURATION_PART = re.compile(r"([0-9.]+)([^0-9.]+)")
_MINUTE = 60 * 10**9
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": _MINUTE,
    "h": 60 * _MINUTE,
    "d": 24 * 60 * _MINUTE,
    "w": 7 * 24 * 60 * _MINUTE,
    "y": 365 * 24 * 60 * _MINUTE,
}
_LONGEST_NUMBER = 400  # characters; more cannot be in range, and Python takes quadratic time over very long ones

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.DOTALL
)
_SIMPLE_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 0x5C, '"': 0x22}


def number(text: str, start: int) -> Literal:
    """Read an integer, a decimal number or a duration (ns). Raises `TraceQLError`."""
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return _in_range(
                int(text), Type.INT, start, "write minInt for the smallest integer" if int(text) == 2**63 else ""
            )
        if _DECIMAL.fullmatch(text):
            value = float(text)
            if math.isinf(value):
                raise TraceQLError("this number is too large for a double", start)
            return Literal(start, Type.FLOAT, value)
        if _GO_DURATION.fullmatch(text) or _LONG_DURATION.fullmatch(text):
            parts = _DURATION_PART.findall(text)
            return _in_range(sum(int(Fraction(count) * _UNITS[unit]) for count, unit in parts), Type.DURATION, start)
    if re.fullmatch(r"[1-5][xX]{2}", text):
        raise TraceQLError("write a range, as in span.x >= 500 && span.x < 600", start)
    with suppress(ValueError):
        raise TraceQLError(f"sizes have no unit here: write {units.parse_size(text)}", start)
    raise TraceQLError(
        f"{shorten(text)} is neither a number nor a duration: write 200, 0.5, 100ms or 1h30m "
        "(units are ns us ms s m h, and for whole numbers d w y)",
        start,
    )


def is_number(text: str) -> bool:
    """Tell whether a text is an integer, a decimal number or a duration, in range."""
    try:
        number(text, 0)
    except TraceQLError:
        return False
    return True


def quoted(text: str, start: int) -> bytes:
    """Decode a string that still has its quotes. Raises `TraceQLError`."""
    if text[0] == "`":
        return text[1:-1].replace("\r", "").encode()
    parts = []
    end = 1
    for match in _ESCAPE.finditer(text, 1, len(text) - 1):
        parts.append(text[end : match.start()].encode())
        parts.append(_escape(match, start + match.start()))
        end = match.end()
    parts.append(text[end:-1].encode())
    return b"".join(parts)


def _escape(match: re.Match[str], offset: int) -> bytes:
    simple, hexadecimal, octal, short, long, _ = match.groups()
    if simple:
        return bytes((_SIMPLE_ESCAPES[simple],))
    if hexadecimal:
        return bytes((int(hexadecimal, 16),))
    if octal:
        return bytes((int(octal, 8),))
    if short or long:
        code = int(short or long, 16)
        if code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
            return chr(code).encode()
        raise TraceQLError("this escape is not a character", offset)
    raise TraceQLError(
        "unknown escape: write \\\\ for a backslash, or put the string in back quotes, where nothing is escaped", offset
    )


def negate(literal: Literal, start: int) -> Literal:
    """Fold a unary minus at `start`. Raises `TraceQLError` where the result does not fit."""
    assert literal.type in NUMERIC
    assert isinstance(literal.value, int | float)
    if isinstance(literal.value, int):
        return _in_range(-literal.value, literal.type, start)
    return Literal(start, literal.type, -literal.value)


def arithmetic(op: str, left: Literal, right: Literal) -> Literal:
    """Fold one of `+ - * / % ^`. Integers stay integers (division goes towards zero, the remainder has the sign of the
    left side); anything else is done in doubles, durations as nanoseconds. Raises `TraceQLError`."""
    a, b, start = left.value, right.value, left.start
    assert isinstance(a, int | float)
    assert isinstance(b, int | float)
    if op in ("/", "%") and b == 0:
        raise TraceQLError("this divides by zero", right.start)
    try:
        if left.type is Type.INT and right.type is Type.INT:
            return _in_range(_integers(op, int(a), int(b)), Type.INT, start)
        value = _doubles(op, float(a), float(b))
    except (OverflowError, ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise TraceQLError("the result of this is not a finite number", start)
    return Literal(start, Type.FLOAT, value)


def _integers(op: str, a: int, b: int) -> int:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        case "%":
            return abs(a) % abs(b) * (-1 if a < 0 else 1)
    estimate = math.pow(a, b)  # first in doubles, so that 10 ^ 1000000000 is never computed; overflow raises
    if b < 0 or abs(estimate) > 2.0**64:
        return int(estimate)
    return int(a**b)


def _doubles(op: str, a: float, b: float) -> float:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "%":
            return math.fmod(a, b)
    return math.pow(a, b)


def _in_range(value: int, kind: Type, start: int, hint: str = "") -> Literal:
    if MIN_INT <= value <= MAX_INT:
        return Literal(start, kind, value)
    raise TraceQLError(f"{kind.value} has 64 bits, and this does not fit" + (f": {hint}" if hint else ""), start)


def shorten(text: str) -> str:
    """Cut a text to 40 characters, for messages."""
    return str(text) if len(text) <= 40 else text[:37] + "..."
