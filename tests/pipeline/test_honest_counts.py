"""Adjusted counts add up to the traffic there was: with errors, also late ones, slow traces, a target and the limit all
at once, behind head samplers of several rates, over many seeded runs of the whole pipeline in simulated time."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from sampler_proxy import metrics
from sampler_proxy.otlp.sampling import NEVER, adjusted_count, encode_threshold, threshold_of
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import SECOND, Driver
from tests.support import reference
from tests.support.tracestate import parse as parse_tracestate

RUNS = 200
SECONDS = 8
TRACES_PER_S = 400
STEP_S = 0.05
SERVICES = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
HEAD = {0: 0.5, threshold_of(0.5): 0.3, threshold_of(0.1): 0.2}  # one of these rates for a whole trace
ID, SPAN_ID = b"\xa1" * 16, b"\xa2" * 8


def _template(service: str, spans: int, state: str, error: bool, slow: bool, late: bool = False) -> bytes:
    """Encode a ResourceSpans with ID and SPAN_ID to be replaced. `late`: of spans that follow the others."""
    message = ResourceSpans()
    message.resource.attributes.add(key="service.name").value.string_value = service
    scope = message.scope_spans.add()
    for number in range(spans):
        span = scope.spans.add(
            trace_id=ID,
            span_id=SPAN_ID[:7] + bytes([number + 100 * late]),
            parent_span_id=b"\x01" * 8 if number or late else b"",
            name="step",
            trace_state=state,
            start_time_unix_nano=SECOND,
            end_time_unix_nano=SECOND * (4 if slow else 1) + 10_000_000,
        )
        if error and number == 0:
            span.status.code = 2
    return ExportTraceServiceRequest(resource_spans=[message]).SerializeToString()


class Estimate(NamedTuple):
    error: float
    deviation: float  # estimated from what was kept alone


def run(seed: int, templates: dict[tuple[object, ...], bytes]) -> tuple[dict[str, Estimate], Driver]:
    random = Random(seed)
    rules = [
        ("errors", "{ status = error }", 1.0),
        ("slow", "{ traceDuration > 1s }", 1.0),
        (
            "rest",
            None,
            Keep(Target(per_second=60, keyed=True, seed=seed), (parse_key("resource.service.name"),), "traces"),
        ),
    ]
    compiled = compile_rules([(None if match is None else parse(match), None) for _, match, _ in rules])
    driver = Driver(
        native=([name for name, _, _ in rules], [keep for _, _, keep in rules], compiled),
        limit=(150.0, "spans", 0.3),
        wait_ns=SECOND // 2,
        wait_after_root_ns=SECOND // 5,
        seed=seed,
    )
    truth: Counter[str] = Counter()
    services, heads = random.choices(list(SERVICES), list(SERVICES.values()), k=SECONDS * TRACES_PER_S), list(HEAD)
    shares = list(HEAD.values())
    per_step = round(TRACES_PER_S * STEP_S)
    late: dict[int, list[bytes]] = {}  # by step: errors that come around the decision on their trace, and after it
    for step in range(round(SECONDS / STEP_S)):
        parts = late.pop(step, [])
        for service in services[step * per_step : (step + 1) * per_step]:
            spans = random.randrange(1, 5)
            truth[service] += spans
            (head,) = random.choices(heads, shares)
            randomness = random.getrandbits(56)
            fate = random.random()
            if randomness >= head:
                template = templates[service, spans, head, fate < 0.02, 0.02 <= fate < 0.05]
                trace_id = random.randbytes(9) + randomness.to_bytes(7)
                parts.append(template.replace(ID, trace_id))
            if 0.05 <= fate < 0.09:
                truth[service] += 1
                if randomness >= head:
                    due = min(step + random.randrange(4, 50), round(SECONDS / STEP_S) + 20)
                    late.setdefault(due, []).append(templates[service, "late", head].replace(ID, trace_id))
        now_ns = round(step * STEP_S * SECOND)
        driver.send(b"".join(parts), now_ns)
        driver.tick(now_ns)
    now_ns = SECONDS * SECOND
    for _ in range(60):
        driver.send(b"".join(late.pop(round(now_ns / SECOND / STEP_S), [])), now_ns)
        now_ns += round(STEP_S * SECOND)
        driver.tick(now_ns)
    assert not late
    while driver.pipeline.drain(now_ns, hurry=True):
        pass
    estimates, variances = Counter[str](), Counter[str]()
    for trace in reference.traces([driver.kept()]).values():
        service = trace[0].resource.attributes[0].value.string_value
        spans = Counter(adjusted_count(parse_tracestate(one.span.trace_state.encode()).threshold or 0) for one in trace)
        for count, number in spans.items():
            estimates[service] += number * count
            # What is kept with a larger count is kept together with what has a smaller one.
            variances[service] += sum(
                number * other * max(count, count_of_other) * (min(count, count_of_other) - 1)
                for count_of_other, other in spans.items()
            )
    return (
        {service: Estimate(estimates[service] - truth[service], math.sqrt(variances[service])) for service in SERVICES},
        driver,
    )


def test_adjusted_counts_estimate_the_traffic_without_bias() -> None:
    templates = {
        (service, spans, head, error, slow): _template(
            service, spans, f"ot=th:{encode_threshold(head)}" if head else "", error, slow
        )
        for service in SERVICES
        for spans in range(1, 5)
        for head in HEAD
        for error, slow in ((False, False), (True, False), (False, True))
    }
    templates |= {
        (service, "late", head): _template(
            service, 1, f"ot=th:{encode_threshold(head)}" if head else "", True, False, late=True
        )
        for service in SERVICES
        for head in HEAD
    }
    runs = []
    limited, revived = Counter[str](), Counter[str]()
    for seed in range(RUNS):
        found, driver = run(seed, templates)
        runs.append(found)
        driver.check_ledger()
        values = driver.values()
        limited.update({rule: int(count) for (rule,), count in values[metrics.LIMITED_TRACES].items()})
        revived.update({rule: int(count) for (rule,), count in values[metrics.TRACES_REVIVED].items()})
        if seed == 0:
            decided = values[metrics.TRACES_DECIDED]
            assert {rule for rule, decision, _ in decided if decision == "keep"} == {"errors", "slow", "rest"}
            # What is seen of the estimate is its sampling: nothing else is kept, and by far not all.
            assert driver.total(metrics.SPANS_KEPT) < SECONDS * 200
    assert limited["rest"] > 20 * RUNS  # the cap was felt
    assert revived["errors"] > 20 * RUNS
    for service in SERVICES:
        errors = [one[service].error for one in runs]
        mean = sum(errors) / RUNS
        deviation = math.sqrt(sum((error - mean) ** 2 for error in errors) / (RUNS - 1))
        assert abs(mean) <= 3 * deviation / math.sqrt(RUNS), (service, mean, deviation)
        covered = sum(abs(one[service].error) <= 1.96 * one[service].deviation for one in runs) / RUNS
        assert 0.88 <= covered <= 0.99, (service, covered)


assert sum(HEAD.values()) == 1
assert NEVER not in HEAD
