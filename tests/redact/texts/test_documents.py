"""Documents, and the requests around them, without their literals."""

from __future__ import annotations

import pytest

from sampler_proxy.redact.texts.documents import MAX_TOKENS, begin, obfuscate

SHAPES = [
    (
        '{"find": "users", "filter": {"name": "s3cret", "age": {"$gt": 5}}, "$db": "shop", "limit": 1}',
        '{"find": "users", "filter": {"name": "?", "age": {"$gt": ?}}, "$db": "shop", "limit": ?}',
    ),
    ('{"insert":"users","documents":[{"pw":"s3cret"}]}', '{"insert":"users","documents":[{"pw":"?"}]}'),
    ('{"name": "s3cret", "find": "s3cret"}', '{"name": "?", "find": "?"}'),
    ('{"find": "it is s3cret"}', '{"find": "?"}'),
    (
        "db.users.find({name: 's3cret', _id: ObjectId(\"507f1f77bcf86cd799439011\")}).limit(5)",
        "db.users.find({name: '?', _id: ObjectId(\"?\")}).limit(?)",
    ),
    ("db.getCollection('users').find({\"a.b\": /^s3cret/i})", "db.getCollection('users').find({\"a.b\": ?})"),
    ("find {'name': 'it\\'s s3cret'}", "find {'name': '?'}"),
    ('users.find({"x": secret, y: my.secret})', 'users.find({"x": ?, y: ?.?})'),
    ('{"a": "b" // s3cret\n}', '{"a": "?"  \n}'),
    ('{"a": "s3cret', '{"a": ?'),
    ('{"a": true, "b": null, c: [1, 2]}', '{"a": true, "b": null, c: [?, ?]}'),
    ('{:find=>"users", "filter"=>{"name"=>"s3cret"}}', '{:find=>"users", "filter"=>{"name"=>"?"}}'),
    ('{"index":{"_index":"users","_id":"1"}}\n{"a":"s3cret"}', '{"index":{"_index":"users","_id":"?"}}\n{"a":"?"}'),
    ('{"TableName":"Users","Key":{"id":{"S":"s3cret"}}}', '{"TableName":"Users","Key":{"id":{"S":"?"}}}'),
    ('POST /users/_search {"query":{"match":{"a":"s3cret"}}}', 'POST /users/_search {"query":{"match":{"a":"?"}}}'),
    ("GET /users/_doc/s3cret?q=user:s3cret&size=5", "GET /users/_doc/??q=?&size=?"),
    ("GET /logs-2024.01.01/_search", "GET /logs-2024.01.01/_search"),
    ("find users", "find users"),
    ("find my s3cret", "find my ?"),
    ('{"find":"c","filter":{"a":"?"}}', '{"find":"c","filter":{"a":"?"}}'),
    ('mongodb {"find":"c","filter":{"a":"?"}}', 'mongodb {"find":"c","filter":{"a":"?"}}'),
    ('{"find": "c", "filter": {"a": ?}}', '{"find": "c", "filter": {"a": ?}}'),
    ("{}", "{}"),
]


@pytest.mark.parametrize(("text", "shape"), SHAPES, ids=lambda text: text[:40])
def test_shapes(text: str, shape: str) -> None:
    assert obfuscate(text.encode()).decode() == shape
    assert obfuscate(shape.encode()).decode() == shape


def test_what_is_no_document() -> None:
    assert not any(map(begin, (b"SELECT 1", b"SET a b", b"my secret", b"GET key", b"delete from t")))


def test_many_tokens() -> None:
    shape = obfuscate(b"[" + b"1," * (MAX_TOKENS + 9) + b"'s3cret'")
    assert shape.count(b"?") == MAX_TOKENS + 1
    assert b"s3cret" not in shape
