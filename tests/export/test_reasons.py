"""Why a destination fails, as the log says it: each cause produced for real, and the texts of other grpcio versions."""

from __future__ import annotations

import asyncio
import subprocess

import grpc
import pytest

from sampler_proxy.export import reasons
from sampler_proxy.export.reasons import why_unreachable
from tests.export.support import offer, until
from tests.export.test_otlp_grpc import config, exporting, unused_port
from tests.support.http2_server import Http2Server

SECRET = "4111-1111-1111-1111"


def certificate(folder, name, days=2):
    key, path = folder / f"{name}.key", folder / f"{name}.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    command += f" -days {days} -subj /CN={name} -addext subjectAltName=DNS:{name}"
    subprocess.run([*command.split(), "-keyout", key, "-out", path], check=True, capture_output=True)
    return grpc.ssl_server_credentials([(key.read_bytes(), path.read_bytes())]), path


@pytest.fixture
def said(run, caplog):
    """The first failure that is logged about an endpoint."""

    def first(endpoint, **settings):
        async def scenario():
            made = config(1, **settings).model_copy(update={"endpoint": endpoint})
            async with exporting(made) as exporter:
                offer(exporter, [1])
                await until(lambda: exporter.failed_tries, 15)

        run(scenario())
        messages = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
        assert SECRET not in caplog.text
        return messages[0].removeprefix(f"export tempo: {endpoint}: ").removesuffix("; trying again until it works")

    return first


def test_a_name_that_does_not_resolve(said):
    assert said("http://no-such-host.invalid:4317") == "the name does not resolve, UNAVAILABLE"


def test_a_closed_port(said):
    endpoint = f"http://127.0.0.1:{unused_port()}"
    assert said(endpoint) == "nothing listens there: connection refused, UNAVAILABLE"


def test_tls_against_plaintext(said, backend):
    why = said(f"https://localhost:{backend().port}")
    assert why == "TLS is met by plaintext: write http://, or the port that speaks TLS, UNAVAILABLE"


def test_plaintext_against_tls(said, backend, tmp_path):
    credentials, _ = certificate(tmp_path, "localhost")
    why = said(f"http://localhost:{backend(credentials=credentials).port}")
    assert why == f"{reasons.CUT_OFF_PLAIN}, UNAVAILABLE"


def test_a_certificate_that_nobody_vouches_for(said, backend, tmp_path):
    credentials, _ = certificate(tmp_path, "localhost")
    assert said(f"https://localhost:{backend(credentials=credentials).port}").startswith(
        "its certificate is not trusted"
    )


def test_a_certificate_for_another_name(said, backend, tmp_path, monkeypatch):
    credentials, path = certificate(tmp_path, "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    why = said(f"https://localhost:{backend(credentials=credentials).port}")
    assert why.startswith("its certificate is for another name")


def test_a_server_that_hangs(said):
    with Http2Server(lambda _call: None) as server:
        assert said(f"http://127.0.0.1:{server.port}", timeout_ns=200_000_000) == "no answer in time, DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda call: call.status(16, SECRET), "it refuses the credentials in headers, UNAUTHENTICATED"),
        (lambda call: call.status(7, SECRET), "it refuses these credentials the permission, PERMISSION_DENIED"),
        (lambda call: call.status(8, SECRET), "it is overloaded, or limits the rate, RESOURCE_EXHAUSTED"),
        (lambda call: call.status(14, SECRET), "it is unavailable, UNAVAILABLE"),
        (lambda call: call.http(404, SECRET.encode()), "a proxy in between, or another server, answers, HTTP 404"),
        (lambda call: call.http(401), "a proxy in between, or another server, refuses the credentials, HTTP 401"),
        (lambda call: call.reset(2), "the connection was lost before an answer came, INTERNAL"),
        (lambda call: call.hang_up(), "the connection was lost before an answer came, UNAVAILABLE"),
    ],
)
def test_what_a_server_answers(said, answer, why):
    with Http2Server(answer) as server:
        assert said(f"http://127.0.0.1:{server.port}") == why


def test_a_server_of_http_1(said, runner):
    async def answer(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n")
        writer.close()

    server = runner.run(asyncio.start_server(answer, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    why = said(f"http://127.0.0.1:{port}")
    assert why == "it does not speak gRPC: is that the port for OTLP/gRPC?, UNAVAILABLE"
    server.close()


@pytest.mark.parametrize(
    ("details", "secure", "why"),
    [
        ("DNS resolution failed for tempo:4317: C-ares status is not ARES_SUCCESS", False, "the name does not resolve"),
        (
            "failed to connect to all addresses; last error: INTERNAL: no such host: Connection refused",
            False,
            "nothing",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: No route to host",
            False,
            "there is",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:1: connect timed out",
            True,
            "connecting",
        ),
        ("failed to connect to all addresses; last error: UNAVAILABLE: Socket closed", True, reasons.CUT_OFF_TLS),
        ("failed to connect to all addresses; last error: UNAVAILABLE: Socket closed", False, reasons.CUT_OFF_PLAIN),
        (
            "failed to connect to all addresses; last error: UNKNOWN: Ssl handshake failed: SSL_ERROR_SSL",
            True,
            "the TLS",
        ),
        ("failed to connect: certificate has expired: CERTIFICATE_VERIFY_FAILED", True, "its certificate has expired"),
        ("failed to connect to all addresses", True, "no connection"),
    ],
)
def test_texts_of_the_library(details, secure, why):
    assert why_unreachable(details, secure).startswith(why)
