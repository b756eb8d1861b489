"""Defines the words that this room shares: where an attribute stands, how its value is treated, how redactions count.

A value's *lane* says how it is looked at: as text, as a statement, as a URL, by a key rule, not at all. Lanes are small
numbers, the indices of `KeyRules.lanes`; those below `OWN` mean the same in every view of a policy. What comes out of a
lane depends on the value alone, so that it can be cached.

The native modules have these numbers as enums of their own (`value_cache.pxd`) and refuse to load where they differ.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

from sampler_proxy.redact.section import Action

MAX_VALUE_BYTES = 64 * 1024
"""A longer text is masked whole."""
MAX_KEY_BYTES = 4096
"""The value of a longer key is masked whole, and so is the key."""

MASK_TEXT = b"****"


class Place(IntEnum):
    """The message in which an attribute stands; VALUE: the key-value list in another attribute's value."""

    SPAN = 0
    RESOURCE = 1
    SCOPE = 2
    EVENT = 3
    LINK = 4
    VALUE = 5


class LaneKind(IntEnum):
    """Kinds of treatment of the values in a lane. BATCHED: many at once, each alone only where something may be found.
    SINGLE: each alone. ANY_TYPE: each alone, whatever its type. MASKED: replaced by the mask, unread."""

    AS_IT_IS = 0
    BATCHED = 1
    SINGLE = 2
    ANY_TYPE = 3
    DELETED = 4
    MASKED = 5


AS_IT_IS, BATCHED, SINGLE, ANY_TYPE, DELETED, MASKED = LaneKind

EXEMPT, TEXT, KEY, BYTES, NAME, OWN = range(6)
"""The first lanes of every view: never redacted; a text; an attribute's key; bytes; the name of a span or event. From
OWN on the view's own."""

Label = tuple[str, str]
"""Labels of the metric redactions_total: the detector, and the action."""

OVERSIZE: Label = ("oversize", "mask")
FAILURE: Label = ("failure", "mask")
UNKNOWN_FIELD: Label = ("unknown_field", "delete")


class Look(Enum):
    """Kinds of text, where a value is looked at alone."""

    TEXT = "text"
    BYTES = "bytes"
    KEY_LIKE = "what may be a key"
    MIXED_KEY = "what may be a key of upper and lower case"
    URL = "url"
    USER = "user, or user and password"
    VERSION = "version"


class Family(Enum):
    """Kinds of languages in which stores are asked, for values that are statements. BY_TEXT: the text itself must
    say."""

    SQL = "sql"
    COMMANDS = "commands"
    DOCUMENTS = "documents"
    QUERIES = "queries"
    DIRECTORY = "directory"
    BY_TEXT = "by_text"


class Lane(NamedTuple):
    """A way to treat values. `treatment`: what is done to a value that is looked at alone; None where none ever is."""

    kind: LaneKind
    label: Label | None = None
    """What a key rule's redactions count as."""
    treatment: Look | Family | Action | None = None


OVERSIZE_LANE = Lane(MASKED, OVERSIZE)
"""The lane of what stands under a key longer than MAX_KEY_BYTES."""
