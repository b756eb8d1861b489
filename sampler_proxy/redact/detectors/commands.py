"""Finds secrets on command lines that no name announces: behind options of one letter, and in places of their own.

A table says for each program which of its arguments are secret, as its manual has it. Options that name what they hold
(`--password x`) are found by their name, whatever the program: see `named.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.secret_values import is_reference, is_stand_in
from sampler_proxy.redact.detectors.types import Range, Sign
from sampler_proxy.redact.regexes import regex

MAX_ARGUMENTS = 128
"""Arguments of one command that are read."""


class _Program(NamedTuple):
    """Say which of a program's arguments are secret. Letters are options of one letter."""

    names: str
    """The program, as a pattern, with the words that must follow it."""
    apart: str = ""
    """Letters of options whose secret is the next argument."""
    attached: str = ""
    """Letters of options whose secret stands in the same argument (`-pX`)."""
    options: tuple[bytes, ...] = ()
    """Longer options whose secret is the next argument, or stands behind `=`."""
    users: tuple[bytes, ...] = ()
    """Options, long or of one letter, with a user and a password, next to it or attached."""
    separator: bytes = b":"
    """What separates user and password."""
    place: int | None = None
    """Which of the arguments that are no options is a secret; -1: the last one."""
    only_with: bytes = b""
    """An option of one letter without which no place is."""


_PROGRAMS = (
    _Program("curl", users=(b"-u", b"--user", b"-U", b"--proxy-user", b"-E", b"--cert"), options=(b"--oauth2-bearer",)),
    _Program(r"(?:http|https|xh|httpie)(?= -| [A-Z]{3,7} )", users=(b"-a", b"--auth")),
    _Program(
        r"(?:mysql|mysqldump|mysqladmin|mysqlimport|mysqlcheck|mysqlsh|mysqlshow|mariadb|mariadb-dump|mariadb-admin|mycli|xtrabackup|mydumper|sysbench)",
        attached="p",
    ),
    _Program(
        r"(?:sshpass|mongo|mongosh|mongodump|mongorestore|mongoexport|mongoimport|mongostat|cqlsh|nodetool)",
        apart="p",
        attached="p",
    ),
    _Program(
        r"(?:twine|rabbitmqadmin|evil-winrm|psexec|psexec64|rdesktop|hydra|nxc|crackmapexec|smbmap|asadmin|ncftp|ncftpput|ncftpget|impdp)",
        apart="p",
    ),
    _Program(r"(?:redis-cli|valkey-cli|keydb-cli|redis-benchmark)", apart="a", options=(b"--pass",)),
    _Program(
        r"(?:docker|podman|nerdctl|buildah|skopeo|oras|crane|helm registry|regctl registry|singularity remote) login",
        apart="p",
    ),
    _Program(
        r"(?:az login|az acr login|oc login|cf login|cf auth|bx login|ibmcloud login|bw login|ecs-cli|kinit)", apart="p"
    ),
    _Program(
        r"(?:sqlcmd|bcp|osql|isql|tsql|freebcp|ipmitool|mosquitto_pub|mosquitto_sub|mosquitto_rr|fastboot|dbaccess)",
        apart="P",
        attached="P",
    ),
    _Program(r"(?:unzip|zip|zipcloak|zipinfo)(?= )", apart="P"),
    _Program(r"(?:7z|7za|7zr|7zz|rar|unrar)", attached="p"),
    _Program(
        r"(?:ldapsearch|ldapmodify|ldapadd|ldapdelete|ldapwhoami|ldappasswd|ldapcompare|ldapmodrdn)",
        apart="ws",
        attached="w",
    ),
    _Program(r"(?:snmpwalk|snmpget|snmpset|snmpbulkwalk|snmpgetnext|snmptrap)", apart="AXc"),
    _Program(
        r"(?:smbclient|rpcclient|smbget|mount\.cifs|winexe|nmblookup|smbcacls)",
        users=(b"-U", b"--user"),
        separator=b"%",
    ),
    _Program("lftp", users=(b"-u", b"--user"), separator=b","),
    _Program(r"(?:plink|pscp|psftp|putty|kitty|klink)", options=(b"-pw",)),
    _Program(
        r"(?:keytool|jarsigner|apksigner)", options=(b"-storepass", b"-keypass", b"-srcstorepass", b"-deststorepass")
    ),
    _Program(r"(?:xfreerdp|wfreerdp|xfreerdp3)", options=(b"/p",)),
    _Program(r"openssl (?:enc|aes[\w-]*|des[\w-]*)", apart="kK"),
    _Program("htpasswd", place=-1, only_with=b"b"),
    _Program("vault login", place=0),
    _Program(r"net use", place=1),
    _Program(r"net user", place=1),
    _Program(r"rabbitmqctl (?:add_user|change_password|authenticate_user)", place=1),
    _Program(r"mc (?:alias set|config host add)", place=3),
    _Program(r"(?:mysqladmin|pgpasswd) password", place=0),
)
_ALL = [re.compile(rf"{program.names}(?:\.exe)?(?=[ \t])".encode()) for program in _PROGRAMS]
_NAMES = [re.sub(r"\(\?=[^()]*\)", "", program.names) for program in _PROGRAMS]
_BEGIN = regex(r"(?:\A|[^A-Za-z0-9_.-])((?:" + "|".join(_NAMES) + r")(?:\.exe)?[ \t])")
_ARGUMENT = re.compile(
    rb"[ \t]++((?:[^\s\"'\\|;&<>()]|\\[^\r\n]|\"(?:[^\"\\\r\n]|\\.)*+\"|'[^'\r\n]*+'|[<>](?=[\w-]+>?))++)"
)
_LITERAL = re.compile(rb"--from-literal[= ][\"']?[\w./-]{1,128}=(\"[^\"\r\n]*|'[^'\r\n]*|[^\s\"']+)")
_PASS = re.compile(rb"-pass(?:in|out)?[ =]\"?pass:([^\s\"']+)")
_STDIN = re.compile(rb"--password-stdin|--with-token|sudo (?:-\w+ )*-S|--passphrase-fd|chpasswd|passwd --stdin")
_ECHOED = re.compile(
    rb"(?:echo|printf)[ \t]+(?:-\w+[ \t]+|[\"']?%s(?:\\n)?[\"']?[ \t]+)*"
    rb"(\"[^\"]*|'[^']*|[^\s\"'|]+)[\"']?[ \t]*\|[^|\n]*\Z"
)
_HERE = re.compile(rb"[^\n|;]{0,200}?<<<[ \t]*(\"[^\"\n]*|'[^'\n]*|[^\s\"']+)")
PATTERN = (
    r"(?-i:" + _BEGIN.pattern.decode() + r")|--from-literal|-pass(?:in|out)?[ =]\"?pass:"
    r"|--password-stdin|--with-token|sudo [^\n\x00]{0,12}-S|--passphrase-fd|chpasswd|passwd --stdin"
)
"""RE2: where it matches nothing, `find` finds nothing."""
_SIGNS = (b" -", b"login", b" use", b"pass", b" set", b" /p", b"_user")
SIGNS = (
    *(Sign(space + "-", then="A-Za-z-") for space in " \t"),
    *(Sign(sign.decode()) for sign in _SIGNS if sign != b" -"),
)
"""What `find` finds nothing without."""
_ANY = regex(f"(?i){PATTERN}")


def find(text: bytes) -> list[Range]:
    """Find the secrets in the command lines of a text."""
    if not any(sign in text for sign in _SIGNS) or not _ANY.search(text):
        return []
    found: list[Range] = []
    done = 0
    for begin in _BEGIN.finditer(text):
        start = begin.start(1)
        if start < done:
            continue
        budget.spend(10)
        for program, pattern in _programs(begin[1]):
            if command := pattern.match(text, start):
                arguments, done = _arguments(text, command.end())
                budget.spend(2 * len(arguments))
                found += _of(program, text, arguments)
    for several in (_LITERAL, _PASS):
        found += [Range(*match.span(1)) for match in several.finditer(text)]
    for stdin in _STDIN.finditer(text):
        budget.spend(12)
        line = text.rfind(b"\n", max(0, stdin.start() - 512), stdin.start()) + 1 or max(0, stdin.start() - 512)
        for match, base in ((_ECHOED.search(text[line : stdin.start()]), line), (_HERE.match(text, stdin.end()), 0)):
            if match is not None:
                found.append(Range(base + match.start(1), base + match.end(1)))
    bare = [_without_quotes(text, one) for one in found]
    return [one for one in bare if one.start < one.end and not _stands_for_one(text[one.start : one.end])]


@lru_cache(256)
def _programs(begin: bytes) -> list[tuple[_Program, re.Pattern[bytes]]]:
    """List the programs whose command line may begin so, each with its pattern."""
    return [
        (program, pattern)
        for program, pattern, name in zip(_PROGRAMS, _ALL, _NAMES, strict=True)
        if re.match(name.encode(), begin)
    ]


def _stands_for_one(value: bytes) -> bool:
    return is_stand_in(value) or value[:1] == b"$" or value[:1] == b"-" or is_reference(value)


def _without_quotes(text: bytes, one: Range) -> Range:
    start, end = one
    if text[start : start + 1] in (b'"', b"'"):
        quote = text[start : start + 1]
        start += 1
        if end > start and text[end - 1 : end] == quote:
            end -= 1
    return Range(start, end)


def _arguments(text: bytes, at: int) -> tuple[list[Range], int]:
    """Read the arguments of a command, up to the end of its line or what begins the next command."""
    found: list[Range] = []
    while len(found) < MAX_ARGUMENTS and (argument := _ARGUMENT.match(text, at)):
        found.append(_without_quotes(text, Range(*argument.span(1))))
        at = argument.end()
    return found, at


def _of(program: _Program, text: bytes, arguments: Sequence[Range]) -> list[Range]:
    """Find the secrets among the arguments of a program."""
    found: list[Range] = []
    places: list[Range] = []
    letters = b""
    skip = False
    for i, one in enumerate(arguments):
        if skip:
            skip = False
            continue
        argument = text[one.start : one.end]
        following = arguments[i + 1] if i + 1 < len(arguments) else None
        if argument[:1] not in (b"-", b"/"):
            places.append(one)
            continue
        if argument[:2] != b"--":
            letters += argument[1:]
        option, equals, _ = argument.partition(b":" if argument[:1] == b"/" else b"=")
        letter = argument[1:2].decode("latin-1") if argument[:1] == b"-" and argument[1:2] != b"-" else ""
        users = next(
            (user for user in program.users if option == user or (len(user) == 2 and argument[:2] == user)), None
        )
        if users is None and len(argument) <= 8 and argument[1:].isalpha() and argument[:2] != b"--":
            users = next((user for user in program.users if len(user) == 2 and argument.endswith(user[1:])), None)
            if users is not None:
                option, argument = users, users
        if users is not None:
            place = (
                following
                if argument == users
                else Range(one.start + len(users) + bool(equals and option == users), one.end)
            )
            if place is not None:
                found += _password(text, _without_quotes(text, place), program.separator)
                skip = argument == users
        elif option in program.options:
            if equals:
                found.append(Range(one.start + len(option) + 1, one.end))
            elif following is not None:
                found.append(following)
                skip = True
        elif letter and letter in program.attached and len(argument) > 2:
            found.append(Range(one.start + 2, one.end))
        elif letter and letter in program.apart and len(argument) == 2 and following is not None:
            found.append(following)
            skip = True
    known = program.place is not None and (not program.only_with or program.only_with in letters)
    if places and known and program.place is not None and program.place < len(places):
        secret = places[program.place]
        if b"=" not in text[secret.start : secret.end]:
            found.append(secret)
    return found


def _password(text: bytes, one: Range, separator: bytes) -> list[Range]:
    """Find the secret of `user:password`: both, as `url_credentials` does it; none where there is no password."""
    _, found, password = text[one.start : one.end].partition(separator)
    if not found or not password or is_stand_in(password) or password[:1] == b"$" or password[:2] == b"//":
        return []
    return [one]
