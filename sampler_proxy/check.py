"""From a configuration file to something that can run: settings and compiled rules, or every fault of both at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sampler_proxy.config import Config
from sampler_proxy.config_file import read
from sampler_proxy.errors import ConfigError, TraceQLError
from sampler_proxy.traceql.ast import Expression
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.plan import Compiled, compile_rules


class Loaded(NamedTuple):
    config: Config
    compiled: Compiled


def check(path: str, environ: Mapping[str, str]) -> Loaded:
    """Raises ConfigError. An expression's fault stands at its character, with the expression and a caret below."""
    reading = read(path, environ)
    faults = list(reading.faults)
    for at, text in reading.expressions:
        try:
            compile_rules([(parse(text), None)])  # alone, so that it is known whose fault it is
        except TraceQLError as error:
            message = error.message
            if _tells(message, reading.positions.references(at)):
                message = "not valid here, once the references in it are expanded"
            message += f"\n{reading.positions.excerpt(at, error.offset)}"
            faults.append(reading.fault(reading.positions.value(at, error.offset), message))
    if faults or reading.config is None:
        raise ConfigError(faults)
    return load_config(reading.config)


def load_config(config: Config) -> Loaded:
    """A configuration whose expressions are known to be sound, such as the built-in one."""

    def expression(text: str | None) -> Expression | None:
        return None if text is None else parse(text)

    return Loaded(config, compile_rules([(expression(rule.match), expression(rule.unless)) for rule in config.rules]))


def _tells(message: str, values: tuple[str, ...]) -> bool:
    """Does a message quote what the environment holds? Four characters make a quotation, or a whole shorter value."""
    return any(value[at : at + 4] in message for value in values if value for at in range(max(1, len(value) - 3)))
