"""Has every allocation of every step of a pipeline fail once, the first, the second and so on, and looks whether the
accounts still balance. Run in a process of its own, with failing_malloc.c preloaded and PYTHONMALLOC=malloc, so that
Python's objects count, too:

    python -m tests.pipeline.failing_allocations STEP

Prints how many allocations the step makes.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy import metrics
from sampler_proxy.errors import OutOfMemory, RequestError
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.traceql.compiler import compile_rules
from sampler_proxy.traceql.keys import parse_key
from sampler_proxy.traceql.parse import parse
from tests.pipeline.driver import MIB, SECOND, WAIT, Driver, request, rules_of

LIMIT = (3.0, "spans", 0.2)
LISTED: list[tuple[str, str | None, float]] = [
    ("errors", "{ status = error }", 1.0),
    ("tree", '{ name = "a" } >> { name = "b" }', 1.0),
    ("half", None, 0.5),
]
RULES, EARLY = rules_of(LISTED), rules_of(LISTED, early=True)
OTHERS = (
    ("errors", "{ status = error || .code >= 500 || .code = `x` }"),
    ("counted", '({ name = "a" && span.n > 1 } | count() > 2) && { rootDuration > 2s }'),
    ("tree", '({ name = "a" } >> { name =~ "b.*" }) && { traceDuration > 1h && event:name = "c" }'),
    ("half", None),
)
KEY = (parse_key("resource.service.name"), parse_key("rootName"))
COMPILED = compile_rules([(None if match is None else parse(match), None) for _, match in OTHERS])

Step = Callable[[Driver], object]


def damaged(*spans: tuple[int, int], **settings: Any) -> bytes:
    """Build a request of two resources, with a header and spans that are not UTF-8, and a span without valid ids."""
    message = ExportTraceServiceRequest()
    for service in ("sh\x01p", "other"):
        message.MergeFrom(request(*spans, service=service, **settings))
    message.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short", span_id=b"12345678")
    return message.SerializeToString().replace(b"sh\x01p", b"sh\xffp").replace(b"GET /", b"GET \xff")


def send(*spans: tuple[int, int], at: int = 0, **settings: Any) -> Step:
    data = damaged(*spans, **settings)

    def step(driver: Driver) -> None:
        try:
            driver.send(data, at)
        except RequestError:  # counted
            raise
        except MemoryError:  # as the engines count it
            driver.pipeline.count_refused("grpc", "out_of_memory")
            raise

    return step


def many(spans: int) -> Step:
    return send(*((n, 1) for n in range(100, 100 + spans)), at=1)


def tick(at: int) -> Step:
    return lambda driver: driver.tick(at)


def do(*steps: Step) -> Step:
    def step(driver: Driver) -> None:
        for each in steps:
            each(driver)

    return step


def fill(driver: Driver) -> None:
    for n in range(1000, 2400, 100):
        driver.send(request(*((n + i, 1) for i in range(100)), size=400), 0)


def other_rules(driver: Driver) -> None:
    keeps = (1.0, 0.5, 1.0, Keep(Target(per_second=5.0, keyed=True, seed=1), KEY))
    driver.pipeline.replace_rules(([name for name, _ in OTHERS], keeps, COMPILED))


def inspect(driver: Driver) -> None:
    """Ask what people and monitoring ask for."""
    driver.values()
    controller = driver.pipeline.rules.controllers[-1]
    controller.stats(WAIT), controller.top(5), controller.learned()


def new_names(driver: Driver) -> None:
    names = [*(name for name, _, _ in LISTED), "new", "newer"]
    numbers = [driver.pipeline.ledger_id(name) for name in names]
    assert numbers == list(range(len(names)))


LATE = send((1, 2), at=WAIT + 1, error=True)
STEPS: dict[str, tuple[dict[str, object], Step, Step]] = {
    # what the pipeline is made of, what comes before, what may fail
    "take": ({}, do(), send((1, 1), (1, 2), (2, 1))),
    "take many": ({}, many(740), send(*((n, 1) for n in range(1000, 1030)), at=1)),
    "early": ({"native": EARLY}, send((1, 1)), send((1, 2), (2, 1), error=True)),
    "size": ({"max_trace_bytes": 600}, send((1, 1)), send((1, 2), (2, 1))),
    "room": ({"max_bytes": MIB}, fill, many(12)),
    "decide": ({}, send((1, 1), (2, 1)), tick(WAIT)),
    "late": ({}, do(send((1, 1)), tick(WAIT)), LATE),
    "late again": ({}, do(send((1, 1)), tick(WAIT), LATE), send((1, 3), at=WAIT + 2)),
    "window": ({"limit": LIMIT}, send((1, 1), (2, 1), (3, 1)), tick(WAIT)),
    "late in the window": ({"limit": LIMIT}, do(send((1, 1), (2, 1), (3, 1)), tick(WAIT)), LATE),
    "late in the closed window": (
        {"limit": LIMIT},
        do(send((1, 1), (2, 1), (3, 1)), tick(WAIT), lambda driver: driver.pipeline.tick(WAIT + 2 * SECOND, 1)),
        LATE,
    ),
    "close the window": ({"limit": LIMIT}, do(send((1, 1), (2, 1), (3, 1)), tick(WAIT)), tick(WAIT + 2 * SECOND)),
    "other rules": ({}, send((1, 1)), other_rules),
    "by other rules": ({}, do(send((1, 1), (2, 1)), other_rules), tick(WAIT)),
    "inspect": ({}, do(send((1, 1), (2, 1)), other_rules, tick(WAIT)), inspect),
    "other names": ({}, send((1, 1)), new_names),
    "other limit": (
        {"limit": LIMIT},
        do(send((1, 1)), tick(WAIT)),
        do(
            lambda driver: driver.pipeline.replace_limit((9.0, "traces", 0.5)),
            lambda driver: driver.pipeline.replace_limit(None),
        ),
    ),
}


def check(driver: Driver, failed: str) -> None:
    """Assert that every span and every request is accounted for. Nothing here may fail otherwise."""
    try:
        driver.check_ledger()
    except AssertionError:
        raise AssertionError(failed) from None
    values = driver.values()
    kept = sum(trace.spans for trace in driver.destinations[0].traces)
    assert kept == sum(values[metrics.SPANS_KEPT].values()), failed
    refused = sum(values[metrics.REQUESTS_REFUSED].values())
    assert sum(values[metrics.REQUESTS_RECEIVED].values()) == refused + driver.sent, failed  # type: ignore[attr-defined]


def count_sent(driver: Driver) -> None:
    """Have the driver count the requests that were taken."""
    driver.sent = 0  # type: ignore[attr-defined]
    send = driver.send

    def counting(data: ExportTraceServiceRequest | bytes, at_ns: int = 0) -> bytes:
        answer = send(data, at_ns)
        driver.sent += 1  # type: ignore[attr-defined]
        return answer

    driver.send = counting  # type: ignore[assignment, method-assign]


def finish(driver: Driver, failed: str) -> int:
    """Decide all that is left, and return the bytes in use then."""
    driver.pipeline.close()
    while driver.pipeline.drain(10 * WAIT, hurry=True):
        pass
    check(driver, failed)
    values = driver.values()
    driver.destinations[0].traces.clear()
    gc.collect()
    assert (len(driver.pipeline.envelopes), values[metrics.BUFFER_SPANS][()]) == (0, 0), failed
    return int(values[metrics.BUFFER_BYTES][()])


def run(shim: ctypes.PyDLL, step: str, n: int) -> tuple[bool, int]:
    """Run a step whose allocation `n` fails; return whether there was one, and the bytes in use in the end."""
    settings, before, act = STEPS[step]
    failed = f"{step}, allocation {n}"
    driver = Driver(**{"native": RULES, "decision_memory_bytes": 1 << 16, **settings})  # type: ignore[arg-type]
    count_sent(driver)
    before(driver)
    with suppress(MemoryError, OutOfMemory):
        shim.fail_at(n)
        act(driver)
    has_failed = bool(shim.has_failed())
    check(driver, failed)
    act(driver)
    check(driver, failed)
    return has_failed, finish(driver, failed)


def main() -> None:
    shim = ctypes.PyDLL(None)
    shim.fail_at.argtypes, shim.fail_at.restype = (ctypes.c_long,), None
    step = sys.argv[1]
    _, expected = run(shim, step, 1 << 30)
    n = 0
    has_failed = True
    while has_failed:
        has_failed, bytes_left = run(shim, step, n)
        assert bytes_left == expected, f"{step}, allocation {n}: {bytes_left} bytes in use, not {expected}"
        n += 1
    print(n - 1)


if __name__ == "__main__":
    main()
