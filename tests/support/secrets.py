"""One secret of each kind, none of them real: the text it comes in, and the part of it that must not come out.

Put together from pieces, so that nobody who scans this repository for secrets takes them for some.
"""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple


class Secret(NamedTuple):
    text: str
    part: str


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _github() -> str:
    body, rest, check = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1bCd", 0, ""
    rest = zlib.crc32(body.encode())
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        check = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit] + check
    return "ghp_" + body + check


def _whole(text: str) -> Secret:
    return Secret(text, text)


_JWT = ".".join(map(_url64, (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890"}', b"0123456789abcdef" * 2)))
_BASIC = base64.b64encode(b"aladdin:opensesame").decode()
_AZURE = base64.b64encode(bytes(range(7, 71))).decode()
_PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj"

SECRETS = {
    "card": _whole("4111 1111 1111 1111"),
    "iban": _whole("DE89370400440532013000"),
    "ssn": _whole("536-22-8726"),
    "phone": _whole("+14155550132"),
    "email": _whole("bob.smith@example.com"),
    "ipv4": _whole("81.2.69.142"),
    "ipv6": _whole("2a02:cf40:1234::7"),
    "jwt": _whole(_JWT),
    "bearer": Secret("Bearer mF_9.B5f-4.1JqMabc123XYZ", "mF_9.B5f-4.1JqMabc123XYZ"),
    "basic": Secret("Basic " + _BASIC, _BASIC),
    "aws_key": _whole("AKIA" + "IOSFODNN7EXAMPLE"),
    "gcp_key": _whole("AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"),
    "azure_key": Secret("AccountKey=" + _AZURE, _AZURE),
    "github_token": _whole(_github()),
    "slack_token": _whole("xoxb-" + "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx"),
    "stripe_key": _whole("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"),
    "provider_key": _whole("glpat-" + "Ab3dEf6hIj9lMn2pQr5t"),
    "password_hash": _whole("$2b$12$" + "Ab3dEf6hIj9lMn2pQr5tUv8xYz1bCdEf6hIj9lMn2pQr5tUv8xYz1"),
    "path_token": Secret("/reset-password/Ab3dEf6hIj9lMn2pQr5t", "Ab3dEf6hIj9lMn2pQr5t"),
    "private_key": Secret("-----BEGIN " + f"PRIVATE KEY-----\n{_PEM}\n-----END PRIVATE KEY-----", _PEM),
    "url_credentials": Secret("https://alice:s3cr3tpw@db.example.com/x", "alice:s3cr3tpw"),
    "url_secrets": Secret("https://example.com/cb?access_token=q1w2e3r4t5y6", "q1w2e3r4t5y6"),
}
"""By detector."""

CARD_NUMBER = 4111111111111111

OTHERS = {
    "member of JSON": Secret('{"user": {"password": "hunter2-json"}}', "hunter2-json"),
    "text in JSON": Secret(r'["mail to carol\u0040example.com"]', r"carol\u0040example.com"),
    "JSON that was cut off": Secret('{"id": 1, "password": "hunter2-cut', "hunter2-cut"),
    "member of a form": Secret("user=1&password=hunter2-form", "hunter2-form"),
    "statement": Secret("SELECT id FROM users WHERE pin = 'zebra-42'", "zebra-42"),
    "statement in a text": Secret("near: INSERT INTO users VALUES ('zebra-43')", "zebra-43"),
    "URL's query": Secret("https://example.com/p?q=zebra-44", "zebra-44"),
    "URL's id": Secret("https://example.com/users/550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b"),
    "own pattern": Secret("see TICKET-31337", "31337"),
}
"""What `CONFIG` redacts beside."""

CONFIG = {
    "preset": "strict",
    "values": [
        {"detect": "phone", "action": "mask"},
        {"name": "ticket", "pattern": "TICKET-([0-9]+)", "action": "hash"},
    ],
    "hash_key": "0123456789abcdef",
}
