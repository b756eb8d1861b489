"""Targets and the limit in real time, through the real process into a real sink: what leaves and when, what of it is
rare, and what its counts add up to.

The randomness of the traces of each key is spread evenly instead of drawn (multiples of the golden ratio), so that what
is counted does not depend on luck."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sampler_proxy.otlp.sampling import NEVER, adjusted_count
from tests.support import reference
from tests.support.processes import Proxy, Scraper
from tests.support.sink import Sink
from tests.support.tracestate import parse as parse_tracestate
from tests.system.traffic import Client

STEP_S = 0.05
GOLDEN = 0.6180339887498949
SERVICES = [f"service {number}" for number in range(12)]
RARE = [f"rare {number}" for number in range(4)]
RARE_PER_S = 1


class Traffic:
    """Traces of one span each, made before they are sent, `STEP_S` of them a request."""

    def __init__(self, spans_per_trace: int = 1, errors_per_s: int = 0) -> None:
        self.truth: Counter[str] = Counter()  # traces by service
        self.errors: set[bytes] = set()
        self._numbers: Counter[str] = Counter()
        self._random = Random(1)
        self._spans = spans_per_trace
        self._errors_per_s = errors_per_s

    def requests(self, per_second: int, seconds: float) -> list[bytes]:
        steps = round(seconds / STEP_S)
        per_step = round(per_second * STEP_S)
        made = []
        for step in range(steps):
            names = self._random.choices(SERVICES, [1 / (rank + 1) for rank in range(len(SERVICES))], k=per_step)
            if step % round(1 / STEP_S / RARE_PER_S) == 0:
                names += RARE
            message = ExportTraceServiceRequest()
            for name, count in Counter(names).items():
                resource_spans = message.resource_spans.add()
                resource_spans.resource.attributes.add(key="service.name").value.string_value = name
                scope = resource_spans.scope_spans.add()
                for _ in range(count):
                    self._add(scope, name)
            errors = round(self._errors_per_s * STEP_S)
            for scope_spans in message.resource_spans[0].scope_spans:
                for span in scope_spans.spans[: errors * self._spans : self._spans]:
                    span.status.code = 2
                    self.errors.add(span.trace_id)
            made.append(message.SerializeToString())
        return made

    def _add(self, scope: Any, name: str) -> None:
        self.truth[name] += 1
        self._numbers[name] += 1
        randomness = int(self._numbers[name] * GOLDEN % 1 * NEVER)
        trace_id = self._random.randbytes(9) + randomness.to_bytes(7)
        for number in range(self._spans):
            scope.spans.add(
                trace_id=trace_id,
                span_id=self._random.randbytes(8),
                parent_span_id=b"\x01" * 8 if number else b"",
                name="GET /",
                start_time_unix_nano=1_700_000_000_000_000_000,
                end_time_unix_nano=1_700_000_000_001_000_000,
            )


class TimedSink(Sink):
    """Knows when what came."""

    def __init__(self) -> None:
        self.at: list[tuple[float, ExportTraceServiceRequest]] = []
        super().__init__(
            take=lambda data: self.at.append((time.monotonic(), ExportTraceServiceRequest.FromString(data)))
        )

    def arrivals(self) -> Iterator[tuple[float, reference.Seen]]:
        for when, message in list(self.at):
            for one in reference.seen(message):
                yield when, one


@pytest.fixture
def timed() -> Iterator[TimedSink]:
    sink = TimedSink()
    yield sink
    sink.stop()


def send(client: Client, requests: list[bytes]) -> tuple[float, float]:
    """By the clock; returns when it began and ended."""
    began = time.monotonic()
    for number, data in enumerate(requests):
        time.sleep(max(0.0, began + number * STEP_S - time.monotonic()))
        client.export(data)
    return began, time.monotonic()


def config(sink: Sink, rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
        "buffer": {"decision_wait": "200ms", "decision_wait_after_root": "100ms"},
        "rules": rules,
        "export": [{"name": "sink", "endpoint": sink.endpoint, "compression": "none", "batch": {"max_wait": "20ms"}}],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": "20s",
        **more,
    }


def service_of(one: reference.Seen) -> str:
    return next(a.value.string_value for a in one.resource.attributes if a.key == "service.name")


def threshold_of(one: reference.Seen) -> int:
    return parse_tracestate(one.span.trace_state.encode()).threshold or 0


def largest(arrivals: list[float], seconds: float) -> int:
    """The most that came within so many seconds."""
    found, first = 0, 0
    for last, when in enumerate(arrivals):
        while arrivals[first] < when - seconds:
            first += 1
        found = max(found, last - first + 1)
    return found


def rates(proxy: Proxy) -> Mapping[str, Any]:
    status, text = proxy.get("/rates")
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


TARGET = [{"name": "rest", "keep": {"target": "100 traces/s", "per": ["resource.service.name", "rootName"]}}]


def test_a_target_holds_while_traffic_grows_tenfold(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    traffic = Traffic()
    slow, fast = traffic.requests(500, 12), traffic.requests(5000, 14)
    proxy = Proxy(config(timed, TARGET, storage={"path": str(tmp_path / "state")}), tmp_path / "run")
    scraper = Scraper(proxy)
    sender = client(proxy.port)
    began, _ = send(sender, slow)
    step, ended = send(sender, fast)
    scrape = proxy.metrics()
    assert scrape.total("target_kept_per_second", rule="rest") == pytest.approx(100, abs=15)
    assert scrape.total("target_demand_per_second", rule="rest") == pytest.approx(5004, rel=0.25)
    shown = rates(proxy)["rules"][0]
    assert shown["keys"] == len(SERVICES) + len(RARE)
    assert shown["top"][0]["key"] == {"resource.service.name": "service 0", "rootName": "GET /"}
    proxy.await_settled()
    scraper.stop()
    lag = 0.4
    at = [when for when, _ in timed.arrivals()]
    for start, end in (began + 2, step), (ended - 10, ended):
        kept = sum(start + lag <= when < end + lag for when in at)
        assert kept == pytest.approx(100 * (end - start), rel=0.1)
    later = [when for when in at if when >= step + 3 + lag]
    assert largest(later, 2.0) <= 1.5 * 100 * 2
    kept_of = Counter(service_of(one) for _, one in timed.arrivals())
    assert sum(kept_of[name] for name in RARE) >= 0.9 * sum(traffic.truth[name] for name in RARE)
    estimate = sum(adjusted_count(threshold_of(one)) for _, one in timed.arrivals())
    assert estimate == pytest.approx(traffic.truth.total(), rel=0.07)

    assert proxy.terminate() == 0
    saved = json.loads((tmp_path / "state" / "rates.json").read_text())
    (learned,) = saved["rules"].values()
    assert len(learned["demands"]) == len(SERVICES) + len(RARE)
    assert "service" not in json.dumps(saved)
    # The next process goes on with it: no start from nothing, in which all would be new at once.
    again = Proxy(config(timed, TARGET, storage={"path": str(tmp_path / "state")}), tmp_path / "run")
    del timed.at[:]
    send(client(again.port), fast[:40])
    again.await_settled()
    assert len(list(timed.arrivals())) == pytest.approx(200, rel=0.3)
    assert again.terminate() == 0
    assert not [line for line in again.log() if line["level"] == "warning"]


def test_a_limit_holds_and_errors_come_first(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    traffic = Traffic(spans_per_trace=5, errors_per_s=100)
    requests = traffic.requests(1000, 12)
    rules = [{"name": "errors", "match": "{ status = error }", "keep": "all"}, {"name": "rest", "keep": "all"}]
    proxy = Proxy(config(timed, rules, limit={"spans": "1000/s"}), tmp_path / "run")
    scraper = Scraper(proxy)
    send(client(proxy.port), requests)
    proxy.await_settled()
    scraper.stop()
    at = [when for when, _ in timed.arrivals()]
    assert largest(at, 3.0) <= 3 * 1100
    kept = {one.span.trace_id for _, one in timed.arrivals()}
    assert traffic.errors <= kept
    assert len(at) == pytest.approx(12 * 1000, rel=0.15)
    scrape = proxy.metrics()
    assert scrape.unbalanced() == []
    assert scrape.by("limited_traces_total", "rule").get("errors", 0) == 0
    assert scrape.total("spans_kept_total") + scrape.total("limited_spans_total") == scrape.total(
        "spans_received_total"
    )
    shown = rates(proxy)
    assert shown["limit"] == {"spans": "1000/s", "floor": "20%"}
    assert shown["removed_by_limit"]["rest"]["spans"] == scrape.total("limited_spans_total")
    estimate = sum(adjusted_count(threshold_of(one)) for _, one in timed.arrivals())
    assert estimate == pytest.approx(5 * traffic.truth.total(), rel=0.07)
    assert proxy.terminate() == 0


def test_the_limit_changes_with_its_file(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    rules = [{"name": "all", "keep": "all"}]
    proxy = Proxy(config(timed, rules, limit={"traces": "1/min"}), tmp_path / "run")
    sender = client(proxy.port)
    traffic = Traffic()
    send(sender, traffic.requests(200, 1.5))
    proxy.await_settled()
    before = proxy.metrics().total("spans_kept_total")
    assert before <= 3  # the first of each window
    file = tmp_path / "run" / "sampler-proxy.yaml"
    file.write_text(file.read_text().replace("1/min", "1000/s"))
    proxy.signal(signal.SIGHUP)
    proxy.await_event("limit reloaded: the rules have not changed")
    assert "restart_to_apply" not in proxy.get("/readyz")[1]
    send(sender, traffic.requests(200, 1))
    scrape = proxy.await_settled()
    assert scrape.total("spans_kept_total") - before >= 200
    assert proxy.terminate() == 0


def test_damaged_state_is_left_alone_with_one_warning(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "rates.json").write_text('{"format": 1, "rules')
    proxy = Proxy(config(timed, TARGET, storage={"path": str(state)}), tmp_path / "run")
    send(client(proxy.port), Traffic().requests(200, 2))
    proxy.await_settled()
    assert proxy.terminate() == 0
    warnings = [line["event"] for line in proxy.log() if line["level"] == "warning"]
    # The ids of this traffic are spread evenly, so that counts vary little: that they are not random is noticed, too.
    told = [warning for warning in warnings if not warning.startswith("trace ids do not look random")]
    assert told == ["storage: the learned rates are not used, and learned anew: it is damaged"]
    assert json.loads((state / "rates.json").read_text())["format"] == 1


def test_a_stop_keeps_to_the_limit(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    settings = config(timed, [{"name": "all", "keep": "all"}], limit={"traces": "50/s"})
    settings["buffer"] = {"decision_wait": "60s", "decision_wait_after_root": "60s"}
    proxy = Proxy(settings, tmp_path / "run")
    traffic = Traffic()
    began, _ = send(client(proxy.port), traffic.requests(1000, 1))
    assert proxy.terminate() == 0
    stopped = time.monotonic()
    kept = len(list(timed.arrivals()))
    assert 40 <= kept <= 50 * (stopped - began) + 10
    estimate = sum(adjusted_count(threshold_of(one)) for _, one in timed.arrivals())
    assert estimate == pytest.approx(traffic.truth.total(), rel=0.5)


def test_a_stop_that_waits_for_the_limit_answers_and_can_be_cut_short(
    timed: TimedSink, client: Any, tmp_path: Path
) -> None:
    proxy = Proxy(config(timed, [{"name": "all", "keep": "all"}], limit={"traces": "1/min"}), tmp_path / "run")
    sender = client(proxy.port)
    requests = Traffic().requests(200, 0.5)
    for data in requests:
        sender.export(data)
    proxy.signal(signal.SIGTERM)
    proxy.await_event("stopping")
    assert proxy.get("/readyz")[0] == 503  # the loop has time for others
    proxy.signal(signal.SIGTERM)
    assert proxy.wait(10) == 0


def test_trace_ids_that_are_no_chance_are_told_of_once(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    proxy = Proxy(config(timed, [{"name": "none", "keep": "none"}]), tmp_path / "run")
    sender = client(proxy.port)
    for first in (1, 1 << 16):
        message = ExportTraceServiceRequest()
        scope = message.resource_spans.add().scope_spans.add()
        for number in range(first, first + (1 << 14)):
            scope.spans.add(trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name="counted")
        sender.export(message)
        proxy.await_settled()
        assert proxy.metrics().total("trace_ids_random") == 0
    proxy.await_event("trace ids do not look random")
    assert proxy.terminate() == 0
    assert len([line for line in proxy.log() if "do not look random" in line["event"]]) == 1


def test_what_is_redacted_is_not_shown_among_the_rates(timed: TimedSink, client: Any, tmp_path: Path) -> None:
    keep = {"target": "100 traces/s", "per": [".card", ".user.password", "name", ".plain", ".long"]}
    settings = config(timed, [{"name": "rest", "keep": keep}], redact={"preset": "common"})
    proxy = Proxy(settings, tmp_path / "run")
    secret, password = "4111 1111 1111 1111", "hunter2"
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    span = scope.spans.add(name=f"pay {secret}", start_time_unix_nano=1, end_time_unix_nano=2)
    values = {"card": secret, "user.password": password, "plain": "blue", "long": "x" * 40 + secret}
    for key, value in values.items():
        span.attributes.add(key=key).value.string_value = value
    sender = client(proxy.port)
    for number in range(40):
        span.trace_id, span.span_id = Random(number).randbytes(16), Random(number).randbytes(8)
        sender.export(message)
        time.sleep(STEP_S)
    proxy.await_settled()
    text = proxy.get("/rates")[1]
    (shown,) = json.loads(text)["rules"][0]["top"]
    assert shown["key"] == {
        ".card": "****",
        ".user.password": "****",
        "name": "pay ****",
        ".plain": "blue",
        ".long": "****",
    }
    assert "1111" not in text + proxy.stderr() + proxy.get("/metrics")[1]
    assert proxy.terminate() == 0
