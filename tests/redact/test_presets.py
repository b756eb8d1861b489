"""What the presets hold: this list and the README's are meant to be compared by eye."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampler_proxy import detectors, redact_presets
from tests.support.redacting import attributes_after, text_after
from tests.support.secrets import SECRETS

README = (Path(__file__).parent.parent.parent / "README.md").read_text()

COMMON_MASKED = [
    "password",
    "db.password",
    "user.password_hash",
    "PASSWD",
    "passphrase",
    "pwd",
    "db_pwd",
    "client_secret",
    "aws.secret_access_key",
    "credentials",
    "http.request.header.authorization",
    "Authorization",
    "proxy-authorization",
    "http.request.header.cookie",
    "http.response.header.set-cookie",
    "api_key",
    "x-api-key",
    "apikey",
    "openai.api_key",
    "access_key",
    "accessKey",
    "private_key",
    "private-key",
    "encryption_key",
    "signing_key",
    "token",
    "access_token",
    "id-token",
    "auth.token",
    "refreshToken",
    "idToken",
    "session_id",
    "sessionId",
    "csrf_token",
    "XSRF",
    "cvv",
    "card.cvc",
    "db.query.parameter.0",
    "db.operation.parameter.name",
]
STRICT_MASKED = [
    "user.name",
    "user.full_name",
    "user.email",
    "enduser.id",
    "client.address",
    "client.socket.address",
    "net.peer.ip",
    "net.sock.peer.addr",
    "http.client_ip",
    "http.request.header.x-forwarded-for",
    "customer.phone",
    "customer.birth_date",
    "db.user",
    "http.request.body",
    "http.response.body",
    "request_body",
    "messaging.message.body",
    "gen_ai.input.messages",
    "gen_ai.prompt",
    "gen_ai.completion.0.content",
    "gen_ai.system_instructions",
]
LEFT = [
    "http.request.method",
    "http.route",
    "url.path",
    "service.name",
    "user.id",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "tokens",
    "session.id",
    "keyboard",
    "monkey",
    "thread.name",
    "db.system.name",
    "db.collection.name",
    "net.peer.name",
    "server.address",
    "k8s.pod.name",
    "code.function.name",
    "exception.type",
    "messaging.message.id",
]


@pytest.mark.parametrize("key", COMMON_MASKED)
def test_keys_of_common(key: str) -> None:
    for preset in ("common", "strict"):
        assert attributes_after({"preset": preset}, {key: "x"}) == {key: "****"}


@pytest.mark.parametrize("key", STRICT_MASKED)
def test_keys_of_strict(key: str) -> None:
    assert attributes_after({"preset": "strict"}, {key: "x"}) == {key: "****"}
    assert attributes_after({"preset": "common"}, {key: "x"}) == {key: "x"}


@pytest.mark.parametrize("key", LEFT)
def test_keys_that_stay(key: str) -> None:
    for preset in ("common", "strict"):
        assert attributes_after({"preset": preset}, {key: "x"}) == {key: "x"}


@pytest.mark.parametrize("kind", SECRETS)
def test_detectors(kind: str) -> None:
    secret = SECRETS[kind]
    settings = {"keys": [], "sql": "keep", "urls": []}
    for preset, holds in (("common", detectors.COMMON), ("strict", detectors.STRICT)):
        left = secret.part in text_after({"preset": preset, **settings}, secret.text)
        assert left == (kind not in holds)


def test_statements_and_urls() -> None:
    statement, url = "SELECT 1 FROM t", "https://h.example/users/12345?x=1"
    assert text_after({"preset": "common"}, statement) == "SELECT ? FROM t"
    assert text_after({"preset": "common"}, url) == url
    assert text_after({"preset": "strict"}, url) == "https://h.example/users/{id}"


def test_the_readme_names_everything() -> None:
    section = README.partition("## Redact")[2].partition("\n## ")[0]
    for pattern in (
        *redact_presets.STRICT_KEYS,
        *detectors.DETECTORS,
        *redact_presets.STRICT_URLS,
        *redact_presets.SQL_KEYS,
        *redact_presets.URL_KEYS,
    ):
        assert f"`{pattern}`" in section, pattern
