"""TLS towards back ends, over both protocols: client certificates, pinned names and authorities, files that change."""

from __future__ import annotations

import random
import ssl
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from sampler_proxy.config.model import GrpcExport, HttpExport, Queue, Retry, Tls
from sampler_proxy.errors import StartError
from sampler_proxy.export.exporter import Dependencies
from sampler_proxy.export.otlp import transport_of
from sampler_proxy.export.retry import Accepted
from sampler_proxy.export.tls import Certificates
from sampler_proxy.otlp.signals import Signal
from tests.export.http_backend import serving
from tests.export.support import Backend, assemble, until
from tests.support.certificates import Authority, write

MS = 10**6


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def clients(tmp_path):
    return Authority(tmp_path, "clients")


@asynccontextmanager
async def grpc_server(pair, authority):
    files = [(pair.key.read_bytes(), pair.cert.read_bytes())]
    backend = Backend(
        credentials=grpc.ssl_server_credentials(files, authority and authority.pem, authority is not None)
    )
    backend.start()
    try:
        yield backend.port
    finally:
        backend.stop()


@asynccontextmanager
async def http_server(pair, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.path)
    async with serving(tls=context) as server:
        yield server.port


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture
def server(protocol):
    return {"grpc": grpc_server, "http": http_server}[protocol]


@pytest.fixture
def sending(protocol, monkeypatch):
    monkeypatch.setattr("sampler_proxy.export.transport.FILES_EVERY_S", 0.02)

    @asynccontextmanager
    async def start(port, **tls):
        common = {
            "name": "tempo",
            "endpoint": f"https://localhost:{port}",
            "queue": Queue(),
            "retry": Retry(initial_ns=20 * MS, max_ns=100 * MS),
            "timeout_ns": 5000 * MS,
            "tls": Tls(**tls),
        }
        config = GrpcExport(**common) if protocol == "grpc" else HttpExport(protocol="http/protobuf", **common)
        dependencies = Dependencies(assemble, time.monotonic_ns, random.Random(1).random, lambda _seconds: None, {})
        transport = transport_of(config, dependencies)
        transport.start()
        try:
            yield lambda: transport.send(Signal.TRACES, b"")
        finally:
            await transport.close()

    return start


def shown(pair):
    return {"cert_file": str(pair.cert), "key_file": str(pair.key)}


def test_a_certificate_of_this_side_is_shown(run, ca, clients, server, sending):
    async def scenario():
        async with server(ca.issue("server"), clients) as port:
            pinned = {"ca_file": str(ca.path)}
            async with sending(port, **pinned, **shown(clients.issue("right"))) as send:
                assert await send() == Accepted()
            for wrong in ({}, shown(ca.issue("wrong"))):
                async with sending(port, **pinned, **wrong) as send:
                    outcome = await send()
                    assert outcome != Accepted()
                    assert "certificate" in outcome.why or "lost" in outcome.why or "connection" in outcome.why

    run(scenario())


def test_the_name_may_be_another_than_that_of_the_endpoint(run, ca, server, sending):
    async def scenario():
        async with server(ca.issue("server", "tempo.internal"), None) as port:
            async with sending(port, ca_file=str(ca.path)) as send:
                assert (await send()).why == "its certificate is for another name"
            async with sending(port, ca_file=str(ca.path), server_name_override="tempo.internal") as send:
                assert await send() == Accepted()
            async with sending(port, ca_file=str(ca.path), server_name_override="other.internal") as send:
                assert (await send()).why == "its certificate is for another name"

    run(scenario())


def test_a_certificate_that_changes_is_used(run, ca, clients, server, sending, caplog):
    """The file of the certificate comes before that of the key, and then one of them is broken."""
    caplog.set_level("INFO", "sampler_proxy")
    wrong, right = ca.issue("wrong"), clients.issue("right")
    used = shown(wrong)

    def log():
        return [record.getMessage() for record in caplog.records]

    async def scenario():
        async with (
            server(ca.issue("server"), clients) as port,
            sending(port, ca_file=str(ca.path), **used) as send,
        ):
            assert await send() != Accepted()
            write(wrong.cert, right.cert.read_bytes())
            write(wrong.key, right.key.read_bytes())
            await until(lambda: any("certificates read again" in line for line in log()))
            assert await send() == Accepted()
            wrong.key.write_bytes(b"broken")
            await until(lambda: any("tls.key_file stays as it was" in line for line in log()))
            assert await send() == Accepted()
            assert "PRIVATE" not in str(log())

    run(scenario())


def test_one_look_at_half_a_change_is_no_fault(ca):
    pair, other = ca.issue("one"), ca.issue("other")
    certificates = Certificates(Tls(**shown(pair)))
    certificates.open("tempo")
    end = certificates.expires_s
    write(pair.cert, other.cert.read_bytes())
    assert certificates.read() is False
    write(pair.key, other.key.read_bytes())
    assert certificates.read() is True
    assert certificates.read() is False
    assert certificates.expires_s == pytest.approx(end, abs=60)
    pair.cert.unlink()
    assert certificates.read() is False
    with pytest.raises(ValueError, match=r"^tls\.cert_file stays as it was: .*one\.crt: cannot be read"):
        certificates.read()


def test_a_key_that_went_bad_is_refused_at_start(ca):
    pair = ca.issue("one")
    pair.key.write_text("")
    with pytest.raises(StartError, match=r"^export tempo: tls\.key_file .*one\.key: holds no private key"):
        Certificates(Tls(**shown(pair))).open("tempo")
