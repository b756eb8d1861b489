"""Decides to which of the running destinations the traces of each rule go."""

from __future__ import annotations

from collections.abc import Sequence

from sampler_proxy.config.model import Rule
from sampler_proxy.errors import ConfigError, Fault, printable


def routes_of(rules: Sequence[Rule], running: Sequence[str], path: str | None) -> dict[str, list[int]]:
    """Return the numbers of the destinations that rules name in `to`, by the rules' names. `running`: the names of
    those which run; a new one in a file that was changed does after a restart.

    Raises ConfigError for a rule that names only such ones: its traces must not go to destinations that it does not
    name, or nowhere. `path`: the file with the rules.
    """
    numbers = {name: number for number, name in enumerate(running)}
    routes = {rule.name: [numbers[name] for name in rule.to if name in numbers] for rule in rules if rule.to}
    if faults := [_fault(name, path) for name, route in routes.items() if not route]:
        raise ConfigError(faults)
    return routes


def _fault(rule: str, path: str | None) -> Fault:
    message = f"rule {printable(rule)} sends to destinations that do not run yet: restart to apply"
    return Fault(path or "", 0, 0, message)
