"""TLS and credentials in a configuration: what is refused, where, and what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sampler_proxy.config.check import check
from sampler_proxy.config.key_pairs import KeyPairError, read_key_pair
from sampler_proxy.errors import ConfigError
from tests.support.certificates import Authority, Pair

SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc


def faults(folder: Path, text: str) -> list[tuple[int, int, str]]:
    file = folder / "c.yaml"
    file.write_text(text)
    try:
        check(str(file), {"TOKEN": "abc", "EMPTY": ""})
    except ConfigError as error:
        return [(fault.line, fault.column, fault.message) for fault in error.faults]
    return []


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Authority(tmp_path).issue("server")


def test_what_can_be_used(tmp_path: Path, pair: Pair) -> None:
    tls = f"tls: {{cert_file: {pair.cert}, key_file: {pair.key}, client_ca_file: {pair.authority.path}}}"
    operate = "password: x, role: operate"
    (tmp_path / "token").write_text("def\n")
    tokens = f"[{{name: a, token: '${{env:TOKEN}}'}}, {{name: b, file: {tmp_path}/token, max_in_flight: 3}}]"
    basic = f"[{{name: c, user: c, sha256: {SHA256}}}, {{name: d, user: d, password: 'a b: é'}}]"
    auth = f"auth: {{bearer_tokens: {tokens}, basic: {basic}}}"
    assert not faults(
        tmp_path,
        f"receive: {{grpc: {{{tls}, {auth}}}, http: {{{tls}, {auth}}}}}\n"
        f"admin: {{endpoint: '0.0.0.0:1', {tls}, auth: {{basic: [{{name: c, user: c, {operate}}}]}}}}\n",
    )


@pytest.mark.parametrize(
    ("auth", "column", "told"),
    [
        ("", 23, "no value"),
        ("{}", 24, "lists nobody"),
        ("{bearer_tokens: [{name: a}]}", 41, "write one of token, file and sha256"),
        (f"{{bearer_tokens: [{{name: a, token: x, sha256: {SHA256}}}]}}", 41, "write one of token, file and sha256"),
        ("{basic: [{name: a, user: a}]}", 33, "write one of password, file and sha256"),
        ("{bearer_tokens: [{name: a, token: 'a b'}]}", 58, "not usable as a token"),
        ("{bearer_tokens: [{name: a, token: '${env:EMPTY}'}]}", 58, "no value"),
        ("{bearer_tokens: [{name: a, sha256: abc}]}", 59, "not a SHA-256"),
        ("{bearer_tokens: [{name: a, file: /none}]}", 57, "cannot be read: No such file"),
        ("{basic: [{name: a, user: 'a:b', password: x}]}", 49, "no colon"),
        ("{bearer_tokens: [{name: a, token: x}, {name: a, token: y}]}", 24, "the name 'a' is written twice"),
        (
            f"{{bearer_tokens: [{{name: a, token: abc}}, {{name: b, sha256: {SHA256}}}]}}",
            82,
            "same secret as that of 'a'",
        ),
        ("{bearer_tokens: [{name: a, token: x, role: view}]}", 61, "unknown key 'role'"),
        ("{bearer_tokens: [{name: a, token: x, max_in_flight: 0}]}", 76, "whole number from 1"),
    ],
)
def test_credentials_that_are_refused(tmp_path: Path, auth: str, column: int, told: str) -> None:
    found = faults(tmp_path, f"receive: {{grpc: {{auth: {auth}}}}}\n")
    assert [(line, at) for line, at, _ in found] == [(1, column)]
    assert told in found[0][2]


def test_no_secret_is_in_a_fault(tmp_path: Path) -> None:
    text = "receive: {grpc: {auth: {bearer_tokens: [{name: a, token: 's3cr3t !', file: s3cr3t}, {token: s3cr3t}]}}}\n"
    assert "s3cr3t" not in str(faults(tmp_path, text))


@pytest.mark.parametrize(
    ("tls", "key", "told"),
    [
        ("", "tls", "no value"),
        ("{cert_file: CERT}", "tls", "'key_file' is missing"),
        ("{cert_file: /none, key_file: KEY}", "cert_file", "cannot be read: No such file or directory"),
        ("{cert_file: KEY, key_file: KEY}", "cert_file", "holds no certificate"),
        ("{cert_file: CERT, key_file: CERT}", "key_file", "holds no private key"),
        ("{cert_file: CERT, key_file: OTHER}", "key_file", "is not the key of the certificate"),
        ("{cert_file: CERT, key_file: KEY, client_ca_file: KEY}", "client_ca_file", "holds no certificates"),
        ("{cert_file: CERT, key_file: KEY, client_ca_file: }", "client_ca_file", "no value"),
        ("{cert_file: CERT, key_file: KEY, min_version: 1.1}", "min_version", "write 1.2 or 1.3"),
    ],
)
def test_certificates_that_are_refused(tmp_path: Path, pair: Pair, tls: str, key: str, told: str) -> None:
    other = pair.authority.issue("other").key
    for name, path in (("CERT", pair.cert), ("KEY", pair.key), ("OTHER", other)):
        tls = tls.replace(name, str(path))
    text = f"receive: {{http: {{tls: {tls}}}}}\n"
    found = faults(tmp_path, text)
    assert len(found) == 1
    line, column, message = found[0]
    assert line == 1
    if told != "'key_file' is missing":
        assert text[: column - 1].rstrip().endswith((f"{key}:", "{http: {" if not tls else f"{key}:"))
    assert told in message


@pytest.mark.parametrize(
    ("tls", "key", "told"),
    [
        ("{cert_file: CERT}", "tls", "a certificate needs its key"),
        ("{cert_file: CERT, key_file: CERT}", "key_file", "holds no private key"),
        ("{cert_file: /none, key_file: KEY}", "cert_file", "cannot be read"),
        ("{ca_file: KEY}", "ca_file", "holds no certificates"),
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_certificates_of_destinations_that_are_refused(
    tmp_path: Path, pair: Pair, protocol: str, tls: str, key: str, told: str
) -> None:
    tls = tls.replace("CERT", str(pair.cert)).replace("KEY", str(pair.key))
    text = f"export: [{{name: a, protocol: {protocol}, endpoint: 'https://h:1', tls: {tls}}}]\n"
    ((line, column, message),) = faults(tmp_path, text)
    assert line == 1
    assert text[: column - 1].rstrip().endswith(f"{key}:")
    assert told in message
    for unused in ("{server_name_override: h}", f"{{cert_file: {pair.cert}, key_file: {pair.key}}}"):
        text = f"export: [{{name: a, protocol: {protocol}, endpoint: 'http://h:1', tls: {unused}}}]\n"
        assert "without TLS" in str(faults(tmp_path, text))


@pytest.mark.parametrize(
    ("admin", "refused"),
    [
        ("endpoint: '0.0.0.0:8888'", True),
        ("endpoint: '[::]:8888'", True),
        ("endpoint: 'proxy.example:8888'", True),
        ("endpoint: '0.0.0.0:8888', insecure: false", True),
        ("endpoint: '0.0.0.0:8888', tls: TLS", True),
        ("endpoint: '0.0.0.0:8888', tls: MTLS", False),
        ("endpoint: '0.0.0.0:8888', insecure: true", False),
        ("endpoint: '0.0.0.0:8888', auth: {bearer_tokens: [{name: a, token: x}]}", False),
        ("endpoint: '127.0.0.1:8888'", False),
        ("endpoint: 'localhost:8888'", False),
        ("endpoint: '[::1]:8888'", False),
    ],
)
def test_the_admin_port_is_not_opened_to_everybody(tmp_path: Path, pair: Pair, admin: str, refused: bool) -> None:
    tls = f"{{cert_file: {pair.cert}, key_file: {pair.key}}}"
    mtls = f"{tls[:-1]}, client_ca_file: {pair.authority.path}}}"
    found = faults(tmp_path, f"admin: {{{admin.replace('MTLS', mtls).replace('TLS', tls)}}}\n")
    assert [(line, column) for line, column, _ in found] == ([(1, 19)] if refused else [])
    assert all("admin.insecure: true" in message for *_, message in found)


def test_the_end_of_a_certificate(tmp_path: Path) -> None:
    for years in (1, 40):  # UTCTime, and GeneralizedTime from 2050 on
        end = (datetime.now(UTC) + timedelta(days=365 * years)).replace(microsecond=0)
        pair = Authority(tmp_path).issue("server", not_after=end.replace(tzinfo=None))
        assert read_key_pair(str(pair.cert), str(pair.key)).expires_s == end.timestamp()


def test_every_truncation_of_a_certificate_is_refused(pair: Pair) -> None:
    whole = pair.cert.read_bytes()
    first = whole[: whole.index(b"-----END")]
    for end in range(30, len(first), 7):
        pair.cert.write_bytes(first[:end] + b"\n-----END CERTIFICATE-----\n")
        with pytest.raises(KeyPairError) as caught:
            read_key_pair(str(pair.cert), str(pair.key))
        assert caught.value.setting == "cert_file"


def test_an_encrypted_key_is_named_as_such(pair: Pair) -> None:
    pair.key.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(KeyPairError, match="encrypted"):
        read_key_pair(str(pair.cert), str(pair.key))
    pair.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyPairError, match="damaged key"):
        read_key_pair(str(pair.cert), str(pair.key))
