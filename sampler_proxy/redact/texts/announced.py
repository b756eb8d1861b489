"""Finds values whose name is itself a value: `{"name": "Authorization", "value": "x"}` (HAR, Kubernetes, OTLP in JSON),
`["api_key", "x"]`, `("password", "x")`, `["--password", "x"]`, `["--token=x"]`.

So that key rules hold there too. Whether a name is one that rules are about is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors.types import signs
from sampler_proxy.redact.texts.members import Member

_SMALL = str.maketrans("", "", "_-")
_NAMES = (
    *("name", "key", "k", "header", "headername", "field", "fieldname", "param", "parameter", "parametername"),
    *("parameterkey", "variable", "var", "property", "attribute", "option", "setting", "label", "identifier", "path"),
)
_VALUES = (
    *("value", "values", "val", "v", "stringvalue", "headervalue", "fieldvalue", "parametervalue", "secretstring"),
    *("newValue", "oldValue", "new_value", "old_value", "new", "old", "defaultValue", "default_value", "default"),
)


def _small(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.translate(_SMALL).lower() for word in words)


def _spelt(words: Iterable[str]) -> frozenset[bytes]:
    return frozenset(form.encode() for word in words for form in (word, word[0].upper() + word[1:], word.upper()))


NAMES = _small(_NAMES)
"""Keys whose values may be names, in lower case and without `_` and `-`."""
VALUES = _small(_VALUES)
"""Keys of what such a name names."""
COMMON_NAMES, COMMON_VALUES = _spelt(_NAMES), _spelt(_VALUES)
"""The same as they are mostly spelt."""

PATTERN = (
    r"""[\[({]\s*["'`][^"'`\x00\n]{1,64}["'`]\s*,\s*[bu]?["'`]|["'`],\s*["'`][^"'`\x00\n]*["'`]\s*[\])}]"""
    r"""|["'`]--?[A-Za-z][0-9A-Za-z_.-]*(?:["'`]\s*,|=)|\[\s*[bu]?["'`][A-Za-z_][0-9A-Za-z_.-]*="""
    r"""|\b(?:Secret|Sensitive|Password|ApiKey)[A-Za-z]{0,6}(?:::new|\.of)?\(["'`]"""
)
"""RE2: pairs, options, and calls. Where it does not match, nothing is announced but by objects with quoted keys."""

SIGNS = (
    *signs("\" ' `", before=r"\s\[({bu,"),
    *signs("\" ' `", then=r"\s,=-"),
)
"""What `PATTERN` cannot match without."""

_NAME_KEY = b"|".join(sorted(word.encode() for word in NAMES))
_VALUE_KEY = b"|".join(sorted(word.encode() for word in VALUES))
# Side by side, wherever that is: `"x", "value": "y"`, `"y", "name": "x"`, `"x", "y"]`, `"--x", "y"`.
_BESIDE = re.compile(
    rb"""(["'`])([^"'`\\\n]{1,128})\1\s*+,\s*+["'`]?(?i:"""
    + _VALUE_KEY
    + rb""")["'`]?\s*+(?::|=>|=)\s*+(?:\{\s*+["'`]?\w++["'`]?\s*+(?::|=>)\s*+)?["'`]([^"'`\n]++)"""
    rb"""|(["'`])([^"'`\\\n]{1,4096})\4\s*+,\s*+["'`]?(?i:"""
    + _NAME_KEY
    + rb""")["'`]?\s*+(?::|=>|=)\s*+["'`]([^"'`\\\n]{1,128})["'`]"""
    rb"""|(["'`])(-{0,2}+)([^"'`\\\n=]{1,128})\7\s*+,(?=\s*+["'`]([^"'`\n]++)["'`]+(\s*+[\])}])?+)"""
)
_OPTION = re.compile(rb"(--?)?([A-Za-z_][0-9A-Za-z_.-]*+)(=?)")
_SHORT = re.compile(rb"-[A-Za-z]")
_WORD = re.compile(rb"[A-Za-z_]{1,24}")
_GAP = re.compile(rb"\s*+(?:,|=>)\s*+")
_END = re.compile(rb"\s*+,?\s*+(?:[\])}]|[\"'`]?[\])}\s]*+\Z)")
_STARTS = re.compile(rb"[\w.\])]\Z")


class Announced(NamedTuple):
    """The index of a member whose name stands elsewhere. `offset`: where in its text the value begins."""

    member: int
    name: str
    offset: int = 0


def announced(text: bytes, members: Sequence[Member]) -> Iterator[Announced]:
    """Find the members of a text that others announce: the other member of an object that holds a name and a value,
    the second element of a pair, what follows an option of a command line or stands in it. Linear; raises nothing."""
    names: dict[int, str] = {}
    values: dict[int, list[int]] = {}
    elements: dict[int, list[int]] = {}
    keyed: dict[int, bool] = {}  # whether the first member of braces has a key
    for index, member in enumerate(members):
        around = member.around
        if around < 0:
            continue
        if text[around] == 0x7B:
            plain = member.key.translate(_SMALL).lower()
            if member.is_string and plain in NAMES:
                names.setdefault(around, member.text.decode("utf-8", "replace"))
            elif plain in VALUES:
                values.setdefault(around, []).append(index)
            if around not in keyed:
                keyed[around] = text[around + 1 : member.start].strip() != b""
        if text[around] != 0x7B or not keyed[around]:
            elements.setdefault(around, []).append(index)
    for around, name in names.items():
        for index in values.get(around, ()):
            yield Announced(index, name)
    for around, indices in elements.items():
        yield from _in_array(text, members, around, indices)


def _in_array(text: bytes, members: Sequence[Member], around: int, indices: Sequence[int]) -> Iterator[Announced]:
    budget.spend(len(indices) + 2)
    option = ""
    for index in indices:
        member = members[index]
        if option and not member.text.startswith(b"-"):
            yield Announced(index, option)
        option = ""
        if member.is_string and (match := _OPTION.match(member.text)):
            name = match[2].decode()
            if match[3]:
                yield Announced(index, name, match.end())
            elif match[1] and match.end() == len(member.text):
                option = name
    first, *others = (members[index] for index in indices[:4])
    if not first.is_string or not others:
        return
    if "header" in first.key.lower() and len(indices) % 2 == 0:  # as Node.js has them: names and values by turns
        for name, value in zip(indices[::2], indices[1::2], strict=True):
            yield Announced(value, members[name].text.decode("utf-8", "replace"))
    elif _is_pair(text, around, first, others[0]):
        yield Announced(indices[1], first.text.decode("utf-8", "replace"))


def beside(text: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Find strings that announce strings next to them, whatever is done to the brackets around both: names, each with
    where its value begins and ends. Linear; raises nothing."""
    for match in _BESIDE.finditer(text):
        budget.spend(1)
        if match[1]:
            yield match[2], *match.span(3)
        elif match[4]:
            yield match[6], *match.span(5)
        elif match[8] or (match[11] and not _WORD.fullmatch(match[10])):
            yield match[9], *match.span(10)


def commands(text: bytes, members: Sequence[Member]) -> list[list[int]]:
    """Find the arrays of strings that are command lines with an option of one letter (`["mysql", "-p", "x"]`): what it
    means depends on the program. Linear; raises nothing."""
    arrays: dict[int, list[int]] = {}
    short = set()
    for index, member in enumerate(members):
        if member.is_string and member.around >= 0 and text[member.around] != 0x7B:
            arrays.setdefault(member.around, []).append(index)
            if _SHORT.match(member.text):
                short.add(member.around)
    return [arrays[around] for around in sorted(short) if len(arrays[around]) > 2]


def _is_pair(text: bytes, around: int, first: Member, second: Member) -> bool:
    """Tell whether two elements are all that a bracket holds, as far as it goes, and the second is no name of the same
    kind: `("password", "email")` may be names of fields, and `("password", "required")` the arguments of a call. What
    has its value in it (`--token=x`) is no name."""
    if (
        b"=" in first.text
        or text[around + 1 : first.start].strip()
        or not _GAP.fullmatch(text, first.end, second.start)
    ):
        return False
    if not _END.match(text, second.end):
        return False
    before = text[max(0, around - 32) : around].rstrip()
    if before.endswith((b"[", b"],", b"),", b"{", b"},")):
        return True  # one of several pairs
    is_tuple = text[around] == 0x28 and not _STARTS.search(before)
    return is_tuple or not _WORD.fullmatch(second.text)
