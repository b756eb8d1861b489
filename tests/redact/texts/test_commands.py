"""Commands of Redis and memcached without their values."""

from __future__ import annotations

import pytest

from sampler_proxy.redact.texts.commands import MAX_ARGUMENTS, MAX_LINES, obfuscate

SHAPES = [
    ("SET session:42 s3cret", "SET session:42 ?"),
    ("set k v ex 60 nx", "set k ? ex ? nx"),
    ("SET k v EX 60 NX", "SET k ? EX ? NX"),
    ("SETEX k 60 s3cret", "SETEX k ? ?"),
    ("RENAME a b", "RENAME a b"),
    ("AUTH s3cret", "AUTH ?"),
    ("AUTH default s3cret", "AUTH ? ?"),
    ("HELLO 3 AUTH default s3cret SETNAME app", "HELLO ? AUTH ? ? SETNAME ?"),
    ("CONFIG SET requirepass s3cret", "CONFIG SET requirepass ?"),
    ("CONFIG GET *", "CONFIG GET *"),
    ("ACL SETUSER bob on >s3cret ~* +@all", "ACL SETUSER ? ? ? ~* ?"),
    ("SENTINEL SET mymaster auth-pass s3cret", "SENTINEL SET ? ? ?"),
    ("MIGRATE 10.0.0.1 6379 key 0 5000 COPY AUTH s3cret KEYS a b", "MIGRATE ? ? ? ? ? COPY AUTH ? KEYS ? ?"),
    ("LPUSH list a s3cret", "LPUSH list ? ?"),
    ("ZADD z NX 1 s3cret", "ZADD z NX ? ?"),
    ("XADD s MAXLEN ~ 1000 * f s3cret", "XADD s MAXLEN ~ ? * ? ?"),
    ("PUBLISH channel s3cret", "PUBLISH channel ?"),
    ("EVAL \"return redis.call('get', KEYS[1])\" 1 key s3cret", "EVAL ? ? ? ?"),
    ('JSON.SET doc:1 $ {"a":"s3cret"}', "JSON.SET doc:1 $ ?"),
    ("FT.SEARCH idx @name:s3cret", "FT.SEARCH idx ?"),
    ("DEL a b c", "DEL a b c"),
    ("OBJECT ENCODING k", "OBJECT ENCODING k"),
    ("MULTI", "MULTI"),
    ("incr counter 5", "incr counter ?"),
    ("put /config/app s3cret", "put /config/app ?"),
    # A value with spaces looks like several arguments: a name behind it is not believed.
    ("HSET h f s3cret", "HSET h f ?"),
    ("HSET h f v g s3cret", "HSET h f ? ? ?"),
    ("HSET h f my s3cret g is w", "HSET h f ? ? ? ? ?"),
    ('HSET h f "my s3cret" g "w"', "HSET h f ? g ?"),
    ("MSET a 1 b s3cret", "MSET a ? ? ?"),
    ("GET key s3cret", "GET key ?"),
    # Names of keys that hold a secret.
    ("GET session:9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c", "GET session:?"),
    ("GET sess_9f8a7b6c5d4e", "GET sess_?"),
    ("GET user:42:token:abcD1234", "GET user:42:token:?"),
    ("RENAME session:a1b2c3d4e5f6 session:old", "RENAME session:? session:old"),
    ("GET otp:482913", "GET otp:?"),
    ("GET 9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c", "GET ?"),
    ("GET session:user:42", "GET session:user:42"),
    ("GET cache:v2:orders/7", "GET cache:v2:orders/7"),
    # Pipelines, and values of several lines.
    ("SET a b\nGET c\nDEL d e", "SET a ?\nGET c\nDEL d e"),
    ("SET a one\ns3cret two\nget s3cret", "SET a ?\n?\n?"),
    ("set k 0 0 5\r\ns3cret\r\n", "set k ? ? ?\r\n?\r\n"),
    ("replace k 0 0 5\r\nget s3cret\r\n", "replace k ? ? ?\r\n?\r\n"),
    ("*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n", "?\r\n?\r\n?\r\n?\r\n?\r\n"),
    # What sanitisers print.
    ("SET ? ?", "SET ? ?"),
    ("SET session:? ?", "SET session:? ?"),
    ("HSET myhash field1 ? field2 ?", "HSET myhash field1 ? field2 ?"),
    ("MSET a ? b ?", "MSET a ? b ?"),
    ("set key [1 other arguments]", "set key [1 other arguments]"),
    ("EVALSHA ? ? ?", "EVALSHA ? ? ?"),
    # No command that we know.
    ("FROB name s3cret", "FROB name ?"),
    ("FROB s3cret", "FROB ?"),
    ("s3cret", "?"),
]


@pytest.mark.parametrize(("text", "shape"), SHAPES, ids=lambda text: text[:40])
def test_shapes(text: str, shape: str) -> None:
    assert obfuscate(text.encode()).decode() == shape
    assert obfuscate(shape.encode()).decode() == shape


def test_many_arguments() -> None:
    shape = obfuscate(b"DEL" + b" k" * (MAX_ARGUMENTS + 9))
    assert shape == b"DEL" + b" k" * MAX_ARGUMENTS + b" ?"
    assert obfuscate(shape) == shape


def test_many_lines() -> None:
    assert obfuscate(b"GET k\n" * MAX_LINES) == b"GET k\n" * MAX_LINES
    shape = obfuscate(b"GET k\n" * (MAX_LINES + 2))
    assert shape == b"GET k\n" * MAX_LINES + b"?"
    assert obfuscate(shape) == shape
