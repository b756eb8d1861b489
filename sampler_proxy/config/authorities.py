"""Reads the file of certificates that a destination's own certificate has to be vouched for by.

It is checked here as far as it can be without TLS: gRPC would tell of a wrong file only in the reason of a connection
that fails. What a file holds is in no message.
"""

from __future__ import annotations

import re
from base64 import b64decode

MAX_BYTES = 4 << 20
"""Of a file: a system's whole list has a few hundred kilobytes."""

_BEGIN, _END = rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", rb"-----END (?:X509 |TRUSTED )?CERTIFICATE-----"


def read_authorities(path: str) -> bytes:
    """Return the content of a file of certificates in PEM. Raises ValueError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError("larger than 4MiB: not a file of certificates")
    blocks = re.findall(_BEGIN + rb"([^-]*)" + _END, content)
    if not blocks:
        raise ValueError("holds no certificates: write the path of a file in PEM (-----BEGIN CERTIFICATE-----)")
    if len(blocks) < len(re.findall(_BEGIN, content)) or not all(map(_is_der, blocks)):
        raise ValueError("holds a damaged certificate: copy the file anew")
    return content


def _is_der(block: bytes) -> bool:
    """Tell whether Base64 text stands for one DER sequence, whole, as a certificate is."""
    try:
        data = b64decode(b"".join(block.split()), validate=True)
    except ValueError:
        return False
    if len(data) < 2 or data[0] != 0x30:
        return False
    size = data[1] & 0x7F if data[1] & 0x80 else 0
    length = int.from_bytes(data[2 : 2 + size], "big") if size else data[1]
    return len(data) >= 2 + size + length > 2
