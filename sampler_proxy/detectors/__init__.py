"""Finds secrets in texts by their form and their check digits; no I/O, no clock, and no memory of what it saw.

Texts are bytes as they came off the wire: usually UTF-8, which nobody vouches for. The way in is two steps, since
nearly all texts hold nothing: `sieve` asks one RE2 set about many values joined by `SEPARATOR` which detectors could
find something in them; only these are asked for ranges, value by value.

Presets:

    common   card iban ssn email jwt bearer basic aws_key gcp_key azure_key github_token slack_token stripe_key
             private_key url_credentials url_secrets
    strict   the same, and ipv4 ipv6: addresses are personal data, but a trace without its peers is a poorer one

`phone` is in neither: few countries put a check digit into a phone number, so ids are taken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sampler_proxy.detectors._types import Detector, Range

__all__ = ["COMMON", "DETECTORS", "SEPARATOR", "STRICT", "Detector", "Range", "custom", "sieve"]

SEPARATOR = b"\n\x00\n"
"""Goes between joined values, and nowhere else (not before the first, not after the last). The line breaks let `^` and
`$` see the edges of a value, the zero byte is in none of our patterns."""

COMMON: tuple[str, ...] = (
    "card",
    "iban",
    "ssn",
    "email",
    "jwt",
    "bearer",
    "basic",
    "aws_key",
    "gcp_key",
    "azure_key",
    "github_token",
    "slack_token",
    "stripe_key",
    "private_key",
    "url_credentials",
    "url_secrets",
)
STRICT: tuple[str, ...] = (*COMMON, "ipv4", "ipv6")

DETECTORS: Mapping[str, Detector] = {}
"""All of ours, by name: those of the presets, and `phone`."""


def custom(name: str, pattern: str) -> Detector:
    """A detector for what a user's pattern (RE2 syntax, over characters; the dot matches line breaks) matches, or for
    its first group where it has one (a match in which that group took no part counts whole).

    Raises ValueError with a message that says what is wrong and what to write. Empty matches find nothing.
    """
    raise NotImplementedError


def sieve(detectors: Sequence[Detector]) -> Callable[[bytes], list[int]]:
    """What tells, of a text or of many joined by `SEPARATOR`, which of `detectors` (as ascending indices) may find
    something in it. The others find nothing in any of the joined values.

    Raises ValueError where the patterns together are too large to compile.
    """
    raise NotImplementedError
