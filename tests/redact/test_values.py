"""What is found in values, what becomes of it, and what happens where something cannot be judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.redact import values as values_module
from sampler_proxy.redact.detectors import catalogue
from sampler_proxy.redact.detectors.catalogue import Detector, Range
from sampler_proxy.redact.key_rules import KeyRules
from sampler_proxy.redact.lanes import MAX_VALUE_BYTES, TEXT
from sampler_proxy.redact.policy import Policy
from sampler_proxy.redact.sieve import CANARY
from tests.redact.detectors.marked import unmarked
from tests.redact.detectors.test_tables import HITS
from tests.support import wire
from tests.support.redacting import (
    Redacting,
    any_value,
    attributes_after,
    pairs,
    plain,
    policy,
    redacted,
    request_of,
    text_after,
)
from tests.support.secrets import SECRETS

CARD, MAIL = SECRETS["card"].text, SECRETS["email"].text
MASK_CARDS = {"values": [{"detect": "card", "action": "mask"}]}


EVERYTHING = cast(
    Policy,
    policy(
        {
            "preset": "strict",
            "keys": [{"match": "*kunde*", "action": "mask"}],
            "values": [{"detect": "phone", "action": "mask"}],
        }
    ),
)


def made(settings: dict[str, Any]) -> Policy:
    found = policy(settings)
    assert found is not None
    return found


def counts_of(settings: dict[str, Any] | Policy, *texts: str) -> dict[tuple[str, ...], float]:
    redacting = Redacting(settings)
    redacting.run([request_of(Span(attributes=pairs(dict(zip("abcdef", texts, strict=False)))))])
    return redacting.counts()


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ([("card", "mask")], f"a {CARD} b {CARD}", "a **** b ****"),
        ([("card", {"keep_last": 4})], f"a {CARD} b", "a ****1111 b"),
        ([("card", "keep"), ("card", "mask")], CARD, CARD),
        ([("card", {"keep_last": 2}), ("card", "mask")], CARD, "****11"),
        ([("email", "mask")], CARD, CARD),
        ([("email", "mask"), ("card", "mask")], f"{MAIL} {CARD}", "**** ****"),
        ([("bearer", "mask")], "Bearer abcdefghijkl1234567890", "Bearer ****"),
    ],
)
def test_actions(values: list[tuple[str, Any]], text: str, expected: str) -> None:
    settings = {"values": [{"detect": name, "action": action} for name, action in values], "keys": []}
    if all(action == "keep" for _, action in values):
        settings["sql"] = "obfuscate"
    assert text_after(settings, text) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("TICKET-([0-9]+)", "see TICKET-12, TICKET-13", "see TICKET-****, TICKET-****"),
        ("TICKET-[0-9]+", "see TICKET-12", "see ****"),
        ("^x+$", "xxx", "****"),
        ("^x+$", "axxx", "axxx"),
        (r"\Ax+\z", "xxx", "****"),
        ("(?i)secret", "a SECRET b", "a **** b"),
        ("a.b", "a\nb", "****"),
        ("secret: .+", "secret: a\nb", "****"),
        ("ü+", "süü", "s****"),
        ("[^,]+;", "a,b;c", "a,****c"),
    ],
)
def test_own_patterns(pattern: str, text: str, expected: str) -> None:
    settings = {"values": [{"name": "own", "pattern": pattern, "action": "mask"}]}
    assert text_after(settings, text) == expected
    # Beside others, which are asked about in the same breath.
    others = {"a": "xx,", "b": text, "c": ",xx", "d": ""}
    assert attributes_after(settings, others) == {**others, "b": expected}


def test_overlapping_finds_with_different_actions_are_masked() -> None:
    settings = {
        "values": [
            {"name": "one", "pattern": "ab+", "action": {"keep_last": 1}},
            {"name": "two", "pattern": "b+c", "action": "mask"},
        ]
    }
    assert text_after(settings, "xabbbbbc") == "x****"


@pytest.mark.parametrize("around", ["写信给{}谢谢", "({}。", "é{}é", "«{}»"])
def test_secrets_beside_letters_of_other_scripts(around: str) -> None:
    for kind, secret in SECRETS.items():
        settings = {"values": [{"detect": kind, "action": "mask"}]}
        text = around.format(secret.text)
        found = text_after(settings, text)
        assert secret.part not in found, kind
        assert text_after(settings, found) == found


def test_text_that_is_not_utf8() -> None:
    """Looked at as it leaves: with U+FFFD in place of what is not UTF-8."""
    request = request_of(Span(name="NAME@@"))
    raw = request.SerializeToString()
    assert redacted(MASK_CARDS, raw.replace(b"NAME@@", b"a\xffb\xc3\xa9c")).resource_spans[0].scope_spans[0].spans[
        0
    ].name == ("a\ufffdbéc")
    for damage in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
        name = damage + CARD.encode() + damage
        raw = request_of(Span(name="N" * len(name))).SerializeToString().replace(b"N" * len(name), name)
        assert "****" in redacted(MASK_CARDS, raw).resource_spans[0].scope_spans[0].spans[0].name
        mail = b"see " + MAIL.encode() + damage
        raw = request_of(Span(name="N" * len(mail))).SerializeToString().replace(b"N" * len(mail), mail)
        found = redacted({"preset": "common"}, raw).resource_spans[0].scope_spans[0].spans[0].name
        assert found.startswith("see ****")


def test_bytes_with_a_secret_go_whole() -> None:
    value = b"\x00\xff" + CARD.encode() + b"\xfe"
    found = attributes_after(MASK_CARDS, {"k": value, "other": b"\x00\xff", "n": any_value(b"").bytes_value})
    assert found == {"k": "****", "other": b"\x00\xff", "n": b""}


def test_ids_that_have_no_size_of_one_are_texts() -> None:
    span = Span(parent_span_id=CARD.encode(), trace_state=f"a={CARD}")
    span.links.add(trace_id=CARD.encode(), span_id=b"12345678", trace_state=CARD)
    found = redacted(MASK_CARDS, request_of(span)).resource_spans[0].scope_spans[0].spans[0]
    assert found.parent_span_id == found.links[0].trace_id == b"****"
    assert found.links[0].span_id == b"12345678"
    assert (found.trace_state, found.links[0].trace_state) == (f"a={CARD}", CARD)  # exempt by name


def test_sql() -> None:
    settings = {"sql": "obfuscate"}
    statement = "SELECT a FROM t WHERE b = 'x' AND c IN (1, 2)"
    expected = "SELECT a FROM t WHERE b = ? AND c IN (?)"
    assert attributes_after(settings, {"db.query.text": statement, "db.statement": statement, "k": statement}) == {
        "db.query.text": expected,
        "db.statement": expected,
        "k": expected,
    }
    assert attributes_after(settings, {"db.query.text": "SELECT 'open", "k": "mail 'x' from us"}) == {
        "db.query.text": "SELECT ?",  # a literal without an end goes to the end
        "k": "mail 'x' from us",
    }
    assert text_after(settings, f"error near: {statement}") == f"error near: {expected}"
    assert text_after(settings, "WITH t AS (VALUES (123)) SELECT 1 FROM t") == "WITH t AS (VALUES (?)) SELECT ? FROM t"
    assert text_after({"preset": "common", "sql": "keep"}, statement) == statement
    assert text_after({"preset": "common"}, statement) == expected
    assert text_after(settings, f'{{"q": "{statement}", "n": 5}}') == f'{{"q": "{expected}", "n": 5}}'
    assert text_after(settings, f'{{"n": 5}} {statement}') == f'{{"n": 5}} {expected}'
    span = redacted(settings, request_of(Span(name=statement))).resource_spans[0].scope_spans[0].spans[0]
    assert span.name == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select a from t where b = 'x'", "select a from t where b = ?"),
        ("SELECT'x' FROM t", "SELECT? FROM t"),
        ("err (UPDATE t AS u SET a = 'x')", "err (UPDATE t AS u SET a = ?)"),
        ("INSERT IGNORE INTO `t`(a) VALUES ('x')", "INSERT IGNORE INTO `t`(a) VALUES (?)"),
        ("[sql: DELETE FROM t WHERE a = 5]", "[sql: DELETE FROM t WHERE a = ?]"),
        ("MERGE INTO t USING u ON a = 5", "MERGE INTO t USING u ON a = ?"),
        ("failed to update user's profile: set the name first", None),
        ("Insert coin into slot 3 of 'x'", None),
        ("cannot delete from the archive 'x'", None),
        ("selected 5 of 'x'", None),
        ("ALTER USER bob IDENTIFIED BY 'x'", "ALTER USER bob IDENTIFIED BY ?"),
        ("failed: create role bob with login password 'x'", "failed: create role bob with login password ?"),
        ("GRANT ALL ON t TO bob IDENTIFIED BY 'x'", "GRANT ALL ON t TO bob IDENTIFIED BY ?"),
        ("SET PASSWORD FOR bob = 'x'", "SET PASSWORD FOR bob = ?"),
        ("CALL p('x')", "CALL p(?)"),
        ("error in EXEC dbo.p @a = 'x'", "error in EXEC dbo.p @a = ?"),
        ("call p('x')", "call p(?)"),
        ("SELECT 'x'", "SELECT ?"),
        ("select lower('x')", "select lower(?)"),
        ("VALUES ('x')", "VALUES (?)"),
        ("UPDATE users/**/SET name='x'", "UPDATE users SET name=?"),
        ("update users /* a */ set name = 'x'", "update users set name = ?"),
        ("INSERT/**/INTO t VALUES ('x')", "INSERT INTO t VALUES (?)"),
        ("please select 'Save' and call back('x')", None),
        ("record identified by 'x' not found", None),
        ("a user identified by 'x' may alter the password 'x'", None),
        ("the values ('x') differ", None),
        ("grant access to 'x'", None),
        ("CALL me back about 'x'", None),
        ("SELECTED VALUES: 'x'", None),
        ("executed p('x')", None),
    ],
)
def test_statements_in_texts(text: str, expected: str | None) -> None:
    assert text_after({"sql": "obfuscate"}, text) == (text if expected is None else expected)


def test_urls() -> None:
    everything = {"urls": ["strip_query", "strip_credentials", "strip_ids"]}
    attributes = {
        "url.full": "https://u:p@h.example/users/123?x=1",
        "url.path": "/users/123",
        "url.query": "x=1",
        "http.route": "/users/{id}",
        "k": "see https://u:p@h.example/users/123?x=1 now",
        "path": "/users/123",
    }
    found = attributes_after(everything, attributes)
    assert found == {
        "url.full": "https://h.example/users/{id}",
        "url.path": "/users/{id}",
        "url.query": "****",
        "http.route": "/users/{id}",
        "k": "see https://h.example/users/{id} now",
        "path": "/users/123",
    }
    assert text_after(everything, '{"u": "https://h.example/users/123?x=1"}') == '{"u": "https://h.example/users/{id}"}'
    only = attributes_after({"urls": ["strip_query"]}, attributes)
    assert only["url.full"] == "https://u:p@h.example/users/123"
    span = redacted(everything, request_of(Span(name="GET /users/123"))).resource_spans[0].scope_spans[0].spans[0]
    assert span.name == "GET /users/{id}"
    assert attributes_after({"preset": "strict", "urls": []}, {"url.path": "/users/123"}) == {"url.path": "/users/123"}


# Where something raises, or is too large.


def detectors_with(monkeypatch: pytest.MonkeyPatch, find: Callable[[bytes], list[Range]]) -> None:
    known = {**catalogue.DETECTORS, "card": Detector("card", "[0-9]", find)}
    monkeypatch.setattr(catalogue, "DETECTORS", known)


def test_a_detector_that_raises_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(text: bytes) -> list[Range]:
        raise RuntimeError(text)

    detectors_with(monkeypatch, find)
    found = made(MASK_CARDS)
    assert counts_of(found, "a 1", "b", '{"x": "c"}') == {("failure", "mask"): 1}
    out = Redacting(found).run([request_of(Span(name="a 1", attributes=pairs({"k": "a 1", "1": 1, "b": "c"})))])
    assert b"a 1" not in out


def test_a_detector_that_never_ends_finding_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    detectors_with(monkeypatch, lambda _: [Range(0, 1)])
    assert counts_of(made(MASK_CARDS), "a 1")["failure", "mask"] == 1


@pytest.mark.parametrize("module", ["obfuscate", "rewrite", "embedded"])
def test_what_raises_elsewhere_masks(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise RecursionError("zebra")

    if module == "embedded":
        monkeypatch.setattr(values_module.embedded, "read", fails)
    elif module == "obfuscate":
        monkeypatch.setattr(values_module.stores, "obfuscate", fails)
    else:
        monkeypatch.setattr(values_module, module, fails)
    settings = {"preset": "strict"}
    text = {
        "obfuscate": "SELECT zebra FROM b",
        "rewrite": "https://zebra.example/",
        "embedded": '{"password": "zebra"}',
    }[module]
    assert text_after(settings, text) == "****"
    assert counts_of(settings, text) == {("failure", "mask"): 1}


def test_a_key_rule_that_raises_masks_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise RuntimeError

    monkeypatch.setattr(KeyRules, "_lane_of", fails)
    assert attributes_after(MASK_CARDS, {"k": "x", "l": ["y"]}) == {"k": "****", "l": "****"}


@pytest.mark.parametrize("hits", [[], [0], [1]])
def test_a_set_that_ran_out_of_memory_is_not_believed(monkeypatch: pytest.MonkeyPatch, hits: list[int]) -> None:
    """RE2 then answers as if nothing matched, or less than all."""
    monkeypatch.setattr(catalogue, "sieve", lambda _: lambda _: list(hits))
    found = made({"values": [{"name": name, "pattern": name, "action": "mask"} for name in ("zebra", "okapi")]})
    attributes = {"a": "x zebra", "b": "okapi", "c": "y"}
    out = Redacting(found)
    raw = out.run([request_of(Span(attributes=pairs(attributes)))])
    assert b"zebra" not in raw
    assert b"okapi" not in raw


def test_a_set_that_raises_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: bytes) -> list[int]:
        raise RuntimeError

    monkeypatch.setattr(catalogue, "sieve", lambda _: fails)
    pattern = {"values": [{"name": "zebra", "pattern": "zebra", "action": "mask"}]}
    assert attributes_after(pattern, {"a": "x", "b": 1}) == {"****": "****"}


def test_key_patterns_that_ran_out_of_memory_are_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def Match(self, _: str) -> None:  # noqa: N802 (RE2's name)
            return None

    found = made({"keys": [{"match": "password", "action": "mask"}]})
    monkeypatch.setattr(found.view(0).key_rules._key_rules, "_set", Silent())
    out = Redacting(found)
    raw = out.run([request_of(Span(attributes=pairs({"password": "x-1", "other": "y-1"})))])
    assert b"x-1" not in raw
    assert b"y-1" in raw


@pytest.mark.parametrize("size", [MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1])
def test_values_over_the_size_are_masked_whole(size: int) -> None:
    text = "a" * size
    over = size > MAX_VALUE_BYTES
    assert text_after(MASK_CARDS, text) == ("****" if over else text)
    assert counts_of(MASK_CARDS, text) == ({("oversize", "mask"): 1} if over else {})
    request = request_of(Span(name=text, attributes=pairs({"k": text.encode()})))
    span = redacted(MASK_CARDS, request).resource_spans[0].scope_spans[0].spans[0]
    assert (span.name, plain(span.attributes)) == (("****", {"k": "****"}) if over else (text, {"k": text.encode()}))


def test_keys_over_the_size_are_masked_and_their_values_too() -> None:
    key = "k" * 5000
    assert attributes_after(MASK_CARDS, {key: "x", "a": 1}) == {"****": "****", "a": 1}


@pytest.mark.parametrize("depth", range(10))
def test_deep_json_in_json_is_masked(depth: int) -> None:
    """By key as far as it is read; what is deeper goes whole."""
    text = '{"password": "zebra"}'
    for _ in range(depth):
        text = json.dumps({"a": text})
    found = text_after({"preset": "common", "values": [{"detect": "url_secrets", "action": "keep"}]}, text)
    assert "zebra" not in found
    assert ("password" in found) == (depth <= values_module.MAX_NESTED)


@pytest.mark.parametrize("where", ["_signs", "_set", "_searches"])
def test_a_sieve_that_raises_passes_everything_on(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    class Fails:
        def __call__(self, _: bytes) -> list[int]:
            raise RuntimeError

        search = values = __call__

    sieve = made(MASK_CARDS).view(0)._sieve
    joined = CARD.encode() + catalogue.SEPARATOR + b"x" + catalogue.SEPARATOR + CANARY
    assert sieve.sift(joined) is not None
    monkeypatch.setattr(sieve, where, [Fails() for _ in sieve._searches] if where == "_searches" else Fails())
    assert sieve.sift(joined) == [(0, len(joined))]


# What is escaped, and keys in what is no JSON.


@pytest.mark.parametrize(("before", "after"), [("%22", "%22"), ("%3D", "%26"), ("%5B", "%5D"), ("%2522", "%2522")])
@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_in_what_is_percent_encoded(kind: str, before: str, after: str) -> None:
    secret = SECRETS[kind]
    encoded, part = quote(secret.text, safe=""), quote(secret.part, safe="")
    if "25" in before:
        encoded, part = quote(encoded), quote(part)
    text = f"https://h.example/x?q={before}{encoded}{after}&b=1"
    settings = {"values": [{"detect": kind, "action": "mask"}]}
    found = text_after(settings, text)
    assert part not in found
    assert found.startswith(f"https://h.example/x?q={before}")
    assert found.endswith("&b=1" if kind == "url_secrets" else f"{after}&b=1")
    assert text_after(settings, found) == found
    assert attributes_after(settings, {"url.full": text, "n": 1}) == {"url.full": found, "n": 1}


def test_every_secret_of_the_tables_percent_encoded() -> None:
    for kind, texts in HITS.items():
        view = made({"values": [{"detect": kind, "action": "mask"}]}).view(0)
        for marked in texts:
            plain_text = b"x={" + unmarked(marked)[0] + b"}"
            text = quote(plain_text, safe="").encode()
            result = view.apply(TEXT, text)
            for start, end in catalogue.DETECTORS[kind].find(plain_text):
                assert result is not None, marked
                secret = quote(plain_text[start:end], safe="").encode()
                assert len(secret) < 6 or secret not in result[0], marked


@pytest.mark.parametrize(
    "text",
    [
        "100%25 of %2F",
        "C:\\new\\table",
        "a%20b%20c?x=%7B%7D",
        "\\u0041\\u0042",
        '{"a":"\\n\\t"}',
        "%",
        "%zz",
        "50%de facto",
    ],
)
def test_escapes_that_hide_nothing(text: str) -> None:
    assert text_after({"preset": "strict", "urls": []}, text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"\\u0034111111111111111": 1}', '{"****": 1}'),
        ('"\\u0034111111111111111"', '"****"'),
        ('["\\u0034111111111111111"]', '["****"]'),
        (f"'line\\n{SECRETS['aws_key'].text}'", "'line\\n****'"),
    ],
)
def test_escaped_characters(text: str, expected: str) -> None:
    assert text_after({"preset": "common"}, text) == expected


PASSWORD = {"keys": [{"match": "*password*", "action": "mask"}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('HTTP 400: {"error":"x","password":"zebra"}', 'HTTP 400: {"error":"x","password":"****"}'),
        ('body: {"password" : "ze\\"bra", "a": 1}', 'body: {"password" : "****", "a": 1}'),
        ('data: {"a":1}\n\ndata: {"password":"zebra"}', 'data: {"a":1}\n\ndata: {"password":"****"}'),
        ('"{\\"password\\":\\"zebra\\"}"', '"{\\"password\\":\\"****\\"}"'),
        (r'"{\"a\":\"{\\\"password\\\":\\\"zebra\\\"}\"}"', r'"{\"a\":\"{\\\"password\\\":\\\"****\\\"}\"}"'),
        (')]}\',\n{"password":"zebra"}', ')]}\',\n{"password":"****"}'),
        ("b'{\"password\": 12345}'", "b'{\"password\": ****}'"),
        ("user {'password': 'zebra', 'a': 1}", "user {'password': '****', 'a': 1}"),
        ("x => {`password`: `zebra`}", "x => {`password`: `****`}"),
        ('%{"password" => "zebra"}', '%{"password" => "****"}'),
        ('got {"password": {"a": "}", "b": ["zebra"]}, "c": 1}', 'got {"password": ****, "c": 1}'),
        ('got {"password": {"a": "zebra"', 'got {"password": ****'),
        ('got {"password": "zebra', 'got {"password": "****'),
        ('got {"password": "", "a": "b"}', None),
        ('got {"a": "b"} "quoted": text', None),
        ("q=%7B%22password%22%3A%22zebra%22%7D", "q=%7B%22password%22%3A%22****%22%7D"),
        ("the 'password'::text cast", None),
    ],
)
def test_keys_in_what_is_no_json(text: str, expected: str | None) -> None:
    found = text_after(PASSWORD, text)
    assert found == (text if expected is None else expected)
    assert text_after(PASSWORD, found) == found
    assert attributes_after(PASSWORD, {"a": "x", "k": text})["k"] == found


def test_actions_of_keys_in_what_is_no_json() -> None:
    key = "k" * 16
    settings = {"keys": [{"match": "user", "action": "hash"}], "hash_key": key}
    hashed = attributes_after(settings, {"user": "zebra"})["user"]
    text = 'got {"user": "zebra"}'
    assert text_after(settings, text) == f'got {{"user": "{hashed}"}}'
    assert text_after(settings, '"{\\"user\\":\\"z\\u0065bra\\"}"') == f'"{{\\"user\\":\\"{hashed}\\"}}"'
    assert text_after(settings, f'got {{"user": "{hashed}"}}') == f'got {{"user": "{hashed}"}}'
    last = {"keys": [{"match": "user", "action": {"keep_last": 4}}]}
    assert text_after(last, 'got {"user": "zebracorn"}') == 'got {"user": "****corn"}'
    assert text_after(last, 'got {"user": "****corn"}') == 'got {"user": "****corn"}'
    assert text_after(last, '{"user": "zebracörn", "a": "\\n"}') == '{"user": "****cörn", "a": "\\n"}'
    excepted = {**PASSWORD, "except": ["note"]}
    inside = json.dumps({"note": '{"password": "x"}'})
    assert text_after(excepted, inside) == inside


@pytest.mark.parametrize("last", [4, 8])
def test_what_keep_last_leaves_is_no_failure(last: int) -> None:
    settings = {"values": [{"detect": "url_secrets", "action": {"keep_last": last}}]}
    text = "https://x.example/?token=abcdefgh12345678"
    once = text_after(settings, text)
    assert once == f"https://x.example/?token=****{'abcdefgh12345678'[-last:]}"
    assert text_after(settings, once) == once
    assert counts_of(settings, text) == {("url_secrets", "keep_last"): 1}


@pytest.mark.parametrize(
    ("hashed", "text"),
    [
        ("card", f"4111111111111111{SECRETS['aws_key'].text}"),
        ("email", f"{MAIL}4111111111111111"),
        ("aws_key", f"{SECRETS['aws_key'].text} 4111111111111111{SECRETS['aws_key'].text}"),
    ],
)
def test_secrets_that_touch_where_one_is_hashed(hashed: str, text: str) -> None:
    settings = {"preset": "common", "values": [{"detect": hashed, "action": "hash"}], "hash_key": "k" * 16}
    found = text_after(settings, text)
    assert "hash:" in found
    for secret in ("4111111111111111", SECRETS["aws_key"].part, MAIL):
        assert secret not in found


@pytest.mark.parametrize("first", ["a=1", "é=1", "~a=1", "*[$]-=%41", "a=", "%C3%A9=1"])
def test_forms(first: str) -> None:
    settings = {"keys": [{"match": "*kunde*", "action": "mask"}]}
    found = attributes_after(settings, {"a": "x", "k": f"{first}&kunde=Meier&x=2", "z": "y"})
    assert found == {"a": "x", "k": f"{first}&kunde=****&x=2", "z": "y"}


def test_more_members_to_look_at_than_is_worth_it() -> None:
    """Each of these could be anything: it is masked whole, and soon."""
    forms = json.dumps(["a=b&c=d"] * 5000)
    assert counts_of({"preset": "common"}, forms) == {("oversize", "mask"): 1}
    few = json.dumps({f"k{i}": f"it's a\n{i}@b.example" for i in range(500)})
    assert counts_of({"preset": "common"}, few) == {("email", "mask"): 500}


def test_long_keys_of_members_are_not_cached() -> None:
    view = made({"preset": "common"}).view(0)
    for length in (10, 5000):
        for i in range(50):
            key = f"{i:0{length}}"
            assert view.apply(TEXT, json.dumps({key: "it's", f"{key}password": "x"}).encode()) is not None
    assert max(map(len, view.key_rules._member_lanes)) < 300
    assert text_after({"preset": "common"}, json.dumps({"k" * 5000: "zebra", "a": "b"})).endswith(
        '": "****", "a": "b"}'
    )


FRAGMENTS = st.sampled_from(
    [
        *(secret.text for secret in SECRETS.values()),
        *(
            "a=1&kunde=Meier&x=2",
            "é=1&",
            "~a=1&",
            "kunde=",
            "Meier",
            "select 'x' from t where",
            "://",
            "?token=abc",
            "password",
        ),
        *(
            "&",
            "=",
            "'",
            '"',
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            " ",
            "\n",
            "é",
            "%40",
            "%22",
            "@",
            "4111",
            "-",
            "_",
            "a",
            "1",
        ),
        *(
            "Bearer ",
            "basic ",
            "eyJ",
            ".",
            "/",
            "\t",
            "\xa0",
            "\x00",
            "**",
            "update t set a='x'",
            "DE11",
            "\\",
            "\\u0041",
        ),
        *("CALL p('", "VALUES (", "identified by ", "=>", '"kunde"', "`", "--"),
    ]
)


@given(st.lists(FRAGMENTS, min_size=1, max_size=6).map("".join))
def test_the_sieve_passes_every_text_that_would_change(text: str) -> None:
    """The one question to all values together is necessary for whatever becomes of each (JSON is never in it)."""
    view = EVERYTHING.view(EVERYTHING.everything)
    encoded = text.encode()
    if encoded.lstrip()[:1] in (b"{", b"["):
        return
    gap = catalogue.SEPARATOR
    regions = view.sift(gap.join((b"zz", encoded, b"yy", CANARY)))
    low = 2 + len(gap)
    asked = any(start <= low + len(encoded) and low <= end for start, end in regions or [])
    assert asked or view.apply(TEXT, encoded) is None


# Fields that are not known.


def length_delimited(number: int, value: bytes) -> bytes:
    return wire.field(number, wire.LEN, value)


UNKNOWN = {
    "text": length_delimited(100, CARD.encode()),
    "empty": length_delimited(100, b""),
    "varint": wire.field(100, wire.VARINT, wire.varint(4111111111111111)),
    "fixed64": wire.field(100, wire.FIXED64, (4111111111111111).to_bytes(8, "little")),
    "fixed32": wire.field(100, wire.FIXED32, b"1234"),
    "group": wire.tag(100, wire.SGROUP) + length_delimited(1, CARD.encode()) + wire.tag(100, wire.EGROUP),
    "known, of another type": wire.tag(2, wire.SGROUP) + length_delimited(1, CARD.encode()) + wire.tag(2, wire.EGROUP),
}


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("settings", [MASK_CARDS, {"keys": [{"match": "x", "action": "mask"}], "except": ["*"]}])
def test_unknown_fields_are_dropped_everywhere(unknown: str, settings: dict[str, Any]) -> None:
    more = UNKNOWN[unknown]
    value = length_delimited(1, b"v") + more
    array = length_delimited(5, length_delimited(1, value) + more) + more
    kvlist = length_delimited(
        6, length_delimited(1, length_delimited(1, b"k") + length_delimited(2, array) + more) + more
    )
    attribute = length_delimited(1, b"a") + length_delimited(2, kvlist + more) + more
    span = length_delimited(1, b"t" * 16) + length_delimited(2, b"s" * 8) + length_delimited(9, attribute) + more
    span += length_delimited(11, length_delimited(2, b"e") + length_delimited(3, attribute) + more)
    span += length_delimited(13, length_delimited(4, attribute) + more)
    span += length_delimited(15, length_delimited(2, b"m") + more)
    scope = length_delimited(1, b"scope") + length_delimited(3, attribute) + more
    entity = length_delimited(2, b"type") + more
    resource = length_delimited(1, attribute) + length_delimited(3, entity) + more
    scope_spans = length_delimited(1, scope) + length_delimited(2, span) + more
    raw = length_delimited(1, length_delimited(1, resource) + length_delimited(2, scope_spans) + more) + more
    redacting = Redacting(settings)
    out = redacting.run([raw])
    expected = raw.replace(more, b"")
    without = type(request_of(Span())).FromString(raw)
    without.DiscardUnknownFields()
    assert type(without).FromString(out) == without
    assert more not in out
    assert len(out) < len(raw)
    assert expected  # the lengths around differ: compared as messages above
    assert list(redacting.counts()) == [("unknown_field", "delete")]


def test_only_what_changes_is_written_anew() -> None:
    """In its order, with the odd encodings of what stays."""
    overlong = b"\x2a\x81\x80\x00n"  # the name, its length in three bytes
    plain_attribute = length_delimited(9, length_delimited(2, length_delimited(1, b"v")) + length_delimited(1, b"a"))
    card = length_delimited(9, length_delimited(1, b"c") + length_delimited(2, length_delimited(1, CARD.encode())))
    masked = length_delimited(9, length_delimited(1, b"c") + length_delimited(2, length_delimited(1, b"****")))
    ids = length_delimited(1, b"t" * 16) + length_delimited(2, b"s" * 8)
    span = ids + overlong + plain_attribute + card + plain_attribute + b"\x30\x82\x00"
    raw = length_delimited(1, length_delimited(2, length_delimited(2, span)))
    expected = ids + overlong + plain_attribute + masked + plain_attribute + b"\x30\x82\x00"
    assert Redacting(MASK_CARDS).run([raw]) == length_delimited(1, length_delimited(2, length_delimited(2, expected)))


def test_counts_of_a_resource_in_two_parts() -> None:
    """Parts merge, and the last count is the one that holds."""
    settings = {"keys": [{"match": "x", "action": "delete"}]}

    def part(keys: list[str], count: int | None) -> bytes:
        content = b"".join(length_delimited(1, pair.SerializeToString()) for pair in pairs(dict.fromkeys(keys, 1)))
        return length_delimited(
            1, content + (wire.field(2, wire.VARINT, wire.varint(count)) if count is not None else b"")
        )

    span = request_of(Span()).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    for first, second, expected in [(5, 3, 5), (5, None, 7), (None, 3, 5), (None, None, 2), (0, 0, 2)]:
        resource = part(["x", "a"], first) + part(["b", "x"], second)
        raw = length_delimited(1, resource + length_delimited(2, length_delimited(2, span)))
        found = redacted(settings, raw).resource_spans[0].resource
        assert plain(found.attributes) == {"a": 1, "b": 1}
        assert found.dropped_attributes_count == expected, (first, second)
    assert (
        redacted(
            settings, length_delimited(1, part(["x"], (1 << 32) - 1) + length_delimited(2, length_delimited(2, span)))
        )
        .resource_spans[0]
        .resource.dropped_attributes_count
        == (1 << 32) - 1
    )


def test_large_traces_and_many_values() -> None:
    """More than the cache holds, and more than is asked about in one go."""
    requests = []
    for number in range(40):
        request = request_of(Span())
        spans = request.resource_spans[0].scope_spans[0].spans
        del spans[:]
        for i in range(1000):
            n = number * 1000 + i
            attributes = {"n": f"value {n}", "card": CARD if n % 100 == 0 else "none", "long": "x" * (n % 3000)}
            spans.append(Span(trace_id=b"t" * 16, span_id=(n + 1).to_bytes(8), attributes=pairs(attributes)))
        requests.append(request)
    redacting = Redacting(MASK_CARDS)
    out = type(requests[0]).FromString(redacting.run(requests))
    assert redacting.counts() == {("card", "mask"): 400}
    for sent in requests:
        for span in sent.resource_spans[0].scope_spans[0].spans:
            for attribute in span.attributes:
                if attribute.key == "card" and attribute.value.string_value == CARD:
                    attribute.value.string_value = "****"
    sent_spans = [s for r in requests for s in r.resource_spans[0].scope_spans[0].spans]
    assert [s for r in out.resource_spans for c in r.scope_spans for s in c.spans] == sent_spans


def test_nothing_is_held_of_what_has_left() -> None:
    redacting = Redacting({"preset": "common"})
    for number in range(50):
        request = request_of(
            Span(trace_id=(number + 1).to_bytes(16), span_id=b"s" * 8), {"owner": f"a{number}@b.example"}
        )
        out = redacting.run([request])
        assert b"@b.example" not in out
        assert len(redacting.pipeline.envelopes) == 2
    redacting.kept.clear()
    assert len(redacting.pipeline.envelopes) == 0


def test_late_spans_are_redacted_too() -> None:
    redacting = Redacting(MASK_CARDS)
    for number in range(3):
        span = Span(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8), name=CARD)
        out = redacting.run([request_of(span, {"owner": CARD})])
        assert CARD.encode() not in out
        assert out.count(b"****") == 2


def test_the_marker() -> None:
    settings = {**MASK_CARDS, "marker": True, "keys": [{"match": "x", "action": "delete"}]}
    attributes = {"a": f"{CARD} {CARD}", "b": 1, "x": 1}
    assert attributes_after(settings, attributes)["sampler_proxy.redacted"] == 3
    assert "sampler_proxy.redacted" not in attributes_after(settings, {"b": 1})
    many = attributes_after(settings, {f"k{i}": CARD for i in range(300)})
    assert many["sampler_proxy.redacted"] == 300


def test_a_rule_that_goes_by_the_value_frees_nothing_of_what_detectors_find() -> None:
    token = SECRETS["github_token"].text
    text = f'<ad{{ key="# a\nata" value"{token}"'
    common = made({"preset": "common"})
    assert common.view(common.everything).apply(TEXT, text.encode()) == (
        text.replace(token, "****").encode(),
        ((("key", "mask"), 1),),
    )
