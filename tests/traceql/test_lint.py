"""What `check` remarks on: rules that are never reached, precedence, names that are nearly those of the conventions."""

from __future__ import annotations

import time

import pytest

from sampler_proxy.traceql.ast import Expression, Scope
from sampler_proxy.traceql.lint import Hint, lint
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.semconv import ELSEWHERE, EVENT, RENAMED, RESOURCE, SPAN, advise


def hints(*rules: str | tuple[str | None, str | None]) -> list[Hint]:
    """Rules are named a, b, c, ..."""
    pairs = [rule if isinstance(rule, tuple) else (rule, None) for rule in rules]
    return lint(
        [
            (chr(97 + number), None if match is None else parse(match), None if unless is None else parse(unless))
            for number, (match, unless) in enumerate(pairs)
        ]
    )


def test_good_rules_get_no_remarks() -> None:
    assert hints("{ status = error }", "{ span.http.route = `/` && duration > 1s }", (None, None)) == []
    assert hints() == []


@pytest.mark.parametrize(
    ("expression", "offset"),
    [
        ("{ duration > 5 }", 2),
        ("{ 0.5 < traceDuration }", 2),
        ("{ .a && event:timeSinceStart >= 100 }", 8),
        ("{ .a } | avg(duration) > 250", 9),
        ("{ duration > 5ns }", None),
        ("{ duration > 0 }", None),
        ("{ .elapsed > 5 }", None),
        ("{ .a } | count() > 5", None),
        ("{ .a } | sum(.bytes) > 5", None),
    ],
)
def test_durations_without_a_unit_get_a_remark(expression: str, offset: int | None) -> None:
    found = [hint for hint in hints(expression) if "nanoseconds" in hint.message]
    assert [hint.offset for hint in found] == ([] if offset is None else [offset])


@pytest.mark.parametrize(
    ("expression", "offset"),
    [
        ('{ span.http.response.status_code = "500" }', 2),
        ('{ .http.response.status_code != "500" }', 2),
        ("{ name = `x` && span.http.response.status_code >= `500` }", 16),
        ('{ span.server.port =~ "80.*" }', 2),
        ('{ resource.process.pid = "1" }', 2),
        ("{ span.http.response.status_code = 500 }", None),
        ('{ span.db.response.status_code = "500" }', None),  # a text by the conventions
        ('{ span.code = "500" }', None),
        ("{ span.http.response.status_code = span.expected }", None),
        ("{ span.http.response.status_code != nil }", None),
    ],
)
def test_integers_compared_with_text_get_a_remark(expression: str, offset: int | None) -> None:
    found = [hint for hint in hints(expression) if "is a number, and never" in hint.message]
    assert [hint.offset for hint in found] == ([] if offset is None else [offset])


@pytest.mark.parametrize(
    ("expression", "offset"),
    [
        ('{ span.faas.coldstart = "true" }', 2),
        ("{ .a && .messaging.destination.temporary = 1 }", 8),
        ("{ span.faas.coldstart = true }", None),
        ("{ span.faas.coldstart }", None),
        ("{ span.faas.coldstart != nil }", None),
        ('{ span.warm = "true" }', None),
    ],
)
def test_booleans_compared_with_something_else_get_a_remark(expression: str, offset: int | None) -> None:
    found = [hint for hint in hints(expression) if "is true or false" in hint.message]
    assert [hint.offset for hint in found] == ([] if offset is None else [offset])


@pytest.mark.parametrize(
    ("expression", "offset", "instead"),
    [
        ('{ name != "a" || name != "b" }', 17, "write &&"),
        ('{ span.x !~ "a.*" || 1 = .y || span.x !~ "b.*" }', 31, "write &&"),
        ("{ kind != client || kind != server }", 20, "write &&"),
        ('{ .m = "GET" && .m = "POST" }', 16, "write ||"),
        ("{ .a && (.s = 1 && .s = 2) } >> { .b }", 19, "write ||"),
        ('{ name != "a" && name != "b" }', None, ""),
        ('{ name = "a" || name = "b" }', None, ""),
        ('{ .x != "a" || .y != "b" }', None, ""),
        ('{ span.x != "a" || resource.x != "b" }', None, ""),
        ('{ .x != "a" || .x !~ "b.*" }', None, ""),
        ('{ .x =~ "a.*" && .x =~ ".*b" }', None, ""),
        ('{ .m = "GET" } && { .m = "POST" }', None, ""),
    ],
)
def test_values_joined_the_wrong_way_get_a_remark(expression: str, offset: int | None, instead: str) -> None:
    found = hints(expression)
    assert [hint.offset for hint in found] == ([] if offset is None else [offset])
    assert all(instead in hint.message for hint in found)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("api", ".*api.*"),
        ("/api/", ".*/api/.*"),
        ("^api", "api.*"),
        ("api$", ".*api"),
        ("^api$", None),
        ("api.*", None),
        ("GET|POST", None),
        ("(?i)api", None),
        ("a.b", None),
        ("[0-9]", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("op", ["=~", "!~"])
def test_patterns_for_a_part_of_a_value_get_a_remark(op: str, pattern: str, wanted: str | None) -> None:
    found = [hint.message for hint in hints(f"{{ .a && name {op} `{pattern}` }}") if "whole value" in hint.message]
    assert found == (
        [] if wanted is None else [f'a regular expression matches the whole value: write "{wanted}" for a part of it']
    )


NEVER = "this rule is never reached: a before it matches every trace"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("{ status = error }", "{ status = error }"),
        ("{ status = error }", "{ error = status }"),
        ("{ .a && .b }", "{ .b && .a }"),
        ("{ .a } && { .b }", "{ .b } && { .a }"),
        ("{ .a }", "{ .a && .b }"),
        ("{ .a || .b }", "{ .b }"),
        ("{ .a || .b }", "{ .b && .c }"),
        ("{ .a }", "{ .a } && { .b }"),
        ("{ .a } || { .b }", "{ .b }"),
        ("{ .a } || { .b }", "{ .b || .a }"),
        ("{ .a }", "({ .a } && { .b }) || { .a && .c }"),
        ("{ .a }", ("{ .a }", "{ .b }")),
        ("{ traceDuration > 1s }", "{ traceDuration > 1s && .a }"),
        ("{ .a } > { .b }", "({ .a } > { .b }) && { .c }"),
        ("{ .a } | count() > 2", "{ .a } | count() > 2"),
        (("{ .a }", "{ .b }"), ("{ .a }", "{ .b }")),
    ],
)
def test_rules_taken_by_an_earlier_one_get_a_remark(earlier: str, later: str) -> None:
    assert hints(earlier, later) == [(1, "match", 0, NEVER + " that this one matches")]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("{ .a && .b }", "{ .a }"),
        ("{ .a } && { .b }", "{ .a && .c }"),
        ("{ .a && .b }", "{ .a } && { .b }"),
        ("{ .a }", "{ !(.a = true) }"),
        ("{ .a }", "{ .a || .b }"),
        (("{ .a }", "{ .b }"), "{ .a }"),
        ("{ .a } > { .b }", "{ .b }"),
        ("{ .a = 1 }", "{ .a = 1.0 }"),
    ],
)
def test_reached_rules_get_no_remark(earlier: str, later: str) -> None:
    assert hints(earlier, later) == []


def test_rules_behind_one_that_matches_everything_get_a_remark() -> None:
    assert hints("{ .x }", "{}", "{ .y }", (None, None)) == [
        (2, "match", 0, NEVER.replace(" a ", " b ")),
        (3, "match", 0, NEVER.replace(" a ", " b ")),
    ]
    assert hints((None, "{ .x }"), "{ .x }", (None, None)) == []


@pytest.mark.parametrize("text", ["{ false }", "{ .a && 1 = 2 }", "{ .a } && { false }", "{ .a } | count() = 0"])
def test_rules_that_match_nothing_get_a_remark(text: str) -> None:
    (hint,) = hints(text, "{ .a }")
    assert hint[:3] == (0, "match", 0)
    assert hint.message.startswith("no trace can match this: ")


def test_unless_that_leaves_nothing_gets_a_remark() -> None:
    assert hints(("{ .a }", "{}"), "{ .a }") == [
        (0, "unless", 0, "no trace can match this rule: unless holds wherever match does")
    ]


def test_mixed_operators_and_names_stand_in_the_order_of_the_text() -> None:
    found = hints(("{ span.http.method = `GET` || .a && .b }", "{ .x } && { .db.system = `x` } || { .y }"))
    assert [(hint.rule, hint.part, hint.offset) for hint in found] == [
        (0, "match", 2),
        (0, "match", 33),
        (0, "unless", 12),
        (0, "unless", 31),
    ]
    assert "parentheses" in found[1].message
    assert "http.request.method" in found[0].message


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("{ status = error && span.http.status_code >= 500 }", 20, "http.response.status_code"),
        ("{ .net.peer.name = `x` }", 2, "server.address"),
        ("{ .a } > { 2 < span.http.statuscode + 1 }", 15, "http.response.status_code"),
        ("{ .a } | max(span.http.response.body.sise) > 2", 13, "http.response.body.size"),
        ('{ span.service.name = "x" }', 2, "write resource.service.name"),
        ("{ resource.http.route = `/` }", 2, "write span.http.route"),
        ("{ span.exception.type = `x` }", 2, "write event.exception.type"),
        ("{ .a && span.attributes.http.route = `/` }", 8, "for the attribute http.route write span.http.route"),
        ('{ resource.attributes["service.name"] = "x" }', 2, "service.name write resource.service.name"),
        ("{ span.duration > 1s }", 2, "for what every span has write duration, without span."),
        ("{ span.name = `x` }", 2, "write name, without span."),
        ("{ span.statusMessage = `x` }", 2, "write statusMessage, without span."),
    ],
)
def test_names_in_rules(text: str, offset: int, message: str) -> None:
    (hint,) = hints(text)
    assert hint[:3] == (0, "match", offset)
    assert message in hint.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("http.status_code", "http.response.status_code"),
        ("http.method", "http.request.method"),
        ("http.url", "url.full"),
        ("http.target", "url.path"),
        ("net.peer.name", "server.address"),
        ("net.host.port", "server.port"),
        ("db.statement", "db.query.text"),
        ("db.system", "db.system.name"),
        ("deployment.environment", "deployment.environment.name"),
        ("http.statuscode", "http.response.status_code"),
        ("http.response.statuscode", "http.response.status_code"),
        ("http.response.status.code", "http.response.status_code"),
        ("http_response_status_code", "http.response.status_code"),
        ("HTTP.Route", "http.route"),
        ("http.rout", "http.route"),
        ("service.nmae", "service.name"),
        ("service-name", "service.name"),
        ("k8s.namespce.nam", "k8s.namespace.name"),
        ("exception.messsage", "exception.message"),
        ("db.statment", "db.query.text"),
        ("url.ful", None),  # seven characters: too short to guess
        ("http.request.header.content_type", None),
        ("order.id", None),
        ("tier", None),
        ("é" * 10_000, None),
    ],
)
def test_names_like_conventions_get_advice(name: str, meant: str | None) -> None:
    message = advise(Scope.ANY, name)
    assert message is None if meant is None else message is not None and meant in message


@pytest.mark.parametrize(
    ("scope", "name", "right"),
    [
        (Scope.ANY, "service.name", True),
        (Scope.RESOURCE, "service.name", True),
        (Scope.SPAN, "service.name", False),
        (Scope.EVENT, "service.name", False),
        (Scope.SPAN, "http.route", True),
        (Scope.EVENT, "http.route", True),
        (Scope.LINK, "messaging.message.id", True),
        (Scope.RESOURCE, "http.route", False),
        (Scope.EVENT, "exception.type", True),
        (Scope.ANY, "exception.type", False),
        (Scope.SPAN, "session.id", True),
        (Scope.RESOURCE, "session.id", True),
    ],
)
def test_misplaced_names_get_advice(scope: Scope, name: str, right: bool) -> None:
    assert (advise(scope, name) is None) == right


def test_tables_of_names_are_disjoint_and_without_advice() -> None:
    tables = [SPAN, RESOURCE, EVENT, ELSEWHERE, frozenset(RENAMED)]
    assert sum(map(len, tables)) == len(frozenset().union(*tables)) > 250
    for name in frozenset().union(*tables):
        assert name == name.lower()
    for name in SPAN | RESOURCE | ELSEWHERE:
        assert advise(Scope.ANY, name) is None


def test_linting_ten_thousand_rules_takes_seconds() -> None:
    rules: list[tuple[str, Expression | None, Expression | None]] = []
    for number in range(10_000):
        text = f"{{ .customer.number{number} = {number} && span.http.request.methods != `x` }}"
        rules.append((str(number), parse(text), None) if number < 3000 else (str(number), *rules[number % 3000][1:]))
    started = time.process_time()
    found = lint(rules)
    assert time.process_time() - started < 5
    assert len([hint for hint in found if "never reached" in hint.message]) == 7000
    assert len(found) == 17_000
