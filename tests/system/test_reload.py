"""Rules that change under load: nothing is lost, nothing is decided twice, and what is at fault changes nothing.

Every trace comes in two requests, so that many are half there when the rules change. Which rules decide a trace is a
matter of time; that all rule sets keep errors, and none what lies below every threshold, is not.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import reference
from tests.support.processes import Proxy, Scraper, until, with_free_ports
from tests.support.sink import Sink
from tests.system.traffic import Client, Flood, add_trace, has_error, one_trace

FIRST = [
    {"name": "errors", "match": "{ status = error }", "keep": "all"},
    {"name": "half", "keep": "50%"},
]
SECOND = [
    {"name": "big", "match": '{ name = "step 3" && span.fill != nil }', "unless": "{ status = error }", "keep": "20%"},
    {"name": "faults", "match": "{ status = error && resource.service.name = `made` }", "keep": "all"},
    {"name": "rest", "keep": "30%"},
]
THIRD = [
    {"name": "chain", "match": '{ name = "step 0" } >> { status = error }', "keep": "all"},
    {"name": "errors", "match": "{ status = error } | count() > 0", "keep": "all"},
    {"name": "long", "match": "{ span:id != nil } | count() > 3", "keep": "40%"},
    {"name": "half", "keep": "50%"},
]
LARGEST_SHARE = 0.5


def config(sink: Sink, rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "127.0.0.1:0"}},
        "buffer": {"decision_wait": "400ms", "decision_wait_after_root": "200ms"},
        "rules": rules,
        "export": [{"name": "sink", "endpoint": sink.endpoint, "compression": "none", "batch": {"max_wait": "20ms"}}],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": "20s",
        **more,
    }


def write(file: Path, settings: dict[str, Any]) -> None:
    """At once, as a careful editor does."""
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump(with_free_ports(settings), sort_keys=False))
    os.replace(new, file)


def rules_of(proxy: Proxy) -> dict[str, Any]:
    status, text = proxy.get("/rules")
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


def await_reloads(proxy: Proxy, outcome: str, count: int) -> None:
    proxy.await_metrics(lambda m: m.total("config_reloads_total", outcome=outcome) == count)


def await_more(flood: Flood, proxy: Proxy) -> None:
    before = len(flood.acknowledged)
    until(lambda: len(flood.acknowledged) > before + 30, what=proxy.stderr)


def halves() -> Callable[[Random], ExportTraceServiceRequest]:
    """What a sender makes: the second halves of the traces of its request before, and the first ones of new traces."""
    second: dict[int, ExportTraceServiceRequest] = {}

    def make(random: Random) -> ExportTraceServiceRequest:
        whole = ExportTraceServiceRequest()
        for number in range(12):
            add_trace(whole, random, spans=2 + number % 4, error=number == 2, rooted=number % 3 != 0, fill=100)
        now, later = ExportTraceServiceRequest(), ExportTraceServiceRequest()
        for part, pick in (now, 0), (later, 1):
            part.CopyFrom(whole)
            spans = part.resource_spans[0].scope_spans[0].spans
            kept = [span for index, span in enumerate(spans) if index % 2 == pick]
            del spans[:]
            spans.extend(kept)
        now.MergeFrom(second.get(id(random), ExportTraceServiceRequest()))
        second[id(random)] = later
        return now

    return make


def test_rules_change_under_load_and_no_span_is_lost_or_decided_twice(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink, FIRST), tmp_path)
    file = tmp_path / "sampler-proxy.yaml"
    scraper = Scraper(proxy)
    flood = Flood(proxy.port, halves(), senders=2)
    versions = [rules_of(proxy)["version"]]
    for number, rules in enumerate([SECOND, THIRD, FIRST, SECOND, FIRST, THIRD], 1):
        await_more(flood, proxy)
        if number == 4:
            write(file, config(sink, [*SECOND, {"name": "after", "match": "{ x", "keep": 2}]))
            await_reloads(proxy, "failed", 1)
            assert rules_of(proxy)["version"] == versions[-1]
            assert proxy.get("/readyz")[0] == 200
        write(file, config(sink, rules))
        await_reloads(proxy, "applied", number)
        described = rules_of(proxy)
        assert [rule["name"] for rule in described["rules"]] == [rule["name"] for rule in rules]
        assert proxy.metrics().total("rules_info", version=described["version"]) == 1
        versions.append(described["version"])
    await_more(flood, proxy)
    acknowledged = flood.stop()
    last = proxy.await_settled()
    scraper.stop()
    assert proxy.terminate() == 0

    assert versions[0] == versions[3] == versions[5]
    assert len(set(versions)) == 3
    traces = reference.traces(acknowledged)
    assert last.total("traces_decided_total") == len(traces)
    assert last.total("spans_received_total") == sum(map(len, traces.values()))
    assert last.total("spans_exported_total") == last.total("spans_kept_total") == len(sink.spans)
    assert last.total("spans_lost_total") == last.total("spans_rejected_total") == 0
    assert {"errors", "half", "big", "faults", "rest", "long"} <= set(last.by("traces_decided_total", "rule"))

    arrived = Counter((span.trace_id, span.span_id) for span in sink.spans)
    assert max(arrived.values()) == 1
    kept = {trace_id for trace_id, _ in arrived}
    never = reference.threshold_of(LARGEST_SHARE)
    for trace_id, trace in traces.items():
        there = sum((trace_id, one.span.span_id) in arrived for one in trace)
        assert there in (0, len(trace)), "a trace was torn"
        if reference.randomness(trace) < never and not has_error(trace):
            assert not there
        elif reference.randomness(trace) >= reference.threshold_of(0.2):
            assert there
    assert 0 < len(kept) < len(traces)


def test_a_bad_file_is_said_everywhere_and_changes_nothing(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink, FIRST), tmp_path)
    file = tmp_path / "sampler-proxy.yaml"
    good, active = file.read_text(), rules_of(proxy)
    file.write_text("rules:\n  - {name: a, match: '{ statu = error }', keep: all}\n  - {name: b, keep: 2}\n")
    fault = proxy.await_event("unknown word statu")
    assert fault["level"] == "error"
    assert fault["event"].startswith(f"{file}:2:25: ")
    assert proxy.await_event(f"{file}:3:")["level"] == "error"
    proxy.await_event("not reloaded")
    metrics = proxy.metrics()
    assert metrics.total("config_last_reload_successful") == 0
    assert metrics.total("config_reloads_total", outcome="failed") == 1
    status, text = proxy.get("/readyz")
    assert status == 200
    detail = json.loads(text)
    assert detail["status"] == "ready"
    assert [line.split(":")[1] for line in detail["reload"]["failed"]] == ["2", "3"]
    assert rules_of(proxy) == active

    file.write_text(good)
    proxy.await_metrics(lambda m: m.total("config_last_reload_successful"))
    assert json.loads(proxy.get("/readyz")[1]) == {"status": "ready"}
    assert rules_of(proxy) == active
    assert proxy.terminate() == 0


def test_a_config_map_swap(sink: Sink, tmp_path: Path) -> None:
    volume = tmp_path / "etc"
    volume.mkdir()

    def swap(number: int) -> Path:
        folder = volume / f"..2026_{number}"
        folder.mkdir()
        (volume / "..data_tmp").symlink_to(folder.name)
        return folder

    swap(0)
    os.replace(volume / "..data_tmp", volume / "..data")
    (volume / "sampler-proxy.yaml").symlink_to("..data/sampler-proxy.yaml")
    proxy = Proxy(config(sink, FIRST), volume)
    for number, rules in enumerate((SECOND, THIRD), 1):
        (swap(number) / "sampler-proxy.yaml").write_text(yaml.safe_dump(with_free_ports(config(sink, rules))))
        os.replace(volume / "..data_tmp", volume / "..data")
        await_reloads(proxy, "applied", number)
        assert rules_of(proxy)["source"] == str(volume / "sampler-proxy.yaml")
        assert [rule["name"] for rule in rules_of(proxy)["rules"]] == [rule["name"] for rule in rules]
        old = volume / f"..2026_{number - 1}"
        (old / "sampler-proxy.yaml").unlink()
        old.rmdir()
    assert proxy.metrics().total("config_reloads_total", outcome="failed") == 0
    assert proxy.terminate() == 0


def test_sighup_and_keys_that_want_a_restart(sink: Sink, tmp_path: Path) -> None:
    proxy = Proxy(config(sink, FIRST), tmp_path)
    file = tmp_path / "sampler-proxy.yaml"
    proxy.signal(signal.SIGHUP)
    assert proxy.await_event("nothing to reload")["level"] == "info"

    settings = config(sink, SECOND, shutdown_timeout="1s")
    settings["buffer"]["max_bytes"] = "2GiB"
    settings["export"][0]["timeout"] = "3s"
    write(file, settings)
    proxy.signal(signal.SIGHUP)
    named = proxy.await_event("restart to apply")
    assert named["event"] == "buffer.max_bytes, export.sink.timeout, shutdown_timeout: restart to apply"
    assert named["level"] == "warning"
    await_reloads(proxy, "applied", 1)
    assert [rule["name"] for rule in rules_of(proxy)["rules"]] == ["big", "faults", "rest"]
    assert proxy.metrics().total("buffer_max_bytes") == 1 << 30
    assert json.loads(proxy.get("/readyz")[1])["restart_to_apply"] == named["event"].split(":")[0].split(", ")
    assert proxy.terminate() == 0


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    proxy = Proxy({"receive": {"grpc": {"endpoint": "127.0.0.1:0"}}, "admin": {"endpoint": "127.0.0.1:0"}}, tmp_path)
    (tmp_path / "sampler-proxy.yaml").unlink()
    proxy.await_event("cannot be read")
    assert rules_of(proxy)["rules"][0] == {
        "name": "errors",
        "match": "{ status = error }",
        "unless": None,
        "keep": "all",
    }
    assert proxy.terminate() == 0


def test_a_trace_is_asked_for_before_and_after_its_decision(
    sink: Sink, client: Callable[..., Client], tmp_path: Path
) -> None:
    settings = config(sink, FIRST)
    settings["buffer"] = {"decision_wait": "1s", "decision_wait_after_root": "1s"}
    proxy = Proxy(settings, tmp_path)
    request = one_trace(Random(1), spans=3, rooted=True)
    trace_id = request.resource_spans[0].scope_spans[0].spans[0].trace_id
    path = f"/traces/{trace_id.hex()}"
    assert proxy.get(path)[0] == 404
    client(proxy.port).export(request)
    status, text = proxy.get(path)
    found = json.loads(text)
    assert status == 200
    if found["state"] == "buffered":  # or the machine was slow
        assert (found["trace_id"], found["spans"], found["root_seen"]) == (trace_id.hex(), 3, True)
    proxy.await_settled()
    found = json.loads(proxy.get(path)[1])
    assert found["state"] == "decided"
    assert found["rule"] == "half"
    assert found["threshold"] == "8"
    assert found["probability"] == 0.5
    assert found["keep"] == (reference.randomness(reference.traces([request])[trace_id]) >= 1 << 55)
    assert found["reason"] == "root"
    assert found["decided_at"].endswith("Z")
    assert proxy.get("/traces/xyz")[0] == 400
    assert proxy.terminate() == 0


def test_warnings_are_logged_once_at_start_and_with_new_rules(sink: Sink, tmp_path: Path) -> None:
    def mixed(name: str) -> list[dict[str, Any]]:
        return [{"name": name, "match": "{ .a && .b || .c }", "keep": "all"}, {"name": "rest", "keep": "1%"}]

    proxy = Proxy(config(sink, mixed("one")), tmp_path)
    proxy.await_event("same precedence")
    write(tmp_path / "sampler-proxy.yaml", config(sink, mixed("two")))
    await_reloads(proxy, "applied", 1)
    said = [line for line in proxy.log() if "same precedence" in line["event"]]
    assert [line["level"] for line in said] == ["warning", "warning"]
    assert ": warning: " in said[0]["event"]
    assert proxy.terminate() == 0
