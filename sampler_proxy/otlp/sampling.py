"""Computes thresholds, adjusted counts and `ot=th` in a tracestate: the arithmetic of consistent probability sampling.

Source: OpenTelemetry specification, "TraceState: Probability Sampling" and "TraceState Handling"; W3C Trace Context,
section 3.3. A threshold T and a randomness R are 56-bit integers; a trace is kept if and only if R >= T. `NEVER` lies
above every R.
"""

from __future__ import annotations

import math
import re

ALWAYS = 0
NEVER = 1 << 56

_DIGITS = 14
_PRECISION = 4

_MAX_MEMBERS = 32
_MAX_BYTES = 512
_MAX_VALUE_BYTES = 256
_MEMBER = re.compile(rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256})")
_SUB_MEMBER = re.compile(rb"([a-z][a-z0-9]*):([A-Za-z0-9._\-]*)")
_THRESHOLD = re.compile(rb"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(rb"[0-9a-f]{14}")


def threshold_of(probability: float) -> int:
    """Return the threshold that keeps a trace with this probability, 0 <= p <= 1; NEVER for 0.

    (1 - p) * 2^56, rounded to 4 hexadecimal digits, and one more for each digit by which p or 1 - p falls short of
    1/16, so that the relative error stays small. A probability between 0 and 2^-56 counts as 2^-56. Written a second
    time, native, in rules/rate.pyx; tests/rules/test_rate_contract.py asserts them equal.
    """
    if probability <= 0.0:
        return NEVER
    if probability >= 1.0:
        return ALWAYS
    _, exponent = math.frexp(probability)
    _, exponent_of_rest = math.frexp(1.0 - probability)
    digits = min(_DIGITS, _PRECISION + max(-exponent, -exponent_of_rest, 0) // 4)
    threshold = NEVER - max(1, math.floor(probability * NEVER + 0.5))
    shift = 4 * (_DIGITS - digits)
    if shift:
        threshold = (threshold + (1 << (shift - 1))) >> shift << shift
    return threshold


def probability_of(threshold: int) -> float:
    """Return the probability with which a threshold keeps a trace."""
    return (NEVER - threshold) / NEVER


def adjusted_count(threshold: int) -> float:
    """Return how many spans one kept span stands for; `threshold` < NEVER."""
    return NEVER / (NEVER - threshold)


def encode_threshold(threshold: int) -> str:
    """Encode a threshold as the value of `th`: hexadecimal, without the zeros at its end; "0" for ALWAYS."""
    return f"{threshold:014x}".rstrip("0") or "0"


def shown_threshold(threshold: int) -> str | None:
    """Return the value of `th` with which a kept span leaves; None for ALWAYS, and for NEVER, of which none leaves."""
    return encode_threshold(threshold) if ALWAYS < threshold < NEVER else None


def rewrite_tracestate(tracestate: bytes, randomness: int, threshold: int) -> bytes:
    """Rewrite the tracestate of a kept span, given its trace's randomness and the decision's threshold.

    With `own` the threshold that came with the span: where own > randomness the span is inconsistent (it could not have
    been kept), and `th` is erased; where the threshold is 0, or own >= threshold, nothing changes; else `th` becomes
    the threshold. A tracestate that changes is built anew, so that it is always valid: `ot` first, `th` first in it;
    the other members and sub-members in their order, as far as the limits of the specifications allow (`rv` always
    stays); what is malformed is left out, and so is what is not among the first 32 members within 512 bytes: section
    3.3 has a tracestate that is too long cut at its end.
    """
    own: int | None = None
    ot: bytes | None = None
    members: list[bytes] = []
    for member in _read_members(tracestate):
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        if match[1] != b"ot":
            members.append(member)
        elif ot is None:
            ot = match[2]
    subs: list[bytes] = []
    has_randomness = False
    for piece in (ot or b"").split(b";"):
        match = _SUB_MEMBER.fullmatch(piece)
        if match is None:
            continue
        if match[1] == b"th":
            if own is None and _THRESHOLD.fullmatch(match[2]):
                own = int(match[2].ljust(_DIGITS, b"0"), 16)
        elif match[1] == b"rv":
            if not has_randomness and _RANDOMNESS.fullmatch(match[2]):
                has_randomness = True
                subs.append(piece)
        else:
            subs.append(piece)
    if own is not None and own > randomness:
        written = []
    elif threshold == ALWAYS or (own is not None and own >= threshold):
        return tracestate
    else:
        written = [b"th:" + encode_threshold(threshold).encode()]
    subs = _within_limit(written, subs)
    if subs:
        members.insert(0, b"ot=" + b";".join(subs))
    return b",".join(members[:_MAX_MEMBERS])


def _read_members(tracestate: bytes) -> list[bytes]:
    """Return the first 32 members that end within the first 512 bytes, valid or not, empty ones left aside."""
    pieces = tracestate[: _MAX_BYTES + 1].split(b",")
    if len(tracestate) > _MAX_BYTES:
        pieces.pop()  # it does not end there; b"" where a comma does
    return [member for piece in pieces if (member := piece.strip(b" \t"))][:_MAX_MEMBERS]


def _within_limit(written: list[bytes], subs: list[bytes]) -> list[bytes]:
    """Return the sub-members `written`, then as many of `subs` from the left as fit beside `rv`."""
    size = sum(len(sub) + 1 for sub in written + subs) - 1
    kept = list(subs)
    for index in range(len(subs) - 1, -1, -1):
        if size <= _MAX_VALUE_BYTES:
            break
        if not subs[index].startswith(b"rv:"):
            size -= len(subs[index]) + 1
            del kept[index]
    return written + kept
