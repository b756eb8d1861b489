"""Answers are cached where values repeat (rules/answer_cache): the spans read before must not change any answer."""

from __future__ import annotations

import re
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.pipeline import replay
from tests.pipeline.driver import rules_of, trace_id
from tests.rules.conformance.traces import cut
from tests.support import traceql_strategies
from tests.support.reference import Seen


@given(
    texts=traceql_strategies.expressions(8),
    traces=st.lists(traceql_strategies.traces(), min_size=4, max_size=4),
    random=st.randoms(use_true_random=False),
)
@settings(max_examples=settings().max_examples // 2)
def test_cached_answers_do_not_change_decisions(texts: list[str], traces: list[list[Seen]], random: Random) -> None:
    native = rules_of([*((text, text, 0.0) for text in texts), ("rest", None, 1.0)])
    requests = []
    for number, spans in enumerate([*traces, *traces]):  # the second time everything repeats
        for one in spans:
            one.span.trace_id = trace_id(number + 1)
        requests += [piece.SerializeToString() for piece in cut(spans, random)]
    together = {one.trace_id: one.rule for one in replay.decide(*native, requests)}
    alone: dict[bytes, list[bytes]] = {}
    for request in requests:
        for decided in replay.decide(*native, [request]):
            alone.setdefault(decided.trace_id, []).append(request)
    assert together == {number: replay.decide(*native, pieces)[0].rule for number, pieces in alone.items()}


def test_more_values_than_the_cache_holds_get_right_answers() -> None:
    """Strings of all lengths, under two keys and at three places, most of them seen more than once."""
    random = Random(1)
    values = [
        random.choice(["", "a", "ab", "x" * random.randrange(130)]) + str(random.randrange(2000)) for _ in range(3000)
    ]
    values += ["", "a", "b" * 79, "b" * 80, "b" * 81]
    asked = {
        "{ .k =~ `.*7.*` && .k != `a7` && .k !~ `x+7` }": lambda k, _: (
            re.search("7", k) and k != "a7" and not re.match("x+7$", k)
        ),
        "{ resource.k < `a5` && resource.k > `1` }": lambda _, r: "1" < r < "a5",
        "{ span.other = nil && span.other = `a` }": lambda _, __: False,
        "{ .k = `` || .k =~ `b*` || resource.k = `a` }": lambda k, r: re.fullmatch("b*", k) or r == "a",
    }
    native = rules_of([*((text, text, 0.0) for text in asked), ("rest", None, 1.0)])
    requests, expected = [], {}
    for number in range(1, 10_001):
        if number % 50 == 1:
            message = ExportTraceServiceRequest()
            requests.append(message)
            of_resource = random.choice(values)
            resource_spans = message.resource_spans.add()
            resource_spans.resource.attributes.add(key="k").value.string_value = of_resource
            scope_spans = resource_spans.scope_spans.add()
        of_span = random.choice(values)
        span = scope_spans.spans.add(trace_id=trace_id(number), span_id=number.to_bytes(8))
        span.attributes.add(key="k").value.string_value = of_span
        span.attributes.add(key="other").value.string_value = of_resource
        answers = [bool(holds(of_span, of_resource)) for holds in asked.values()]
        expected[trace_id(number)] = [*answers, True].index(True)
    decided = replay.decide(*native, [message.SerializeToString() for message in requests])
    assert {one.trace_id: one.rule for one in decided} == expected
    assert set(expected.values()) == {0, 1, 3, 4}
