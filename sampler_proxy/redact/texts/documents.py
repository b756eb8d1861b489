"""Obfuscates statements that are documents: JSON bodies and commands, the shell of MongoDB, requests of Elasticsearch.

Read by tokens, not parsed: nearly JSON, several documents, and quotes of either kind are all the same. Names of members,
calls and operators stay; so do the names of collections and indices, where a command of the store holds one. Every
other literal becomes `?`, in its quotes.
"""

from __future__ import annotations

import re

from sampler_proxy.redact.texts import words
from sampler_proxy.redact.texts.words import MASK

# The first member of a command names its collection.
_COMMANDS = frozenset(
    b"find insert update delete aggregate findandmodify findAndModify count distinct getMore collection createIndexes"
    b" dropIndexes listIndexes create drop collMod mapReduce killCursors explain listCollections renameCollection".split()
)
_NAMING = frozenset(b"$db collection TableName IndexName index _index".split())
_COLLECTION = re.compile(rb"[\"'`][A-Za-z_][A-Za-z_.$-]*(?:[_.-]?[0-9]{1,4}(?![0-9A-Za-z]))?[\"'`]")
_KEY = re.compile(rb"[A-Za-z_$@\x80-\xff][\w.$@\x80-\xff \[\]/-]{0,127}")
_CONSTANTS = frozenset((b"true", b"false", b"null", b"undefined", b"NaN", b"None", b"True", b"False", b"nil", b"new"))

_TOKEN = re.compile(
    rb"(?s)(?P<string>\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|`(?:[^`\\]|\\.)*+`)"
    rb"|(?P<word>[A-Za-z_$\x80-\xff][\w$\x80-\xff]*+)"
    rb"|(?P<number>(?:0[xX])?[0-9](?:[\w.\x80-\xff]|(?<=[eE])[+-](?=[0-9]))*+)"
    rb"|(?P<comment>/\*.*?\*/|(?<!:)//[^\n]*+)"
    rb"|(?P<regex>(?<=[:(,\[=])\s*/(?:[^/\\\n]|\\.)++/[a-z]*+)"
    rb"|(?P<open>[\"'`].*|/\*.*)"
    rb"|[\s{}\[\](),:;.?=<>+*|&!-]"
)
_AFTER_KEY = re.compile(rb"\s*+(?:=>|:(?!:))")
_CALLED = re.compile(rb"\s*+\(")
_GETTERS = re.compile(rb"(?:getCollection|collection|getSiblingDB|getDB|db)\s*\(\s*\Z")
_BEFORE = 32
"""Bytes in front of a string that are looked at."""

_REQUEST = re.compile(rb"\s*(?:GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)[ \t]+(?P<path>/?[^\s?{]*+)(?P<query>\?[^\s{]*+)?")
_SEGMENT = re.compile(rb"[A-Za-z_.*,$@-]{1,64}|[A-Za-z_-]+(?:[-_.][0-9]{1,4}){1,3}|")
_VALUES = re.compile(rb"(?<==)[^&]+")
_SHELL = re.compile(rb"\s*(?:db|rs|sh)\.[A-Za-z_$]|\s*[A-Za-z_][\w.-]*\.(?:find|insert|update|delete|aggregate|count|distinct|remove|save|replace|drop|create|bulk)\w*\s*\(")
_BEGINS = re.compile(rb"\s*(?:(?:[A-Za-z_][\w.$-]*[ \t]+){0,3})?[{\[]")


def begin(text: bytes) -> bool:
    """Tell whether a text begins like a document, a request, or a call of MongoDB's shell."""
    return bool(_BEGINS.match(text) or _SHELL.match(text) or ((found := _REQUEST.match(text)) and found["path"][:1] == b"/"))


def obfuscate(text: bytes) -> bytes:
    """Return the document with `?` for its literals. Of what stands in front of the first brace commands and names
    stay, of a request's path all but identifiers. Idempotent, raises nothing."""
    if not begin(text):
        return words.obfuscate(text)
    out = []
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
    out = []
    key = b""  # of the value that follows
    members = depth = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            out.append(text[at : at + 1])
            at += 1
            continue
        start, at = at, found.end()
        kind = found.lastgroup
        token = found[0]
        if kind is None:
            out.append(token)
            depth += (token in b"{[") - (token in b"}]")
            if token in b",;" or (token in b"{[" and key not in _NAMING):
                key = b""
            continue
        if kind == "open":
            out.append(MASK)
            break
        if kind in ("string", "word") and _AFTER_KEY.match(text, at):
            inside = token[1:-1] if kind == "string" else token
            out.append(token if _KEY.fullmatch(inside) or inside == MASK else _masked(token))
            key = inside if members == 0 or inside in _NAMING else b"*"
            members += 1
            continue
        dotted = text[start - 1 : start] == b"." or text[at : at + 1] == b"."
        if kind == "word" and (token in _CONSTANTS or _CALLED.match(text, at) or (dotted and depth <= 0)):
            out.append(token)
        else:
            out.append(_value(text, start, token, kind, key))
        key = b"*"
    return b"".join(out)


def _value(text: bytes, start: int, token: bytes, kind: str, key: bytes) -> bytes:
    """Return what becomes of a literal, or of another token that is no name."""
    if kind == "comment":
        return b" "
    if kind == "regex":
        return token[: len(token) - len(token.lstrip())] + MASK
    if kind == "string":
        named = key in _COMMANDS or key in _NAMING or _GETTERS.search(text[max(0, start - _BEFORE) : start])
        return token if named and _COLLECTION.fullmatch(token) else _masked(token)
    return MASK


def _masked(token: bytes) -> bytes:
    return token[:1] + MASK + token[-1:] if token[:1] in b"\"'`" else MASK
