"""What several detectors find in one text, said plainly: beside it the shortcuts of `redact/values.py` can be
judged."""

from __future__ import annotations

from collections.abc import Sequence

from sampler_proxy.redact.detectors.catalogue import Detector, Range

ROUNDS = 8


def find_all(detectors: Sequence[Detector], text: bytes) -> list[tuple[Range, int]]:
    """Sorted, disjoint ranges, each with the index of its detector; overlapping ones become one range, which goes to
    the first of their detectors in `detectors`.

    Finds more than the detectors one by one where secrets touch (`4111111111111111AKIA...`): each hides from the other
    detector where the other begins. So it looks again with what was found blotted out, up to `ROUNDS` times.
    """
    found: list[tuple[Range, int]] = []
    for _ in range(ROUNDS):
        seen = len(found)
        for index, detector in enumerate(detectors):
            found += ((one, index) for one in detector.find(text) if text[one.start : one.end].strip(b"*"))
        if len(found) == seen:
            break
        blotted = bytearray(text)
        for (start, end), _ in found[seen:]:
            blotted[start:end] = b"*" * (end - start)
        text = bytes(blotted)
    merged: list[tuple[Range, int]] = []
    for (start, end), index in sorted(found):
        if merged and start < merged[-1][0].end:
            (first, last), other = merged[-1]
            merged[-1] = Range(first, max(last, end)), min(index, other)
        else:
            merged.append((Range(start, end), index))
    return merged
