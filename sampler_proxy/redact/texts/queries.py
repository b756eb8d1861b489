"""Obfuscates query languages other than SQL, whose literals stand in quotes or are numbers: Cypher, SPARQL, Gremlin,
PromQL, KQL, Flux, AQL. Words and braces stay; what is in double quotes is a string there."""

from __future__ import annotations

import re

from sampler_proxy.redact.texts import sql, words

_BEGINS = re.compile(
    rb"(?i)\s*(?:(?:OPTIONAL\s+)?MATCH\s*\(|MATCH\s+\w+\s*=|(?:MERGE|CREATE)\s*\(|(?:DETACH\s+)?DELETE\s+\w+\s*\Z"
    rb"|UNWIND\s+\S+\s+AS\b"
    rb"|(?:PROFILE|EXPLAIN|CYPHER)\s+(?:\S+\s+)??(?:OPTIONAL\s+)?(?:MATCH|UNWIND)\b|FOREACH\s*\(|WITH\s+\w+"
    rb"(?:\s*,\s*\w+)*\s+(?:MATCH|RETURN|WHERE)\b"
    rb"|PREFIX\s+[\w.-]*:\s*<|BASE\s*<|(?:SELECT|ASK|CONSTRUCT|DESCRIBE)\b[^{}'\"]*\{|(?:INSERT|DELETE)\s+"
    rb"(?:DATA\s*)?\{"
    rb"|g\s*\.\s*(?:V|E|addV|addE|inject)\s*\(|FOR\s+\w+(?:\s*,\s*\w+)*\s+IN\s+\S+\s+(?:FILTER|RETURN|SORT|LIMIT"
    rb"|LET|FOR)\b|from\s*\(\s*bucket\s*:"
    rb"|[A-Za-z_]\w*\s*\|\s*(?:where|project|summarize|extend|take|limit|order|count|join|parse)\b"
    rb"|(?:\w+\s*\(\s*)*[A-Za-z_:][\w:]*\s*\{\s*[A-Za-z_]\w*\s*(?:=~?|!=|!~)\s*[\"'`?])"
)
_STRUCTURE = re.compile(rb"[(){}\[\]|=<>'\"`]")
_BACK_QUOTED = re.compile(rb"([=~]\s*)`[^`]*`")


def begin(text: bytes) -> bool:
    """Tell whether a text begins like one of these languages, and like no SQL."""
    return _BEGINS.match(text) is not None


def obfuscate(text: bytes) -> bytes:
    """Return the query with `?` for its literals and without comments. Idempotent, raises nothing."""
    if not _STRUCTURE.search(text):
        return words.obfuscate(text)
    return sql.without_literals(_BACK_QUOTED.sub(rb"\1?", text), names=False)
