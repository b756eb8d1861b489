"""Detects keys that providers issue in a form of their own."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from sampler_proxy.redact.detectors.providers import looks_random
from sampler_proxy.redact.detectors.types import Detector, Range, Sign, signs, until_settled
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
# What begins so is a key, whatever stands before it: an underscore, the colour of a terminal.
AWS_KEY = Detector(
    "aws_key",
    r"A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z2-7]{8}|ABSK[A-Za-z0-9+/]{8}|FwoGZXIvYXdz|AQoDYXdz|IQoJb3JpZ2lu|(?i:secret_?access_?key)",
    until_settled(
        _groups(
            r"(A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z2-7]{16})(?:\b|_)|(ABSK[A-Za-z0-9+/]{100,}={0,2})"
            r"|((?:FwoGZXIvYXdz|AQoDYXdz|IQoJb3JpZ2lu)(?:[A-Za-z0-9+/]|%2[BFbf]){80,}={0,2})"
            r"""|(?i:secret_?access_?key)[\\"']{0,3}\s{0,3}(?:[:=]|=>|%3D)\s{0,3}[\\"']{0,3}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"""
        )
    ),
    signs=(
        *signs("AKIA ASIA ABIA ACCA", then="A-Z2-7", times=8),
        Sign("A3T", then="0-9A-Z", times=9),
        Sign("ABSK", then="0-9A-Za-z+/", times=8),
        *signs("FwoGZXIvYXdz AQoDYXdz IQoJb3JpZ2lu"),
        *signs("secret_access secretaccess", any_case=True),
    ),
)

# API keys (of Gemini, too), OAuth access tokens, client secrets, refresh tokens, authorization codes.
GCP_KEY = Detector(
    "gcp_key",
    r"AIza[0-9A-Za-z_-]{8}|ya29\.[0-9A-Za-z_.-]{8}|GOCSPX-[0-9A-Za-z_-]{8}|1//0[0-9A-Za-z_-]{8}|4/0A[0-9A-Za-z_-]{8}"
    r"|AQ\.Ab[0-9A-Za-z_-]{8}",
    until_settled(
        _groups(
            r"(AIza[0-9A-Za-z_-]{35})(?:[^0-9A-Za-z-]|\z)|(ya29\.[0-9A-Za-z_.-]{20,})|(GOCSPX-[0-9A-Za-z_-]{24,})"
            r"|(1//0[0-9A-Za-z_-]{40,})|\b(4/0A[0-9A-Za-z_-]{40,})|\b(AQ\.Ab[0-9A-Za-z_-]{40,})",
            looks_random,
        )
    ),
    signs=signs("AIza ya29. GOCSPX- 1//0 4/0A AQ.Ab", then="0-9A-Za-z_.-", times=8),
)

# Keys with a signature inside (storage, Cosmos, Service Bus, Event Hubs, search, functions, cache, registries and the
# newer common form), keys that a connection string announces, client secrets of Entra ID.
AZURE_KEY = Detector(
    "azure_key",
    r"(?:\+A(?:St|Ba|Sb|Eh|Rm|MC|Do)|AIoT|ACDb|AzCa|AzSe|AzFu|\+ACR|APIM|JQQJ9)[A-Za-z0-9+/=_-]{5}"
    r"|(?i:(?:account|access|shared)key=[a-z0-9+/])|[0-9]Q~[A-Za-z0-9_~.-]{4}",
    until_settled(
        _groups(
            r"([A-Za-z0-9+/]{76}(?:\+A(?:St|Ba|MC)|ACDb|APIM)[A-Za-z0-9+/]{5}[AQgw]==)"
            r"|([A-Za-z0-9+/]{33}(?:\+A(?:Sb|Eh|Rm|MC|Do)|AIoT|AzCa|APIM)[A-Za-z0-9+/]{5}[A-Za-z0-9+/]=)"
            r"|(?:\b|[_m])([A-Za-z0-9]{42}AzSe[A-D][A-Za-z0-9]{5})(?:\b|_)|([A-Za-z0-9_-]{44}AzFu[A-Za-z0-9_-]{5}[AQgw]==)"
            r"|([A-Za-z0-9+/]{42}\+ACR[A-D][A-Za-z0-9]{5})|(?:\b|[_m])([A-Za-z0-9]{52}JQQJ9[9DH][A-Za-z0-9]{26})(?:\b|_)"
            r"|(?i:(?:account|access|shared)key)=([A-Za-z0-9+/]{40,88}={1,2})"
            r"|([A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:\.?(?:[^A-Za-z0-9_~.-]|\z)|\.[a-z]{2,4}\b)"
        )
    ),
    signs=(
        *signs(
            "+ASt +ABa +ASb +AEh +ARm +AMC +ADo AIoT ACDb AzCa AzSe AzFu +ACR APIM JQQJ9",
            then="0-9A-Za-z+/=_-",
            times=5,
        ),
        *signs("accountkey= accesskey= sharedkey=", then="0-9A-Za-z+/", any_case=True),
        Sign("Q~", then="0-9A-Za-z_~.-", times=4, before="0-9"),
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


def _github_tokens(text: bytes) -> list[Range]:
    """Find GitHub's tokens. Those of 36 characters carry the checksum, and are found wherever they stand; the longer
    forms (refresh tokens, installations, fine-grained ones) do not, or nobody says how."""
    found = []
    for match in _GITHUB.finditer(text):
        start = match.start()
        body = text[start + 4 : start + 40]
        if match[1] and _crc(body[:30]) == body[30:]:
            found.append(Range(start, start + 40))
        elif (longer := match[2] or match[3] or (match[1] if len(match[1]) > 36 else b"")) and looks_random(longer):
            found.append(Range(start, start + len(match[0].rstrip(b"."))))
    return found


_GITHUB = re.compile(
    rb"gh[pousr]_(?:([A-Za-z0-9]{36,1024}+)(?![A-Za-z0-9])|([A-Za-z0-9]{20,64}_[A-Za-z0-9_.-]{20,1024}+))"
    rb"|github_pat_([A-Za-z0-9]{22}_[A-Za-z0-9]{59})(?![A-Za-z0-9])"
)

GITHUB_TOKEN = Detector(
    "github_token",
    r"gh[pousr]_[A-Za-z0-9]{8}|github_pat_[A-Za-z0-9]{8}",
    until_settled(_github_tokens),
    signs=signs("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", then="0-9A-Za-z", times=8),
)

# Tokens of bots, users, apps, workflows and configuration, and the secret path of a webhook.
SLACK_TOKEN = Detector(
    "slack_token",
    r"x(?:ox[a-z]|app|wfp)[.-][0-9A-Za-z%+/=.-]{4}|hooks\.slack(?:-gov)?\.com/[a-z]+/",
    until_settled(
        _groups(
            r"((?:xox[a-z](?:\.xox[a-z])?|xwfp)-(?:[0-9A-Za-z]+-){0,5}(?:[0-9A-Za-z+/=]|%2[BFbf]|%3[Dd]){10,})"
            r"|(xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]{16,})"
            r"|hooks\.slack(?:-gov)?\.com/[a-z]+/([A-Za-z0-9]{8,}/[A-Za-z0-9/]{16,})",
            lambda token: any(0x30 <= byte <= 0x39 for byte in token),
        )
    ),
    signs=(Sign("xox", then="a-z", until=".-"), *signs("xapp xwfp", then=".-"), Sign("hooks.slack")),
)

# Secret and restricted keys, of tests too, and the secrets of webhooks. Publishable keys (pk_) are none. Two letters
# before make another word of it (`task_live_`).
STRIPE_KEY = Detector(
    "stripe_key",
    r"[ers]k_(?:org_)?(?:live|test|prod)_[0-9A-Za-z]{8}|whsec_[0-9A-Za-z+/]{8}",
    until_settled(
        _groups(
            r"(?:\b|[^a-z]|[^a-z][a-z]|\A[a-z])([ers]k_(?:org_)?(?:live|test|prod)_[0-9A-Za-z]{16,247})"
            r"|(whsec_[0-9A-Za-z+/]{24,}={0,2})",
            looks_random,
        )
    ),
    signs=(
        *signs("k_live_ k_test_ k_prod_ k_org_live_ k_org_test_ k_org_prod_", then="0-9A-Za-z", times=8, before="ers"),
        Sign("whsec_", then="0-9A-Za-z+/", times=8),
    ),
)
