"""Defines the section `redact` of the configuration: its settings, and the values refused. `policy.py` gives the
settings their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.key_patterns import KeyPattern, check_pattern
from sampler_proxy.settings import Choice, Expression, Flag, Name, Schema, Section, Text

MIN_HASH_KEY = 16
"""Bytes."""
MAX_FILTERS = 16
"""Different `only` expressions: each combination of them that occurs has a view of its own."""
MAX_KEPT = 64
"""Characters that keep_last leaves."""

WORDS = ("delete", "mask", "hash", "keep")


@dataclass(frozen=True, slots=True)
class Action:
    """The action on a secret: `word` is one of WORDS or keep_last; `last` counts the characters that keep_last leaves
    (otherwise 0)."""

    word: str
    last: int = 0

    def __str__(self) -> str:
        return self.word


MASK = Action("mask")


@dataclass(frozen=True, slots=True)
class ActionType(Text):
    """The configuration's type for an action: one of `words`, or {keep_last: N}."""

    words: tuple[str, ...]

    def parse(self, value: object) -> Any:
        if isinstance(value, Action):
            return value
        if isinstance(value, str) and value in self.words:
            return Action(value)
        if isinstance(value, dict) and list(value) == ["keep_last"]:
            text = str(value["keep_last"])
            if text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MAX_KEPT:
                return Action("keep_last", int(text))
            raise ValueError(f"write a number from 1 to {MAX_KEPT}: {{keep_last: 4}}")
        raise ValueError(f"write {', '.join(self.words)} or {{keep_last: 4}}")

    def format(self, value: Action) -> Any:
        return {"keep_last": value.last} if value.word == "keep_last" else value.word

    def schema(self) -> Schema:
        last = {"type": "object", "properties": {"keep_last": {"type": "integer", "minimum": 1, "maximum": MAX_KEPT}}}
        return {"anyOf": [{"enum": list(self.words)}, {**last, "required": ["keep_last"]}]}


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file that holds the key of `hash`."""

    path: str


@dataclass(frozen=True, slots=True)
class HashKey(Text):
    """The configuration's type for the key of `hash`: text, or {file: PATH}, which becomes a `KeyFile`."""

    def parse(self, value: object) -> Any:
        if isinstance(value, KeyFile):
            return value
        if isinstance(value, dict):
            path = value.get("file")
            if list(value) != ["file"] or not isinstance(path, str) or not path.strip():
                raise ValueError("write {file: PATH}, or the key itself as ${env:NAME}")
            return KeyFile(path)
        if not isinstance(value, str):
            raise ValueError("no value: write ${env:NAME}, or {file: PATH}")
        check_hash_key(value.encode(errors="replace"))
        return value

    def format(self, value: Any) -> Any:
        return {"file": value.path} if isinstance(value, KeyFile) else value

    def schema(self) -> Schema:
        file = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}
        return {"anyOf": [{"type": "string", "minLength": 1}, {**file, "additionalProperties": False}]}


def _not_nothing(value: object) -> object:
    """Refuse an empty value where its default would quietly mean something else than what was about to be written."""
    if value is None:
        raise ValueError("no value: write one, or remove the key")
    return value


class KeyRule(Section):
    match: Annotated[str, KeyPattern()] = Field(examples=['"*password*"'])
    """Attribute keys: a glob, or RE2 between slashes."""
    action: Annotated[Action, ActionType(("delete", "mask", "hash"))] = Field(examples=["mask"])
    """What becomes of the attribute: delete, mask, hash or {keep_last: N}."""
    only: Annotated[str, Expression()] | None = Field(default=None, examples=['{ resource.service.name = "shop" }'])
    """TraceQL, one pair of braces, about the span itself: where it is done; absent, everywhere."""

    @field_validator("only", mode="before")
    @classmethod
    def _something(cls, value: object) -> object:
        return _not_nothing(value)


class ValueRule(Section):
    detect: Annotated[str, Choice(tuple(catalogue.DETECTORS))] | None = None
    """What to look for: one of the detectors."""
    name: Annotated[str, Name()] | None = Field(default=None, examples=["ticket"])
    """Of an own pattern: metrics show it."""
    pattern: Annotated[str, Text()] | None = Field(default=None, examples=["TICKET-([0-9]+)"])
    """RE2; its first group, or else the whole match, is the secret."""
    action: Annotated[Action, ActionType(("mask", "hash", "keep"))] = Field(examples=["mask"])
    """What becomes of what is found: mask, hash or {keep_last: N}; keep leaves it."""
    only: Annotated[str, Expression()] | None = Field(default=None, examples=['{ resource.service.name = "shop" }'])
    """TraceQL, one pair of braces, about the span itself: where it is done; absent, everywhere."""

    @field_validator("only", mode="before")
    @classmethod
    def _something(cls, value: object) -> object:
        return _not_nothing(value)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            check_pattern(value)
            catalogue.custom(info.data.get("name") or "", value)
        return value

    @field_validator("name")
    @classmethod
    def _not_ours(cls, value: str | None) -> str | None:
        if value in catalogue.DETECTORS or value in RESERVED:
            raise ValueError("the name of something built in: write another")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> ValueRule:
        if (self.detect is None) == (self.pattern is None) or (self.pattern is None) != (self.name is None):
            raise ValueError("write either `detect: card`, or `name:` and `pattern:`")
        return self


RESERVED = frozenset({"key", "allow_only", "sql", "urls", "unknown_field", "oversize", "failure"})
"""Values of the metric's label `detector` (redactions_total) that are no detectors."""

Keys = tuple[Annotated[str, KeyPattern()], ...]


class AllowOnly(Section):
    resource: Keys | None = None
    """Keys that may stay on a resource; absent, all."""
    scope: Keys | None = None
    span: Keys | None = None
    event: Keys | None = None
    link: Keys | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _something(cls, value: object) -> object:
        return _not_nothing(value)


class Redact(Section):
    preset: Annotated[Literal["common", "strict"], Choice(("common", "strict"))] | None = None
    """A set of rules to begin with; what is written beside it goes before it."""
    keys: tuple[KeyRule, ...] = ()
    """Read from the top; the first that matches an attribute's key says what becomes of it."""
    values: tuple[ValueRule, ...] = ()
    """What to look for in every text."""
    allow_only: AllowOnly = Field(default_factory=AllowOnly)
    """Attributes with other keys are deleted."""
    except_: Keys = Field(default=(), alias="except")
    """Attributes with these keys stay as they are."""
    sql: Annotated[Literal["obfuscate", "keep"], Choice(("obfuscate", "keep"))] | None = None
    """obfuscate: statements lose their literals; absent, as the preset has it."""
    urls: (
        tuple[
            Annotated[
                Literal["strip_query", "strip_credentials", "strip_ids"],
                Choice(("strip_query", "strip_credentials", "strip_ids")),
            ],
            ...,
        ]
        | None
    ) = None
    """What URLs and paths lose; absent, as the preset has it."""
    hash_key: Annotated[str | KeyFile, HashKey()] | None = Field(default=None, repr=False)
    """Of `hash` (HMAC-SHA-256), 16 bytes or more: ${env:NAME}, or {file: PATH} (without line breaks at its end)."""
    marker: Annotated[bool, Flag()] = False
    """Spans get the attribute sampler_proxy.redacted: how much was redacted in them."""

    @field_validator("keys", "values", "except_", mode="before")
    @classmethod
    def _nothing_listed(cls, value: object) -> object:
        """Take a list whose entries are all commented out as empty."""
        return () if value is None else value

    @field_validator("preset", "sql", "urls", "hash_key", mode="before")
    @classmethod
    def _something(cls, value: object) -> object:
        return _not_nothing(value)

    @field_validator("allow_only", mode="before")
    @classmethod
    def _some_scope(cls, value: object) -> object:
        if value is None:
            raise ValueError("no value, so that all would be allowed: write {span: [http.*]}, or remove the key")
        return value

    @field_validator("values")
    @classmethod
    def _names_differ(cls, value: tuple[ValueRule, ...]) -> tuple[ValueRule, ...]:
        patterns: dict[str, str | None] = {}
        for rule in value:
            if rule.name is not None and patterns.setdefault(rule.name, rule.pattern) != rule.pattern:
                raise ValueError("two patterns under one name: write another")
        return value

    @model_validator(mode="after")
    def _has_key(self) -> Redact:
        rules: tuple[KeyRule | ValueRule, ...] = (*self.keys, *self.values)
        if any(rule.action.word == "hash" for rule in rules) and self.hash_key is None:
            raise ValueError("the action hash needs a key: write hash_key: ${env:NAME}, or hash_key: {file: PATH}")
        if len({rule.only for rule in rules if rule.only}) > MAX_FILTERS:
            raise ValueError(f"more than {MAX_FILTERS} different `only`: write fewer")
        return self

    @property
    def active(self) -> bool:
        """Tell whether the section asks for any redaction."""
        return bool(
            self.preset
            or self.keys
            or any(rule.action.word != "keep" for rule in self.values)
            or self.sql == "obfuscate"
            or self.urls
            or self.allow_only != AllowOnly()
        )


def check_hash_key(key: bytes) -> None:
    """Raise ValueError where a key is shorter than MIN_HASH_KEY."""
    if len(key) < MIN_HASH_KEY:
        raise ValueError(
            f"too short to be a secret: write {MIN_HASH_KEY} bytes or more, such as `openssl rand -hex 32` gives"
        )
