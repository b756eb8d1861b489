"""From a configuration file to something that can run: settings and compiled rules, or every fault of both at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sampler_proxy.config.file import MAX_FILE_BYTES, Reading, read
from sampler_proxy.config.model import Adaptive, Config, Rule
from sampler_proxy.config.yaml_positions import Path
from sampler_proxy.errors import ConfigError, Fault, TraceQLError
from sampler_proxy.redact.policy import Policy, only_of
from sampler_proxy.redact.section import AllowOnly, KeyFile, Redact, check_hash_key
from sampler_proxy.traceql.ast import Expression, Filter
from sampler_proxy.traceql.compiler import Compiled, compile_rules, compile_selection
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.lint import lint
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.program import Slot

MAX_HASH_KEY = 4096


class Loaded(NamedTuple):
    config: Config
    compiled: Compiled
    keys: tuple[dict[str, Slot], ...]
    """What tells the traces of each rule apart: where it is read, by what it is called."""
    path: str | None  # None: built in
    content: bytes | None  # of the file, read before it was parsed
    written: tuple[Rule, ...]  # the rules, references in their expressions not expanded: these may be shown
    warnings: tuple[Fault, ...]  # what is allowed but may not mean what its writer thinks
    redact: Policy | None = None  # None: nothing is redacted


def check(path: str, environ: Mapping[str, str]) -> Loaded:
    """Raises ConfigError. An expression's fault stands at its character, with the expression and a caret below."""
    content = contents(path)
    reading = read(path, environ)
    faults = list(reading.faults)
    expressions: dict[Path, Expression] = {}
    for at, text in (*reading.expressions, *reading.keys):
        try:
            if at[2] == "keep":
                parse_key(text)
            else:
                expressions[at] = parse(text)
                compile_rules([(expressions[at], None)])  # alone, so that it is known whose fault it is
        except TraceQLError as error:
            message = error.message
            if _tells(message, reading.positions.references(at)):
                message = "not valid here, once the references in it are expanded"
            message += f"\n{reading.positions.excerpt(at, error.offset)}"
            faults.append(reading.fault(reading.positions.value(at, error.offset), message))
            continue
        if at[0] == "redact" and (message := _not_of_spans(expressions[at])):
            faults.append(reading.fault(reading.positions.value(at), message))
    hash_key = b""
    if reading.config is not None:
        try:
            hash_key = _hash_key(reading.config.redact)
        except ValueError as error:
            faults.append(reading.fault(reading.positions.value(("redact", "hash_key", "file")), str(error)))
    if faults or reading.config is None:
        raise ConfigError(faults)
    try:
        loaded = load_config(reading.config, expressions, hash_key)
    except ValueError as error:
        raise ConfigError([reading.fault(reading.positions.key(("redact",)), str(error))]) from None
    return loaded._replace(
        path=path,
        content=content,
        written=tuple(_written(reading, index, rule) for index, rule in enumerate(reading.config.rules)),
        warnings=tuple(_warnings(reading, reading.config, expressions)),
    )


def load_config(
    config: Config, expressions: Mapping[Path, Expression] | None = None, hash_key: bytes | None = None
) -> Loaded:
    """A configuration whose expressions are known to be sound, such as the built-in one. `hash_key`: as it was read; if
    not given, it is. Raises ValueError for what is wrong with it, and for patterns of `redact` that are too large
    together."""
    parsed = expressions or {}

    def expression(index: int, key: str, text: str | None) -> Expression | None:
        return None if text is None else parsed.get(("rules", index, key)) or parse(text)

    pairs = [
        (expression(index, "match", rule.match), expression(index, "unless", rule.unless))
        for index, rule in enumerate(config.rules)
    ]
    keys = tuple(_keys(rule) for rule in config.rules)
    policy = _policy(config.redact, hash_key, parsed)
    return Loaded(config, compile_rules(pairs), keys, None, None, config.rules, (), policy)


def _keys(rule: Rule) -> dict[str, Slot]:
    names: dict[Slot, str] = {}
    for text in rule.keep.per if isinstance(rule.keep, Adaptive) else ():
        names.setdefault(parse_key(text), text)
    return {text: slot for slot, text in names.items()}


def _policy(config: Redact, hash_key: bytes | None, expressions: Mapping[Path, Expression]) -> Policy | None:
    if not config.active:
        return None
    hash_key = _hash_key(config) if hash_key is None else hash_key
    only = {}
    for section in ("keys", "values"):
        for index, rule in enumerate(getattr(config, section)):
            if rule.only is not None:
                root = (expressions.get(("redact", section, index, "only")) or parse(rule.only)).root
                assert isinstance(root, Filter)
                only[rule.only] = root.condition
    try:
        filters = compile_selection([only[text] for text in only_of(config)]) if only else None
    except TraceQLError as error:
        raise ValueError(f"the filters (only) together: {error.message}") from None
    return Policy(config, hash_key, filters)


def _not_of_spans(expression: Expression) -> str:
    """Why this cannot be an `only`; empty if it can. Late spans are redacted without the rest of their trace."""
    root = expression.root
    if not isinstance(root, Filter):
        return "write one pair of braces: { ... } says of each span whether it is meant"
    try:
        selection = compile_selection([root.condition])
    except TraceQLError as error:
        return error.message
    if selection.trace_conditions or selection.deferred:
        return "this is asked of each span by itself: leave out what the whole trace says (rootName and the like)"
    return ""


def _hash_key(config: Redact) -> bytes:
    """Raises ValueError."""
    if not isinstance(config.hash_key, KeyFile):
        return (config.hash_key or "").encode()
    try:
        with open(config.hash_key.path, "rb") as file:
            key = file.read(MAX_HASH_KEY + 1).rstrip(b"\r\n")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(key) > MAX_HASH_KEY:
        raise ValueError("larger than 4KiB: not a key")
    check_hash_key(key)
    return key


def contents(path: str) -> bytes | None:
    """Whether two of these are equal says whether a file has changed; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None


def _written(reading: Reading, index: int, rule: Rule) -> Rule:
    paths: dict[str, Path] = {key: ("rules", index, key) for key in ("match", "unless")}
    return rule.model_copy(
        update={
            key: reading.positions.written(path)
            for key, path in paths.items()
            if getattr(rule, key) is not None and reading.positions.references(path)
        }
    )


def _warnings(reading: Reading, config: Config, expressions: Mapping[Path, Expression]) -> Iterator[Fault]:
    positions = reading.positions
    redact = config.redact
    if redact.active and "allow_only" in redact.model_fields_set and redact.allow_only == AllowOnly():
        message = "warning: nothing is listed here, so that all attributes may stay"
        yield reading.fault(positions.value(("redact", "allow_only")), message)
    if "rules" not in config.model_fields_set:
        return  # the built-in ones
    texts = [
        (rule.name, expressions.get(("rules", index, "match")), expressions.get(("rules", index, "unless")))
        for index, rule in enumerate(config.rules)
    ]
    for hint in lint(texts):
        at: Path = ("rules", hint.rule, hint.part)
        message = hint.message
        if at not in expressions:  # about a rule without the text
            yield reading.fault(positions.value(at[:-1]), f"warning: {message}")
            continue
        if _tells(message, positions.references(at)):
            message = "this may not mean what it seems to, once the references in it are expanded"
        excerpt = positions.excerpt(at, hint.offset)
        yield reading.fault(positions.value(at, hint.offset), f"warning: {message}\n{excerpt}")


def _tells(message: str, values: tuple[str, ...]) -> bool:
    """Does a message quote what the environment holds? Four characters make a quotation, or a whole shorter value."""
    return any(value[at : at + 4] in message for value in values if value for at in range(max(1, len(value) - 3)))
