"""What people write who know another language: each mistake with the answer that they would want, by kind."""

import pytest

from sampler_proxy.errors import TraceQLError
from sampler_proxy.traceql.ast import Scope
from sampler_proxy.traceql.parse import parse
from sampler_proxy.traceql.semconv import advise

NAMES = [
    ('{ service = "x" }', "write resource.service.name"),
    ('{ serviceName = "x" }', "write resource.service.name"),
    ('{ operation = "x" }', "write name"),
    ('{ operationName = "x" }', "write name"),
    ('{ env = "prod" }', "write resource.deployment.environment.name"),
    ('{ host = "a" }', "write resource.host.name"),
    ('{ method = "GET" }', "write span.http.request.method"),
    ("{ latency > 1s }", "write duration"),
    ("{ root.duration > 1s }", "did you mean rootDuration?"),
    ("{ root_duration > 1s }", "did you mean rootDuration?"),
    ('{ rootSpan.name = "x" }', "write rootName"),
    ('{ root.service.name = "x" }', "did you mean rootServiceName?"),
    ("{ trace_duration > 1s }", "did you mean traceDuration?"),
    ("{ trace.duration > 1s }", "did you mean trace:duration?"),
    ("{ isRoot }", "write nestedSetParent < 0"),
    ("{ root = true }", "write nestedSetParent < 0"),
    ("{ nestedSetParent = nil }", "write nestedSetParent < 0 for roots"),
    ('{ trace_id = "x" }', "did you mean trace:id?"),
    ('{ parentId = "" }', "write span:parentID"),
    ('{ parent_span_id = "" }', "write span:parentID"),
    ("{ status.code = error }", "write status"),
    ('{ status.message = "x" }', "did you mean statusMessage?"),
    ('{ message = "x" }', "write statusMessage"),
    ("{ span_kind = server }", "write kind"),
    ("{ spanCount > 3 }", "write { ... } | count() > 3"),
    ('{ scope.name = "x" }', "write instrumentation:name"),
    ('{ library.version = "x" }', "write instrumentation:version"),
    ('{ scope:name = "x" }', "write instrumentation:name"),
    ('{ tags.http.route = "x" }', "write span.http.route"),
    ('{ tag.x = "y" }', "write span.x, resource.x, or .x for both"),
    ('{ res.x = "y" }', "did you mean resource?"),
    ('{ otel.status_code = "ERROR" }', "write status = error"),
]
CONSTANTS = [
    ("{ status = STATUS_CODE_ERROR }", "did you mean error?"),
    ("{ kind = SPAN_KIND_SERVER }", "did you mean server?"),
    ("{ kind = SpanKind.CLIENT }", "did you mean client?"),
    ("{ error = true }", "write status = error"),
    ('{ "status" = error }', "write status = error"),
    ("{ server = true }", "write kind = server"),
    ("{ ok }", "such as status = ok"),
    ("{ consumer && .a }", "such as kind = consumer"),
    ("{ span.status = error }", "write status = error"),
    ("{ span.kind = server }", "write kind = server"),
    ("{ .a = null }", "write nil"),
    ("{ .a != None }", "write nil"),
    ("{ .a = TRUE }", "did you mean true?"),
    ("{ name = shop }", "text is written in double quotes"),
    ("{ .m = GET }", "text is written in double quotes"),
    ("{ .a = “x” }", "write plain double quotes"),
    ("{ .a = 1,000 }", "a number has no comma: write 1500, or 1.5"),
    ("{ duration > 1,5s }", "a number has no comma: write 1500, or 1.5"),
    ("{ .code = 5xx }", "write a range, as in span.x >= 500"),
    ("{ status: error }", "write status = error"),
    ("{ kind:server }", "write kind = server"),
    ("{ .a > 1.5MB }", "sizes have no unit here: write 1500000"),
    ("{ .a > 2KiB }", "sizes have no unit here: write 2048"),
    ("{ duration > 1 s }", "write 1s without a space"),
    ("{ duration > 500 ms }", "write 500ms without a space"),
    ("{ .a = $tenant }", "write the value, or ${env:NAME}"),
]
OPERATORS = [
    ("{ .a in (1, 2) }", "write = for each value, joined by ||"),
    ("{ .a not in (1, 2) }", "write != or !~ here"),
    ('{ name like "x" }', "write =~ with a regular expression"),
    ('{ name contains "x" }', "write =~ with a regular expression"),
    ('{ name ~ "x" }', "write =~ to compare"),
    ("{ name =~ /x/ }", "a regular expression in quotes must stand"),
    ('{ name =~ "*.x" }', "write .* for any text"),
    ('{ name =~ "x(?!y)" }', "it does not look ahead or behind"),
    ("{ .a is nil }", "write = or !=, as in = nil"),
    ("{ .a between 1 and 2 }", "write >= and <="),
    ("{ .a => 1 }", "there is no operator =>: write >="),
    ("{ .a =< 1 }", "there is no operator =<: write <="),
    ("{ .a gt 1 }", "write >"),
    ("{ .a | .b }", "write || for or"),
    ("{ .a, .b }", "write && or || between conditions"),
    ("{ .a }; { .b }", "write && or || between conditions"),
    ("{ !status = error }", "in parentheses where it is a comparison"),
    ("{ not (.a = 1) }", "write ! instead"),
    ("not { .a }", "put it into unless"),
    ("{ .a } # why", "comments begin with //"),
    ("{ span.my key = 1 }", "a key with spaces stands in quotes"),
]
FUNCTIONS = [
    ("{ exists(.a) }", "write span.x != nil"),
    ('{ lower(name) = "x" }', 'write =~ "(?i)..."'),
    ('{ contains(name, "x") }', "write =~ with a regular expression"),
    ("{ frobnicate(.a) }", "there are count, min, max, avg and sum"),
    ("{ } | mean(duration) > 1s", "write avg"),
    ("{ } | p99(duration) > 1s", "quantiles are not supported"),
    ("{ } | countt() > 1", "did you mean count?"),
    ("{ } | count > 3", "with parentheses, as in { ... } | count() > 2"),
    ("{ } | avg > 3", "with parentheses, as in { ... } | avg(duration) > 1s"),
    ("{ .a } && count() > 3", "count() stands behind |, as in { ... } | count(...) > 2"),
    ("{ .a } max(duration) > 3s", "max() stands behind |"),
    ("{ .a } unless { .b }", "write it as the key unless of the rule"),
    ("count({ .a }) > 3", "spans stand before the aggregate, as in { ... } | count(...) > 2"),
    ("*", "write {} for every trace"),
]


@pytest.mark.parametrize(("text", "answer"), [*NAMES, *CONSTANTS, *OPERATORS, *FUNCTIONS])
def test_a_habit_of_elsewhere_gets_the_answer_that_helps(text: str, answer: str) -> None:
    with pytest.raises(TraceQLError) as caught:
        parse(text)
    assert answer in caught.value.message


@pytest.mark.parametrize(
    ("scope", "name", "answer"),
    [
        (Scope.EVENT, "name", "write event:name"),
        (Scope.EVENT, "timeSinceStart", "write event:timeSinceStart"),
        (Scope.LINK, "traceID", "write link:traceID"),
        (Scope.INSTRUMENTATION, "version", "write instrumentation:version"),
        (Scope.SPAN, "parentID", "write span:parentID"),
        (Scope.SPAN, "otel.status_code", "write status = error"),
        (Scope.ANY, "span.kind", "write kind = server"),
        (Scope.RESOURCE, "name", None),
        (Scope.SPAN, "traceID", None),
        (Scope.ANY, "name", "write name, without ."),
        (Scope.ANY, "duration", "write duration, without ."),
    ],
)
def test_attributes_that_are_fields_in_otlp_get_advice(scope: Scope, name: str, answer: str | None) -> None:
    message = advise(scope, name)
    assert message is None if answer is None else message is not None and answer in message
