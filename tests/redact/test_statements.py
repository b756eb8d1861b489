"""Which language a statement is read in: the attributes around it name the store."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampler_proxy.redact.lanes import Place
from sampler_proxy.redact.policy import View
from tests.support.redact_reference import Reference
from tests.support.redacting import Redacting, attributes_after, pairs, plain, policy, redacted, request_of

SETTINGS = {"sql": "obfuscate"}
STATEMENT = "SET x = zebra"
"""As SQL a name is assigned, which stays; as a command of Redis a value is."""
AS_SQL, AS_COMMAND = STATEMENT, "SET x = ?"


@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        ({"db.system": "redis", "db.statement": STATEMENT}, AS_COMMAND),
        ({"db.statement": STATEMENT, "db.system": "redis"}, AS_COMMAND),
        ({"db.query.text": STATEMENT, "a": 1, "db.system.name": "valkey"}, AS_COMMAND),
        ({"sql.query": STATEMENT, "db.type": "redis"}, AS_COMMAND),
        ({"db.statement": STATEMENT, "db.system": "Redis"}, AS_COMMAND),
        ({"db.statement": STATEMENT, "db.system": "mysql"}, AS_SQL),
        ({"db.statement": STATEMENT}, AS_SQL),
        ({"db.statement": STATEMENT, "db.system": "what is this"}, AS_SQL),
        ({"db.statement": STATEMENT, "db.system": 5}, AS_SQL),
        ({"db.statement": STATEMENT, "db.system.names": "redis"}, AS_SQL),
        ({"db.statement": STATEMENT, "db.system": "what is this", "db.system.name": "redis"}, AS_COMMAND),
        ({"db.statement": STATEMENT, "db.system": "mysql", "db.system.name": "redis"}, AS_SQL),  # by the text
        ({"db.statement": [STATEMENT, STATEMENT], "db.system": "redis"}, [AS_COMMAND, AS_COMMAND]),
        ({"db.statement": {"db.statement": STATEMENT}, "db.system": "redis"}, {"db.statement": AS_COMMAND}),
        ({"db.statement": {"db.statement": STATEMENT, "db.system": "mysql"}, "db.system": "redis"}, None),
    ],
    ids=str,
)
def test_the_store_is_named_beside_the_statement(attributes: dict[str, Any], left: Any) -> None:
    key = next(key for key in attributes if key in ("db.statement", "db.query.text", "sql.query"))
    expected = {"db.statement": AS_SQL, "db.system": "mysql"} if left is None else left
    assert attributes_after(SETTINGS, attributes) == {**attributes, key: expected}


def test_the_store_is_named_by_the_nearest_message() -> None:
    span = Span(attributes=pairs({"db.system": "redis"}))
    span.events.add(attributes=pairs({"db.statement": STATEMENT}))
    span.events.add(attributes=pairs({"db.statement": STATEMENT, "db.system": "mysql"}))
    span.links.add(attributes=pairs({"db.statement": STATEMENT}))
    sent = request_of(span, {"db.statement": STATEMENT, "db.system": "redis"})
    sent.resource_spans[0].scope_spans[0].scope.attributes.extend(pairs({"db.statement": STATEMENT}))
    found = redacted(SETTINGS, sent)
    (resource_spans,) = found.resource_spans
    (left,) = resource_spans.scope_spans[0].spans
    assert [plain(event.attributes)["db.statement"] for event in left.events] == [AS_COMMAND, AS_SQL]
    assert plain(left.links[0].attributes)["db.statement"] == AS_COMMAND
    assert plain(resource_spans.resource.attributes)["db.statement"] == AS_COMMAND
    assert plain(resource_spans.scope_spans[0].scope.attributes)["db.statement"] == AS_SQL  # of the scope alone
    made = policy(SETTINGS)
    assert made is not None
    assert found == Reference(made.view(0)).request(sent)


def test_a_store_is_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy(SETTINGS)
    assert made is not None
    asked: list[bytes] = []
    lane = made.strict.key_rules.statement_lane
    monkeypatch.setattr(made.strict.key_rules, "statement_lane", lambda name: (asked.append(name), lane(name))[1])
    redacting = Redacting(made)
    for number in range(3):
        attributes = {**{f"a{i}": {"db.statement": f"GET {number}"} for i in range(20)}, "db.system": "redis"}
        out = ExportTraceServiceRequest.FromString(redacting.run([request_of(Span(attributes=pairs(attributes)))]))
        assert b"GET ?" in out.SerializeToString()
    assert asked == [b"redis"]


def test_many_statements_take_time_in_proportion() -> None:
    """Each message is looked through once, however many statements it has."""
    made = policy(SETTINGS)
    assert made is not None
    span = Span(attributes=pairs({f"a{i}": 1 for i in range(10_000)}))
    span.attributes.extend(list(pairs({"db.statement": STATEMENT})) * 10_000)
    span.attributes.extend(pairs({"db.system": "redis", "db.query.text": "GET user:7 zebra"}))
    out = Redacting(made).run([request_of(span)])
    assert out.count(b"SET x = ?") == 10_000
    assert b"GET user:7 ?" in out  # there was budget left for what is new


def test_a_rule_for_the_key_goes_before() -> None:
    settings = {**SETTINGS, "keys": [{"match": "db.statement", "action": {"keep_last": 2}}]}
    attributes = {"db.statement": STATEMENT, "db.system": "redis"}
    assert attributes_after(settings, attributes) == {**attributes, "db.statement": "****ra"}
    assert attributes_after({"preset": "common", "sql": "keep"}, attributes) == attributes


def test_what_is_shown_goes_by_the_text() -> None:
    made = policy(SETTINGS)
    assert made is not None
    assert made.value(Place.SPAN, b"db.statement", b"SET session:42 zebra") == b"SET session:42 ?"
    assert isinstance(made.strict, View)


def test_secrets_in_what_is_left_are_found() -> None:
    mail = "bob.smith@example.com"
    attributes = {"db.statement": f"GET user:{mail}", "db.system": "redis"}
    assert attributes_after({"preset": "common"}, attributes) == {**attributes, "db.statement": "GET user:****"}


@pytest.mark.parametrize(
    ("system", "statement"),
    [
        ("redis", "HSET myhash field1 ? field2 ?"),
        ("mongodb", '{"find": "users", "filter": {"password": "?"}}'),
        ("elasticsearch", '{"query":{"term":{"token":"?"}}}'),
        ("postgresql", "SELECT * FROM users WHERE password = $1 AND token IN ($2, $3)"),
        ("mssql", "EXEC dbo.GetUser @token = @p0"),
        ("dynamodb", "GetItem"),
    ],
)
def test_what_is_obfuscated_already_stays(system: str, statement: str) -> None:
    attributes = {"db.query.text": statement, "db.system.name": system}
    assert attributes_after({"preset": "common"}, attributes) == attributes
