"""Secrets in carriers in positions: every kind in every carrier that takes it, each by a random generator of its own.

A kind or carrier that is added changes no sample of the others.

What nobody could tell for a secret, or for an innocent, is left out:

- a value of no form without a name: a password in an attribute `ref`, a bare UUID or hash, `GPG_KEY` of an image;
- a literal of a statement in prose, unless a column names it: `SELECT 'x'`;
- hexadecimal glued to letters (`uploadab12...`), whose beginning is anywhere;
- `session.id`, which the semantic conventions have for something that is no secret;
- a password of letters where prose may stand: `password -> correct`, cells of a table;
- names that say either: `?sid=1`, `existingSecret: db-credentials`, an object under a key that announces a secret;
- secrets in base64, in hexadecimal, compressed, or cut in pieces: the manual says that these are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from tests.support.planting import credentials, personal, providers, texts
from tests.support.planting.carriers import LOOSE, Carrier, carriers, named
from tests.support.planting.forms import Kind

# Where a text may stand in a span.
PLACES = (
    *("attribute",) * 8,
    *(
        "event attribute",
        "event name",
        "status message",
        "span name",
        "list",
        "map",
        "resource",
        "scope",
        "bytes",
        "link",
    ),
)
NEUTRAL = ("value", "ref", "data", "item", "arg0", "detail")
_STYLES = ("snake", "camel", "kebab", "dotted")
_PREFIXES = ("", "", "app.", "http.request.header.", "user.", "config.", "rpc.grpc.request.metadata.")
_BARE_TIMES = 12
_TEXT_TIMES = 40
"""Texts have many templates."""
_NEUTRAL_SHARE = 0.2
"""Of the carriers with a name, so many are tried with a secret that needs none."""


class Sample(NamedTuple):
    """A value in a place, and what of it must not leave."""

    kind: str
    carrier: str
    group: str
    place: str
    key: str
    value: Any
    parts: tuple[str, ...]
    beside: tuple[tuple[str, str], ...] = ()
    family: str = ""
    """Of the kind: a module of kinds, `named` for those that a name announces."""


def kinds() -> list[tuple[str, Kind]]:
    """All kinds, each with its family."""
    found = [("provider", kind) for kind in providers.kinds()] + [("personal", kind) for kind in personal.kinds()]
    found += [("named" if not kind.alone else "token", kind) for kind in credentials.kinds()]
    return found + [("text", kind) for kind in texts.kinds()]


@lru_cache(2)
def samples(seed: int = 1, share: float = 1.0) -> Sequence[Sample]:
    """Draw a sample for each kind in each carrier; `share`: of these, so many."""
    found: list[Sample] = []
    around = carriers()
    for family, kind in kinds():
        first = len(found)
        found += _bare(kind, seed, share)
        for carrier in around:
            random = Random(f"{seed}/{kind.name}/{carrier.name}")
            wanted = share * (_NEUTRAL_SHARE if kind.alone and carrier.announces else 1)
            if random.random() < wanted and (sample := _carried(kind, carrier, random)) is not None:
                found.append(sample)
        found[first:] = [sample._replace(family=family) for sample in found[first:]]
    return found


def _bare(kind: Kind, seed: int, share: float) -> Iterator[Sample]:
    """The secret is the whole value: of a key that says so, or of any key where its form does."""
    for number in range(_BARE_TIMES if kind.fits == "any" else _TEXT_TIMES):
        random = Random(f"{seed}/{kind.name}/{number}")
        secret = kind.make(random)
        if random.random() >= share and number:
            continue
        is_number = secret.text.isdecimal() and secret.text.isascii() and not secret.text.startswith("0")
        if is_number and len(secret.text) < 19 and random.random() < 0.3:
            key = named(random.choice(kind.names or NEUTRAL), "snake")
            yield Sample(kind.name, "as a number", "by key", "attribute", key, int(secret.text), secret.parts)
        elif kind.alone:
            key = random.choice(kind.keys or ("message", "ref", "app.value", "exception.message"))
            place = kind.place or ("attribute" if kind.fits == "bare" else random.choice(PLACES))
            yield Sample(kind.name, "by itself", "by itself", place, key, secret.text, secret.parts, kind.beside)
        else:
            prefix = random.choice(_PREFIXES)
            style = random.choice(("kebab", "snake") if prefix.count(".") > 1 else _STYLES)
            key = prefix + named(random.choice(kind.names), style)
            place = random.choice(("attribute", "attribute", "event attribute", "list", "map", "resource", "link"))
            yield Sample(kind.name, "by key", "by key", place, key, secret.text, secret.parts)


def _carried(kind: Kind, carrier: Carrier, random: Random) -> Sample | None:
    """None where they do not go together."""
    if kind.fits == "bare" or (kind.fits == "gentle" and not carrier.gentle):
        return None
    if not kind.alone and not carrier.announces:
        return None
    if kind.is_words and carrier.name in LOOSE:
        return None
    template = random.choice(carrier.templates)
    name = random.choice(kind.names or NEUTRAL)
    around = template.replace("$V", "")
    for _ in range(20):
        secret = kind.make(random)
        if not carrier.takes(secret.text):
            continue
        if any(part in around for part in secret.parts):
            continue
        text = carrier.text(template, name, secret.text)
        place = random.choice(PLACES)
        return Sample(
            kind.name, carrier.name, carrier.group, place, random.choice(carrier.keys), text, secret.parts, kind.beside
        )
    return None
