"""Several destinations of a real process: over HTTP, by the names in rules, and what was sampled out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.processes import Proxy, until
from tests.support.sink import Sink
from tests.system.test_reload import write
from tests.system.test_run import config
from tests.system.traffic import Client, one_trace


def traces_in(file: Path) -> dict[bytes, list[dict[str, Any]]]:
    """The spans in a file of OTLP JSON lines, by trace id."""
    found: dict[bytes, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    found.setdefault(bytes.fromhex(span["traceId"]), []).append(span)
    return found


def keys(span: dict[str, Any]) -> set[str]:
    return {attribute["key"] for attribute in span.get("attributes", ())}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_one_proxy_sends_to_another_over_http(
    compression: str, sink: Sink, client: Callable[..., Client], tmp_path: Path
) -> None:
    second = Proxy(config(sink.endpoint, rules=[{"name": "all", "keep": "all"}]), tmp_path / "second")
    export = {"name": "second", "protocol": "http/protobuf", "endpoint": f"http://127.0.0.1:{second.http_port}"}
    first = Proxy(
        config("", rules=[{"name": "all", "keep": "all"}], export=[{**export, "compression": compression}]),
        tmp_path / "first",
    )
    random = Random(1)
    for _ in range(20):
        client(first.port).export(one_trace(random))
    until(lambda: len(sink.traces) == 20)
    spans = len(sink.spans)
    assert second.metrics().by("spans_received_total", "transport")["http"] == spans
    assert first.metrics().by("spans_exported_total", "destination") == {"second": spans}
    assert first.metrics().by("destination_up", "destination") == {"second": 1}
    assert first.terminate() == 0
    assert second.terminate() == 0


def test_rules_name_destinations_and_an_archive_takes_the_rest(
    sink: Sink, client: Callable[..., Client], tmp_path: Path
) -> None:
    other = Sink()
    rules = [
        {"name": "errors", "match": "{ status = error }", "keep": "all", "to": ["sink"]},
        {"name": "rest", "keep": "none"},
    ]
    archive = tmp_path / "archive.jsonl"
    settings = config(sink.endpoint, rules=rules)
    settings["export"] += [
        {"name": "other", "endpoint": other.endpoint, "batch": {"max_wait": "20ms"}},
        {"name": "archive", "protocol": "file", "path": str(archive), "dropped": True, "batch": {"max_wait": "20ms"}},
    ]
    proxy = Proxy(settings, tmp_path / "run")
    try:
        random = Random(2)
        sent = [one_trace(random, error=number % 3 == 0) for number in range(40)]
        for request in sent:
            client(proxy.port).export(request)
        ids = [request.resource_spans[0].scope_spans[0].spans[0].trace_id for request in sent]
        failed = set(ids[::3])
        until(lambda: set(sink.traces) == failed)
        until(lambda: len(traces_in(archive)) == 40 - len(failed))
        archived = traces_in(archive)
        assert not failed & set(archived)
        assert all("sampler_proxy.sampled_out" in keys(span) for spans in archived.values() for span in spans)
        assert other.traces == {}
        metrics = proxy.metrics()
        routed = metrics.by("spans_routed_total", "destination")
        assert routed["other"] == 0
        assert routed["sink"] == metrics.total("spans_kept_total")
        assert routed["archive"] == metrics.total("spans_sampled_out_total")

        rules[0]["to"] = ["other", "archive"]
        write(tmp_path / "run" / "sampler-proxy.yaml", settings)
        proxy.signal(signal.SIGHUP)
        proxy.await_event("reloaded")
        late = one_trace(random, error=True)
        client(proxy.port).export(late)
        until(lambda: len(other.traces) == 1)
        (trace,) = other.traces
        until(lambda: trace in traces_in(archive))
        assert not any("sampler_proxy.sampled_out" in keys(span) for span in traces_in(archive)[trace])
        assert set(sink.traces) == failed
        assert proxy.terminate() == 0
    finally:
        other.stop()


def test_the_console_is_standard_output(client: Callable[..., Client], tmp_path: Path) -> None:
    export = {"name": "console", "protocol": "console", "batch": {"max_wait": "20ms"}}
    proxy = Proxy(config("", export=[export]), tmp_path)
    client(proxy.port).export(one_trace(Random(3), error=True))
    until(lambda: "kept by errors (" in proxy.stdout())
    title, *spans = proxy.stdout().splitlines()
    assert title.startswith("trace ")
    assert len(spans) == 3
    assert sum("ERROR" in line for line in spans) == 1
    assert proxy.terminate() == 0
