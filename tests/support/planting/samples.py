"""Secrets in carriers in positions: every kind in every carrier that takes it, each by a random generator of its own.

A kind or carrier that is added changes no sample of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from tests.support.planting import credentials, personal, providers, texts
from tests.support.planting.carriers import Carrier, carriers, named
from tests.support.planting.forms import Kind

# Where a text may stand in a span.
PLACES = (
    *("attribute",) * 8,
    *("event attribute", "event name", "status message", "span name", "list", "map", "resource", "bytes", "link"),
)
NEUTRAL = ("value", "ref", "data", "item", "arg0", "detail")
_STYLES = ("snake", "camel", "kebab", "dotted")
_PREFIXES = ("", "", "app ", "http request header ", "user ", "config ")
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
        if kind.alone:
            key = random.choice(kind.keys or ("message", "ref", "app.value", "exception.message"))
            place = "attribute" if kind.fits == "bare" else random.choice(PLACES)
            yield Sample(kind.name, "by itself", "by itself", place, key, secret.text, secret.parts, kind.beside)
        else:
            key = named(random.choice(_PREFIXES) + random.choice(kind.names), random.choice(_STYLES))
            place = random.choice(("attribute", "attribute", "event attribute", "list", "map", "resource", "link"))
            yield Sample(kind.name, "by key", "by key", place, key, secret.text, secret.parts)


def _carried(kind: Kind, carrier: Carrier, random: Random) -> Sample | None:
    """None where they do not go together."""
    if kind.fits == "bare" or (kind.fits == "gentle" and not carrier.gentle):
        return None
    if not kind.alone and not carrier.announces:
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
