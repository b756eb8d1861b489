"""What the presets hold: this list and that of docs/redaction.md are compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sampler_proxy.redact import presets
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.providers import PROVIDERS
from tests.support.redacting import attributes_after, text_after
from tests.support.secrets import SECRETS

PAGE = (Path(__file__).parents[2] / "docs" / "redaction.md").read_text()

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
    "pass",
    "db.pass",
    "smtp_pass",
    "passcode",
    "pin",
    "user.pin",
    "card_pin",
    "otp",
    "totp",
    "jwt",
    "user.jwt",
    "auth",
    "pw",
    "apiToken",
    "userToken",
    "accessTokenV2",
    "PHPSESSID",
    "JSESSIONID",
    "connect.sid",
    "sid",
    "signature",
    "http.request.header.x-hub-signature-256",
    "token.value",
    "db.connection_string",
    "process.command_args",
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
    "compass",
    "bypass",
    "passed",
    "pass_count",
    "passenger",
    "pinned",
    "spin",
    "shipping",
    "mapping",
    "outside",
    "author",
    "oauth.provider",
    "http.auth.method",
    "code.function.signature",
    "maxTokens",
    "tokenCount",
    "inputTokens",
    "token_count",
    "tokenizer",
    "broken",
    "server.side",
    "aws.dynamodb.consistent_read",
    "process.command",
    "process.command_line",
    "process.executable.name",
    "db.operation.name",
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
    for preset, holds in (("common", catalogue.COMMON), ("strict", catalogue.STRICT)):
        left = secret.part in text_after({"preset": preset, **settings}, secret.text)
        assert left == (kind not in holds)


def test_statements_and_urls() -> None:
    statement, url = "SELECT 1 FROM t", "https://h.example/users/12345?x=1"
    assert text_after({"preset": "common"}, statement) == "SELECT ? FROM t"
    assert text_after({"preset": "common"}, url) == url
    assert text_after({"preset": "strict"}, url) == "https://h.example/users/{id}"


def test_the_readme_names_everything() -> None:
    section = PAGE
    for pattern in (
        *presets.STRICT_KEYS,
        *catalogue.DETECTORS,
        *presets.STRICT_URLS,
        *presets.SQL_KEYS,
        *presets.URL_KEYS,
    ):
        assert f"`{pattern}`" in section, pattern
    cells = next(line for line in section.splitlines() if line.startswith("| `keys`, masked")).split(" | ")
    assert [re.findall("`([^`]+)`", cell) for cell in cells[1:]] == [
        list(presets.COMMON_KEYS),
        [pattern for pattern in presets.STRICT_KEYS if pattern not in presets.COMMON_KEYS],
    ]


def test_the_page_names_every_provider() -> None:
    section = PAGE.partition("### Providers")[2].partition("\n#")[0].replace("\n", " ")
    listed = section.split(": ", 1)[1].strip().partition(". ")[0]
    assert listed.split(", ") == list(PROVIDERS)
