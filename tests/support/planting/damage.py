"""Damages what stands around a planted secret, never the secret itself nor the name that announces it.

Guarded are the name, the value, what is between them, and one sign on either side: a quote or a separator, as it is
written there (`"`, `\\"`, `%22`, `--`). All else may be cut off, deleted, doubled, replaced, or interspersed with what
breaks parsers. Whatever is done to it, a secret that is found in the sound text is found in the damaged one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple

from sampler_proxy.redact.policy import Policy
from tests.support.planting import credentials, judge, personal, providers
from tests.support.planting.carriers import Carrier, carriers, named
from tests.support.planting.forms import Kind
from tests.support.planting.samples import NEUTRAL, Sample
from tests.support.redacting import Redacting, policy

PIECES = (
    *(
        '"',
        "'",
        "`",
        "\\",
        '\\"',
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        ",",
        ":",
        ";",
        "&",
        "=",
        "%",
        "$",
        "|",
        "@",
        "#",
    ),
    *("\t", "\n", "\r\n", "\x00", "\x01", "\x1b[0m", "\u2028", "\ufeff", "é", "密", "\ufffd"),
    *(
        "None",
        "NaN",
        "True",
        "undefined",
        "-Infinity",
        "+5",
        ".5",
        "007",
        "0x1F",
        "...",
        "<x>",
        "${x}",
        "{{ x }}",
        "b'x'",
    ),
    *('ObjectId("a")', "new Date(1)", "f(1, 2)", "/* a */", "// a\n", "# a\n", "--", "%22", "%7B", "\\u0022", "&quot;"),
    *(
        '"a": ',
        '"a": "b", ',
        "a=b ",
        " ",
        "  ",
        '{"a": 1}\n',
        "[1, 2",
        "'a",
        "\\n",
        "\\x",
        "<!-- ",
        "]]>",
        "?>",
        "SELECT ",
    ),
)
MAX_STEPS = 6
_SIGN = r"(?:%25|%)[0-9A-F]{2}|\\+(?:x[0-9a-f]{2}|u[0-9a-f]{4}|.)|&#?\w+;|\x1b\[\d+m"
_BEFORE = re.compile(rf"(?:{_SIGN}|[^\w\s]--?|\s--?D?|[\s\S])\Z")
_BEHIND = re.compile(rf"{_SIGN}|[\s\S]")


class Step(NamedTuple):
    """One damage: what is done, where (taken modulo the places there are), and with what."""

    what: int
    where: int
    piece: int


class Planted(NamedTuple):
    """A text in three pieces, of which the middle one is guarded."""

    kind: str
    carrier: str
    before: str
    guarded: str
    behind: str
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.before + self.guarded + self.behind


# Whose names mean nothing else, and those whose form is enough.
NAMED = ("password", "client secret", "api key", "access key")
KNOWN = (
    "github",
    "aws access key id",
    "slack bot",
    "stripe",
    "google api key",
    "jwt",
    "card",
    "iban",
    "email",
    "openai",
)
# In a sentence each word may be what tells; in statements all is masked that is not understood.
_GROUPS = (
    "json",
    "nested",
    "dumps",
    "pairs",
    "environment",
    "command line",
    "xml",
    "yaml",
    "header",
    "form and query",
    "log line",
)


# Here it is the object, array or element around both that tells a name from a value: it is guarded, too.
_STRUCTURES = frozenset(
    (
        *(
            "array of pairs",
            "name and value",
            "key and value",
            "value and name",
            "otlp json",
            "tuple",
            "argument array",
        ),
        *("single-quoted arguments", "xml name and value", "html table", "xml setting", "xml entry", "xml property"),
        *("html input", "plist", "php var_dump", "xml element with attributes", "soap"),
    )
)
# Two elements are a name and its value only where there is no third: an array of three may list names of fields. So
# what closes the pair is guarded, too; pairs that are cut off are in tests/redact/test_nearly_json.py.
_PAIRS = frozenset(("array of pairs", "tuple"))


@lru_cache(1)
def planted_kinds() -> tuple[Kind, ...]:
    every = (*providers.kinds(), *personal.kinds(), *credentials.kinds())
    return tuple(kind for kind in every if kind.name in (*NAMED, *KNOWN))


@lru_cache(1)
def planted_carriers() -> dict[str, list[Carrier]]:
    """By group."""
    found: dict[str, list[Carrier]] = {group: [] for group in _GROUPS}
    for carrier in carriers():
        if carrier.group in found:
            found[carrier.group].append(carrier)
    return found


def plant(kind: Kind, carrier: Carrier, seed: int) -> Planted | None:
    """Put a secret into a carrier; None where they do not go together, or where it is not found in the sound text."""
    if not kind.alone and not carrier.announces:
        return None
    random = Random(f"{seed}/{kind.name}/{carrier.name}")
    secret = kind.make(random)
    if not carrier.takes(secret.text):
        return None
    template = carrier.templates[0]
    name = named(random.choice(kind.names or NEUTRAL), carrier.style)
    marks = [mark for mark in ("$N", "$V") if mark in template]
    if kind.alone:
        marks = ["$V"]
    first = min(template.index(mark) for mark in marks)
    last = max(template.index(mark) for mark in marks) + 2
    before, behind = _BEFORE.search(template[:first]), _BEHIND.match(template[last:])
    start = first if before is None else before.start()
    if carrier.name in _STRUCTURES and not kind.alone:
        start = min(start, max(template.rfind(sign, 0, first) for sign in "{[(<"))
    end = last if behind is None else last + behind.end()
    if carrier.name in _PAIRS and not kind.alone:
        end = max(end, min(at for sign in "])" if (at := template.find(sign, last)) >= 0) + 1)
    pieces = [template[:start], template[start:end], template[end:]]
    value = carrier.escape(secret.text)
    filled = [piece.replace("$N", name).replace("$V", value).replace("$M", "8").replace("$L", "9") for piece in pieces]
    return Planted(kind.name, carrier.name, *filled, secret.parts)


def damaged(planted: Planted, steps: Sequence[Step]) -> str:
    """Carry out the steps on what is not guarded."""
    before, behind = planted.before, planted.behind
    for what, where, piece in steps:
        at = where % (len(before) + len(behind) + 1)
        if at <= len(before) and (before or not behind):
            before = _damage(before, what, at, PIECES[piece % len(PIECES)])
        else:
            behind = _damage(behind, what, max(at - len(before), 0), PIECES[piece % len(PIECES)])
    if not planted.before and before[-1:].isalnum():  # else another name would stand there
        before += "\n"
    return before + planted.guarded + behind


def _damage(text: str, what: int, at: int, piece: str) -> str:
    match what % 7:
        case 0:
            return text[:at] + piece + text[at:]
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return text[:at] + piece + text[at + 1 :]
        case 3:
            return text[:at]
        case 4:
            return text[at:]
        case 5:
            return text[:at] + text[at : at + 8] + text[at:]
        case _:
            return text[:at] + text[at + 8 :]


@lru_cache(1)
def _redacting() -> Redacting:
    found = policy({"preset": "common"})
    assert isinstance(found, Policy)
    return Redacting(found)


def leaves(planted: Planted, text: str) -> bool:
    """Tell whether the secret is in what leaves of a text, in an attribute of the preset `common`."""
    sample = Sample(planted.kind, planted.carrier, "", "attribute", "message", text, planted.parts)
    left = judge.texts_after(_redacting(), [sample])[0]
    return judge.leaks(sample, left)


@lru_cache(1 << 12)
def found_when_sound(planted: Planted) -> bool:
    return not leaves(planted, planted.text)
