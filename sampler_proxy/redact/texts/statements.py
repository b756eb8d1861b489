"""Finds where in a text an SQL statement begins.

By its verb, and enough of what must follow that prose is seldom taken for one. What else could be a sentence (`select
'Save'`, `call back('x')`) is a statement in capitals, or where a line begins with it.
"""

from __future__ import annotations

from sampler_proxy.redact.detectors.types import signs
from sampler_proxy.redact.regexes import regex

_GAP = r"(?:\s|/\*[^*\x00]*\*/)"
_SHORT = (
    r"(?:CALL|EXEC|EXECUTE)\s+[\w.\[\]]+\s*(?:\(|@|N?'|[0-9])|SELECT\s+(?:[\w.]+\s*\(\s*)?(?:N?'|[0-9])|VALUES\s*\("
)
PATTERN = (
    rf"(?i)\b(select\b[^\x00]*\bfrom\b|update{_GAP}+\S+?(?:{_GAP}+\S+){{0,3}}?{_GAP}+set{_GAP}+\S+?\s*="
    rf"|delete{_GAP}+from\b[^\x00]*\bwhere\b|merge{_GAP}+into\b[^\x00]*\busing\b"
    rf"|(?:insert|replace){_GAP}+(?:\w+{_GAP}+){{0,2}}?into{_GAP}+\S+?{_GAP}*(?:\(|values\b|select\b|set\b)"
    rf"|(?:create|alter)\s+(?:user|role|login)\b[^\x00]*\b(?:identified|password)\b|set\s+password\b[^\x00]*[=']"
    rf"|grant\b[^\x00]*\bto\b[^\x00]*\bidentified\s+by\b)"
    rf"|\b((?-i:{_SHORT}))"
    rf"|(?m:^)\s*({_SHORT})"
)
"""RE2: where it matches nothing, there is no statement."""
SIGNS = signs(
    "select update delete merge insert replace create alter set grant call exec execute values",
    then="^0-9A-Za-z_",
    before="^0-9A-Za-z_",
    any_case=True,
)
"""What it cannot match without."""

_FIND = regex(PATTERN)
_BEGINS = regex(r"(?i)^\s*(?:with|explain|analyze)\s")


def begins(text: bytes) -> int | None:
    """Return where the first statement begins; None where there is none. Raises nothing."""
    match = _FIND.search(text)
    if match is None:
        return None
    return 0 if _BEGINS.search(text) else match.start(match.lastindex or 0)
