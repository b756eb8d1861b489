"""Reads the secrets of credentials, and keeps of each its SHA-256 only."""

from __future__ import annotations

import hashlib

from sampler_proxy.config.doors import MAX_SECRET, Credential
from sampler_proxy.config.named_files import read_named


def digest_of(credential: Credential) -> bytes:
    """Return the SHA-256 of a credential's secret, read from its file where one is named. Raises ValueError."""
    if credential.sha256 is not None:
        return bytes.fromhex(credential.sha256)
    if credential.file is None:
        return hashlib.sha256((credential.secret or "").encode()).digest()
    secret = read_named(credential.file, MAX_SECRET + 3).rstrip(b"\r\n")
    if not secret.strip():
        raise ValueError("holds nothing: write the secret into it")
    if len(secret) > MAX_SECRET or b"\n" in secret:
        raise ValueError("holds more than one line, or more than 4096 bytes: write the secret alone")
    return hashlib.sha256(secret).digest()
