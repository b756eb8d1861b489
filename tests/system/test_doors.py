"""TLS and credentials of the whole process, by the official exporters and with files that change meanwhile."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.support.certificates import Authority, Pair, client_context
from tests.support.processes import Metrics, Proxy, until
from tests.support.sink import Sink
from tests.system.test_run import config
from tests.system.traffic import EXPORT, one_trace

TOKEN, NEXT, ADMIN = "the-first-token", "the-second-token", "the-admin-token"


class Guarded(Proxy):
    """A proxy whose ports ask for TLS, client certificates and tokens."""

    def __init__(self, sink: Sink, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.ca, self.clients = Authority(folder), Authority(folder, "clients")
        self.server, self.client = self.ca.issue("server"), self.clients.issue("client")
        self.token_file = folder / "token"
        self.token_file.write_text(f"{TOKEN}\n")
        tls = self.server.section(client_ca_file=str(self.clients.path))
        auth = {"bearer_tokens": [{"name": "shop", "file": str(self.token_file)}]}
        settings = config(sink.endpoint, rules=[{"name": "all", "keep": "all"}])
        settings["receive"]["grpc"] |= {"tls": tls, "auth": auth}
        settings["receive"]["http"] |= {"tls": tls, "auth": auth}
        settings["admin"] |= {
            "tls": self.server.section(),
            "auth": {"bearer_tokens": [{"name": "prometheus", "token": ADMIN}]},
        }
        super().__init__(settings, folder)

    def get(self, path: str, token: str | None = ADMIN) -> tuple[int, str]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"https://127.0.0.1:{self.admin_port}{path}", headers=headers)
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def exporters(proxy: Guarded, token: str, pair: Pair | None) -> list[SpanExporter]:
    files = (None, None) if pair is None else (str(pair.cert), str(pair.key))
    credentials = grpc.ssl_channel_credentials(
        proxy.ca.pem, *((None, None) if pair is None else (pair.key.read_bytes(), pair.cert.read_bytes()))
    )
    headers = {"authorization": f"Bearer {token}"}
    return [
        GrpcSpanExporter(f"https://localhost:{proxy.port}", credentials=credentials, headers=headers, timeout=2),
        HttpSpanExporter(
            f"https://localhost:{proxy.http_port}/v1/traces",
            certificate_file=str(proxy.ca.path),
            client_certificate_file=files[0],
            client_key_file=files[1],
            headers=headers,
            timeout=2,
        ),
    ]


def outcome(exporter: SpanExporter) -> SpanExportResult:
    """Export a span; what becomes of it."""
    with TracerProvider(sampler=ALWAYS_ON).get_tracer("test").start_as_current_span("a") as span:
        pass
    try:
        return exporter.export((span,))
    finally:
        exporter.shutdown()


@pytest.fixture
def proxy(sink: Sink, tmp_path: Path) -> Guarded:
    return Guarded(sink, tmp_path / "proxy")


def test_official_exporters_with_right_and_wrong_credentials(
    proxy: Guarded, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which the library prefers to what it is told
        monkeypatch.delenv(name, raising=False)
    for exporter in exporters(proxy, TOKEN, proxy.client):
        assert outcome(exporter) is SpanExportResult.SUCCESS
    until(lambda: len(sink.traces) == 2)
    for exporter in (
        *exporters(proxy, "wrong", proxy.client),
        *exporters(proxy, TOKEN, None),
        *exporters(proxy, TOKEN, proxy.ca.issue("other")),
    ):
        assert outcome(exporter) is SpanExportResult.FAILURE
    found = proxy.metrics()
    assert found.by("credential_requests_total", "section") == {
        "receive.grpc": 1,
        "receive.http": 1,
        "admin": found.total("credential_requests_total", section="admin"),
    }
    assert found.total("requests_refused_total", transport="grpc", reason="unauthenticated") >= 1
    assert found.total("requests_refused_total", transport="http", reason="unauthenticated") >= 1
    assert found.total("connections_refused_total", kind="tls_failed") >= 2
    assert found.total("files_last_reload_successful") == 3
    assert {name for (name, _), v in found.values.items() if v > time.time()} >= {
        "tls_certificate_expires_timestamp_seconds"
    }
    assert proxy.get("/healthz", None)[0] == proxy.get("/readyz", None)[0] == 200
    assert proxy.get("/metrics", None)[0] == proxy.get("/rules", TOKEN)[0] == 401
    log = proxy.stderr()
    assert not any(secret in log for secret in (TOKEN, ADMIN))
    assert proxy.terminate() == 0


Send = Callable[[bytes], None]
Connect = Callable[["Guarded", Authority, str], AbstractContextManager[Send]]


class Sender:
    """Sends on a thread of its own, over one connection, until it is told to stop."""

    def __init__(self, connected: AbstractContextManager[Send]) -> None:
        self.sent = 0
        self.failed: list[str] = []
        self._connected, self._stop = connected, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        random = Random(1)
        with self._connected as send:
            while not self._stop.is_set():
                try:
                    send(one_trace(random).SerializeToString())
                    self.sent += 1
                except Exception as error:
                    self.failed.append(repr(error))

    def goes_on(self) -> None:
        before = self.sent
        until(lambda: self.sent > before + 5)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self.failed


@contextmanager
def by_grpc(proxy: Guarded, authority: Authority, token: str) -> Iterator[Send]:
    files = proxy.client.key.read_bytes(), proxy.client.cert.read_bytes()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    credentials = grpc.ssl_channel_credentials(authority.pem, *files)
    with grpc.secure_channel(f"localhost:{proxy.port}", credentials, options) as channel:
        export = channel.unary_unary(EXPORT)
        yield lambda data: export(data, timeout=10, metadata=(("authorization", f"Bearer {token}"),)) and None


@contextmanager
def by_http(proxy: Guarded, authority: Authority, token: str) -> Iterator[Send]:
    context = client_context(authority, proxy.client)
    connection = http.client.HTTPSConnection("localhost", proxy.http_port, timeout=10, context=context)
    headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token}"}

    def send(data: bytes) -> None:
        connection.request("POST", "/v1/traces", data, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    with closing(connection):
        yield send


CONNECT: tuple[Connect, ...] = (by_grpc, by_http)


def send_once(connect: Connect, proxy: Guarded, authority: Authority, token: str) -> None:
    with connect(proxy, authority, token) as send:
        send(b"")


def test_certificates_are_exchanged_while_they_send(proxy: Guarded) -> None:
    senders = [Sender(connect(proxy, proxy.ca, TOKEN)) for connect in CONNECT]
    for sender in senders:
        sender.goes_on()
    before = expiries(proxy.metrics())
    other = Authority(proxy.server.cert.parent, "other")
    proxy.ca = other
    other.issue("server")
    for section in ("receive.grpc", "receive.http", "admin"):
        proxy.await_event(f"{section}: certificates read again")
    for connect in CONNECT:
        send_once(connect, proxy, other, TOKEN)
    for sender in senders:
        sender.goes_on()
    proxy.server.key.write_bytes(b"broken")
    assert "holds no private key" in proxy.await_event("admin: the former certificate stays in use")["event"]
    files = json.loads(proxy.get("/readyz")[1])["files"]
    assert files["receive.grpc"]["tls"].startswith("key_file ")
    assert proxy.metrics().total("files_last_reload_successful") == 0
    for connect in CONNECT:
        send_once(connect, proxy, other, TOKEN)
    for sender in senders:
        sender.goes_on()
        sender.stop()
    assert before.keys() == expiries(proxy.metrics()).keys()
    assert proxy.terminate() == 0


def expiries(found: Metrics) -> dict[Any, float]:
    return {key: value for key, value in found.values.items() if key[0] == "tls_certificate_expires_timestamp_seconds"}


def test_a_token_is_exchanged(proxy: Guarded) -> None:
    for connect in CONNECT:
        send_once(connect, proxy, proxy.ca, TOKEN)
    proxy.token_file.write_text(NEXT)
    for section in ("receive.grpc", "receive.http"):
        event = proxy.await_event(f"{section}: the secret of a credential was read again")
        assert event["credential"] == "shop"
    for connect in CONNECT:
        send_once(connect, proxy, proxy.ca, NEXT)
        with pytest.raises((grpc.RpcError, AssertionError)):
            send_once(connect, proxy, proxy.ca, TOKEN)
    assert proxy.terminate() == 0


def test_credentials_of_the_file_are_exchanged(proxy: Guarded) -> None:
    """By SIGHUP, or as the file changes: a token is added, another one goes, and no sender is cut off."""
    sender = Sender(by_grpc(proxy, proxy.ca, TOKEN))
    sender.goes_on()
    file = proxy.token_file.with_name("sampler-proxy.yaml")
    settings = yaml.safe_load(file.read_text())
    auth = {"bearer_tokens": [{"name": "shop", "file": str(proxy.token_file)}, {"name": "next", "token": NEXT}]}
    settings["receive"]["grpc"]["auth"] = auth
    settings["admin"]["auth"]["bearer_tokens"][0]["token"] = NEXT
    file.write_text(yaml.safe_dump(settings))
    proxy.await_event("auth reloaded")
    send_once(by_grpc, proxy, proxy.ca, NEXT)
    with pytest.raises(AssertionError):
        send_once(by_http, proxy, proxy.ca, NEXT)
    assert proxy.get("/rules", ADMIN)[0] == 401
    found = Metrics(proxy.get("/metrics", NEXT)[1])
    assert found.total("credential_requests_total", section="receive.grpc", credential="shop") > 5
    assert found.total("credential_requests_total", section="receive.grpc", credential="next") == 1
    sender.goes_on()
    sender.stop()
    assert proxy.terminate() == 0


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_other_signals_want_credentials_too(proxy: Guarded, signal: str) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", proxy.http_port, timeout=10, context=client_context(proxy.ca, proxy.client)
    )
    service = f"opentelemetry.proto.collector.{signal}.v1.{signal.title()}Service"
    files = proxy.client.key.read_bytes(), proxy.client.cert.read_bytes()
    credentials = grpc.ssl_channel_credentials(proxy.ca.pem, *files)
    with (
        closing(connection),
        grpc.secure_channel(f"localhost:{proxy.port}", credentials) as channel,
    ):
        export = channel.unary_unary(f"/{service}/Export")
        for token, status in ((TOKEN, 200), ("wrong", 401)):
            header = f"Bearer {token}"
            headers = {"Content-Type": "application/x-protobuf", "Authorization": header}
            connection.request("POST", f"/v1/{signal}", b"", headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            if status == 200:
                assert export(b"", timeout=10, metadata=(("authorization", header),)) == b""
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    export(b"", timeout=10, metadata=(("authorization", header),))
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert proxy.terminate() == 0
