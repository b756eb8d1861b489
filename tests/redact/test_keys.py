"""What key rules do, and in which order they go."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import wire
from tests.support.redacting import Redacting, attributes_after, pairs, plain, redacted, request_of, text_after
from tests.support.secrets import SECRETS

KEY = "0123456789abcdef"


def rule(match: str, action: Any = "mask") -> dict[str, Any]:
    return {"keys": [{"match": match, "action": action}]}


def span_of(request: ExportTraceServiceRequest) -> Span:
    return request.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("*password*", "db.password", True),
        ("*password*", "db.PassWord.old", True),
        ("*password*", "db.passwor", False),
        ("password", "db.password", False),
        ("user.?d", "user.id", True),
        ("user.?d", "user.éd", True),
        ("user.?d", "user.d", False),
        ("a.b", "axb", False),
        ("a[b]", "a[b]", True),
        ("a+", "aa", False),
        ("*", "", True),
        ("é*", "É.x", True),
        ("/pass(word)?/", "pass", True),
        ("/pass(word)?/", "passwords", False),
        ("/pass(word)?/", "Pass", False),
        ("/(?i)pass/", "Pass", True),
        ("/a.b/", "a\nb", True),
        ("/", "/", True),
        ("//", "//", True),
    ],
)
def test_patterns(pattern: str, key: str, matches: bool) -> None:
    assert attributes_after(rule(pattern), {key: "x"}) == {key: "****" if matches else "x"}


@pytest.mark.parametrize(
    ("value", "masked", "kept"),
    [
        ("secret-1234", "****", "****1234"),
        ("12345678", "****", "****5678"),
        ("1234567", "****", "****"),  # four characters at least are hidden
        ("passwörtchen", "****", "****chen"),
        ("", "****", "****"),
        (123456789, "****", "****6789"),
        (-5, "****", "****"),
        (0.5, "****", "****"),
        (12345678.0, "****", "****5678"),
        (True, "****", "****"),
        (b"12345678", "****", "****5678"),
    ],
)
def test_actions(value: Any, masked: str, kept: str) -> None:
    attributes = {"a": 1, "k": value, "z": 2}
    assert attributes_after(rule("k"), attributes) == {"a": 1, "k": masked, "z": 2}
    assert attributes_after(rule("k", "delete"), attributes) == {"a": 1, "z": 2}
    assert attributes_after(rule("k", {"keep_last": 4}), attributes) == {"a": 1, "k": kept, "z": 2}
    found = attributes_after({**rule("k", "hash"), "hash_key": KEY}, attributes)
    assert found["k"].startswith("hash:")
    assert len(found["k"]) == 37


def test_hashes_are_hmac_sha256_and_join() -> None:
    import hashlib
    import hmac

    settings = {**rule("k", "hash"), "hash_key": KEY}
    expected = "hash:" + hmac.new(KEY.encode(), b"4711", hashlib.sha256).hexdigest()[:32]
    assert attributes_after(settings, {"k": "4711"}) == {"k": expected}
    assert attributes_after(settings, {"k": 4711}) == {"k": expected}
    assert attributes_after(settings, {"k": [4711, "4711"]}) == {"k": [expected, expected]}
    assert text_after(
        {"values": [{"name": "n", "pattern": "no ([0-9]+)", "action": "hash"}], "hash_key": KEY}, "no 4711"
    ) == (f"no {expected}")
    assert attributes_after({**settings, "hash_key": KEY[::-1]}, {"k": "4711"}) != {"k": expected}


def test_nested_values() -> None:
    nested = {"list": ["x", 1, {"password": "y", "other": ["z"]}], "password": {"a": "b"}}
    assert attributes_after(rule("password"), {"k": nested}) == {
        "k": {"list": ["x", 1, {"password": "****", "other": ["z"]}], "password": "****"}
    }
    assert attributes_after(rule("password", "delete"), {"k": nested}) == {"k": {"list": ["x", 1, {"other": ["z"]}]}}
    # What keeps something of a value keeps the form of it; a rule for a key inside goes before.
    assert attributes_after({**rule("k", {"keep_last": 1})}, {"k": {"a": "abcdef", "b": [1]}}) == {
        "k": {"a": "****f", "b": ["****"]}
    }
    both = {"keys": [{"match": "password", "action": "delete"}, {"match": "k", "action": {"keep_last": 1}}]}
    assert attributes_after(both, {"k": {"password": "x", "b": "abcdef"}}) == {"k": {"b": "****f"}}


def test_the_first_rule_decides_and_own_rules_go_before_the_preset() -> None:
    settings = {
        "preset": "common",
        "keys": [{"match": "db.password", "action": {"keep_last": 2}}, {"match": "db.*", "action": "delete"}],
    }
    attributes = {"db.password": "abcdef-12", "db.x": "1", "app.password": "y"}
    assert attributes_after(settings, attributes) == {"db.password": "****12", "app.password": "****"}


def test_except() -> None:
    mail = SECRETS["email"].text
    attributes = {"token": mail, "safe": {"password": mail, mail: [mail]}, "other": mail}
    found = attributes_after({"preset": "common", "except": ["token", "sa*"]}, attributes)
    assert found == {**attributes, "other": "****"}


def test_allow_only() -> None:
    request = request_of(Span(attributes=pairs({"a.x": 1, "b": 2}), dropped_attributes_count=5), {"r": 1, "q": 2})
    span = span_of(request)
    span.events.add(attributes=pairs({"e": 1, "f": {"any": 1}}))
    span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, attributes=pairs({"l": 1}))
    request.resource_spans[0].scope_spans[0].scope.attributes.extend(pairs({"s": 1}))
    settings = {
        "allow_only": {"span": ["a.*"], "resource": ["r"], "scope": [], "event": ["f"], "link": ["/l|m/"]},
        "except": ["b"],
    }
    out = redacted(settings, request)
    (resource_spans,) = out.resource_spans
    span = span_of(out)
    assert plain(span.attributes) == {"a.x": 1}  # an exception from redaction is none from this list
    assert span.dropped_attributes_count == 6
    assert (plain(resource_spans.resource.attributes), resource_spans.resource.dropped_attributes_count) == (
        {"r": 1},
        1,
    )
    scope = resource_spans.scope_spans[0].scope
    assert (plain(scope.attributes), scope.dropped_attributes_count) == ({}, 1)
    assert (plain(span.events[0].attributes), span.events[0].dropped_attributes_count) == ({"f": {"any": 1}}, 1)
    assert (plain(span.links[0].attributes), span.links[0].dropped_attributes_count) == ({"l": 1}, 0)


def test_what_entities_name_stays() -> None:
    request = request_of(Span(), {"host.id": "h", "host.name": "n", "other": "o"})
    resource = request.resource_spans[0].resource
    resource.entity_refs.add(type="host", id_keys=["host.id"], description_keys=["host.name"])
    out = redacted({**rule("host.id", "delete"), "allow_only": {"resource": ["host.id"]}}, request)
    resource = out.resource_spans[0].resource
    assert plain(resource.attributes) == {"host.id": "****", "host.name": "****"}
    assert resource.dropped_attributes_count == 1
    assert list(resource.entity_refs[0].id_keys) == ["host.id"]


def test_keys_that_are_secrets() -> None:
    mail = SECRETS["email"].text
    request = request_of(Span(attributes=pairs({f"visits:{mail}": 1, "m": {mail: 2}})), {mail: "x"})
    request.resource_spans[0].resource.entity_refs.add(id_keys=[mail])
    out = redacted({"preset": "common"}, request)
    assert plain(span_of(out).attributes) == {"visits:****": 1, "m": {"****": 2}}
    resource = out.resource_spans[0].resource
    assert [attribute.key for attribute in resource.attributes] == list(resource.entity_refs[0].id_keys) == ["****"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password": "x", "a": 1}', '{"password": "****", "a": 1}'),
        ('{"a": {"b": [{"password": 5}]}}', '{"a": {"b": [{"password": "****"}]}}'),
        ('{"password": {"deep": ["x"]}}', '{"password": "****"}'),
        ('{"pass\\u0077ord": "x"}', '{"pass\\u0077ord": "****"}'),
        ('  [{"password": "x"}] ', '  [{"password": "****"}] '),
        ('{"a": "{\\"password\\": \\"x\\"}"}', '{"a": "{\\"password\\": \\"****\\"}"}'),
        ('{"password": "x', '{"password": "****'),
        ("{'password': 'x'}", "{'password': '****'}"),
        ('{"n": 4111111111111111}', '{"n": "****"}'),
        ('{"n": "\\u0034111111111111111"}', '{"n": "****"}'),
        ("a=1&password=x", "a=1&password=****"),
        ('{"a": 1}', '{"a": 1}'),
        ("{no json}", "{no json}"),
        ("password=x", "password=x"),
        ('{"b": "user=1&password=x", "c": 1}', '{"b": "user=1&password=****", "c": 1}'),
        ('{"password": {"a": 1}, "b": 4111111111111111}', '{"password": "****", "b": "****"}'),
        ('{"ok": {"password": "y"}, "password": "z"}', '{"ok": {"password": "y"}, "password": "****"}'),
        ("{'a': 1, 'password': 2}", "{'a': 1, 'password': ****}"),
        ('{"a": 1} {"password": "x"}', '{"a": 1} {"password": "****"}'),
    ],
)
def test_keys_in_texts(text: str, expected: str) -> None:
    more = {"values": [{"detect": "card", "action": "mask"}], "except": ["ok"]}
    assert text_after({**rule("password"), **more}, text) == expected
    assert attributes_after({**rule("password", "delete"), **more}, {"k": text}) == {"k": expected}


def test_the_strictest_of_several_keys_counts() -> None:
    """In a KeyValue whose key stands twice, before and behind the value. Parsers take the last, but not everybody who
    reads bytes is one."""

    def pair(*keys: bytes) -> bytes:
        first, *others = [wire.field(1, wire.LEN, key) for key in keys]
        return wire.field(9, wire.LEN, first + value + b"".join(others))

    value = wire.field(2, wire.LEN, wire.field(1, wire.LEN, b"x"))
    span = wire.field(1, wire.LEN, b"t" * 16) + wire.field(2, wire.LEN, b"s" * 8)
    span += pair(b"a", b"password") + pair(b"password", b"b") + pair(b"password", b"n", b"c") + pair(b"n", b"d")
    span += pair(b"gone", b"e") + pair(b"f", b"gone", b"password")
    raw = wire.field(1, wire.LEN, wire.field(2, wire.LEN, wire.field(2, wire.LEN, span)))
    settings = {
        "keys": [{"match": "password", "action": "mask"}, {"match": "gone", "action": "delete"}],
        "except": ["n"],
    }
    out = span_of(redacted(settings, raw))
    assert plain(out.attributes) == {"password": "****", "b": "****", "c": "****", "d": "x"}
    assert out.dropped_attributes_count == 2


@pytest.mark.parametrize("noise", [b"", wire.field(10, wire.VARINT, b"\x03"), wire.field(77, wire.LEN, b"?")])
def test_of_several_ids_all_but_the_last_are_texts(noise: bytes) -> None:
    """They are nobody's id, though they have the size of one."""
    secret = b"4111111111111111"
    first = wire.field(1, wire.LEN, secret) + wire.field(2, wire.LEN, b"12345678")
    last = wire.field(1, wire.LEN, b"t" * 16) + wire.field(2, wire.LEN, b"s" * 8)
    gone = wire.field(1, wire.LEN, b"gone")
    link = first + wire.field(4, wire.LEN, gone) + first + last
    span = first + wire.field(4, wire.LEN, b"12345678") + noise + first + wire.field(13, wire.LEN, link) + noise + last
    span += wire.field(4, wire.LEN, b"p" * 8) + wire.field(9, wire.LEN, wire.field(1, wire.LEN, b"password"))
    span += wire.field(9, wire.LEN, gone)
    raw = wire.field(1, wire.LEN, wire.field(2, wire.LEN, wire.field(2, wire.LEN, span)))
    redacting = Redacting({"preset": "common", "keys": [{"match": "gone", "action": "delete"}]})
    sent = redacting.run([raw])
    assert secret not in sent
    assert redacting.counts()["card", "mask"] == 4
    out = span_of(ExportTraceServiceRequest.FromString(sent))
    assert (out.trace_id, out.span_id, out.parent_span_id) == (b"t" * 16, b"s" * 8, b"p" * 8)
    assert out.dropped_attributes_count == 1 + 3 * (noise[:1] == b"\x50")
    assert [attribute.key for attribute in out.attributes] == ["password"]
    (left,) = out.links
    assert (left.trace_id, left.span_id, left.dropped_attributes_count) == (b"t" * 16, b"s" * 8, 1)
    assert redacting.counts()["key", "delete"] == 2
