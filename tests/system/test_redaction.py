"""Redaction as a security officer checks it: secrets go into the real proxy, and nothing of them is seen anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.positions import name, plant, positions
from tests.support.processes import Process, Proxy, environment
from tests.support.redacting import pairs, plain, request_of
from tests.support.secrets import CARD_NUMBER, CONFIG, OTHERS, SECRETS
from tests.support.sink import Sink
from tests.system.test_reload import await_reloads, write
from tests.system.traffic import Client

Connect = Callable[..., Client]
EVERYTHING = [{"name": "everything", "keep": "all"}]


def config(sink: Sink, redact: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "receive": {"grpc": {"endpoint": "127.0.0.1:0"}},
        "buffer": {"decision_wait": "300ms", "decision_wait_after_root": "100ms"},
        "rules": EVERYTHING,
        "redact": redact,
        "export": [{"name": "sink", "endpoint": sink.endpoint, "compression": "none", "batch": {"max_wait": "20ms"}}],
        "admin": {"endpoint": "127.0.0.1:0"},
        "shutdown_timeout": "20s",
        **more,
    }


def received(sink: Sink) -> bytes:
    return b"".join(request.SerializeToString() for request in sink.requests)


def test_no_secret_leaves(sink: Sink, client: Connect, tmp_path: Path) -> None:
    """Every kind of secret, in every string and bytes field that the protocol's descriptors know."""
    everywhere = positions()
    secrets = {**SECRETS, **OTHERS}
    requests, ids = [], []
    for kind, secret in secrets.items():
        for position in everywhere:
            ids.append((len(ids) + 1).to_bytes(16))
            requests.append((kind, position, plant(position, secret.text, ids[-1], noise=kind in SECRETS)))
    for _, _, request in requests:  # what would tell whether anything was planted at all
        assert any(secret.part.encode() in request.SerializeToString() for secret in secrets.values())

    proxy = Proxy(config(sink, CONFIG), tmp_path / "proxy")
    connection = client(proxy.port)
    for at in range(0, len(requests), 200):
        connection.export(b"".join(request.SerializeToString() for _, _, request in requests[at : at + 200]))
    metrics = proxy.await_metrics(lambda m: m.total("spans_exported_total") == len(requests), 60)
    assert {span.trace_id for span in sink.spans} == set(ids)

    out = received(sink)
    for kind, secret in secrets.items():
        assert secret.part.encode() not in out, [
            name(position)
            for (found, position, _), trace_id in zip(requests, ids, strict=True)
            if found == kind and any(secret.part.encode() in r.SerializeToString() for r in sink.requests)
        ][:3]
    assert metrics.unbalanced() == []
    counted = metrics.by("redactions_total", "detector")
    stripped = {"url_credentials", "url_secrets"}  # as parts of URLs, before the detectors look
    assert {*SECRETS, "key", "sql", "urls", "ticket"} - stripped <= set(counted)
    assert not {"failure", "oversize", "unknown_field"} & set(counted)
    # Nor is any of it in what the proxy says of itself.
    shown = [proxy.get(path)[1] for path in ("/metrics", "/rules", "/readyz", f"/traces/{ids[0].hex()}")]
    assert proxy.terminate() == 0
    for text in (*shown, proxy.stderr(), proxy.stdout()):
        for secret in secrets.values():
            assert secret.part not in text


def test_the_same_secrets_leave_where_nothing_is_redacted(sink: Sink, client: Connect, tmp_path: Path) -> None:
    """The control of the test above."""
    proxy = Proxy(config(sink, {}), tmp_path / "proxy")
    everywhere = positions()
    for number, position in enumerate(everywhere):
        client(proxy.port).export(plant(position, SECRETS["card"].text, (number + 1).to_bytes(16)))
    metrics = proxy.await_metrics(lambda m: m.total("spans_exported_total") == len(everywhere))
    assert received(sink).count(SECRETS["card"].part.encode()) == len(everywhere)
    assert metrics.by("redactions_total", "detector") == {}


def test_numbers_and_our_own_attributes(sink: Sink, client: Connect, tmp_path: Path) -> None:
    settings = {**CONFIG, "allow_only": {"span": ["card.*", "ratio"]}, "marker": True}
    proxy = Proxy(config(sink, settings), tmp_path / "proxy")
    attributes = {"card.int": CARD_NUMBER, "card.double": float(CARD_NUMBER), "ratio": 0.5, "other": "x"}
    client(proxy.port).export(request_of(Span(name="paid", attributes=pairs(attributes))))
    proxy.await_metrics(lambda m: m.total("spans_exported_total") == 1)
    (span,) = sink.spans
    assert plain(span.attributes) == {
        "card.int": "****",
        "card.double": "****",
        "ratio": 0.5,
        "sampler_proxy.redacted": 3,
        "sampler_proxy.rule": "everything",
        "sampler_proxy.reason": "early",
    }
    assert span.dropped_attributes_count == 1


def test_redaction_reloads_with_the_file(sink: Sink, client: Connect, tmp_path: Path) -> None:
    file = tmp_path / "proxy" / "sampler-proxy.yaml"
    proxy = Proxy(config(sink, {}), tmp_path / "proxy")

    def sent(number: int) -> str:
        span = Span(trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name=SECRETS["email"].text)
        client(proxy.port).export(request_of(span))
        proxy.await_metrics(lambda m: m.total("spans_exported_total") == number)
        return next(span.name for span in sink.spans if span.trace_id == number.to_bytes(16))

    assert sent(1) == SECRETS["email"].text
    write(file, config(sink, {"values": [{"detect": "email", "action": "mask"}]}))
    await_reloads(proxy, "applied", 1)
    assert sent(2) == "****"
    hashing = {"values": [{"detect": "email", "action": "hash"}], "hash_key": "k" * 16}
    write(file, config(sink, hashing))
    await_reloads(proxy, "applied", 2)
    first = sent(3)
    assert first.startswith("hash:")
    # What does not compile changes nothing, and the log says where it stands.
    write(file, config(sink, {"values": [{"name": "own", "pattern": "s3cret(", "action": "mask"}]}))
    await_reloads(proxy, "failed", 1)
    assert sent(4) == first
    assert proxy.metrics().total("config_last_reload_successful") == 0
    write(file, config(sink, {**hashing, "hash_key": "l" * 16}))  # another key only
    await_reloads(proxy, "applied", 3)
    second = sent(5)
    assert second.startswith("hash:")
    assert second != first
    status, text = proxy.get("/readyz")
    assert status == 200
    assert "restart_to_apply" not in json.loads(text)
    assert proxy.terminate() == 0
    assert not any(word in proxy.stderr() for word in (SECRETS["email"].part, "k" * 16, "l" * 16, "s3cret"))


def test_a_start_with_a_faulty_redaction(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"redact": {"values": [{"name": "own", "pattern": "s3cret(", "action": "mask"}]}}))
    process = Process(
        "proxy", [sys.executable, "-m", "sampler_proxy", "run", "--config", str(file)], tmp_path / "p", environment()
    )
    assert process.wait() == 1
    assert process.stderr().startswith(f"{file}:5:")
