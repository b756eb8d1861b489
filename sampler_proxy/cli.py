"""Defines the commands. The only module that sets up logging, ends the process or looks at the terminal.

Exit codes: 0 done, 1 a configuration or start that failed (its reasons on stderr, one a line, no traceback), 2 a wrong
command line; otherwise the exit code of the service.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import NoReturn

import click
import structlog

from sampler_proxy import __version__
from sampler_proxy.config.check import Loaded, check, load_config
from sampler_proxy.config.file import STDIN
from sampler_proxy.config.model import Config, json_schema
from sampler_proxy.config.otel_environment import configured
from sampler_proxy.errors import SamplerProxyError, printable
from sampler_proxy.operate.this_machine import is_here, memory_bytes

_LEVELS = ("debug", "info", "warning", "error")


_OTHER_COMMANDS = {  # names that other programs give to them
    **dict.fromkeys(("start", "serve", "server", "up"), "run"),
    **dict.fromkeys(("validate", "lint", "verify", "test", "config"), "check"),
    **dict.fromkeys(("replay", "why", "trace"), "explain"),
    "version": "--version",
    "help": "--help",
}
_CONFIG_OPTIONS = {"--config", "--config-file", "--conf", "--file", "-c", "-f"}


class _Command(click.Command):
    """A command that says what to write instead of an option or argument that it does not have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = any("--config" in one.opts for one in self.params)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in _CONFIG_OPTIONS:
                raise
            raise _with_hint(error, "write --config FILE" if named else "write the name of the file alone") from None
        except click.UsageError as error:
            if type(error) is not click.UsageError or not named:
                raise
            raise _with_hint(error, "a configuration file is named by --config FILE") from None


class _Commands(click.Group):
    """The commands, with hints for what stands before them, and for other programs' names."""

    command_class = _Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = "--config" if error.option_name in _CONFIG_OPTIONS else error.option_name
            if not any(option in one.opts for one in self.commands["run"].params):
                raise
            raise _with_hint(error, f"it stands behind the command: sampler-proxy run {option} ...") from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            meant = _OTHER_COMMANDS.get(args[0])
            hint = f"write sampler-proxy {meant}" if meant else f"there are {', '.join(sorted(self.commands))}"
            raise _with_hint(error, hint) from None


def _with_hint(error: click.UsageError, hint: str) -> click.UsageError:
    return click.UsageError(f"{error.format_message().rstrip('.')}: {hint}", error.ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sampler-proxy", message="%(prog)s %(version)s")
def main() -> None:
    """A tail-sampling proxy for OpenTelemetry traces: OTLP in, the traces worth keeping out."""


@main.command()
@click.option(
    "--config",
    "path",
    metavar="FILE",
    help="YAML file, or - for standard input; without one, the defaults, with the destination that "
    "OTEL_EXPORTER_OTLP_ENDPOINT names, and a summary every 5 s in which something has changed.",
)
@click.option("--log-level", type=click.Choice(_LEVELS, case_sensitive=False), default="info", show_default=True)
def run(path: str | None, log_level: str) -> None:
    """Run the proxy in the foreground until SIGTERM or SIGINT."""
    # gRPC's C core writes lines of its own format to stderr, which belongs to our log; set the variable to debug gRPC.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    set_up_logging(log_level)
    try:
        loaded = _load_environment() if path is None else _load(path)
        if path == STDIN:
            loaded = loaded._replace(path=None)  # it cannot be read again, so that there is nothing to reload
        from sampler_proxy import service  # importing grpc takes time, which the other commands need not wait for

        code = service.run(loaded, summary=path is None)
    except SamplerProxyError as error:
        _fail(error)
    sys.exit(code)


@main.command("check")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
def check_command(paths: tuple[str, ...]) -> None:
    """Say whether configuration files are sound: every fault as FILE:LINE:COLUMN: message, on stderr.

    What is allowed but may not mean what you think follows as FILE:LINE:COLUMN: warning: message. Of several files all
    are checked, each for itself. FILE may be - for standard input.
    """
    _read_stdin_once(*paths)
    faulty = False
    for path in paths:
        try:
            loaded = _load(path)
        except SamplerProxyError as error:
            click.echo(str(error), err=True)
            faulty = True
            continue
        for warning in loaded.warnings:
            click.echo(str(warning), err=True)
        click.echo(f"{printable(path)}: ok")
    sys.exit(1 if faulty else 0)


@main.command("explain")
@click.option("--config", "path", metavar="FILE", help="YAML file with the rules; without one, the built-in rules.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and trace.")
@click.argument("trace_files", metavar="TRACEFILE...", nargs=-1, required=True)
def explain_command(path: str | None, as_json: bool, trace_files: tuple[str, ...]) -> None:
    """Say for each trace of a file (OTLP as protobuf or JSON lines) which rule decides it, and why.

    Several files are read as one: a trace may lie in more than one of them. FILE or TRACEFILE may be - for standard
    input.
    """
    _read_stdin_once(path, *trace_files)
    try:
        loaded = _load(path)
        # Imported here: the other commands need not wait for protobuf.
        from sampler_proxy.operate import explain, redaction_preview
        from sampler_proxy.operate.trace_files import read_all

        traces = read_all(trace_files)
        if loaded.redact is not None and not as_json:
            traces = traces.renamed(redaction_preview.redacted(loaded.redact, traces.requests))
        found = False
        for explanation in explain.explain(loaded, traces.requests):
            found = True
            click.echo(json.dumps(explanation.as_json()) if as_json else explain.as_text(explanation, traces))
        mismatches = list(explain.type_mismatches(loaded, traces.requests))
    except SamplerProxyError as error:
        _fail(error)
    if found and path is None:
        click.echo("decided by the built-in rules: --config FILE names others", err=True)
    named = ", ".join(map(printable, trace_files))
    if not found:
        click.echo(f"{named}: no traces", err=True)
    for line in (*(f"{named}: {mismatch}" for mismatch in mismatches), *traces.remarks(named)):
        click.echo(line, err=True)


@main.command("redact")
@click.option("--config", "path", metavar="FILE", required=True, help="YAML file with the section redact.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and trace (or key).")
@click.option("--show-keys", is_flag=True, help="Count by key, and say which setting would change it.")
@click.argument("trace_files", metavar="TRACEFILE...", nargs=-1, required=True)
def redact_command(path: str, as_json: bool, show_keys: bool, trace_files: tuple[str, ...]) -> None:
    """Say what would be redacted in the traces of a file: counts by detector, action and key, never values.

    Several files are read as one: a trace may lie in more than one of them. FILE or TRACEFILE may be - for standard
    input.
    """
    _read_stdin_once(path, *trace_files)
    try:
        loaded = _load(path)
        from sampler_proxy.operate import redaction_preview
        from sampler_proxy.operate.trace_files import read_all

        traces = read_all(trace_files)
        if show_keys:
            by_key = redaction_preview.by_key(loaded.redact, traces.requests)
            found = any(traces.requests)
        else:
            previews = redaction_preview.preview(loaded.redact, traces.requests)
            found = bool(previews)
    except SamplerProxyError as error:
        _fail(error)
    if show_keys and as_json:
        for redaction in by_key:
            click.echo(json.dumps({**redaction.as_json(), "setting": redaction.setting}))
    elif show_keys:
        click.echo(redaction_preview.keys_as_text(by_key))
    elif as_json:
        for one in previews:
            click.echo(json.dumps(one.as_json()))
    else:
        click.echo(redaction_preview.as_text(previews))
    if loaded.redact is None:
        click.echo(f"{printable(path)}: nothing is redacted: write for example redact: {{preset: common}}", err=True)
    named = ", ".join(map(printable, trace_files))
    if not found:
        click.echo(f"{named}: no traces", err=True)
    for line in traces.remarks(named):
        click.echo(line, err=True)


@main.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def _load(path: str | None) -> Loaded:
    """Check a configuration file, or standard input; None: the built-in configuration. Raises ConfigError."""
    return load_config(Config()) if path is None else check(path, os.environ, is_here, memory_bytes())


def _load_environment() -> Loaded:
    """Take the built-in configuration, with the destination that OpenTelemetry's variables name. Raises ConfigError."""
    config, warnings = configured(os.environ, is_here)
    return load_config(config)._replace(warnings=warnings)


def _read_stdin_once(*paths: str | None) -> None:
    """Refuse a command line that names standard input twice."""
    if paths.count(STDIN) > 1:
        raise click.UsageError(f"standard input ({STDIN}) can be read only once")


def set_up_logging(level: str) -> None:
    """Send our log and that of libraries to stderr: text on a terminal, else JSON lines, with UTC times."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor]
    if sys.stderr.isatty():
        # Where rich is installed structlog would take its tracebacks, which show local variables, that is: payload.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, exception_formatter=plain)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_not_undecodable)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _not_undecodable(record: logging.LogRecord) -> bool:
    """Leave out grpcio's tracebacks for statuses that are not UTF-8: each shows what a peer, or core, wrote."""
    return not str(record.msg).startswith("Invalid encoding on")


def _fail(error: SamplerProxyError) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(1)
