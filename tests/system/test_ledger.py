"""Every span is accounted for while the back end is killed, the memory fills, senders are refused and all recovers.

The senders note what was acknowledged. Each trace lies in one request, so the reference knows what must be kept of it,
no matter when it is decided: exactly that must be at the sink in the end. A scraper looks at the ledger all the while.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import reference
from tests.support.processes import Metrics, Proxy, Scraper, free_port, until
from tests.support.sink import Sink, SinkProcess
from tests.system.traffic import Client, Flood, add_trace, has_error, kept_span_ids, one_trace

TRACES = 12  # of a request
SHARE = 0.5
MAX_BYTES = 3 << 20
QUEUE_BYTES = 1 << 20
SHUTDOWN_S = 20

RULES = [
    {"name": "errors", "match": "{ status = error }", "keep": "all"},
    {"name": "half", "keep": f"{SHARE:%}"},
]


def config(port: int, **more: Any) -> dict[str, Any]:
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
        "buffer": {
            "decision_wait": "400ms",
            "decision_wait_after_root": "200ms",
            "max_bytes": MAX_BYTES,
            "max_trace_bytes": "1MiB",
        },
        "rules": RULES,
        "export": [
            {
                "name": "sink",
                "endpoint": f"http://127.0.0.1:{port}",
                "compression": "none",
                "batch": {"max_bytes": "64KiB", "max_wait": "20ms"},
                "queue": {"max_bytes": QUEUE_BYTES},
                "retry": {"initial": "50ms", "max": "200ms"},
            }
        ],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": f"{SHUTDOWN_S}s",
        **more,
    }


def make(random: Random) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for number in range(TRACES):
        add_trace(request, random, spans=1 + number % 5, error=number == 0, rooted=number % 3 != 0, fill=500)
    return request


def keep(trace: reference.Trace) -> bool:
    return has_error(trace) or reference.randomness(trace) >= reference.threshold_of(SHARE)


def spans_in(requests: list[ExportTraceServiceRequest]) -> int:
    return sum(len(reference.seen(request)) for request in requests)


def test_a_killed_back_end_costs_nothing(tmp_path: Path) -> None:
    first = SinkProcess(tmp_path / "first", tmp_path)
    proxy = Proxy(config(first.port), tmp_path)
    scraper = Scraper(proxy)
    flood = Flood(proxy.port, make)
    until(lambda: first.size > 1 << 20, what=proxy.stderr)

    first.kill()
    until(lambda: flood.refused >= 50, what=lambda: f"never refused\n{proxy.stderr()}")
    full = proxy.await_metrics(lambda m: m.total("queue_bytes") > 0.9 * QUEUE_BYTES)
    assert full.total("requests_refused_total", reason="memory") > 0
    assert full.total("traces_decided_total", reason="memory") > 0
    assert proxy.get("/readyz")[0] == 200  # being full is not unreadiness

    second = SinkProcess(tmp_path / "second", tmp_path, first.port)
    before = len(flood.acknowledged)
    until(lambda: len(flood.acknowledged) > before + 200, what=proxy.stderr)
    acknowledged = flood.stop()
    last = proxy.await_settled()
    asked_at = time.monotonic()
    assert proxy.terminate(SHUTDOWN_S) == 0
    assert time.monotonic() - asked_at < SHUTDOWN_S
    scrapes = scraper.stop()

    assert max(scrape.total("buffer_bytes") for scrape in scrapes) <= MAX_BYTES + 4096  # a finished trace
    assert max(scrape.total("queue_bytes") for scrape in scrapes) <= QUEUE_BYTES
    assert last.total("spans_received_total") == spans_in(acknowledged)
    assert last.total("spans_exported_total") == last.total("spans_routed_total") == last.total("spans_kept_total")
    assert last.total("spans_lost_total") == last.total("spans_rejected_total") == 0
    assert last.total("requests_refused_total") == flood.refused

    expected = kept_span_ids(acknowledged, keep)
    before_kill, after_kill = Counter(first.span_ids()), Counter(second.span_ids())
    assert set(before_kill) | set(after_kill) == expected
    assert last.total("spans_kept_total") == len(expected)
    # Twice only what the first one had stored and could not answer any more: what was in flight.
    assert max(before_kill.values()) == max(after_kill.values()) == 1
    twice = set(before_kill) & set(after_kill)
    assert len(twice) * 500 <= 4 * 64 * 1024


def test_a_back_end_that_stays_dead_costs_what_the_log_says(tmp_path: Path) -> None:
    timeout_s = 2
    proxy = Proxy(config(free_port(), shutdown_timeout=f"{timeout_s}s"), tmp_path)
    scraper = Scraper(proxy, 0.02)
    flood = Flood(proxy.port, make)
    until(lambda: flood.refused >= 50, what=lambda: f"never refused\n{proxy.stderr()}")
    acknowledged = flood.stop()
    asked_at = time.monotonic()
    assert proxy.terminate() == 3
    assert time.monotonic() - asked_at < timeout_s + 3
    scrapes = scraper.stop()
    assert scrapes[-1].total("spans_received_total") == spans_in(acknowledged)
    assert scrapes[-1].total("spans_exported_total") == 0

    kept = len(kept_span_ids(acknowledged, keep))
    said = [line for line in proxy.log() if "lost" in line["event"]]
    assert [line["level"] for line in said] == ["error", "info"], said
    assert re.findall(r"\d+", said[0]["event"]) == [str(kept)], (said, kept)
    assert said[1]["event"].startswith(f"stopped: 0 spans sent, {kept} lost in "), (said, kept)


def test_after_kill_9_clients_recover_and_a_new_process_works(
    sink: Sink, client: Callable[..., Client], tmp_path: Path
) -> None:
    """What only its memory held is gone, as documented; nothing else is."""
    settings = config(sink.port)
    first = Proxy(settings, tmp_path)
    flood = Flood(first.port, make)
    until(lambda: len(flood.acknowledged) > 50)
    first.kill()
    until(lambda: len(flood.broken) == len(flood.answers), what="a sender has not noticed")
    before, answers = len(flood.acknowledged), list(flood.answers)

    settings["receive"]["grpc"]["endpoint"] = f"127.0.0.1:{first.port}"
    settings["admin"]["endpoint"] = f"127.0.0.1:{first.admin_port}"
    second = Proxy(settings, tmp_path)
    scraper = Scraper(second)
    until(lambda: all(now >= then + 20 for now, then in zip(flood.answers, answers, strict=True)), what=second.stderr)
    acknowledged = flood.stop()
    request = one_trace(Random(0), error=True)
    client(second.port).export(request)
    last: Metrics = second.await_settled()
    assert second.terminate(SHUTDOWN_S) == 0
    scraper.stop()

    arrived = Counter(span.span_id for span in sink.spans)
    # The first may have taken what it could not acknowledge any more, and its sender has sent it again.
    assert set(arrived) <= kept_span_ids([*acknowledged, request], keep)
    assert kept_span_ids([*acknowledged[before:], request], keep) <= set(arrived)
    assert last.total("spans_received_total") >= spans_in([*acknowledged[before:], request])
    assert last.total("spans_exported_total") == last.total("spans_kept_total")
