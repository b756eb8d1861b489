"""Detects stored passwords: hashes in the forms that crypt(3), frameworks and directories keep them in. Whoever has one
can guess at it without limit."""

from __future__ import annotations

from sampler_proxy.redact.detectors.providers import looks_random
from sampler_proxy.redact.detectors.types import Detector, Range, Sign, signs, until_settled
from sampler_proxy.redact.regexes import regex

_CRYPT = r"[15678y9]|gy|apr1|md5|sha1|sm3|scrypt|bcrypt-sha256|pbkdf2(?:-[a-z0-9]+)?|A|14"
_DJANGO = r"pbkdf2_sha(?:1|256|512)|bcrypt_sha256|bcrypt|argon2|scrypt|sha1|md5"
_WERKZEUG = r"pbkdf2:[a-z0-9]+:[0-9]+|scrypt:[0-9]+:[0-9]+:[0-9]+"
_LDAP = r"ssha|sha|smd5|md5|ssha256|ssha512|sha256|sha512|crypt|bcrypt|scrypt|argon2|argon2id|pbkdf2[a-z0-9@_-]*"
_FORMS = (
    r"\$2[abxy]?\$[0-9]{2}\$[./0-9A-Za-z]{53}",
    r"\$argon2(?:id|i|d)\$(?:v=[0-9]+\$)?[a-z0-9=,]+\$[0-9A-Za-z+/]{4,}\$[0-9A-Za-z+/]{16,}",
    rf"\$(?:{_CRYPT})\$(?:[./0-9A-Za-z,=+_-]+\$){{1,3}}[./0-9A-Za-z+_-]{{20,}}={{0,2}}",
    r"\$[PHS]\$[./0-9A-Za-z]{31,52}",  # phpass
    r"\$7\$[./0-9A-Za-z$]{50,}",
    rf"(?:{_DJANGO})\$[0-9A-Za-z./+=,_-]*\$[0-9A-Za-z./+=,_$-]{{20,}}",
    rf"(?:{_WERKZEUG})\$[0-9A-Za-z./+=]+\$[0-9A-Za-z./+]{{20,}}={{0,2}}",
    rf"(?i:\{{(?:{_LDAP})\}})[0-9A-Za-z+/$.,=_-]{{20,}}",
    r"SCRAM-SHA-(?:1|256|512)\$[0-9]+:[0-9A-Za-z+/=]+\$[0-9A-Za-z+/=]+:[0-9A-Za-z+/=]{20,}",
    r"AQAAAA[EI]AA[0-9A-Za-z+/]{3}AAAA[EI][0-9A-Za-z+/]{58,}={0,2}",  # ASP.NET Core Identity
    r"aad3b435b51404eeaad3b435b51404ee:[0-9a-fA-F]{32}",  # NT
)
_ANY = regex("|".join(_FORMS))
# MySQL's; not what a mask leaves.
_MYSQL = regex(r"(?:\A|[^*0-9A-Za-z_])(\*[0-9A-F]{40})(?:[^0-9A-Za-z_]|\z)")


def _password_hashes(text: bytes) -> list[Range]:
    found = [Range(*match.span()) for match in _ANY.finditer(text) if looks_random(match.group().rpartition(b"$")[2])]
    if b"*" in text:
        found += [Range(*match.span(1)) for match in _MYSQL.finditer(text)]
    return sorted(found)


PASSWORD_HASH = Detector(
    "password_hash",
    rf"\$(?:2[abxy]?|argon2[id]*|{_CRYPT}|[PHS])\$[./0-9A-Za-z,=+_-]|(?:{_DJANGO}|{_WERKZEUG})\$[0-9A-Za-z./+=,_$-]"
    rf"|(?i:\{{(?:{_LDAP})\}})[0-9A-Za-z+/$.,=_-]{{4}}|SCRAM-SHA-[0-9]+\$|AQAAAA[EI]AA|aad3b435b51404ee|\*[0-9A-F]{{8}}",
    until_settled(_password_hashes),
    signs=(
        Sign("$", through="0-9A-Za-z-", until="$"),
        Sign("$", then="0-9A-Za-z./+=,_$-", before="0-9t"),
        *signs("{ssha {sha {smd5 {md5 {crypt {bcrypt {scrypt {argon2 {pbkdf2", any_case=True),
        *signs("SCRAM-SHA- AQAAAA aad3b435b51404ee"),
        Sign("*", then="0-9A-F", times=8),
    ),
)
