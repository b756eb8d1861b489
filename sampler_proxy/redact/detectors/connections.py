"""Detects credentials in URLs (RFC 3986, 3.2.1), in the connection strings of databases' own clients, and in the files
that keep them."""

from __future__ import annotations

import re

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import Detector, Range, Sign, is_placeholder, merged, signs, until_settled
from sampler_proxy.redact.regexes import regex

_NO_LETTERS = b"0123456789+.-"
_SCHEME = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + _NO_LETTERS
_MAX_SCHEME = 32
_MAX_URL = 512
"""Bytes behind the scheme that are looked at."""
# Schemes in whose URLs `@` is usual behind the host, and those in which a user alone is a token.
_PATHS_WITH_AT = frozenset(
    b"http https ws wss file git docker oci npm pkg app webpack webpack-internal data blob chrome-extension".split()
)
_TOKEN_SCHEMES = frozenset(b"http https nats tls git+https".split())
# Schemes whose URLs may hold a password as somebody typed it, with spaces and quotes.
_STORES = re.compile(
    rb"(?i)(?:jdbc:)?(?:postgres(?:ql)?|mysqlx?|mariadb|mongodb|redis|rediss|valkey|amqps?|mssql|sqlserver|oracle|db2"
    rb"|clickhouse|cockroachdb|snowflake|redshift|trino|presto|cassandra|couchbase|neo4j|bolt|influxdb|memcached"
    rb"|elasticsearch|nats|mqtts?|stomp|kafka|smtps?|imaps?|ldaps?|s?ftps?|ssh|smb|sybase|hive2?|vertica|crate)(?:\+\w+)?"
)
# What ends a URL in a text; a quote or an angle bracket may also stand in a password.
_BACKSLASH = rb"""\\(?:\\|[^\snrtbfux/"'\\]|u(?![0-9A-Fa-f]{4})|x(?![0-9A-Fa-f]{2}))"""  # escaped, or none of an escape
_NO_SPACE = re.compile(rb"""(?:[^\s"'<>\\]|["'<>](?=[^\s"'<>,;:)}\]])|%s)*+""" % _BACKSLASH)
_LINE = re.compile(rb"[^\x00-\x1f]*+")
_USER = re.compile(rb"""(?:[^/?#\s"'<>\\:]|%s)*+""" % _BACKSLASH)
_HEAD = re.compile(rb"[^/?#]*+")
_PORT = re.compile(rb"(?:[0-9]{0,5}|%[sdv]|[$%]?\{[^}]*\}?|\$\w+|:?port|PORT)(?:;[\w ]+=.*|,[^@]*)?", re.DOTALL)
_HOST = re.compile(
    rb"""(?!v?[0-9]+(?:\.[0-9]+){0,2}(?![0-9A-Za-z.:-]))"""  # a version
    rb"""(?:\[[0-9A-Fa-f:.%]+\]|[$%]?\{[^}\s]*\}|[0-9A-Za-z_\x80-\xff](?:[0-9A-Za-z_.\x80-\xff-]*[0-9A-Za-z_\x80-\xff])?)"""
    rb"""(?::(?:[0-9]{1,5}|[$%]?\{[^}\s]*\}))?(?=[/?#,;\s"'`<>)\]}\\&|]|[.:!](?:\s|\Z)|\Z)"""
)
_MASKED = re.compile(rb"[^/?#@\s]*\*{4,}@")
_QUERY = re.compile(rb"\?[\w.-]+=")


def _in_urls(text: bytes) -> list[Range]:
    """Find `user:password`; where that is usual, also a user alone, which is a token there."""
    found = []
    at = text.find(b"://")
    while at >= 0:
        start = at + 3
        following = text.find(b"://", start)
        stop = min(following if following >= 0 else len(text), start + _MAX_URL)
        before = text[max(0, at - _MAX_SCHEME) : at]
        scheme = before[len(before.rstrip(_SCHEME)) :].lstrip(_NO_LETTERS).lower()
        at = following
        if scheme and text.find(b"@", start, stop) >= 0:
            budget.spend(4)
            line = _LINE.match(text, start, stop)
            url = line[0] if line else b""
            if _MASKED.match(url):
                continue
            end = _end_of_userinfo(url, scheme)
            user, colon, password = url[:end].partition(b":")
            if end <= 0 or is_placeholder(password if colon else user):
                continue
            if password if colon else (scheme in _TOKEN_SCHEMES and user.lower() != b"git"):
                found.append(Range(start, start + end))
    return found


def _end_of_userinfo(url: bytes, scheme: bytes) -> int:
    """Return where the userinfo ends in what follows a scheme; 0 where there is none. By RFC 3986 `/`, `?` and `#` end
    the authority; whoever writes a password as it is, does not keep to that: then it ends at the last `@` that a host
    follows."""
    user = _USER.match(url)
    after_user = user.end() if user else 0
    together = _NO_SPACE.match(url, after_user)
    stop = together.end() if together else after_user
    head = _HEAD.match(url, 0, stop)
    authority = head.end() if head else 0
    colon = url[after_user : after_user + 1] == b":"
    port = _PORT.fullmatch(url, after_user + 1, authority) if colon and b"@" not in url[:after_user] else None
    web = scheme in _PATHS_WITH_AT
    at = -1 if port else url.rfind(b"@", 0, authority)
    if web and at >= 0:
        return at
    if not colon or url[:1] == b"[" or url[after_user + 1 : after_user + 2] in (b"", b"/"):
        return max(at, 0)
    if port and (web or not _STORES.fullmatch(scheme)):
        return 0
    if web:
        return _last_before_host(url, authority, stop, first=True)
    query = _QUERY.search(url, max(at, after_user), stop)
    last = _last_before_host(url, after_user, query.start() if query else stop, first=False, with_port=port is not None)
    if not last and at < 0 and not port and query:
        last = _last_before_host(url, query.start(), stop, first=True)
    if not last and at < 0 and not port and _STORES.fullmatch(scheme):
        last = _last_before_host(url, after_user, len(url), first=True)
    return max(last, at, 0)


def _last_before_host(url: bytes, start: int, stop: int, *, first: bool, with_port: bool = False) -> int:
    """Find the last `@` (or the first one) that a host follows. `with_port`: or one with a port."""
    found = 0
    at = start
    while (at := url.find(b"@", at, stop)) >= 0:
        host = _HOST.match(url, at + 1)
        local = not first and not with_port and url[at + 1 : at + 2] == b"/"
        if local or (host and (not with_port or b":" in host[0])):
            found = at
            if first:
                break
        at += 1
    return found


# `user:password@tcp(host)/db` of Go, and what other clients take; `app/password@db` of Oracle's.
_DSN = regex(
    r"""(?:\A|[\s"'`=(\[,;])([\w.-]+:[^\s"'<>/@:*][^\s"'<>]*)@(?:[a-z][a-z0-9]*\(|/\w|[0-9A-Za-z.-]+:[0-9]{2,5}(?:[/\s"',;?)]|\z))"""
)
_CLIENTS = r"sqlplus|sqlcl|sqlldr|expdp|impdp|exp|imp|tkprof|connect|conn|target"
_ORACLE = regex(
    rf"(?i)(?:jdbc:oracle:[a-z0-9]+:|\b(?:{_CLIENTS})(?:[ \t]+-[a-z]+(?:[ \t]+[0-9.]+)?)*[ \t]+|\buserid=)"
    r"""["']?([\w$#.-]+/(?:\\?"[^"\x00-\x20]{1,64}"|[^\x00-\x20"'/@][^\x00-\x20"']*))@[/\w(]"""
)
# Of these programs, which take nothing else there, also without the database.
_ORACLE_USER = regex(
    r"""(?i)(?:\b(?:sqlplus|sqlcl)(?:[ \t]+-[a-z]+(?:[ \t]+[0-9.]+)?)*[ \t]+|\b(?:sqlldr|expdp|impdp)[ \t]+"""
    r"""(?:userid=)?|\buserid=)["']?([\w$#]+/[^\x00-\x20"'/@.][^\x00-\x20"'/@.]*)["']?(?:\s|\z)"""
)
# A URL that lost a sign of its scheme, or has one too many.
_SCHEMES = (
    r"h?t{1,2}ps?|wss?|s?ftps?|ssh|smtps?|imaps?|ldaps?|mqtts?|amqps?|rediss?|valkey|nats|kafka|mongodb|postgres(?:ql)?"
    r"|mysql|mariadb|mssql|sqlserver|clickhouse"
)
_DAMAGED = regex(
    rf"""(?i)\b(?:{_SCHEMES})(?:\+[a-z0-9]+)?(?:[:;] ?/|;? ?//|: //|[:;] ?/{{3,4}})"""
    r"""([^\s/:@"'<>]+:[^\s/@"'<>]+)@[0-9A-Za-z\[$%{]"""
)
_NETRC = regex(
    r"(?:\A|\s)login\s+\S+\s+(?:account\s+\S+\s+)?password\s+(\S+)|(?:\A|\s)machine\s+\S+\s+password\s+(\S+)"
)
_PORT_OF_STORE = r"\*|5[0-9]{3}|6432|6543|26257"
_PGPASS = regex(
    rf"""(?:\A|[\s"'`=(\[<>])(?:\*|[\w.-]+|\\:[\\:\w]+):(?:{_PORT_OF_STORE}):(?:\*|[\w.-]+):(?:\*|[\w.-]+)"""
    r""":((?:[^\s:\\"'`<>]|\\.)+?)[)\]},;.]*(?:[\s"'`<>]|\z)"""
)
_AUTH = regex(
    r"""\bAUTH[ \t]+(?:default[ \t]+["']?([^\x00-\x20"']{2,})|(?:PLAIN|XOAUTH2|LOGIN)[ \t]+([0-9A-Za-z+/]{8,}={0,2}))"""
    r"""|(?:\A|["'\]][ \t]*)AUTH[ \t]+["']?([^\x00-\x20"']{4,})["']?(?:\z|[ \t]*["'\r\n])"""
    r"""|\bHELLO[ \t]+[23][ \t]+AUTH[ \t]+\S+[ \t]+([^\x00-\x20"']{2,})"""
)
_LINES = (_DSN, _ORACLE, _ORACLE_USER, _DAMAGED, _NETRC, _PGPASS, _AUTH)
_SIGNS = (b"@", b"@", b"/", b"@", b"password", b":", b"AUTH")
# Words that follow AUTH in prose.
_PROSE = frozenset(
    b"required failed failure error mechanism mechanisms command user users password token plain login xoauth2"
    b" oauthbearer cram-md5 ntlm gssapi external unknown not ok".split()
)


def _in_lines(text: bytes) -> list[Range]:
    found = []
    for sign, pattern in zip(_SIGNS, _LINES, strict=True):
        if sign in text:
            for match in pattern.finditer(text):
                budget.spend(3)
                group = match.lastindex
                assert group is not None
                secret = match.group(group)
                password = secret.partition(b":" if pattern in (_DSN, _DAMAGED) else b"/")[2] or secret
                if pattern is _DSN and (b"://" in secret or b"****" in secret):
                    continue  # of a URL's host, or masked
                if not is_placeholder(password) and secret.lower().strip(b".,:;") not in _PROSE:
                    found.append(Range(*match.span(group)))
    return found


_USER_NAME = re.compile(rb"[\w.@%+\\-]{0,128}")


def password_behind_user(text: bytes) -> Range | None:
    """Find the password in a text that is `user:password`; None where it is a user alone."""
    user, colon, password = text.strip().partition(b":")
    if not password or not _USER_NAME.fullmatch(user) or is_placeholder(password) or password.startswith(b"//"):
        return None
    start = len(text) - len(text.lstrip()) + len(user) + len(colon)
    return Range(start, start + len(password))


def _url_credentials(text: bytes) -> list[Range]:
    return merged(_in_urls(text) + _in_lines(text))


URL_CREDENTIALS = Detector(
    "url_credentials",
    r"""://[^@\x00-\x1f]*@|@(?:[a-z][a-z0-9]*\(|/\w|[0-9A-Za-z.-]+:[0-9]{2})"""
    rf"|(?i:jdbc:oracle:|\b(?:{_CLIENTS})[ \t]|\buserid=)[^\x00-\x1f@]*@"
    r"|(?i:\b(?:sqlplus|sqlcl|sqlldr|expdp|impdp)[ \t]|\buserid=)[^\x00-\x1f@]*/"
    r"|[A-Za-z](?:[:;] ?/|;? ?//)/{0,3}[^\s/:@]+:[^\s/@]+@"
    r"|login\s+[!-~]+\s+(?:account\s+[!-~]+\s+)?password\s|machine\s+[!-~]+\s+password\s"
    rf"|:(?:{_PORT_OF_STORE}):[^\s:]+:[^\s:]+:|\bAUTH[ \t]+[^\x00-\x20]|HELLO[ \t]+[23][ \t]+AUTH",
    until_settled(_url_credentials),
    signs=(
        *signs("@ :*: :6432: :6543: :26257:"),
        Sign(":5", then="0-9", times=3, until=":"),
        Sign("password", then=r"\s"),
        Sign("AUTH", before="^0-9A-Za-z_"),
        *signs("sqlplus sqlcl sqlldr expdp impdp userid=", any_case=True),
    ),
)
