"""Reads the file of certificates that a destination's own certificate has to be vouched for by.

It is checked here: gRPC would tell of a wrong file only in the reason of a connection that fails. What a file holds is
in no message.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from contextlib import suppress
from functools import lru_cache

from sampler_proxy.config.named_files import read_named

MAX_BYTES = 4 << 20
"""Of a file: a system's whole list has a few hundred kilobytes."""

_BEGIN, _END = rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", rb"-----END (?:X509 |TRUSTED )?CERTIFICATE-----"


def read_authorities(path: str) -> bytes:
    """Return the content of a file of certificates in PEM. Raises ValueError."""
    content = read_named(path, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError("larger than 4MiB: not a file of certificates")
    _check(content)
    return content


@lru_cache(maxsize=4)  # a file is read again and again, and seldom changes
def _check(content: bytes) -> None:
    blocks = re.findall(_BEGIN + rb"([^-]*)" + _END, content)
    if not blocks:
        raise ValueError("holds no certificates: write the path of a file in PEM (-----BEGIN CERTIFICATE-----)")
    if len(blocks) < len(re.findall(_BEGIN, content)) or not all(map(_is_certificate, blocks)):
        raise ValueError("holds a damaged certificate: copy the file anew")


def in_der(content: bytes) -> bytes:
    """Return certificates in PEM, one behind the other in DER. What cannot be read is left out."""
    ders = []
    for block in re.findall(_BEGIN + rb"([^-]*)" + _END, content):
        with suppress(ValueError):
            ders.append(_der(block))
    return b"".join(ders)


def _der(block: bytes) -> bytes:
    """Decode Base64 text that stands for a certificate in DER, which OpenSSL's words for trust may follow. Raises
    ValueError for what is no Base64."""
    data = b64decode(b"".join(block.split()), validate=True)
    size = data[1] & 0x7F if data[1:2] >= b"\x80" else 0  # bytes of the length of the outermost SEQUENCE
    length = int.from_bytes(data[2 : 2 + size]) if size else int.from_bytes(data[1:2])
    return data[: 2 + size + length]


def _is_certificate(block: bytes) -> bool:
    """Tell whether Base64 text stands for a certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_der(block))
    except (ssl.SSLError, ValueError):  # ValueError: it is no Base64, or there is nothing
        return False
    return True
