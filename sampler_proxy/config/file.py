"""Parses a configuration file into a `Config`, or into all its faults at once: position, and what to write instead.

What a setting or an environment variable holds is in no message. A `ParsedFile` has its TraceQL texts beside its
faults, so that whoever compiles the texts can add to the faults.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sampler_proxy.config.model import Config, sections
from sampler_proxy.config.unknown_keys import advice, keys_of
from sampler_proxy.config.yaml_positions import Path, Position, Positions, parse
from sampler_proxy.errors import MAX_FAULTS, ConfigError, Fault, printable
from sampler_proxy.settings import Section
from sampler_proxy.units import MIB

MAX_FILE_BYTES = MIB

STDIN = "-"
"""The path that stands for standard input."""


class ParsedFile(NamedTuple):
    """A parsed and validated file. Where there are faults, `config` is None; the TraceQL texts are complete even so."""

    path: str
    config: Config | None
    faults: list[Fault]
    positions: Positions
    expressions: list[tuple[Path, str]]
    """Every `match`, `unless` and `only` in file order, by path."""
    trace_keys: list[tuple[Path, str]]
    """Every field of a `per`."""

    def fault(self, position: Position, message: str, excerpt: str = "") -> Fault:
        """Make a fault of this file, with an excerpt of it in the lines below."""
        below = f"\n{excerpt}" if excerpt else ""
        return Fault(self.path, position.line, position.column, printable(message) + below)


def contents(path: str) -> bytes:
    """Read a file, or standard input, at most one byte more than `MAX_FILE_BYTES`. Raises ConfigError.

    Whether two of these are equal says whether a file has changed.
    """
    try:
        with open(0 if path == STDIN else path, "rb", closefd=path != STDIN) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([Fault(path, 0, 0, f"cannot be read: {error.strerror}")]) from None


def read(path: str, content: bytes, environ: Mapping[str, str]) -> ParsedFile:
    """Parse and validate the content of a file; `path` is for faults only."""
    try:
        text = _text(content)
    except _UnreadableError as error:
        return ParsedFile(path, None, [Fault(path, *error.position, error.message)], Positions(), [], [])
    document = parse(text, environ)
    data, positions = document.data, document.positions
    if data is None and not document.problems:
        data = {}  # an empty file: the defaults
    config = None
    found = [(problem.position, problem.message) for problem in document.problems]
    if data is not None:
        try:
            config = Config.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as refused:
            errors = (
                _explain(error, data, positions, look_up=number < MAX_FAULTS)
                for number, error in enumerate(refused.errors(include_url=False, include_input=True))
            )
            refusals = [*errors, *_in_lists(data, positions)]
        else:
            refusals = list(_in_lists(data, positions))
        found += [(position, message) for at, position, message in refusals if at not in document.broken]
    faults = [Fault(path, *position, printable(message)) for position, message in found]
    return ParsedFile(
        path, None if found else config, faults, positions, list(_expressions(data)), list(_trace_keys(data))
    )


class _UnreadableError(Exception):
    def __init__(self, message: str, position: Position = Position(0, 0)) -> None:  # noqa: B008 (immutable)
        self.message = message
        self.position = position


def _text(content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise _UnreadableError("larger than 1MiB: not a configuration file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        position = Position(before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode()) + 1)
        raise _UnreadableError("not UTF-8: save the file in that encoding", position) from None


MAX_NAMED = 10
"""So many destinations are named where one is not known."""

_PROTOCOLS = "grpc, http/protobuf, file or console"

_WANTED = {
    "model_type": "a mapping is wanted here: lines of `key: value`",
    "mapping_type": "a mapping is wanted here: lines of `name: value`",
    "dict_type": "a mapping is wanted here: lines of `name: value`",
    "tuple_type": "a list is wanted here: entries that begin with `- `",
}


def _explain(error: ErrorDetails, data: Any, positions: Positions, *, look_up: bool) -> tuple[Path, Position, str]:
    """Return path, position and message of one refusal of the model. `look_up`: search for the nearest key."""
    tagged = tuple(step for step in error["loc"] if step != "[key]")
    path = _without_tag(tagged)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = f"known here are {', '.join(keys_of(tagged[:-1]))}"
        return path, positions.key(path), f"unknown key '{path[-1]}': {advice(path, tagged) if look_up else known}"
    if kind == "missing":
        model = _model_at(tagged[:-1])
        return (
            path,
            positions.value(path[:-1]),
            f"'{path[-1]}' is missing: write for example `{_example(model, path[-1])}`",
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, "protocol")
        if not isinstance(_at(data, path[:-1]), dict):
            return path, positions.value(path), _WANTED["model_type"]
        return path, positions.value(path), f"write {_PROTOCOLS}"
    if kind == "value_error":
        position = positions.key(path) if "[key]" in error["loc"] else positions.value(path)
        return path, position, str(error["ctx"]["error"])
    message = _WANTED.get(kind) or error["msg"]
    if kind == "model_type":
        message += f", with keys such as {', '.join(keys_of(tagged)[:3])}"
    return path, positions.value(path), message


def _without_tag(loc: Path) -> Path:
    """Drop the step of a path with which pydantic names one model of several: the protocol of an export, the kind of a
    `keep`. The file has no such step."""
    if loc[:1] == ("export",):
        return loc[:2] + loc[3:]
    return loc[:3] + loc[4:] if loc[:1] == ("rules",) and loc[2:3] == ("keep",) else loc


_MODELS = dict(sections())


def _model_at(loc: Path) -> type[Section]:
    return _MODELS[tuple(step for step in loc if isinstance(step, str))]


def _example(model: type[Section], key: str | int) -> str:
    examples = model.model_fields[str(key)].examples or [""]
    return f"{key}: {examples[0]}"


def _at(data: Any, path: Path) -> Any:
    for step in path:
        data = data[step]
    return data


def _entries(data: Any, section: str) -> list[tuple[int, dict[str, Any]]]:
    entries = data.get(section) if isinstance(data, dict) else None
    return (
        [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


_NOT_EMPTY: dict[Path, str] = {
    ("limit", "traces"): "for example 500/s",
    ("limit", "spans"): "for example 10000/s",
    ("limit", "bytes"): "for example 5MB/s",
    ("storage", "path"): "a folder",
}


def _in_lists(data: Any, positions: Positions) -> Iterator[tuple[Path, Position, str]]:
    """Find the faults that concern several entries, and values left empty; in the data, so that they are found beside
    the model's."""
    path: Path
    for section in ("rules", "export"):
        if isinstance(data, dict) and data.get(section) == []:
            path = (section,)
            message = "an empty list: write at least one entry, or remove the key for the default"
            yield path, positions.value(path), message
        first: dict[str, Position] = {}
        for index, entry in _entries(data, section):
            path = (section, index, "name")
            if isinstance(name := entry.get("name"), str):
                position = positions.value(path)
                if name in first:
                    yield path, position, f"this name is taken by the entry in line {first[name].line}: write another"
                first.setdefault(name, position)
    for path, wanted in _NOT_EMPTY.items():
        # An empty value is most likely an unfinished edit; taken as "absent" it would disable the feature silently.
        holder = data.get(str(path[0])) if isinstance(data, dict) else None
        if isinstance(holder, dict) and path[1] in holder and holder[path[1]] is None:
            yield path, positions.key(path), f"no value: write {wanted}, or remove the key"
    if isinstance(data, dict) and data.get("redact", ()) is None:  # all of it commented out would redact nothing
        path = ("redact",)
        yield path, positions.key(path), "no value: write for example {preset: common}, or remove the key"
    yield from _unknown_destinations(data, positions)
    rules = _entries(data, "rules")
    for index, rule in rules:
        if isinstance(keep := rule.get("keep"), dict) and "minimum" in keep and keep["minimum"] is None:
            path = ("rules", index, "keep", "minimum")
            yield path, positions.key(path), "no value: write for example 1/min, or remove the key"
        keys = [key for key in ("match", "unless") if key in rule]
        for key in keys:
            path = ("rules", index, key)
            if rule[key] is None:  # an unfinished edit; taken as "absent" the rule would match everything
                yield path, positions.key(path), "no value: write a TraceQL expression in quotes, or remove the key"
        if keys and index == len(data["rules"]) - 1:
            message = f"the last rule must match everything: add one without match, or remove `{keys[0]}`"
            yield ("rules", index), positions.key(("rules", index, keys[0])), message


def _unknown_destinations(data: Any, positions: Positions) -> Iterator[tuple[Path, Position, str]]:
    """Find the names in `to` that no destination has, and lists without a name."""
    known = [name for _, entry in _entries(data, "export") if isinstance(name := entry.get("name"), str)]
    if not isinstance(data, dict) or "export" not in data:
        known = [export.name for export in Config.DEFAULT_EXPORT]
    for index, rule in _entries(data, "rules"):
        path: Path = ("rules", index, "to")
        names = rule.get("to", ())
        if names is None or names == []:
            position = positions.value(path) if names == [] else positions.key(path)
            yield path, position, "no destination: write their names, or remove the key for all of them"
        for number, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and known and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                instead = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:MAX_NAMED])}"
                yield (*path, number), positions.value((*path, number)), f"no destination has this name: {instead}"
            elif name in names[:number]:
                yield (*path, number), positions.value((*path, number)), "this destination is named already: remove it"


def _expressions(data: Any) -> Iterator[tuple[Path, str]]:
    for index, rule in _entries(data, "rules"):
        for key in ("match", "unless"):
            if isinstance(text := rule.get(key), str) and text.strip():
                yield ("rules", index, key), text
    redact = data.get("redact") if isinstance(data, dict) else None
    for section in ("keys", "values"):
        for index, rule in _entries(redact, section):
            if isinstance(text := rule.get("only"), str) and text.strip():
                yield ("redact", section, index, "only"), text


def _trace_keys(data: Any) -> Iterator[tuple[Path, str]]:
    for index, rule in _entries(data, "rules"):
        fields = keep.get("per") if isinstance(keep := rule.get("keep"), dict) else None
        for number, text in enumerate(fields if isinstance(fields, list) else ()):
            if isinstance(text, str) and text.strip():
                yield ("rules", index, "keep", "per", number), text
