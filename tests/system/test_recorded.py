"""Recorded traces of two real systems through the proxy: what arrives is what the reference keeps, span for span.

Every rule set is said twice, as the proxy's configuration and in the reference's own terms. Two ways to a decision:
by SIGTERM, with everything buffered until then, and by the wait after the root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.traceql.program import AND, NOT, OR, Condition, Field, Kind, Op
from tests.support import nezha, reference
from tests.support.processes import Proxy
from tests.support.reference import Filter, Rule, Selection
from tests.support.sink import Sink
from tests.system.traffic import Client

MS = 1_000_000


class Case(NamedTuple):
    recording: str
    config: list[dict[str, Any]]
    rules: list[Rule]


def text(field: Field, value: str, op: Op = Op.EQ, key: str = "") -> Condition:
    return Condition(field, key.encode(), op, Kind.STRING, value.encode())


def number(field: Field, op: Op, value: int) -> Condition:
    return Condition(field, b"", op, Kind.INT, value)


def regex(field: Field, pattern: str, op: Op = Op.MATCH, key: str = "") -> Condition:
    compiled = re.compile(pattern.encode(), re.DOTALL)
    return Condition(field, key.encode(), op, Kind.REGEX, lambda value: compiled.fullmatch(value) is not None)


def service(name: str) -> Condition:
    return text(Field.RESOURCE_ATTRIBUTE, name, key="service.name")


def every(*conditions: Condition) -> Filter:
    return Filter(conditions, [*range(len(conditions)), *[AND] * (len(conditions) - 1)])


def one(*conditions: Condition) -> Selection:
    """`{ a && b }`"""
    return Selection([every(*conditions)], [0])


ERROR = number(Field.STATUS, Op.EQ, 2)
SERVER = number(Field.KIND, Op.EQ, 2)

CASES = {
    "the default rules": Case(
        nezha.ONLINE_BOUTIQUE,
        [],
        [
            Rule("errors", 1.0, one(ERROR)),
            Rule("slow", 1.0, one(number(Field.TRACE_DURATION, Op.GT, 1000 * MS))),
            Rule("baseline", 0.01),
        ],
    ),
    "names and services, percentages": Case(
        nezha.ONLINE_BOUTIQUE,
        [
            {"name": "mail", "match": '{ name = "hipstershop.EmailService/SendOrderConfirmation" }', "keep": "all"},
            {
                "name": "charged by another",
                "match": '{ resource.service.name = "paymentservice" && kind = server } || '
                '{ resource.k8s.pod.name =~ "shippingservice-.*" && kind = server && duration > 300us }',
                "keep": "50%",
            },
            {"name": "no carts", "match": '{ .service.name = "cartservice" }', "keep": "none"},
            {"name": "rest", "keep": "33.3%"},
        ],
        [
            Rule("mail", 1.0, one(text(Field.NAME, "hipstershop.EmailService/SendOrderConfirmation"))),
            Rule(
                "charged by another",
                0.5,
                Selection(
                    [
                        every(service("paymentservice"), SERVER),
                        every(
                            regex(Field.RESOURCE_ATTRIBUTE, "shippingservice-.*", key="k8s.pod.name"),
                            SERVER,
                            number(Field.DURATION, Op.GT, 300_000),
                        ),
                    ],
                    [0, 1, OR],
                ),
            ),
            Rule("no carts", 0.0, one(text(Field.ANY_ATTRIBUTE, "cartservice", key="service.name"))),
            Rule("rest", 0.333),
        ],
    ),
    "unless, regex, the trace's own fields": Case(
        nezha.ONLINE_BOUTIQUE,
        [
            {
                "name": "quick and whole",
                "match": '{ rootServiceName = "frontend" && traceDuration < 100ms }',
                "unless": "{ name =~ `/?hipstershop\\.(Recommendation|Ad)Service.*` } || { status = error }",
                "keep": "all",
            },
            {
                "name": "both in one",
                "match": '{ name =~ "sql\\\\..*" } && { name = "hipstershop.CartService/AddItem" }',
                "unless": '{ resource.service.name !~ "frontend|(cart|ad|currency|productcatalog)service" }',
                "keep": "75%",
            },
            {
                "name": "errors that are not of the frontend",
                "match": '{ status = error && !(resource.service.name = "frontend") }',
                "keep": "all",
            },
            {
                "name": "a long one",
                "match": "{ traceDuration >= 300ms }",
                "unless": "{ duration > 400ms }",
                "keep": "20%",
            },
            {"name": "rest", "keep": "none"},
        ],
        [
            Rule(
                "quick and whole",
                1.0,
                Selection(
                    [
                        every(text(Field.ROOT_SERVICE, "frontend")),
                        every(number(Field.TRACE_DURATION, Op.LT, 100 * MS)),
                    ],
                    [0, 1, AND],
                ),
                Selection(
                    [every(regex(Field.NAME, r"/?hipstershop\.(Recommendation|Ad)Service.*")), every(ERROR)],
                    [0, 1, OR],
                ),
            ),
            Rule(
                "both in one",
                0.75,
                Selection(
                    [
                        every(regex(Field.NAME, r"sql\..*")),
                        every(text(Field.NAME, "hipstershop.CartService/AddItem")),
                    ],
                    [0, 1, AND],
                ),
                one(
                    regex(
                        Field.RESOURCE_ATTRIBUTE,
                        "frontend|(cart|ad|currency|productcatalog)service",
                        Op.NOT_MATCH,
                        key="service.name",
                    )
                ),
            ),
            Rule(
                "errors that are not of the frontend",
                1.0,
                Selection([Filter([ERROR, service("frontend")], [0, 1, NOT, AND])], [0]),
            ),
            Rule(
                "a long one",
                0.2,
                one(number(Field.TRACE_DURATION, Op.GE, 300 * MS)),
                one(number(Field.DURATION, Op.GT, 400 * MS)),
            ),
            Rule("rest", 0.0),
        ],
    ),
    "slow services of another system": Case(
        nezha.TRAIN_TICKET,
        [
            {"name": "slow order", "match": '{ name = "SELECT Order" && duration > 2ms }', "keep": "all"},
            {
                "name": "not by gateway",
                "match": '{ rootName = "/*" } && { resource.service.name = "ts-travel-service" }',
                "unless": '{ name =~ "POST|HTTP POST" && duration >= 100ms }',
                "keep": "60%",
            },
            {"name": "errors", "match": '{ status = error } || { statusMessage != "" }', "keep": "all"},
            {"name": "baseline", "keep": "12.5%"},
        ],
        [
            Rule("slow order", 1.0, one(text(Field.NAME, "SELECT Order"), number(Field.DURATION, Op.GT, 2 * MS))),
            Rule(
                "not by gateway",
                0.6,
                Selection([every(text(Field.ROOT_NAME, "/*")), every(service("ts-travel-service"))], [0, 1, AND]),
                one(regex(Field.NAME, "POST|HTTP POST"), number(Field.DURATION, Op.GE, 100 * MS)),
            ),
            Rule(
                "errors",
                1.0,
                Selection([every(ERROR), every(text(Field.STATUS_MESSAGE, "", Op.NE))], [0, 1, OR]),
            ),
            Rule("baseline", 0.125),
        ],
    ),
}


HELD_BACK = {"name": "held back", "match": '{ name = "no span has this name" }', "keep": "none"}
"""As long as it may match, no trace is decided early by the rules behind it, so that all of them wait for the same
trigger."""


@cache
def recorded(recording: str) -> list[ExportTraceServiceRequest]:
    """With every tenth trace made an error. Read only."""
    requests = nezha.load(recording)
    nezha.add_errors(requests, every=10)
    return requests


def start(case: Case, sink: Sink, folder: Path, buffer: dict[str, str], **config: Any) -> Proxy:
    return Proxy(
        {
            "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
            "buffer": buffer,
            **({"rules": [HELD_BACK, *case.config]} if case.config else {}),
            "export": [{"name": "sink", "endpoint": sink.endpoint}],
            "admin": {"endpoint": "127.0.0.1:0"},
            **config,
        },
        folder,
    )


def replay(proxy: Proxy, requests: Sequence[ExportTraceServiceRequest], client: Callable[..., Client]) -> None:
    """In order of time, on two connections."""
    clients = [client(proxy.port), client(proxy.port)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda n: clients[n % len(clients)].export(requests[n]), range(len(requests))))
    assert not any(answer.HasField("partial_success") for answer in answers)


def check(case: Case, sink: Sink, reason: str | None, adjusted_count: bool = False) -> dict[str, int]:
    """The sink has what must be kept, stamped; returns how many traces each rule kept. `reason` None: decisions are
    not stamped, since early ones may name another rule than whole traces would."""
    kept = {rule.name: 0 for rule in case.rules}

    def stamp(trace: reference.Trace) -> reference.Stamp | None:
        decision = reference.decide(case.rules, trace)
        if not decision.keep:
            return None
        rule = case.rules[decision.rule].name
        kept[rule] += 1
        return reference.Stamp(
            rule,
            reason or "",
            decision.threshold,
            decision.randomness,
            decision=reason is not None,
            adjusted_count=adjusted_count,
            incomplete=reason == "shutdown",
        )

    expected = reference.expected_kept(recorded(case.recording), stamp)
    arrived = sink.contents()
    missing, surplus = expected - arrived, arrived - expected
    assert (len(missing), len(surplus)) == (0, 0), f"missing: {list(missing)[:2]}\nsurplus: {list(surplus)[:2]}"
    return kept


@pytest.mark.parametrize("name", CASES)
def test_what_the_rules_keep_arrives_span_for_span(
    name: str, sink: Sink, client: Callable[..., Client], tmp_path: Path
) -> None:
    case = CASES[name]
    requests = recorded(case.recording)
    waits = {"decision_wait": "10m", "decision_wait_after_root": "10m"}
    early = not case.config  # the default rules begin with some that keep everything
    proxy = start(case, sink, tmp_path, waits, stamp={"adjusted_count": True, "decision": not early})
    replay(proxy, requests, client)
    if not early:
        assert proxy.metrics().total("buffer_spans") == sum(1 for _ in nezha.spans(requests))
        assert sink.requests == []
    assert proxy.terminate() == 0
    kept = check(case, sink, None if early else "shutdown", adjusted_count=True)
    # A rule set that keeps nothing, or everything, would show nothing.
    wanted = [rule.name for rule in case.rules if rule.probability]
    assert all(kept[rule] for rule in wanted), kept
    assert sum(kept.values()) < len(reference.traces(requests))


def test_traces_are_decided_after_their_root(sink: Sink, client: Callable[..., Client], tmp_path: Path) -> None:
    case = CASES["names and services, percentages"]
    requests = recorded(case.recording)
    proxy = start(case, sink, tmp_path, {"decision_wait": "60s", "decision_wait_after_root": "3s"})
    replay(proxy, requests, client)
    settled = proxy.await_settled()
    kept = check(case, sink, "root")
    assert settled.total("late_spans_total") == 0
    assert settled.total("traces_decided_total", reason="root") == len(reference.traces(requests))
    for rule, traces in kept.items():
        assert settled.total("traces_decided_total", rule=rule, decision="keep") == traces
    assert not settled.unbalanced()
    assert proxy.terminate() == 0
