"""Finds secrets in texts by their form and their check digits; no I/O, no clock, and no state between calls.

Texts are bytes as they came off the wire: usually UTF-8, which nobody vouches for. Finding takes two steps, since
nearly all texts hold nothing: `sieve` asks one RE2 set about many values joined by `SEPARATOR` which detectors could
find something in them; only these are asked for ranges, value by value (`Values` in `redact/values.py` does that).

Presets:

    common   card iban ssn email jwt bearer basic aws_key gcp_key azure_key github_token slack_token stripe_key
             provider_key private_key password_hash path_token url_credentials url_secrets
    strict   the same, and ipv4 ipv6: addresses are personal data, but a trace without its peers is a poorer one

`phone` is in neither: few countries put a check digit into a phone number, so ids are taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sampler_proxy.redact.detectors import (
    addresses,
    connections,
    credentials,
    issued_keys,
    named,
    numbers,
    password_hashes,
    path_tokens,
    provider_keys,
)
from sampler_proxy.redact.detectors.custom import custom, sieve
from sampler_proxy.redact.detectors.types import SEPARATOR, Detector, Range

__all__ = ["COMMON", "DETECTORS", "SEPARATOR", "STRICT", "Detector", "Range", "custom", "sieve"]

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
    "provider_key",
    "private_key",
    "password_hash",
    "path_token",
    "url_credentials",
    "url_secrets",
)
STRICT: tuple[str, ...] = (*COMMON, "ipv4", "ipv6")

DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        detector.name: detector
        for detector in (
            numbers.CARD,
            numbers.IBAN,
            numbers.SSN,
            numbers.PHONE,
            addresses.EMAIL,
            addresses.IPV4,
            addresses.IPV6,
            credentials.JWT,
            credentials.BEARER,
            credentials.BASIC,
            credentials.PRIVATE_KEY,
            connections.URL_CREDENTIALS,
            path_tokens.PATH_TOKEN,
            password_hashes.PASSWORD_HASH,
            named.URL_SECRETS,
            provider_keys.AWS_KEY,
            provider_keys.GCP_KEY,
            provider_keys.AZURE_KEY,
            provider_keys.GITHUB_TOKEN,
            provider_keys.SLACK_TOKEN,
            provider_keys.STRIPE_KEY,
            issued_keys.PROVIDER_KEY,
        )
    }
)
"""Every built-in detector by its name: those of the presets, and `phone`."""
