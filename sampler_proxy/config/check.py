"""Checks a configuration file: settings and compiled rules that can run, or every fault of both at once.

The file is read once, and each of its TraceQL texts is parsed and compiled once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple
from urllib.parse import urlsplit

from sampler_proxy.config.addresses import collide, leads_to
from sampler_proxy.config.doors_check import faults_of_destinations, faults_of_doors, warnings_of_doors
from sampler_proxy.config.file import ParsedFile, contents, read
from sampler_proxy.config.model import Adaptive, Config, OtlpExport, Rule
from sampler_proxy.config.named_files import read_named
from sampler_proxy.config.yaml_positions import Path
from sampler_proxy.errors import ConfigError, Fault, TraceQLError
from sampler_proxy.redact.policy import Policy, only_of
from sampler_proxy.redact.section import AllowOnly, KeyFile, Redact, check_hash_key
from sampler_proxy.settings import Endpoint, Section
from sampler_proxy.traceql.ast import METADATA, Attribute, Expression, Filter, walk
from sampler_proxy.traceql.compiler import Compiled, Compiler
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.lint import lint
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.program import Slot
from sampler_proxy.units import MIB, format_size

MAX_HASH_KEY = 4096
"""Bytes of the file that holds the key of `hash`."""


class Loaded(NamedTuple):
    """A configuration that can run."""

    config: Config
    compiled: Compiled
    keys: tuple[dict[str, Slot], ...]
    """For each rule the fields of its `per`: as written -> where the value is read. Of equal ones the first stands."""
    path: str | None  # None: built in
    content: bytes | None  # of the file; None: built in
    unexpanded: tuple[Rule, ...]  # the rules, references in their expressions not expanded: these may be shown
    warnings: tuple[Fault, ...]  # what is allowed but may not mean what its writer thinks
    redact: Policy | None = None  # None: nothing is redacted


def _nowhere(_: str) -> bool:
    return False


def check(
    path: str,
    environ: Mapping[str, str],
    is_here: Callable[[str], bool] = _nowhere,
    machine_bytes: int | None = None,
) -> Loaded:
    """Read, check and compile a file. Raises ConfigError; the fault of an expression stands at its character, with the
    expression and a caret below. For warnings: `is_here` tells of a host whether it is this machine, `machine_bytes` is
    the memory that this machine has, None: not known."""
    content = contents(path)
    file = read(path, content, environ)
    faults = list(file.faults)
    expressions = _Expressions()
    for at, text in (*file.expressions, *file.trace_keys):
        try:
            expressions.add(at, text)
        except TraceQLError as error:
            faults.append(_fault_of_expression(file, at, error))
        except _NotOfSpansError as error:
            faults.append(file.fault(file.positions.value(at), str(error)))
    hash_key = b""
    if file.config is not None:
        try:
            hash_key = _hash_key(file.config.redact)
        except ValueError as error:
            faults.append(file.fault(file.positions.value(("redact", "hash_key", "file")), str(error)))
        faults += (*faults_of_destinations(file, file.config), *faults_of_doors(file, file.config))
    if faults or file.config is None:
        raise ConfigError(faults)
    try:
        loaded = _compile(file.config, expressions, hash_key)
    except ValueError as error:
        raise ConfigError([file.fault(file.positions.key(("redact",)), str(error))]) from None
    return loaded._replace(
        path=path,
        content=content,
        unexpanded=tuple(_unexpanded(file, index, rule) for index, rule in enumerate(file.config.rules)),
        warnings=(
            *_warnings(file, file.config, expressions),
            *_warnings_of_order(file, file.config, loaded.compiled),
            *_warnings_of_ports(file, file.config, is_here),
            *_warnings_of_roots(file, file.config),
            *_warnings_of_routes(file, file.config),
            *_warnings_of_headers(file, file.config),
            *_warnings_of_metadata(file, file.config, expressions),
            *_warnings_of_passthrough(file, file.config),
            *_warnings_of_memory(file, file.config, machine_bytes),
            *warnings_of_doors(file, file.config),
        ),
    )


def load_config(config: Config) -> Loaded:
    """Compile a configuration whose expressions are known to be sound, such as the built-in one.

    Raises ValueError for a hash key that cannot be read or used, and for patterns of `redact` that are too large
    together.
    """
    return _compile(config, _Expressions(), _hash_key(config.redact) if config.redact.active else b"")


def _compile(config: Config, expressions: _Expressions, hash_key: bytes) -> Loaded:
    policy = Policy(config.redact, hash_key, expressions.filters(config.redact)) if config.redact.active else None
    compiled, keys = expressions.rules(config), expressions.trace_keys(config)
    return Loaded(config, compiled, keys, None, None, config.rules, (), policy)


class _NotOfSpansError(Exception):
    """An expression that cannot be an `only`; the message says why."""


class _Expressions:
    """The TraceQL texts of a configuration by path, each parsed and compiled when it is added; what has not been added
    is when it is needed."""

    def __init__(self) -> None:
        self._parsed: dict[Path, Expression] = {}
        self._slots: dict[Path, Slot] = {}  # of `per`
        self._filters: dict[Path, int] = {}  # of `only`: their numbers
        self.compiler = Compiler()  # of the rules
        self._filter_compiler = Compiler()

    def add(self, path: Path, text: str) -> None:
        """Parse and compile a text. Raises TraceQLError, and _NotOfSpansError for an `only`."""
        if path[2] == "keep":
            self._slots[path] = parse_key(text)
            return
        expression = parse(text)
        if path[0] == "redact":
            self._filters[path] = self._filter(expression)
        else:
            self.compiler.formula(expression)
        self._parsed[path] = expression

    def _filter(self, expression: Expression) -> int:
        """Compile an `only`. Late spans are redacted without the rest of their trace, so it asks one span at a time."""
        compiler, root = self._filter_compiler, expression.root
        if not isinstance(root, Filter):
            compiler.formula(expression)  # what is wrong inside is said first
            raise _NotOfSpansError("write one pair of braces: { ... } says of each span whether it is meant")
        number = compiler.select(root.condition)
        if compiler.reads_trace(number):
            raise _NotOfSpansError(
                "this is asked of each span by itself: leave out what the whole trace says (rootName and the like)"
            )
        return number

    def parsed(self, index: int, key: str, text: str | None) -> Expression | None:
        """Return `match` or `unless` of a rule."""
        path: Path = ("rules", index, key)
        if text is not None and path not in self._parsed:
            self.add(path, text)
        return self._parsed.get(path)

    def rules(self, config: Config) -> Compiled:
        """Put the rules together."""
        return self.compiler.finish(
            [
                self.compiler.rule(self.parsed(index, "match", rule.match), self.parsed(index, "unless", rule.unless))
                for index, rule in enumerate(config.rules)
            ]
        )

    def trace_keys(self, config: Config) -> tuple[dict[str, Slot], ...]:
        """Return `Loaded.keys`."""
        found = []
        for index, rule in enumerate(config.rules):
            names: dict[Slot, str] = {}
            for number, text in enumerate(rule.keep.per if isinstance(rule.keep, Adaptive) else ()):
                path: Path = ("rules", index, "keep", "per", number)
                if path not in self._slots:
                    self.add(path, text)
                names.setdefault(self._slots[path], text)
            found.append({text: slot for slot, text in names.items()})
        return tuple(found)

    def filters(self, redact: Redact) -> Compiled | None:
        """Put the different `only` together, in the order of `only_of`; None: there are none."""
        numbers: dict[str, int] = {}
        for section in ("keys", "values"):
            for index, rule in enumerate(getattr(redact, section)):
                path: Path = ("redact", section, index, "only")
                if rule.only is not None:
                    if path not in self._filters:
                        self.add(path, rule.only)
                    numbers[rule.only] = self._filters[path]
        return self._filter_compiler.finish([], [numbers[text] for text in only_of(redact)]) if numbers else None


def _hash_key(config: Redact) -> bytes:
    """Return the key of `hash`, read from its file where one is named; empty where none is set. Raises ValueError."""
    if not isinstance(config.hash_key, KeyFile):
        return (config.hash_key or "").encode()
    key = read_named(config.hash_key.path, MAX_HASH_KEY + 1).rstrip(b"\r\n")
    if len(key) > MAX_HASH_KEY:
        raise ValueError("larger than 4KiB: not a key")
    check_hash_key(key)
    return key


def _fault_of_expression(file: ParsedFile, at: Path, error: TraceQLError) -> Fault:
    message = error.message
    if _quotes_environment(message, file.positions.references(at)):
        message = "not valid here, once the references in it are expanded"
    excerpt = file.positions.excerpt(at, error.offset)
    return file.fault(file.positions.value(at, error.offset), message, excerpt)


def _unexpanded(file: ParsedFile, index: int, rule: Rule) -> Rule:
    paths: dict[str, Path] = {key: ("rules", index, key) for key in ("match", "unless")}
    return rule.model_copy(
        update={
            key: file.positions.unexpanded(path)
            for key, path in paths.items()
            if getattr(rule, key) is not None and file.positions.references(path)
        }
    )


def _warnings(file: ParsedFile, config: Config, expressions: _Expressions) -> Iterator[Fault]:
    positions = file.positions
    redact = config.redact
    if redact.active and "allow_only" in redact.model_fields_set and redact.allow_only == AllowOnly():
        message = "warning: nothing is listed here, so that all attributes may stay"
        yield file.fault(positions.value(("redact", "allow_only")), message)
    if "rules" not in config.model_fields_set:
        return  # the built-in ones
    rules = [
        (
            rule.name,
            expressions.parsed(index, "match", rule.match),
            expressions.parsed(index, "unless", rule.unless),
        )
        for index, rule in enumerate(config.rules)
    ]
    for hint in lint(rules, expressions.compiler):
        at: Path = ("rules", hint.rule, hint.part)
        message = hint.message
        if getattr(config.rules[hint.rule], hint.part) is None:  # about a rule without the text
            yield file.fault(positions.value(at[:-1]), f"warning: {message}")
            continue
        if _quotes_environment(message, positions.references(at)):
            message = "this may not mean what it seems to, once the references in it are expanded"
        excerpt = positions.excerpt(at, hint.offset)
        yield file.fault(positions.value(at, hint.offset), f"warning: {message}", excerpt)


def _warnings_of_order(file: ParsedFile, config: Config, compiled: Compiled) -> Iterator[Fault]:
    """Warn of the first rule that keeps those behind it from deciding early."""
    if "rules" not in config.model_fields_set:
        return
    first = next(index for index, rule in enumerate((*config.rules, None)) if rule is None or rule.keep != 1.0)
    for index in range(first + 1, len(config.rules)):
        if config.rules[index].keep == 1.0 and compiled.monotone[index]:
            yield file.fault(
                file.positions.value(("rules", first)),
                f"warning: traces are not kept early by the rules below (such as {config.rules[index].name}) while "
                "this one stands before them: it may decide otherwise. Move it behind them if it need not go first",
            )
            return


def _warnings_of_ports(file: ParsedFile, config: Config, is_here: Callable[[str], bool]) -> Iterator[Fault]:
    """Warn of a destination that is this proxy, whose traces would go round, and of two servers on one port."""
    received, http = config.receive.grpc.endpoint, config.receive.http.endpoint
    for index, export in enumerate(config.export):
        if not isinstance(export, OtlpExport) or "export" not in config.model_fields_set:
            continue
        if goes_round(config, export, is_here):
            key = "endpoint" if export.endpoint is not None else "traces_endpoint"
            yield file.fault(
                file.positions.value(("export", index, key)),
                "warning: this is where the proxy itself receives: kept traces would come back again and again",
            )
    servers: list[tuple[str, Path, Endpoint]] = [
        ("admin", ("admin", "endpoint"), config.admin.endpoint),
        *([] if http is None else [("receive.http", ("receive", "http", "endpoint"), http)]),
        ("receive.grpc", ("receive", "grpc", "endpoint"), received),
    ]
    for (name, path, endpoint), (other, path_of_other, endpoint_of_other) in combinations(servers, 2):
        if collide(endpoint, endpoint_of_other):
            written = _is_set(config, path)
            where = "one unix socket" if endpoint.path else f"port {endpoint.port}"
            yield file.fault(
                file.positions.value(path if written else path_of_other),
                f"warning: {other} and {name} are both on {where}: write another for one of them",
            )


def goes_round(config: Config, export: OtlpExport, is_here: Callable[[str], bool]) -> bool:
    """Tell whether a destination is a port where this proxy receives."""
    url = urlsplit(export.url)
    port = url.port or (443 if url.scheme == "https" else 80)
    servers = (config.receive.grpc.endpoint, config.receive.http.endpoint)
    return any(at is not None and leads_to(at, url.hostname or "", port, is_here) for at in servers)


def _is_set(config: Config, path: Path) -> bool:
    """Tell whether a key is written in the file."""
    section: object = config
    for step in path:
        if not isinstance(section, Section) or step not in section.model_fields_set:
            return False
        section = getattr(section, str(step))
    return True


def _warnings_of_roots(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Warn of traces that will have no root. With local roots only the senders know."""
    if config.buffer.root == "parentless":
        yield file.fault(
            file.positions.value(("buffer", "root")),
            "warning: with parentless, traces whose root is not sent here wait the whole of decision_wait, have no "
            "rootName and count in sampler_proxy_traces_rootless_total: leave it at local to decide them by their "
            "local root",
        )


def _warnings_of_routes(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Warn of a destination to which no rule sends anything."""
    if any(rule.to is None and rule.keep != 0.0 for rule in config.rules):
        return
    named = {name for rule in config.rules for name in rule.to or ()}
    for index, export in enumerate(config.export):
        if export.name not in named and not export.dropped:
            yield file.fault(
                file.positions.value(("export", index, "name")),
                "warning: nothing goes there: name it in `to` of a rule that keeps something, or remove it",
            )


def _warnings_of_headers(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Warn of a header that seems to name an environment variable as a shell does, and is sent as it stands."""
    for index, export in enumerate(config.export):
        for name, value in export.headers.items() if isinstance(export, OtlpExport) else ():
            at: Path = ("export", index, "headers", name)
            if isinstance(value, str) and _SHELL_VARIABLE.search(value) and not file.positions.references(at):
                yield file.fault(
                    file.positions.value(at),
                    "warning: this is sent as it stands, with its $: write ${env:NAME} for an environment variable",
                )


def _warnings_of_metadata(file: ParsedFile, config: Config, expressions: _Expressions) -> Iterator[Fault]:
    """Warn of rules that name metadata which are not kept."""
    for index, rule in enumerate(config.rules if "rules" in config.model_fields_set else ()):
        for part, text in (("match", rule.match), ("unless", rule.unless)):
            expression = expressions.parsed(index, part, text)
            at: Path = ("rules", index, part)
            for node, _ in walk(expression.root) if expression is not None else ():
                name = node.key.decode() if isinstance(node, Attribute) else ""
                if name.startswith(METADATA) and name.removeprefix(METADATA) not in config.receive.metadata:
                    yield file.fault(
                        file.positions.value(at, node.start),
                        f"warning: requests lose this header: write it into receive.metadata, too: "
                        f"[{name.removeprefix(METADATA)}]",
                        file.positions.excerpt(at, node.start),
                    )


def _warnings_of_passthrough(file: ParsedFile, config: Config) -> Iterator[Fault]:
    """Warn of signals that leave as they are though something is to be redacted."""
    passes_on = config.passthrough == "all" and any(isinstance(export, OtlpExport) for export in config.export)
    if passes_on and config.redact.active:
        written: Path = ("passthrough",)
        yield file.fault(
            file.positions.value(written) if _is_set(config, written) else file.positions.key(("redact",)),
            "warning: logs, metrics and profiles are passed on as they are: redact is for traces only. Write "
            "passthrough: off, or discard, if their secrets must not leave",
        )


_SHELL_VARIABLE = re.compile(r"(?:^| )\$[A-Za-z_][A-Za-z0-9_]*$")


def _warnings_of_memory(file: ParsedFile, config: Config, machine_bytes: int | None) -> Iterator[Fault]:
    """Warn of each bound that is larger than the machine. Whether all of them fit together is said at the start."""
    bounds: list[tuple[Path, int]] = [
        (("buffer", "max_bytes"), config.buffer.max_bytes),
        (("buffer", "decision_memory"), config.buffer.decision_memory_bytes),
        *((("export", index, "queue", "max_bytes"), one.queue.max_bytes) for index, one in enumerate(config.export)),
    ]
    for path, size in bounds:
        if machine_bytes is not None and size > machine_bytes:
            yield file.fault(
                file.positions.value(path),
                f"warning: more than the {format_size(machine_bytes // MIB * MIB)} of memory that this machine has: "
                "write what is left beside everything else",
            )


def _quotes_environment(message: str, values: tuple[str, ...]) -> bool:
    """Tell whether a message quotes what references put in: four characters in a row, or a whole shorter value."""
    return any(value[at : at + 4] in message for value in values if value for at in range(max(1, len(value) - 3)))
