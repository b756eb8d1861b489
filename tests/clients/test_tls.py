"""TLS, mTLS and credentials as OTEL_EXPORTER_OTLP_* alone set them, by the SDKs of all languages."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization

from tests.clients.known import NEXT_DOUBLE
from tests.clients.running import PYTHON, SENT, Sender, arrives, built, configuration, to, tool
from tests.support.certificates import Authority, Pair, client_context, write
from tests.support.processes import Proxy, until
from tests.support.sink import Sink

TOKEN = "correct-horse"


def _java() -> Sequence[str]:
    classes = built("java", "Send.class").parent
    return [tool("java"), "-cp", f"{classes}:{classes}/*", "Send"]


CLIENTS: dict[str, tuple[Callable[[], Sequence[str]], dict[str, Any]]] = {
    "js": (lambda: [tool("node"), str(built("js", "send.mjs"))], {"integer": NEXT_DOUBLE}),
    "go": (lambda: [str(built("go", "send"))], {"link_state": ""}),
    "java": (_java, {}),
    "python": (lambda: PYTHON, {"link_state": ""}),
}


class Locked(NamedTuple):
    """A proxy that asks for a certificate and a token, and how to send there."""

    proxy: Proxy
    port: int
    protocol: str
    folder: Path
    authority: Authority
    pair: Pair
    own: Pair  # the client's

    def sender(self, client: str, **more: str) -> Sender:
        """Start a client that has all that is asked for, but for what is said otherwise ("" leaves it out)."""
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{self.port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(self.authority.path),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(self.own.cert),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(self.own.key),
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3" if client == "python" else "3000",
            **more,
        }
        set_ones = {name: value for name, value in variables.items() if value}
        return Sender(CLIENTS[client][0](), self.folder / "client", {**to(self.port, self.protocol), **set_ones})

    def shown(self) -> bytes | None:
        """Return the certificate that the proxy shows."""
        context = client_context(self.authority, self.own)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)


@pytest.fixture(params=["grpc", "http/protobuf"])
def locked(request: pytest.FixtureRequest, sink: Sink, tmp_path: Path) -> Iterator[Locked]:
    """Start the proxy."""
    authority = Authority(tmp_path / "ca")
    pair, own = authority.issue("server"), authority.issue("sender")
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write(own.key, key.private_bytes(*form))  # the only form that Java reads
    door = {
        "endpoint": "127.0.0.1:0",
        "tls": pair.section(client_ca_file=str(authority.path)),
        "auth": {"bearer_tokens": [{"name": "shop", "token": TOKEN}]},
    }
    proxy = Proxy(configuration(sink, grpc=door, http=door), tmp_path / "proxy")
    port = proxy.port if request.param == "grpc" else proxy.http_port
    yield Locked(proxy, port, request.param, tmp_path, authority, pair, own)
    assert proxy.terminate() == 0
    assert TOKEN not in proxy.stderr()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_sender_with_all_that_is_asked_for(client: str, locked: Locked, sink: Sink) -> None:
    """Also once the certificate has been exchanged: on its connection, and on a new one."""
    sender = locked.sender(client, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert sender.send() == SENT, sender.stderr()
    shown = locked.shown()
    locked.authority.issue("server")
    until(lambda: locked.shown() != shown, 20)
    another = locked.sender(client)
    assert [sender.send(), another.send()] == [SENT, SENT], another.stderr()
    arrives(sink, 3, **CLIENTS[client][1])
    assert locked.proxy.metrics().total("requests_refused_total") == 0


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("token", ["authorization=Bearer%20wrong", ""], ids=["wrong", "missing"])
def test_a_sender_without_the_right_token(client: str, token: str, locked: Locked, sink: Sink) -> None:
    sender = locked.sender(client, OTEL_EXPORTER_OTLP_HEADERS=token)
    assert sender.send() != SENT
    metrics = locked.proxy.metrics()
    assert metrics.total("requests_refused_total") == metrics.total("requests_received_total") > 0
    assert not metrics.total("spans_received_total")
    assert not sink.spans


@pytest.mark.parametrize("client", CLIENTS)
def test_a_sender_without_a_certificate(client: str, locked: Locked, sink: Sink) -> None:
    sender = locked.sender(client, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="", OTEL_EXPORTER_OTLP_CLIENT_KEY="")
    assert sender.send() != SENT
    assert not locked.proxy.metrics().total("requests_received_total")
    assert not sink.spans
