"""A rule that meets its attribute only with another type is told: in a metric, and by explain."""

from __future__ import annotations

from typing import Any

import pytest

from sampler_proxy import metrics
from tests.pipeline.driver import WAIT, Driver, rules_of
from tests.rules.conformance.traces import event, request, span

STATUS = "{ span.http.response.status_code >= 500 }"


def met(match: str, *values: Any, key: str = "http.response.status_code") -> dict[str, int]:
    driver = Driver([("rule", match, 1.0), ("rest", None, 0.0)])
    for value in values:
        driver.send(request([span("a", attrs={key: value}, events=[event("e", 1, n=value)])]))
    driver.tick(WAIT)
    return {rule: int(value) for (rule,), value in driver.values()[metrics.RULE_TYPE_MISMATCH].items()}


@pytest.mark.parametrize(
    ("match", "values", "mismatch"),
    [
        (STATUS, ["500"], True),
        (STATUS, ["500", "500", "200"], True),
        (STATUS, [True], True),
        (STATUS, [b"5"], True),
        (STATUS, [{"a": 1}], True),
        (STATUS, ["500", 200], False),
        (STATUS, [200, "500"], False),
        (STATUS, [500.5], False),
        (STATUS, [["500"]], False),
        (STATUS, [None], False),
        (STATUS, [], False),
        ("{ .http.response.status_code = 500 }", ["500"], True),
        ("{ !(.http.response.status_code = 500) }", ["500"], True),
        ("{ .http.response.status_code = `500` }", [500], True),
        ("{ .http.response.status_code =~ `5..` }", [500], True),
        ("{ .http.response.status_code =~ `5..` }", ["200"], False),
        ("{ .http.response.status_code }", ["yes"], True),
        ("{ event.n > 5 }", ["7"], True),
        ("{ .http.response.status_code > 5 } | count() > 1", ["7"], True),
        ("{} >> { .http.response.status_code > 5 }", ["7"], True),
        ("{ .http.response.status_code > 5 || .other = 1 }", ["7"], True),
    ],
)
def test_rules_that_never_meet_their_type(match: str, values: list[Any], mismatch: bool) -> None:
    assert met(match, *values) == {"rule": int(mismatch)}


@pytest.mark.parametrize("match", ["{ status = error }", "{ .a != nil }", "{ .a > .b }", "{ rootName = `x` }"])
def test_rules_that_compare_no_attribute_with_a_constant_are_not_shown(match: str) -> None:
    assert met(match, 1) == {}


def test_new_rules_start_anew() -> None:
    driver = Driver([("rule", STATUS, 1.0), ("rest", None, 0.0)])
    driver.send(request([span("a", attrs={"http.response.status_code": "500"})]))
    driver.pipeline.replace_rules(rules_of([("rule", STATUS, 1.0), ("rest", None, 0.0)]))
    assert driver.values()[metrics.RULE_TYPE_MISMATCH] == {("rule",): 0}
