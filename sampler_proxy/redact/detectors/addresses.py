"""Detects addresses of people and of hosts."""

from __future__ import annotations

import ipaddress
import re

from sampler_proxy.redact.detectors.types import DIGITS, Detector, Range, Sign, just_before, signs, stands_alone
from sampler_proxy.redact.regexes import regex

# E-mail: the dot-atom form of RFC 5322 without the characters that end it in URLs and prose, RFC 6531 for what is not
# ASCII, and the sign as it stands in URLs, HTML and in full width. A name in quotes may hold anything.
_AT = r"(?:@|%40|\xef\xbc\xa0|&#(?:64|[Xx]40);)"
_EMAIL = regex(
    r"""([A-Za-z0-9._%+'~\x80-\xff-]+|"[^"\\\r\n]{1,64}")"""
    rf"{_AT}([A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)+)",
)
_BEFORE_LOCAL = re.compile(rb"(?:%[0-9A-Fa-f]{2}|[.'%~-])*+")
_USERINFO = regex(r"://[^/?#\s]*\z")
_TOP_LEVEL = regex(r"[A-Za-z]{2,63}|[Xx][Nn]--[A-Za-z0-9-]{1,59}|[\x80-\xff][A-Za-z0-9\x80-\xff-]*")
# image@2x.png is the name of a file.
_EXTENSIONS = frozenset(
    b"png jpg jpeg gif svg webp ico css js mjs ts tsx jsx json map html xml yaml yml txt zip tgz gz".split()
)


def _emails(text: bytes) -> list[Range]:
    found = []
    for match in _EMAIL.finditer(text):
        start, at = match.span(1)
        domain, end = match.span(2)
        local = text[start:at]
        before = _BEFORE_LOCAL.match(local)
        start += before.end() if before else 0
        labels = text[domain:end].split(b".")
        while len(labels) > 1 and not _is_top_level(labels[-1]):
            end -= len(labels.pop()) + 1
        if start >= at or len(labels) < 2 or sum(label.isdigit() for label in labels) > 1:
            continue  # a version (package@1.2.3)
        if text[start:at].lower() == b"git" or just_before(_USERINFO, text, start, 256):
            continue  # no person's, or `url_credentials` has it
        found.append(Range(start, end))
    return found


def _is_top_level(label: bytes) -> bool:
    return bool(_TOP_LEVEL.fullmatch(label)) and label.lower() not in _EXTENSIONS


EMAIL = Detector(
    "email",
    rf"""[A-Za-z0-9._%+'"~\x80-\xff-]{_AT}[A-Za-z0-9\x80-\xff-]+\.[A-Za-z\x80-\xff0-9-]""",
    _emails,
    signs=signs("@ %40 \xef\xbc\xa0 &#64; &#X40; &#x40;", then=r"A-Za-z0-9\x80-\xff-"),
)


_DOTTED = regex(r"[0-9]+(?:\.[0-9]+)+")
# Also numbers of sections, ids of objects (ISO/IEC 9834), and what package managers write before a version.
_VERSION_BEFORE = regex(
    r"""(?i)(?:(?:version|\bver\.?|\bv|\bbuild|\bfirmware|\brelease|\brev\.?|\brevision|\bsection|\bchapter|\boid|\xc2\xa7)"""
    r"""\(?["']?\s{0,2}[:=]?\s{0,2}["']?|[~><]=|~>|[A-Za-z]@)\s?\z"""
)
_VERSION_AFTER = regex(
    r"(?i)[-.](?:alpha|beta|rc|snapshot|dev|pre|final|ga|jar|war|zip|tar|tgz|whl|gem|rpm|deb|so|dll|exe|nupkg)(?:[^A-Za-z]|\z)"
)
_PRODUCT_BEFORE = regex(r"[A-Za-z]/\z")


def _ipv4s(text: bytes) -> list[Range]:
    """Find IPv4 addresses. Four numbers are a version where the text says so: after `v` or `version`, before `-rc1` or
    `.jar`, or after the slash of a product (`Chrome/120.0.0.0`: in a user agent, or ending in two zeros, which no host
    does)."""
    found = []
    agent = b"Mozilla/" in text
    for match in _DOTTED.finditer(text):
        start, end = match.span()
        if not 7 <= end - start <= 15 or not stands_alone(text, start, end):
            continue
        try:
            address = ipaddress.IPv4Address(match.group().decode("ascii"))
        except ValueError:
            continue
        if address.is_loopback or address.is_unspecified or address.packed[0] == 255:
            continue  # no host's: the machine itself, none, a netmask
        if address.packed[1:] == b"\0\0\0":
            continue  # a version (4.0.0.0), or a network
        if just_before(_VERSION_BEFORE, text, start) or _VERSION_AFTER.match(text, end):
            continue
        if just_before(_PRODUCT_BEFORE, text, start) and (agent or address.packed[2:] == b"\0\0"):
            continue
        found.append(Range(start, end))
    return found


IPV4 = Detector(
    "ipv4",
    r"\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b",
    _ipv4s,
    signs=(Sign(".", then="0-9", through="0-9", until=".", before="0-9"),),
)


_COLONS = regex(r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")


def _ipv6s(text: bytes) -> list[Range]:
    """Find IPv6 addresses, only those that can be a host's: global unicast, unique local, link local, multicast, IPv4
    in IPv6. Others (`abc::def`) are names in many languages."""
    found = []
    for match in _COLONS.finditer(text):
        start, end = match.span()
        while end > start and (text[end - 1] == 0x2E or (text[end - 1] == 0x3A and text[end - 2] != 0x3A)):
            end -= 1
        if not 4 <= end - start <= 45 or not stands_alone(text, start, end):
            continue
        if not DIGITS.intersection(text[start:end]):
            continue  # feed::add
        groups = text[start:end].split(b":")
        if len(groups) == 8 and all(len(group) == 2 for group in groups):
            continue  # EUI-64, as network cards have it
        try:
            address = ipaddress.IPv6Address(text[start:end].decode("ascii"))
        except ValueError:
            continue
        if _may_be_a_host(address):
            found.append(Range(start, end))
    return found


def _may_be_a_host(address: ipaddress.IPv6Address) -> bool:
    first = address.packed[0]
    return (
        0x20 <= first <= 0x3F
        or first in (0xFC, 0xFD, 0xFE, 0xFF)
        or address.ipv4_mapped is not None
        or address.packed[:4] == b"\x00\x64\xff\x9b"
    )


IPV6 = Detector(
    "ipv6",
    r"(?i)\b(?:[23][0-9a-f]{3}|f[c-f][0-9a-f]{2}|0?0?64):[0-9a-f]{0,4}:|:ffff:",
    _ipv6s,
    signs=(
        Sign(":", through="0-9A-Fa-f", until=":", before="0-9A-Fa-f"),
        Sign(":ffff:", any_case=True),
    ),
)
