"""Detects credentials in the forms that protocols give them: tokens in headers, keys in PEM, passwords in URLs."""

from __future__ import annotations

import base64
import binascii
import json

from sampler_proxy.redact.detectors.types import Detector, Range, is_placeholder, just_before, merged
from sampler_proxy.redact.regexes import regex

# JSON Web Tokens (RFC 7519), signed or encrypted, whole or cut off by a limit on values.
_JWT = regex(r"(?:\b|_)(e[wy][A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){0,3}")
_MAX_HEADER = 4096


def _jwts(text: bytes) -> list[Range]:
    return [Range(match.start(1), match.end()) for match in _JWT.finditer(text) if _is_jose_header(match.group(1))]


def _is_jose_header(encoded: bytes) -> bool:
    if len(encoded) > _MAX_HEADER:
        return True  # nobody's header, and not worth the time to be sure
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and isinstance(header.get("alg"), str)


JWT = Detector("jwt", r"(?:\b|_)e[wy][A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]", _jwts)


# Bearer (RFC 6750) and Basic (RFC 7617).
_BEARER = regex(r"(?i)\bbearer(?:[ \t]+|\+|%20)([A-Za-z0-9._~+/%-]+=*)")
_HEADER_BEFORE = regex(r"""(?i)auth(?:orization)?["']?\s{0,3}(?:[:=]|%3[AD]|=>)?\s{0,3}["'\[(]{0,2}\z""")
_PROSE = frozenset(
    b"access auth authenticated authentication authorization credential credentials format header headers http https"
    b" invalid is missing only prefix required scheme schemes security token tokens type".split()
)


def _bearers(text: bytes) -> list[Range]:
    """Find bearer tokens. In prose (`bearer token expired`) only what cannot be a word; in a header, or as the whole
    value, anything."""
    found = []
    for match in _BEARER.finditer(text):
        start, end = match.span(1)
        token = match.group(1).rstrip(b".")
        end = start + len(token)
        if not token or token.lower() in _PROSE or _is_challenge(token, text[end : end + 1]):
            continue
        strong = len(token) >= 16 or (len(token) >= 6 and any(0x30 <= byte <= 0x39 for byte in token))
        if strong or _in_header(text, match.start(), end):
            found.append(Range(start, end))
    return found


def _is_challenge(token: bytes, then: bytes) -> bool:
    """Tell whether a token is a parameter of a challenge (`realm="..."`), which comes from the server."""
    name = token.rstrip(b"=")
    return name != token and name.replace(b"_", b"").isalpha() and (then.isalnum() or then in (b'"', b"'"))


def _in_header(text: bytes, start: int, end: int) -> bool:
    whole = not text[:start].strip(b" \t\r\n\"'[") and not text[end:].strip(b" \t\r\n\"']")
    return whole or just_before(_HEADER_BEFORE, text, start)


BEARER = Detector("bearer", r"(?i)\bbearer(?:[ \t]|\+|%20)", _bearers)

_BASIC = regex(r"(?i)\bbasic(?:[ \t]+|\+|%20)([A-Za-z0-9+/_-]{4,}(?:={0,2}|(?:%3D){0,2}))")


def _basics(text: bytes) -> list[Range]:
    return [
        Range(*match.span(1))
        for match in _BASIC.finditer(text)
        if _is_user_and_password(match.group(1), _in_header(text, match.start(), match.end()))
    ]


def _is_user_and_password(encoded: bytes, in_header: bool) -> bool:
    standard = encoded.replace(b"%3D", b"=").replace(b"%3d", b"=").replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        decoded = base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        return False
    if b":" not in decoded or any(byte < 0x20 or byte == 0x7F for byte in decoded):
        return False
    return in_header or encoded.endswith(b"=") or _is_utf8(decoded)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


BASIC = Detector("basic", r"(?i)\bbasic(?:[ \t]+|\+|%20)[A-Za-z0-9+/_-]{4}", _basics)


# Private keys in PEM (RFC 7468) and its kin: OpenSSH, OpenPGP, SSH2.
_PEM_BEGIN = regex(r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_PEM_END = regex(r"-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_PEM_BODY = regex(r"[A-Za-z0-9+/=]{16}")


def _private_keys(text: bytes) -> list[Range]:
    """Find PEM blocks from the first dash to the last one, or to the end of the text where the block was cut off."""
    found = []
    at = 0
    last = None
    while begin := _PEM_BEGIN.search(text, at):
        at = begin.end()
        if last is None or last[0] < at:
            end = _PEM_END.search(text, at)
            last = end.span() if end else (len(text), len(text))
        if _PEM_BODY.search(text, at, min(last[0], at + 1024)):
            found.append(Range(begin.start(), last[1]))
            at = last[1]
    return found


PRIVATE_KEY = Detector("private_key", r"BEGIN [A-Z0-9 ]*PRIVATE KEY", _private_keys)


# Credentials in URLs (RFC 3986, 3.2.1), and in the data source names of Go's drivers.
# A quote may stand in the password, not before it: there it ends the URL.
_USERINFO = regex(r"""([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s"'<>\\:]*(?::[^/?#\s"<>\\]*)?)@""")
_MAX_USERINFO = 256
_DSN_NETWORK = regex(r"@(?:tcp|unix)\(")
_DSN_USERINFO = regex(r"""(?:\A|[^\w.-])([\w.-]+:[^\s"'<>]+)\z""")


def _url_credentials(text: bytes) -> list[Range]:
    """Find `user:password`; over HTTP also a user alone, which is a token there."""
    found = []
    for match in _USERINFO.finditer(text):
        user, colon, password = match.group(2).partition(b":")
        if not match.group(2) or is_placeholder(password if colon else user):
            continue
        if (colon and password) or (not colon and match.group(1).lower() in (b"http", b"https")):
            found.append(Range(*match.span(2)))
    for network in _DSN_NETWORK.finditer(text):
        at = network.start()
        start = max(0, at - _MAX_USERINFO)
        dsn = _DSN_USERINFO.search(text[start:at])
        if dsn and not is_placeholder(dsn.group(1).partition(b":")[2]):
            found.append(Range(start + dsn.start(1), at))
    return merged(found)


URL_CREDENTIALS = Detector("url_credentials", r"""[A-Za-z0-9+.-]://[^/?#\s"<>\\]+@|@(?:tcp|unix)\(""", _url_credentials)
