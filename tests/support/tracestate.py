"""Reference for `ot=th` in `tracestate`: how it is read, and the bytes it is rewritten to; slow and obvious.

Reading
  The value is cut at every `,`; spaces and tabs are stripped from both ends of each piece. A piece is a *member* if it
  is `key=value` as W3C Trace Context Level 2 has it: the key is one of [a-z0-9] followed by up to 255 of [a-z0-9_-*/@];
  the value is 1 to 256 bytes of 0x20-0x7e without `,` and `=`. Any other piece (empty ones, too) is as if it were not
  there; it does not spoil its neighbours. Only pieces that end within the first 512 bytes are read, and of those that
  are not empty the first 32. Of several members with the key `ot` the first counts.
  The value of `ot` is cut at every `;`, with nothing stripped. A piece is a *sub-member* if it is `key:value` as
  OpenTelemetry has it: the key one of [a-z] followed by any number of [a-z0-9], the value any number (none, too) of
  [A-Za-z0-9._-]; and besides, if the key is `th`, the value is 1 to 14, if it is `rv`, exactly 14 lower-case hex
  digits. Any other piece is as if it were not there. Of several `th` the first counts; so with `rv`.
  The threshold is the value of `th` filled up with zeros on the right to 14 digits, the randomness that of `rv`.

Rewriting, of a kept span; R is the randomness of its trace, T the threshold of the decision, `own` the span's threshold
  own present, R < own   -> inconsistent: `th` is erased, T is not written
  T = 0                  -> untouched, byte for byte
  own present, own >= T  -> untouched, byte for byte
  otherwise              -> `th` becomes T
  `th` is written as 14 hex digits without the zeros on the right.
  Whatever is written is built anew, so that it is always valid:
  - `ot` comes first, then the other members in their order, joined by `,`. Members beyond the 32nd are dropped. Further
    `ot` members are dropped. (Other keys that occur twice stay so.)
  - the value of `ot` is `th:...` (unless erased), then the other sub-members in their order, joined by `;`; further
    `th` and `rv` are dropped. If that is longer than 256 bytes, as many sub-members stay, counted from the left, as fit
    together with `th` and `rv`; `rv` always stays, at its place.
  - without any sub-member left (erasing only) there is no `ot`; without any member left the tracestate is empty.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MEMBER = re.compile(rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256})")
SUB_MEMBER = re.compile(rb"([a-z][a-z0-9]*):([A-Za-z0-9._\-]*)")
THRESHOLD = re.compile(rb"[0-9a-f]{1,14}")
RANDOMNESS = re.compile(rb"[0-9a-f]{14}")

MAX_MEMBERS = 32
MAX_VALUE = 256
MAX_BYTES = 512


class Parsed(NamedTuple):
    """`threshold`, `randomness`: None where absent. `subs`: of `ot`, but for `th`. `members`: all but `ot`."""

    threshold: int | None
    randomness: int | None
    subs: tuple[bytes, ...]
    members: tuple[bytes, ...]


def parse(tracestate: bytes) -> Parsed:
    ot = None
    members = []
    end = 0
    left = MAX_MEMBERS
    for piece in tracestate.split(b","):
        end += len(piece)
        piece = piece.strip(b" \t")
        if end > MAX_BYTES or not left:
            break
        end += 1
        left -= bool(piece)
        match = MEMBER.fullmatch(piece)
        if match is None:
            continue
        if match[1] != b"ot":
            members.append(piece)
        elif ot is None:
            ot = match[2]
    threshold = randomness = None
    subs = []
    for piece in (ot or b"").split(b";"):
        match = SUB_MEMBER.fullmatch(piece)
        if match is None:
            continue
        if match[1] == b"th":
            if threshold is None and THRESHOLD.fullmatch(match[2]):
                threshold = int(match[2].ljust(14, b"0"), 16)
        elif match[1] == b"rv":
            if randomness is None and RANDOMNESS.fullmatch(match[2]):
                randomness = int(match[2], 16)
                subs.append(piece)
        else:
            subs.append(piece)
    return Parsed(threshold, randomness, tuple(subs), tuple(members))


def hex_threshold(threshold: int) -> str:
    """Write a threshold as the value of `th`."""
    return f"{threshold:014x}".rstrip("0") or "0"


def leaving_threshold(tracestate: bytes, randomness: int, threshold: int) -> int | None:
    """Return the threshold that the rewritten tracestate says (0: no `th`); None: it had to be erased."""
    own = parse(tracestate).threshold
    if own is not None and randomness < own:
        return None
    return max(own or 0, threshold)


def rewrite(tracestate: bytes, randomness: int, threshold: int) -> bytes:
    parsed = parse(tracestate)
    own = parsed.threshold
    if own is not None and randomness < own:
        th = []
    elif threshold == 0 or (own is not None and own >= threshold):
        return tracestate
    else:
        th = [b"th:" + hex_threshold(threshold).encode()]
    subs = fitting(th, list(parsed.subs))
    members = list(parsed.members)
    if subs:
        members.insert(0, b"ot=" + b";".join(subs))
    return b",".join(members[:MAX_MEMBERS])


def fitting(th: list[bytes], subs: list[bytes]) -> list[bytes]:
    while len(b";".join(th + subs)) > MAX_VALUE:
        last = max(i for i, sub in enumerate(subs) if not sub.startswith(b"rv:"))
        del subs[last]
    return th + subs
