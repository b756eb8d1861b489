"""The variables of OpenTelemetry's SDKs as the destination of a start without a file."""

from __future__ import annotations

import pytest
import trustme

from sampler_proxy.config.model import Config, GrpcExport, HttpExport, Tls
from sampler_proxy.config.otel_environment import configured
from sampler_proxy.errors import ConfigError
from tests.support.certificates import Authority

SECRET = "s3cr3t-t0ken"


def read(is_here=lambda _host: False, **variables):
    return configured({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}, is_here)


def destination(**variables):
    (export,) = read(**variables).config.export
    return export


def http(**settings):
    return HttpExport(name="otlp", protocol="http/protobuf", **settings)


def grpc(**settings):
    return GrpcExport(name="otlp", **settings)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ENDPOINT": "https://otlp.example"}, http(endpoint="https://otlp.example")),
        ({"ENDPOINT": "http://h:4318/base/"}, http(endpoint="http://h:4318/base")),
        ({"ENDPOINT": "http://h:4317"}, grpc(endpoint="http://h:4317")),
        ({"ENDPOINT": "http://h:4317", "PROTOCOL": "http/protobuf"}, http(endpoint="http://h:4317")),
        ({"ENDPOINT": "https://h:443", "PROTOCOL": "grpc"}, grpc(endpoint="https://h:443")),
        ({"ENDPOINT": "https://h/", "PROTOCOL": "grpc"}, grpc(endpoint="https://h:4317")),
        ({"ENDPOINT": "h:4317"}, grpc(endpoint="https://h:4317")),
        ({"ENDPOINT": "h:4317", "INSECURE": "True"}, grpc(endpoint="http://h:4317")),
        ({"ENDPOINT": "h", "PROTOCOL": "grpc", "INSECURE": "false"}, grpc(endpoint="https://h:4317")),
        ({"TRACES_ENDPOINT": "https://h/v1/traces"}, http(traces_endpoint="https://h/v1/traces")),
        ({"TRACES_ENDPOINT": "https://h/x?y=z", "ENDPOINT": "http://i"}, http(traces_endpoint="https://h/x?y=z")),
        ({"TRACES_ENDPOINT": "http://h:4317", "ENDPOINT": "http://i:4318"}, grpc(endpoint="http://h:4317")),
        (
            {"ENDPOINT": "https://h", "TRACES_PROTOCOL": "grpc", "PROTOCOL": "http/protobuf"},
            grpc(endpoint="https://h:4317"),
        ),
        ({"ENDPOINT": " https://h ", "PROTOCOL": "", "HEADERS": " "}, http(endpoint="https://h")),
        ({"ENDPOINT": "https://h", "COMPRESSION": "zstd"}, http(endpoint="https://h", compression="zstd")),
        ({"ENDPOINT": "https://h", "COMPRESSION": "none"}, http(endpoint="https://h", compression="none")),
        ({"ENDPOINT": "https://h", "TIMEOUT": "2500"}, http(endpoint="https://h", timeout_ns=2_500_000_000)),
    ],
)
def test_a_destination(variables, expected):
    assert destination(**variables) == expected


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("api-key=abc", {"api-key": "abc"}),
        ("Authorization=Bearer%20a%2Cb, x-scope = 7 ,", {"authorization": "Bearer a,b", "x-scope": "7"}),
        ("authorization=Basic dXNlcjpwYXNz==", {"authorization": "Basic dXNlcjpwYXNz=="}),
        ("a=", {"a": ""}),
    ],
)
def test_headers_are_percent_encoded(text, headers):
    assert destination(ENDPOINT="https://h", HEADERS=text).headers == headers
    assert destination(ENDPOINT="https://h", HEADERS="x=y", TRACES_HEADERS=text).headers == headers


def test_a_certificate(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    assert destination(ENDPOINT="https://h", CERTIFICATE=str(path)).tls == Tls(ca_file=str(path))
    assert destination(ENDPOINT="http://h", CERTIFICATE=str(path)).tls == Tls()
    assert destination(ENDPOINT="http://h:4317", CERTIFICATE="/nowhere").tls == Tls()


def test_a_certificate_of_this_side(tmp_path):
    pair = Authority(tmp_path).issue("client")
    files = {"CLIENT_CERTIFICATE": str(pair.cert), "CLIENT_KEY": str(pair.key)}
    tls = Tls(cert_file=str(pair.cert), key_file=str(pair.key))
    assert destination(ENDPOINT="https://h", **files).tls == tls
    ca = {"CERTIFICATE": str(pair.authority.path)}
    assert destination(ENDPOINT="https://h", **files, **ca).tls == tls.model_copy(update={"ca_file": ca["CERTIFICATE"]})
    assert destination(ENDPOINT="http://h", **files).tls == Tls()
    for wrong, variable in (
        ({"CLIENT_CERTIFICATE": str(pair.cert)}, "CLIENT_CERTIFICATE: a certificate needs its key"),
        ({**files, "CLIENT_KEY": str(pair.cert)}, "CLIENT_KEY: holds no private key"),
        ({**files, "CLIENT_CERTIFICATE": "/none"}, "CLIENT_CERTIFICATE: cannot be read"),
    ):
        with pytest.raises(ConfigError, match=f"OTEL_EXPORTER_OTLP_{variable}"):
            destination(ENDPOINT="https://h", **wrong)


def test_without_an_endpoint_the_defaults_hold():
    assert read() == (Config(), ())
    assert read(HEADERS="a=b", PROTOCOL="nonsense") == (Config(), ())


@pytest.mark.parametrize("endpoint", ["http://localhost:4317", "http://127.0.0.1:4318", "http://this-host:4318"])
def test_an_endpoint_of_the_proxy_itself_is_not_used(endpoint):
    config, (warning,) = read(is_here=lambda host: host == "this-host", ENDPOINT=endpoint)
    assert config == Config()
    assert str(warning) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT: warning: this is where the proxy itself receives: it is not used, kept traces go "
        "into a file"
    )


def test_faults_name_the_variable_and_what_to_write_and_come_at_once():
    with pytest.raises(ConfigError) as refused:
        read(
            ENDPOINT=f"ftp://{SECRET}",
            TRACES_PROTOCOL="http/json",
            HEADERS=SECRET,
            COMPRESSION=f"lz4{SECRET}",
            TIMEOUT="10s",
            CERTIFICATE=f"/nowhere/{SECRET}",
        )
    assert str(refused.value).splitlines() == [
        "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot be read: No such file or directory",
        "OTEL_EXPORTER_OTLP_COMPRESSION: write gzip or zstd or none",
        "OTEL_EXPORTER_OTLP_ENDPOINT: write http://host:port/path, or https:// for TLS",
        "OTEL_EXPORTER_OTLP_HEADERS: write name=value, several of them with commas in between",
        "OTEL_EXPORTER_OTLP_TIMEOUT: write a whole number of milliseconds, such as 10000",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: write grpc or http/protobuf",
    ]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"ENDPOINT": "https://h/v1/traces"}, "ENDPOINT: /v1/traces is added to this: remove it here"),
        ({"ENDPOINT": "https://h", "HEADERS": f"a=b%0A{SECRET}"}, "HEADERS: a header value is one line of printable"),
        ({"ENDPOINT": "https://h", "HEADERS": "a b=c"}, "HEADERS: not a header name"),
        ({"ENDPOINT": "http://h:4317", "COMPRESSION": "zstd"}, "COMPRESSION: gRPC has no zstd here: write gzip"),
        ({"ENDPOINT": "https://h", "TIMEOUT": "0"}, "TIMEOUT: write a whole number"),
        ({"ENDPOINT": "https://h", "TIMEOUT": "9" * 5000}, "TIMEOUT: write a whole number"),
        ({"ENDPOINT": "http://[h", "PROTOCOL": "grpc"}, "ENDPOINT: not a URL"),
        ({"ENDPOINT": f"https://user:{SECRET}@h"}, "ENDPOINT: credentials do not belong into a URL"),
    ],
)
def test_a_fault(variables, fault):
    with pytest.raises(ConfigError) as refused:
        read(**variables)
    assert str(refused.value).startswith(f"OTEL_EXPORTER_OTLP_{fault}")
    assert SECRET not in str(refused.value)
