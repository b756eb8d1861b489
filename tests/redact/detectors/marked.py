"""Texts in which what is to be found stands between ⟦ and ⟧."""

from __future__ import annotations

import re

from sampler_proxy.redact.detectors.catalogue import Range


def unmarked(text: str) -> tuple[bytes, list[Range]]:
    """The text without marks, and what stood between them, in bytes."""
    ranges = []
    plain = b""
    for piece in re.split("(⟦.*?⟧)", text, flags=re.DOTALL):
        inside = piece.startswith("⟦")
        encoded = piece.strip("⟦⟧").encode() if inside else piece.encode()
        if inside:
            ranges.append(Range(len(plain), len(plain) + len(encoded)))
        plain += encoded
    return plain, ranges
