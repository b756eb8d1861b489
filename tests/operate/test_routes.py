"""Where rules send, among the destinations that run."""

from __future__ import annotations

import pytest

from sampler_proxy.config.model import Rule
from sampler_proxy.errors import ConfigError
from sampler_proxy.operate.routes import routes_of


def rule(name: str, *to: str) -> Rule:
    return Rule(name=name, keep=1.0, to=to or None)


def test_rules_name_destinations_by_number() -> None:
    rules = [rule("errors", "sentry"), rule("both", "sentry", "tempo"), rule("rest")]
    assert routes_of(rules, ["tempo", "sentry"], "c.yaml") == {"errors": [1], "both": [1, 0]}


def test_a_destination_that_does_not_run_yet_is_left_out() -> None:
    assert routes_of([rule("errors", "new", "tempo")], ["tempo", "sentry"], "c.yaml") == {"errors": [0]}


def test_traces_never_go_elsewhere_than_their_rule_says() -> None:
    rules = [rule("errors", "new"), rule("rest", "tempo"), rule("slow", "other", "new")]
    with pytest.raises(ConfigError) as refused:
        routes_of(rules, ["tempo"], "c.yaml")
    assert str(refused.value).splitlines() == [
        "c.yaml: rule errors sends to destinations that do not run yet: restart to apply",
        "c.yaml: rule slow sends to destinations that do not run yet: restart to apply",
    ]
