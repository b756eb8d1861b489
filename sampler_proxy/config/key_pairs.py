"""Reads a certificate and its key from the files of a server or a client, and tells what is wrong with them.

They are checked here: gRPC would tell of a wrong file by a port that cannot be opened, or by nothing at all. What a
file holds is in no message.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from calendar import timegm
from typing import NamedTuple

from sampler_proxy.config.named_files import read_named

MAX_BYTES = 1 << 20

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]*)-----END ")
_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: *4, *ENCRYPTED", re.MULTILINE)
_SEQUENCE, _INTEGER, _VERSION, _UTC_TIME = 0x30, 0x02, 0xA0, 0x17


class KeyPair(NamedTuple):
    """A certificate with its key, as PEM, and when the certificate expires (seconds since the epoch)."""

    certificates: bytes
    key: bytes
    expires_s: float


class KeyPairError(ValueError):
    """A file that cannot be used; `setting` is the key that names it, the message what is wrong."""

    def __init__(self, setting: str, message: str) -> None:
        self.setting = setting
        super().__init__(message)


def read_key_pair(cert_file: str, key_file: str) -> KeyPair:
    """Return what the two files hold. Raises KeyPairError, also while one of them has been replaced and the other has
    not."""
    certificates, key = _read("cert_file", cert_file), _read("key_file", key_file)
    blocks = _CERTIFICATE.findall(certificates)
    if not blocks:
        raise KeyPairError("cert_file", "holds no certificate: write the path of a file in PEM (-----BEGIN ...)")
    try:
        expires_s = _expires_s(b64decode(b"".join(blocks[0].split()), validate=True))
    except (ValueError, IndexError):
        raise KeyPairError("cert_file", "holds a damaged certificate: copy the file anew") from None
    if _ENCRYPTED.search(key):
        raise KeyPairError("key_file", "holds an encrypted key: write it without a passphrase, readable for this user")
    if not _KEY.search(key):
        raise KeyPairError("key_file", "holds no private key: write the path of a file in PEM (-----BEGIN ...)")
    _check_together(cert_file, key_file)
    if (certificates, key) != (_read("cert_file", cert_file), _read("key_file", key_file)):
        raise KeyPairError("cert_file", "is being replaced")
    return KeyPair(certificates, key, expires_s)


def _read(setting: str, path: str) -> bytes:
    try:
        content = read_named(path, MAX_BYTES + 1)
    except ValueError as error:
        raise KeyPairError(setting, str(error)) from None
    if len(content) > MAX_BYTES:
        raise KeyPairError(setting, "larger than 1MiB: not a certificate or key")
    return content


def _check_together(cert_file: str, key_file: str) -> None:
    """Have OpenSSL read both, which takes them by their paths only."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise KeyPairError("key_file", "is not the key of the certificate in cert_file") from None
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise KeyPairError("cert_file", "has a key or signature too weak for TLS: have it made anew") from None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert_file)
        except ssl.SSLError:
            raise KeyPairError("cert_file", "holds a damaged certificate: copy the file anew") from None
        raise KeyPairError("key_file", "holds a damaged key: copy the file anew") from None
    except OSError as error:
        raise KeyPairError("cert_file", f"cannot be read: {error.strerror}") from None


def _expires_s(der: bytes) -> float:
    """Return the end of a certificate's validity (RFC 5280, 4.1). Raises ValueError and IndexError."""
    certificate, _ = _element(der, 0, _SEQUENCE)
    at, _ = _element(der, certificate, _SEQUENCE)
    if der[at] == _VERSION:
        at = _element(der, at, _VERSION)[1]
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm of the signature, issuer
        at = _element(der, at, kind)[1]
    validity, _ = _element(der, at, _SEQUENCE)
    end = _element(der, validity, der[validity])[1]
    begin, after = _element(der, end, der[end])
    text = der[begin:after].decode("ascii")
    if der[end] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return timegm((int(text[:4]), *(int(text[i : i + 2]) for i in range(4, 14, 2))))


def _element(der: bytes, at: int, kind: int) -> tuple[int, int]:
    """Return where the content of an element of DER begins, and where it ends (X.690, 8.1). Raises ValueError where it
    is another kind of element."""
    if der[at] != kind:
        raise ValueError("another element")
    length, begin = der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + size]), begin + size
    if begin + length > len(der):
        raise ValueError("cut short")
    return begin, begin + length
