"""Detects credentials in the forms that protocols give them: tokens in headers, private keys."""

from __future__ import annotations

import base64
import binascii
import json
import re
from itertools import islice

from sampler_proxy.redact.detectors.types import Detector, Range, Sign, just_before, merged, signs
from sampler_proxy.redact.regexes import regex

# JSON Web Tokens (RFC 7519), signed or encrypted (RFC 7516: with `dir` and `ECDH-ES` the second part is empty), whole
# or cut off by a limit on values. The header begins as `{` and a quote or white space do in base 64.
_JWT = regex(r"(e(?:yJ|yA|wo|w0|wk)[A-Za-z0-9_-]+)\.(?:[A-Za-z0-9_-]+|\.[A-Za-z0-9_-]+)(?:\.[A-Za-z0-9_-]*){0,3}")
_JWT_BEGINS = re.compile(rb"e(?:yJ|yA|wo|w0|wk)")
_MAX_HEADER = 4096
_MAX_BEGINNINGS = 4


def _jwts(text: bytes) -> list[Range]:
    found = []
    for match in _JWT.finditer(text):
        header = match.group(1)
        # Letters before a token may look like its beginning.
        for begin in islice(_JWT_BEGINS.finditer(header), _MAX_BEGINNINGS):
            if _is_jose_header(header[begin.start() :]):
                found.append(Range(match.start() + begin.start(), match.end()))
                break
    return found


def _is_jose_header(encoded: bytes) -> bool:
    if len(encoded) > _MAX_HEADER:
        return True  # nobody's header, and not worth the time to be sure
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and isinstance(header.get("alg"), str)


_JWT_SIGNS = signs("eyJ eyA ewo ew0 ewk", then="A-Za-z0-9_-", times=8)
JWT = Detector("jwt", r"e(?:yJ|yA|wo|w0|wk)[A-Za-z0-9_-]{8,}\.\.?[A-Za-z0-9_-]", _jwts, signs=_JWT_SIGNS)


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


BEARER = Detector(
    "bearer",
    r"(?i)\bbearer(?:[ \t]|\+|%20)",
    _bearers,
    signs=signs("bearer", then=r" \t+%", before="^0-9A-Za-z_", any_case=True),
)

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


BASIC = Detector(
    "basic",
    r"(?i)\bbasic(?:[ \t]+|\+|%20)[A-Za-z0-9+/_-]{4}",
    _basics,
    signs=signs("basic", then=r" \t+%", before="^0-9A-Za-z_", any_case=True),
)


# Private keys in PEM (RFC 7468) and its kin: OpenSSH, OpenPGP, SSH2.
_PEM_BEGIN = regex(r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_PEM_END = regex(r"-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_PEM_BODY = regex(r"[A-Za-z0-9+/=]{16}")
# Without its lines: the beginning of PKCS #1, PKCS #8, SEC 1 and OpenSSH keys in base 64, and of PEM in base 64.
_DER = r"MII[A-Za-z0-9+/]{3}IBA[AD]|MI[GH][A-Za-z0-9]AgE(?:AMB|BB)|M[CE][4c]CAQAwBQYDK2V|MHcCAQEEI|b3BlbnNzaC1rZXktdjE"
_ENCODED = regex(
    rf"(?:{_DER}|LS0tLS1CRUdJTiB[A-Za-z0-9+/]{{0,40}}(?:QUklWQVRFIEtFWS|BSSVZBVEUgS0VZ|UFJJVkFURSBLRV))"
    r"[A-Za-z0-9+/]{24,}={0,2}"
)
# The private parts of JSON Web Keys (RFC 7518, 6.2.2, 6.3.2 and 6.4.1).
_JWK_TYPE = regex(r"""kty["'\\]{0,4}\s*(?:[:=]|=>)\s*["'\\]{0,4}(EC|RSA|OKP|oct)\b""")
_JWK_PARTS = regex(r"""\b(?:d|p|q|dp|dq|qi|k)["'\\]{0,4}\s*(?:[:=]|=>)\s*["'\\]{0,4}([A-Za-z0-9_-]{16,})""")


def _private_keys(text: bytes) -> list[Range]:
    """Find PEM blocks from the first dash to the last one, or to the end of the text where the block was cut off; keys
    without such lines; and the private parts of JSON Web Keys."""
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
    found += [Range(*match.span()) for match in _ENCODED.finditer(text)]
    if _JWK_TYPE.search(text):
        found += [Range(*match.span(1)) for match in _JWK_PARTS.finditer(text)]
    return merged(found)


PRIVATE_KEY = Detector(
    "private_key",
    rf"""BEGIN [A-Z0-9 ]*PRIVATE KEY|{_DER}|LS0tLS1CRUdJTiB|kty["'\\]{{0,4}}\s*(?:[:=]|=>)""",
    _private_keys,
    signs=(
        Sign("PRIVATE KEY"),
        *signs("MII MIG MIH", then="A-Za-z0-9+/", times=6),
        *signs("CAQAwBQYDK2V MHcCAQEEI b3BlbnNzaC1rZXktdjE LS0tLS1CRUdJTiB"),
        Sign("kty", then=r"""\s"'\\:="""),
    ),
)
