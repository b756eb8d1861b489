"""Obfuscates statements that are documents: JSON bodies and commands, the shell of MongoDB, requests of Elasticsearch.

Read by tokens, not parsed: nearly JSON, several documents, and quotes of either kind are all the same. Names of
members, calls and operators stay; so do the names of collections and indices, where a command of the store holds one.
Every other literal becomes `?`, in its quotes.
"""

from __future__ import annotations

import re

from sampler_proxy.redact.texts import words
from sampler_proxy.redact.texts.words import MASK

# The first member of a command names its collection.
_COMMANDS = frozenset(
    b"find insert update delete aggregate findandmodify findAndModify count distinct getMore collection createIndexes"
    b" dropIndexes listIndexes create drop collMod mapReduce killCursors explain listCollections"
    b" renameCollection".split()
)
_NAMING = frozenset(b"$db collection TableName IndexName index _index".split())
_COLLECTION = re.compile(rb"[\"'`][A-Za-z_][A-Za-z_.$-]*(?:[_.-]?[0-9]{1,4}(?![0-9A-Za-z]))?[\"'`]")
_KEY = re.compile(rb"[A-Za-z_$@\x80-\xff][\w.$@\x80-\xff \[\]/-]{0,127}")
_CONSTANTS = frozenset((b"true", b"false", b"null", b"undefined", b"NaN", b"None", b"True", b"False", b"nil", b"new"))

# What stands before a token, signs and space, is taken with it.
_TOKEN = re.compile(
    rb"(?s)[\s{}\[\](),:;.?=<>+*|&!-]*+(?:"
    rb"(?P<string>\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|`(?:[^`\\]|\\.)*+`)"
    rb"|(?P<word>[A-Za-z_$\x80-\xff][\w$\x80-\xff]*+)"
    rb"|(?P<number>[0-9](?:[\w.\x80-\xff]|(?<=[eE])[+-](?=[0-9]))*+)"
    rb"|(?P<comment>/\*.*?\*/|(?<!:)//[^\n]*+)"
    rb"|(?P<open>[\"'`].*|/\*.*)"
    rb"|(?P<regex>/(?:[^/\\\n]|\\.)++/[a-z]*+)"
    rb"|.|\Z)"
)
_AFTER_KEY = re.compile(rb"\s*+(?:=>|:(?!:))")
_CALLED = re.compile(rb"\s*+\(")
_GETTERS = re.compile(rb"(?:getCollection|collection|getSiblingDB|getDB|db)\s*\(\s*\Z")
MAX_TOKENS = 2048
"""What is behind so many becomes one `?`."""
_BEFORE = 32
"""Bytes in front of a string that are looked at."""

_REQUEST = re.compile(
    rb"\s*(?:GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)[ \t]+(?P<path>/?[^\s?{]*+)(?P<query>\?[^\s{]*+)?"
)
_SEGMENT = re.compile(rb"[A-Za-z_.*,$@-]{1,64}|[A-Za-z_-]+(?:[-_.][0-9]{1,4}){1,3}|")
_VALUES = re.compile(rb"(?<==)[^&]+")
_SHELL = re.compile(
    rb"\s*(?:db|rs|sh)\.[A-Za-z_$]|\s*[A-Za-z_][\w.-]*\.(?:find|insert|update|delete|aggregate|count|distinct"
    rb"|remove|save|replace|drop|create|bulk)\w*\s*\("
)
_BEGINS = re.compile(rb"\s*(?:(?:[A-Za-z_][\w.$-]*[ \t]+){0,3})?[{\[]")


def begin(text: bytes) -> bool:
    """Tell whether a text begins like a document, a request, or a call of MongoDB's shell."""
    return bool(
        _BEGINS.match(text) or _SHELL.match(text) or ((found := _REQUEST.match(text)) and found["path"][:1] == b"/")
    )


def obfuscate(text: bytes) -> bytes:
    """Return the document with `?` for its literals. Of what stands in front of the first brace commands and names
    stay, of a request's path all but identifiers. Idempotent, raises nothing."""
    if not begin(text):
        return words.obfuscate(text)
    out: list[bytes] = []
    at = 0
    if (request := _REQUEST.match(text)) is not None:
        at = request.end()
        out.append(_request(request))
    elif not _SHELL.match(text) and (front := _BEGINS.match(text)) is not None:
        at = front.end() - 1
        out.append(words.obfuscate(text[:at]))
    out.append(_tokens(text, at))
    return b"".join(out)


def _request(found: re.Match[bytes]) -> bytes:
    segments = [one if _SEGMENT.fullmatch(one) or one == MASK else MASK for one in found["path"].split(b"/")]
    query = _VALUES.sub(MASK, found["query"] or b"")
    return found.string[found.start() : found.start("path")] + b"/".join(segments) + query


def _tokens(text: bytes, at: int) -> bytes:
    """Obfuscate what is no request line, nor words in front of a document."""
    out: list[bytes] = []
    key = b""  # of the value that follows
    members = depth = 0
    for number, found in enumerate(_TOKEN.finditer(text, at)):
        if number >= MAX_TOKENS:
            return b"".join((*out, MASK))
        kind = found.lastgroup
        if kind is None:
            continue
        start = found.start(kind)
        signs = text[at:start]
        out.append(signs)
        at = found.end()
        if signs.strip(b" :=>"):
            depth += signs.count(b"{") + signs.count(b"[") - signs.count(b"}") - signs.count(b"]")
            if b"," in signs or key not in _NAMING:
                key = b""
        token = found[kind]
        if kind in ("string", "word") and _AFTER_KEY.match(text, at):
            inside = token[1:-1] if kind == "string" else token
            out.append(token if _KEY.fullmatch(inside) or inside == MASK else _masked(token))
            key = inside if members == 0 or inside in _NAMING else b"*"
            members += 1
            continue
        out.append(_value(text, start, token, kind, key, depth))
        key = b"*"
    return b"".join((*out, text[at:]))


def _value(text: bytes, start: int, token: bytes, kind: str, key: bytes, depth: int) -> bytes:
    """Return what becomes of a token that is no key: calls and what they are made on stay, and names of collections."""
    if kind == "comment":
        return b" "
    if kind == "string":
        named = key in _COMMANDS or key in _NAMING or _GETTERS.search(text[max(0, start - _BEFORE) : start])
        return token if named and _COLLECTION.fullmatch(token) else _masked(token)
    if kind == "word":
        end = start + len(token)
        dotted = text[start - 1 : start] == b"." or text[end : end + 1] == b"."
        return token if token in _CONSTANTS or _CALLED.match(text, end) or (dotted and depth <= 0) else MASK
    return MASK


def _masked(token: bytes) -> bytes:
    return token[:1] + MASK + token[-1:] if token[:1] in b"\"'`" else MASK
