"""Detects keys that providers issue in a form of their own."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from sampler_proxy.redact.detectors.types import Detector, Range
from sampler_proxy.redact.regexes import regex


def _groups(pattern: str, check: Callable[[bytes], bool] | None = None) -> Callable[[bytes], list[Range]]:
    """Make a `find` that returns the one group that took part in each match."""
    compiled = regex(pattern)

    def find(text: bytes) -> list[Range]:
        found = []
        for match in compiled.finditer(text):
            group = match.lastindex
            assert group is not None
            if check is None or check(match.group(group)):
                found.append(Range(*match.span(group)))
        return found

    return find


# Access key ids (AKIA, temporary ones ASIA, ...), secret keys where a name announces one, session tokens, Bedrock keys.
AWS_KEY = Detector(
    "aws_key",
    r"\b(?:A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{4}|ABSK[A-Za-z0-9+/]{4}|FwoGZXIvYXdz|IQoJb3JpZ2lu)|(?i)secret_?access_?key",
    _groups(
        r"\b(A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16})\b|\b(ABSK[A-Za-z0-9+/]{100,}={0,2})"
        r"|\b((?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/%]{80,}={0,2})"
        r"""|(?i:secret_?access_?key)[\\"']{0,3}\s{0,3}(?:[:=]|=>|%3D)\s{0,3}[\\"']{0,3}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"""
    ),
)

# API keys, OAuth access tokens, client secrets, refresh tokens.
GCP_KEY = Detector(
    "gcp_key",
    r"\b(?:AIza[0-9A-Za-z_-]{4}|ya29\.[0-9A-Za-z_.-]{4}|GOCSPX-|1//0[0-9A-Za-z_-]{4})",
    _groups(
        r"\b(AIza[0-9A-Za-z_-]{35})(?:[^0-9A-Za-z_-]|\z)|\b(ya29\.[0-9A-Za-z_.-]{20,})|\b(GOCSPX-[0-9A-Za-z_-]{28})(?:[^0-9A-Za-z_-]|\z)"
        r"|\b(1//0[0-9A-Za-z_-]{40,})"
    ),
)

# Keys with a signature inside (storage, Cosmos, Service Bus, Event Hubs, search, functions, cache, registries and the
# newer common form), keys that a connection string announces, client secrets of Entra ID.
AZURE_KEY = Detector(
    "azure_key",
    r"(?:\+A(?:St|Ba|Sb|Eh|Rm|MC|Do)|ACDb|AzCa|AzSe|AzFu|\+ACR|APIM|JQQJ9)[A-Za-z0-9+/=_-]{5}"
    r"|(?i)(?:account|access|shared)key=[a-z0-9+/]|[0-9]Q~[A-Za-z0-9_~.-]{4}",
    _groups(
        r"([A-Za-z0-9+/]{76}(?:\+A(?:St|Ba|MC)|ACDb|APIM)[A-Za-z0-9+/]{5}[AQgw]==)"
        r"|([A-Za-z0-9+/]{33}(?:\+A(?:Sb|Eh|Rm|MC|Do)|AzCa|APIM)[A-Za-z0-9+/]{5}[A-Za-z0-9+/]=)"
        r"|\b([A-Za-z0-9]{42}AzSe[A-D][A-Za-z0-9]{5})\b|([A-Za-z0-9_-]{44}AzFu[A-Za-z0-9_-]{5}[AQgw]==)"
        r"|([A-Za-z0-9+/]{42}\+ACR[A-D][A-Za-z0-9]{5})|\b([A-Za-z0-9]{52}JQQJ9[9D][A-Za-z0-9]{26})\b"
        r"|(?i:(?:account|access|shared)key)=([A-Za-z0-9+/]{40,88}={1,2})"
        r"|(?:\A|[^A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:[^A-Za-z0-9_~.-]|\z)"
    ),
)


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _crc(body: bytes) -> bytes:
    """Compute the six digits at the end of a GitHub token: CRC-32 of its random part, in base 62."""
    rest = zlib.crc32(body)
    digits = ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = _BASE62[digit] + digits
    return digits.encode()


def _is_github_token(token: bytes) -> bool:
    """Check a GitHub token. Those of 36 characters carry the checksum; the longer forms (refresh tokens, fine-grained
    ones) do not, or nobody says how."""
    body = token[4:]
    return len(body) != 36 or token.startswith(b"gith") or _crc(body[:30]) == body[30:]


GITHUB_TOKEN = Detector(
    "github_token",
    r"\b(?:gh[pousr]_[A-Za-z0-9]{4}|github_pat_)",
    _groups(r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b", _is_github_token),
)

# Tokens of bots, users, apps and configuration, and the secret path of a webhook.
SLACK_TOKEN = Detector(
    "slack_token",
    r"\bx(?:ox[a-z]|app)[.-][0-9A-Za-z%]|hooks\.slack\.com/(?:services|workflows|triggers)/",
    _groups(
        r"\b(xox[a-z](?:\.xox[a-z])?-(?:[0-9A-Za-z]+-){0,5}[0-9A-Za-z%+/=]{10,})|\b(xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]{16,})"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9]{8,}/[A-Za-z0-9/]{16,})",
        lambda token: any(0x30 <= byte <= 0x39 for byte in token),
    ),
)

# Secret and restricted keys, of tests too, and the secrets of webhooks. Publishable keys (pk_) are none.
STRIPE_KEY = Detector(
    "stripe_key",
    r"\b(?:[rs]k_(?:live|test)|whsec)_[0-9A-Za-z]",
    _groups(r"\b([rs]k_(?:live|test)_[0-9A-Za-z]{16,247})|\b(whsec_[0-9A-Za-z+/]{24,}={0,2})"),
)
