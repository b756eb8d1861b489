"""Destinations as an operator meets them: a disk that is full, an authority of one's own, a trace that waits."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import grpc

from tests.support.processes import Metrics, Proxy, Scraper, environment, free_port, until
from tests.support.sink import Sink, serve
from tests.system.traffic import Client, one_trace

SETTINGS: dict[str, Any] = {
    "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
    "buffer": {"decision_wait": "200ms", "decision_wait_after_root": "100ms"},
    "rules": [{"name": "all", "keep": "all"}],
    "admin": {"endpoint": "127.0.0.1:0"},
}


def send(proxy: Proxy, random: Random, traces: int) -> list[bytes]:
    """Send traces of some kB each; returns their ids."""
    client = Client(proxy.port)
    ids = []
    for _ in range(traces):
        request = one_trace(random, spans=4, fill=2000)
        ids.append(request.resource_spans[0].scope_spans[0].spans[0].trace_id)
        client.export(request)
    client.close()
    return ids


def fate(proxy: Proxy, trace_id: bytes) -> Any:
    return json.loads(proxy.get(f"/traces/{trace_id.hex()}")[1])["destinations"]


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    """The system lets the file grow no further, in the middle of a line, until somebody makes room."""
    random = Random(1)
    path = tmp_path / "traces.jsonl"
    export = {"name": "local", "protocol": "file", "path": str(path), "batch": {"max_wait": "20ms"}}
    proxy = Proxy({**SETTINGS, "export": [export]}, tmp_path / "proxy")
    scraper = Scraper(proxy)
    first = send(proxy, random, 10)
    proxy.await_settled()
    hard = resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE)[1]
    room = path.stat().st_size + 30_000
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (room, hard))
    more = send(proxy, random, 30)
    proxy.await_metrics(lambda m: m.by("export_failures_total", "code").get("EFBIG", 0) >= 2)
    seen = proxy.metrics()
    assert (seen.total("destination_up"), seen.total("spans_rejected_total")) == (0, 0)
    assert fate(proxy, more[-1]) == {"local": "queued"}
    line = proxy.await_event("cannot write the file")["event"]
    assert line.startswith("export local: cannot write the file: the system does not let it grow any further, EFBIG;")
    assert all(json.loads(one) for one in path.read_text().splitlines())  # nothing is torn
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (hard, hard))
    settled = proxy.await_settled(60)
    assert settled.total("spans_exported_total") == settled.total("spans_received_total") == 4 * 40
    assert settled.total("destination_up") == 1
    scraper.stop()
    written = [
        span["traceId"]
        for one in path.read_text().splitlines()
        for resource_spans in json.loads(one)["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        for span in scope_spans["spans"]
    ]
    assert len(written) == 4 * 40
    assert set(written) == {trace_id.hex() for trace_id in first + more}
    assert proxy.terminate() == 0


def made_by_an_authority(folder: Path) -> tuple[Path, grpc.ServerCredentials]:
    """Make an authority of one's own, and a certificate for 127.0.0.1 that it vouches for."""
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        f"openssl req -x509 {new_key} -days 2 -subj /CN=own -keyout ca.key -out ca.pem",
        f"openssl req {new_key} -subj /CN=sink -keyout sink.key -out sink.csr",
        "openssl x509 -req -in sink.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out sink.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    pair = (folder / "sink.key").read_bytes(), (folder / "sink.pem").read_bytes()
    return folder / "ca.pem", grpc.ssl_server_credentials([pair])


def test_an_authority_of_one_s_own(tmp_path: Path) -> None:
    ca_file, credentials = made_by_an_authority(tmp_path)
    received: list[bytes] = []
    server, port = serve(lambda data, _context: (received.append(data), b"")[1], credentials=credentials)
    export = {"name": "sink", "endpoint": f"https://127.0.0.1:{port}", "tls": {"ca_file": str(ca_file)}}
    proxy = Proxy({**SETTINGS, "export": [export]}, tmp_path / "proxy")
    try:
        (trace_id,) = send(proxy, Random(1), 1)
        assert proxy.await_settled().total("spans_exported_total") == 4
        assert fate(proxy, trace_id) == {"sink": "exported"}
        assert received
        assert proxy.terminate() == 0
    finally:
        server.stop(None).wait(10)


def test_a_wrong_authority_stops_the_start_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    (tmp_path / "number.pem").write_text("-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n")
    for endpoint, file, at, text in (
        ("https://127.0.0.1:1", "missing.pem", "4:20", "cannot be read: No such file or directory"),
        ("https://127.0.0.1:1", "key.pem", "4:20", "holds no certificates"),
        ("https://127.0.0.1:1", "number.pem", "4:20", "holds a damaged certificate: copy the file anew"),
        (
            "http://127.0.0.1:1",
            "key.pem",
            "4:10",
            "this endpoint is reached without TLS: write https://host:port there",
        ),
    ):
        config = tmp_path / "c.yaml"
        tls = f"{{ca_file: {tmp_path / file}}}"
        config.write_text(f"export:\n  - name: sink\n    endpoint: {endpoint}\n    tls: {tls}\n")
        for command in (["run", "--config"], ["check"]):
            done = subprocess.run(
                [sys.executable, "-m", "sampler_proxy", *command, str(config)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 1
            assert f"{config}:{at}: {text}" in done.stderr
            assert "c2VjcmV0" not in done.stderr


def test_a_trace_that_waits_in_the_buffer_for_a_full_queue_is_queued(tmp_path: Path) -> None:
    port = free_port()
    export = {"name": "sink", "endpoint": f"http://127.0.0.1:{port}", "queue": {"max_bytes": 10_000}}
    proxy = Proxy({**SETTINGS, "export": [export]}, tmp_path / "proxy")
    ids = send(proxy, Random(2), 20)

    def waits(seen: Metrics) -> bool:
        return seen.total("traces_decided_total") == 20 and seen.total("buffer_spans") > 0

    proxy.await_metrics(waits)
    assert [fate(proxy, trace_id) for trace_id in ids] == [{"sink": "queued"}] * 20
    sink = Sink(port)
    try:
        proxy.await_settled()
        until(lambda: len(sink.spans) >= 80)
        assert [fate(proxy, trace_id) for trace_id in ids] == [{"sink": "exported"}] * 20
        assert proxy.terminate() == 0
    finally:
        sink.stop()
