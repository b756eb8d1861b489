"""`sampler-proxy redact` and `explain`: counts and places, and nothing of what was redacted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.cli import main
from tests.support.positions import plant, positions
from tests.support.redacting import pairs, request_of
from tests.support.secrets import CONFIG, OTHERS, SECRETS

MAIL, CARD = SECRETS["email"].text, SECRETS["card"].text


def run(command: str, tmp_path: Path, redact: dict[str, Any], data: bytes, *more: str) -> Result:
    config, file = tmp_path / "c.yaml", tmp_path / "traces.binpb"
    config.write_text(yaml.safe_dump({"redact": redact}))
    file.write_bytes(data)
    return CliRunner().invoke(main, [command, "--config", str(config), *more, str(file)])


def sample() -> bytes:
    span = Span(
        name=f"to {MAIL}", attributes=pairs({"card": f"{CARD} {CARD}", MAIL: 1, "db.password": "x", "drop": "y"})
    )
    span.status.message = MAIL
    first = request_of(span, {"owner": MAIL})
    second = request_of(Span(trace_id=b"t" * 16, span_id=b"s" * 8, name="nothing"))
    return first.SerializeToString() + second.SerializeToString()


SETTINGS = {"preset": "common", "keys": [{"match": "drop", "action": "delete"}]}


def test_what_would_be_changed(tmp_path: Path) -> None:
    result = run("redact", tmp_path, SETTINGS, sample())
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines[0] == "trace 0102030405060708090a0b0c0d0e0f10 (1 span)"
    assert sorted(lines[1:8]) == [
        "1 email mask: attribute key ****",
        "1 email mask: attribute owner",
        "1 email mask: span name",
        "1 email mask: status message",
        "1 key delete: attribute drop",
        "1 key mask: attribute db.password",
        "2 card mask: attribute card",
    ]
    assert lines[8:] == ["1 of 2 traces would be changed:", "4 email mask", "2 card mask", "1 key mask", "1 key delete"]


def test_a_file_is_not_one_request(tmp_path: Path) -> None:
    """What traces may cost they may cost each, whether a file holds them one by one or as one message."""
    data = b"".join(
        request_of(
            Span(
                trace_id=(number + 1).to_bytes(16),
                span_id=b"s" * 8,
                attributes=pairs({"k": f"{number} " + "a@b.c " * 9000}),
            )
        ).SerializeToString()
        for number in range(30)
    )
    result = run("redact", tmp_path, SETTINGS, data)
    assert "0 of 30 traces would be changed" in result.output


def test_keys_of_senders_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    keys = ["db.password\x1b]0;owned\x07", "password\n    9  forged line", "é password\u202e\x7f"]
    data = request_of(Span(attributes=pairs(dict.fromkeys(keys, "x")))).SerializeToString()
    result = run("redact", tmp_path, SETTINGS, data)
    assert r"attribute db.password\x1b]0;owned\x07" in result.output
    assert r"attribute password\n    9  forged line" in result.output
    assert r"attribute é password\u202e\x7f" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


def test_as_json(tmp_path: Path) -> None:
    result = run("redact", tmp_path, SETTINGS, sample(), "--json")
    first, second = map(json.loads, result.output.splitlines())
    assert (first["trace_id"], first["spans"]) == ("0102030405060708090a0b0c0d0e0f10", 1)
    assert {"detector": "card", "action": "mask", "place": "attribute", "key": "card", "count": 2} in first[
        "redactions"
    ]
    assert {"detector": "email", "action": "mask", "place": "span name", "count": 1} in first["redactions"]
    assert second["redactions"] == []


def test_by_key(tmp_path: Path) -> None:
    settings = {**SETTINGS, "values": [{"name": "own", "pattern": "nothing", "action": "mask"}]}
    result = run("redact", tmp_path, settings, sample(), "--show-keys")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    email = "values: [{detect: email, action: keep}]"
    assert lines[0] == "2 card mask: attribute card; to change it: except: [card]"  # the most frequent first
    assert sorted(lines[1:]) == [
        f"1 email mask: attribute key ****; to change it: {email}",
        "1 email mask: attribute owner; to change it: except: [owner]",
        f"1 email mask: span name; to change it: {email}",
        f"1 email mask: status message; to change it: {email}",
        "1 key delete: attribute drop; to change it: except: [drop]",
        "1 key mask: attribute db.password; to change it: except: [db.password]",
        "1 own mask: span name; to change it: your pattern own under values",
    ]
    output = run("redact", tmp_path, settings, sample(), "--show-keys", "--json").output
    found = [json.loads(line) for line in output.splitlines()]
    assert found[0] == {
        "detector": "card",
        "action": "mask",
        "place": "attribute",
        "key": "card",
        "count": 2,
        "setting": "except: [card]",
    }
    assert len(found) == 8
    assert "nothing would be changed" in run("redact", tmp_path, {}, sample(), "--show-keys").output


BODY = '{"user": {"password": "x1y2z3"}, "note": "a", "login": "{\\"pin\\": 4711}", "secret": null}'


def test_by_key_names_the_members_of_json(tmp_path: Path) -> None:
    attributes = {
        "body": BODY,
        "form": "a=1&api_key=x1y2z3",
        "headers": '[{"name": "X-Api-Key", "value": "x1y2z3"}]',
        "map": {"token": "x1y2z3", "inner": '{"otp": 4711}'},
        "password": '{"pin": 4711}',
        "mails": f'{{"password of {MAIL}": "x1y2z3"}}',
    }
    data = request_of(Span(attributes=pairs(attributes))).SerializeToString()
    result = run("redact", tmp_path, {"preset": "common"}, data, "--show-keys")
    shown = {
        line.split()[4].rstrip(";"): line.split(": ", 1)[1]
        for line in result.output.splitlines()
        if " key mask" in line
    }
    assert shown["body"] == "attribute body (members password, pin); to change it: except: [password, pin]"
    assert shown["form"] == "attribute form (members api_key); to change it: except: [api_key]"
    assert shown["headers"] == "attribute headers (members X-Api-Key); to change it: except: [X-Api-Key]"
    assert shown["token"] == "attribute token; to change it: except: [token]"
    assert shown["map"] == "attribute map (members otp); to change it: except: [otp]"
    assert shown["password"] == "attribute password; to change it: except: [password]"
    assert shown["mails"] == "attribute mails; to change it: except: [mails]"
    output = run("redact", tmp_path, {"preset": "common"}, data, "--show-keys", "--json").output
    assert {"password", "pin"} in [set(json.loads(line).get("members", ())) for line in output.splitlines()]


ODD = [
    "db.password",
    "user:password",
    "password*",
    "/password",
    "é password\u202e",
    "a, b.password",
    "password #1",
    "-",
]


@pytest.mark.parametrize("key", ODD)
def test_a_setting_can_be_pasted(key: str, tmp_path: Path) -> None:
    """What is shown for a key is a line of the section, and leaves that key alone."""
    settings: dict[str, Any] = {"preset": "common", "keys": [{"match": "-", "action": "mask"}]}
    data = request_of(Span(attributes=pairs({key: "x1y2z3"}))).SerializeToString()
    line = json.loads(run("redact", tmp_path, settings, data, "--show-keys", "--json").output)["setting"]
    pasted = yaml.safe_load(line)
    result = run("redact", tmp_path, {**settings, **pasted}, data, "--show-keys")
    assert "nothing would be changed" in result.output


def test_a_scope_is_named(tmp_path: Path) -> None:
    settings = {"allow_only": {"resource": [], "span": []}}
    data = request_of(Span(attributes=pairs({"a": 1})), {"b": 1}).SerializeToString()
    output = run("redact", tmp_path, settings, data, "--show-keys").output
    assert "attribute a; to change it: allow_only: {span: [a]}" in output
    assert "attribute b; to change it: allow_only: {resource: [b]}" in output


def test_without_redaction(tmp_path: Path) -> None:
    result = run("redact", tmp_path, {}, sample())
    assert result.exit_code == 0
    assert "0 of 2 traces would be changed" in result.output
    assert "nothing is redacted" in result.output


def test_faults(tmp_path: Path) -> None:
    assert run("redact", tmp_path, SETTINGS, b"no traces \xff").exit_code == 1
    result = run("redact", tmp_path, {"preset": "x"}, sample())
    assert result.exit_code == 1
    assert result.output.endswith("write common or strict\n")
    assert CliRunner().invoke(main, ["redact", str(tmp_path / "traces.binpb")]).exit_code == 2


@pytest.mark.parametrize("kind", [*SECRETS, *OTHERS])
def test_no_command_shows_a_secret(kind: str, tmp_path: Path) -> None:
    """Wherever it stands: in the names that explain shows, in the keys that redact shows, as the name of a service."""
    secret = (SECRETS | OTHERS)[kind]
    data = b"".join(
        plant(position, secret.text, (number + 1).to_bytes(16)).SerializeToString()
        for number, position in enumerate(positions())
    )
    service = request_of(Span(trace_id=b"t" * 16, span_id=b"s" * 8), {"service.name": secret.text})
    data += service.SerializeToString()
    assert secret.part.encode() in data
    for command in (["redact"], ["redact", "--json"], ["redact", "--show-keys"], ["explain"], ["explain", "--json"]):
        result = run(command[0], tmp_path, CONFIG, data, *command[1:])
        assert result.exit_code == 0
        assert secret.part not in result.output


def test_explain_shows_names_as_they_leave(tmp_path: Path) -> None:
    span = Span(name=f"to {MAIL}")
    span.status.code = span.status.STATUS_CODE_ERROR
    data = request_of(span, {"service.name": "shop"}).SerializeToString()
    assert f"  shop to {MAIL}" in run("explain", tmp_path, {}, data).output
    assert "  shop to ****\n" in run("explain", tmp_path, {"preset": "common"}, data).output
    masked = {"keys": [{"match": "service.name", "action": "mask"}]}
    assert f"  **** to {MAIL}\n" in run("explain", tmp_path, masked, data).output
