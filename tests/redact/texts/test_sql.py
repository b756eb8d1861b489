"""Statements of several dialects without their literals."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.texts.sql import MAX_BYTES, UNREADABLE, obfuscate

SHAPES = [
    ("SELECT * FROM users WHERE id = 42", "SELECT * FROM users WHERE id = ?"),
    ("SELECT * FROM users WHERE name = 'O''Brien' AND x = ''", "SELECT * FROM users WHERE name = ? AND x = ?"),
    ("select a from t where b = -1.5e-3 or c = .5 or d=0x1F", "select a from t where b = -? or c = .? or d=?"),
    ("SELECT 1, 1.5, 1e10, 12:30, 3L", "SELECT ?, ?, ?, ?:?, ?"),
    ("SELECT x'1F', X'1f', b'01', N'nat', E'it\\'s', 'a' 'b'", "SELECT ?, ?, ?, ?, ?, ? ?"),
    ("SELECT U&'d\\0061t', _utf8'abc', DATE '2020-01-01'", "SELECT U&?, _utf8?, DATE ?"),
    ("SELECT $$it's secret$$, $tag$a $$ b$tag$ FROM t", "SELECT ?, ? FROM t"),
    ("SELECT a::int, b->>'k', c[1] FROM t", "SELECT a::int, b->>?, c[?] FROM t"),
    ("SELECT * FROM t WHERE a = $1 AND b = $2", "SELECT * FROM t WHERE a = ? AND b = ?"),
    ("SELECT f($1,$2), g($a,$b)", "SELECT f(?,?), g($a,$b)"),
    ("UPDATE t SET a = :a, b = %s, c = %(c)s, d = @d, e = ?", "UPDATE t SET a = :a, b = %s, c = %(c)s, d = @d, e = ?"),
    ("SELECT * FROM t WHERE a IN (1, 2, 3) AND b in('x')", "SELECT * FROM t WHERE a IN (?) AND b in (?)"),
    ("SELECT * FROM t WHERE a IN ($1, $2) OR a IN (:a, :b)", "SELECT * FROM t WHERE a IN (?) OR a IN (?)"),
    (
        "SELECT * FROM t WHERE a IN (SELECT b FROM u WHERE c = 1)",
        "SELECT * FROM t WHERE a IN (SELECT b FROM u WHERE c = ?)",
    ),
    ("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y'), (-3, NULL)", "INSERT INTO t (a, b) VALUES (?, ?)"),
    ("INSERT INTO t VALUES (1, now()), (2, f(x))", "INSERT INTO t VALUES (?, now()), (?, f(x))"),
    ("SELECT a -- the secret\nFROM t", "SELECT a FROM t"),
    ("/* trace_id=1 */ SELECT a /* secret */ FROM /* x */ t", "SELECT a FROM t"),
    ("SELECT a FROM t /*+ hint */", "SELECT a FROM t"),
    ("SELECT /* a /* nested */ 'x' */ 1", "SELECT ? ?"),
    ("SELECT a #>> '{b}' AS x\nFROM t", "SELECT a #>> ? AS x\nFROM t"),
    ('CREATE USER b IDENTIFIED WITH p AS "hash"', "CREATE USER b IDENTIFIED WITH p AS ?"),
    ('CREATE FUNCTION f() AS "body"', "CREATE FUNCTION f() AS ?"),
    ("SELECT a FROM t # secret\nWHERE b = 1", "SELECT a FROM t WHERE b = ?"),
    ("SELECT\n\ta\nFROM t\n", "SELECT\n\ta\nFROM t\n"),
    ("SELECT `order`, `a b` FROM `t`", "SELECT `order`, `a b` FROM `t`"),
    ("SELECT [Order Details].a FROM [Order Details]", "SELECT [Order Details].a FROM [Order Details]"),
    (
        'SELECT "u"."id", "n" FROM "users" AS "u" WHERE "n" = \'x\'',
        'SELECT "u"."id", "n" FROM "users" AS "u" WHERE "n" = ?',
    ),
    ('SELECT * FROM users WHERE name = "secret"', "SELECT * FROM users WHERE name = ?"),
    ('INSERT INTO users (name) VALUES ("secret")', "INSERT INTO users (name) VALUES (?)"),
    ('SELECT "secret", a AS "label" FROM t', 'SELECT ?, a AS "label" FROM t'),
    ('SELECT TRIM("s" FROM "secret"), EXTRACT(day FROM "secret")', "SELECT TRIM(? FROM ?), EXTRACT(day FROM ?)"),
    ('SELECT * FROM "t" WHERE a = "alice@example.com"', 'SELECT * FROM "t" WHERE a = ?'),
    ("SELECT * FROM t WHERE id = 550e8400-e29b-41d4-a716-446655440000", "SELECT * FROM t WHERE id = ?"),
    ("SELECT * FROM t WHERE id = e50e8400-e29b-41d4-a716-446655440000", "SELECT * FROM t WHERE id = ?"),
    ("SELECT 'C:\\\\dir', 'a\\tb'", "SELECT ?, ?"),
    ("ALTER USER bob IDENTIFIED BY hunter2", "ALTER USER bob IDENTIFIED BY ?"),
    ("CREATE USER bob IDENTIFIED BY 'hunter2'", "CREATE USER bob IDENTIFIED BY ?"),
    ('CREATE USER "bob" IDENTIFIED BY "hunter2"', "CREATE USER ? IDENTIFIED BY ?"),
    ("SET search_path TO app", "SET search_path TO app"),
    ("SET x = 'secret'", "SET x = ?"),
    ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT ?) SELECT * FROM a"),
    ("EXEC sp_login @user = N'bob', @n = 1", "EXEC sp_login @user = ?, @n = ?"),
    ("BEGIN; UPDATE t SET a = 1; COMMIT;", "BEGIN; UPDATE t SET a = ?; COMMIT;"),
    ("SELECT größe FROM t WHERE a = 'größe'", "SELECT größe FROM t WHERE a = ?"),
    ("SELECT * FROM t LIMIT 10 OFFSET 20", "SELECT * FROM t LIMIT ? OFFSET ?"),
    ("SELECT col1, t2.c3 FROM t2", "SELECT col1, t2.c3 FROM t2"),
    ("CALL pay('4111111111111111', 12.50)", "CALL pay(?, ?)"),
    ("", ""),
    ("  ", "  "),
]


@pytest.mark.parametrize(("statement", "shape"), SHAPES, ids=lambda text: text[:40])
def test_shapes(statement: str, shape: str) -> None:
    assert obfuscate(statement.encode()).decode() == shape


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'unterminated",
        'SELECT "unterminated',
        "SELECT $$unterminated",
        "SELECT * FROM t WHERE a = 'O\\'Brien secret'",  # in the standard the string ends at the second quote
        "SELECT 'a\\', secret, 'b'",
        "SELECT q'[it's secret]' FROM dual",
        "SELECT q'[a'secret'b]' FROM dual",
        "SELECT '''a'secret'b''' FROM t",
        'SELECT """a"secret"b""" FROM t',
        "SELECT [it's] = 'secret' OR [b's] = 'x'",
        "SELECT a --1 'x\n secret ' b",
        "SELECT a # 'x\n secret ' b",
        "SELECT a ` 'x` secret ` y' ` b",
        "SELECT \x00'secret'",
        "SET user:1 secret",
        "GET user:1",
        "HSET user name secret",
        '{"find": "users", "filter": {"name": "secret"}}',
        "db.users.find({name: 'secret'})",
        "my secret sentence",
        "Selection of secrets",
        "INSERT INTO t FORMAT CSV\n1,secret",
        "COPY t FROM STDIN;\nsecret\tword",
        "SELECT '" + "x" * MAX_BYTES + "'",
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_readable_goes_whole(statement: str) -> None:
    assert obfuscate(statement.encode()) == UNREADABLE


SECRET = "hunter2"
LITERALS = [
    f"'{SECRET}'",
    f"'it''s {SECRET}'",
    f"'{SECRET}\n{SECRET}'",
    f"E'a\\'{SECRET}'",
    f"N'{SECRET}'",
    f"$${SECRET}'$$",
    f"$q${SECRET} $$ $q$",
    f"/* {SECRET} */ 1",
    f"1 -- {SECRET}\n",
    f"'a\\\\{SECRET}'",
    f'"{SECRET}@x"',
    f"0x{SECRET}",
    f"12{SECRET}",
    "4111111111111111",
    "-12.5",
    "?",
    ":name",
]
WORDS = ["SELECT", "FROM t", "WHERE a =", "AND", "(", ")", ",", "IN (", "VALUES (", '"t"."c"', "`x`", "b", "::int"]
WORDS += ["/", "#", ";", "\n", "AS", "\\", "$", "-"]


@given(st.lists(st.sampled_from(LITERALS) | st.sampled_from(WORDS), max_size=12))
def test_no_literal_is_left_and_obfuscation_is_idempotent(parts: list[str]) -> None:
    shape = obfuscate(("SELECT " + " ".join(parts)).encode())
    assert SECRET.encode() not in shape
    assert not re.search(rb"(?<![\w?])[0-9]", shape)
    assert b"'" not in shape
    assert obfuscate(shape) == shape


@given(st.binary(max_size=120) | st.text(st.sampled_from("'\"`$\\\n-/*#qe[]1a "), max_size=60).map(str.encode))
def test_any_bytes(statement: bytes) -> None:
    for text in (statement, b"SELECT " + statement):
        shape = obfuscate(text)
        assert obfuscate(shape) == shape
        assert (
            not text.strip()
            or (b"'" not in shape and not re.search(rb"(?<![\w$\x80-\xff])\$\$", shape))
            or shape == UNREADABLE
        )


@given(st.text(st.characters(exclude_characters="'\\$", exclude_categories=["Cs"]), max_size=30))
def test_what_a_string_holds_never_matters(inside: str) -> None:
    assert obfuscate(f"SELECT a FROM t WHERE b = 'x{inside}'".encode()) in (b"SELECT a FROM t WHERE b = ?", UNREADABLE)


def test_long_lists_of_numbers_and_parameters() -> None:
    numbers = ", ".join(map(str, range(2500))).encode()
    assert obfuscate(b"SELECT a FROM t WHERE b IN (" + numbers + b") AND c = 'x'") == (
        b"SELECT a FROM t WHERE b IN (?) AND c = ?"
    )
    rows = ",".join(f"({i}, ?, -{i}.5)" for i in range(700)).encode()
    assert obfuscate(b"INSERT INTO t VALUES " + rows) == b"INSERT INTO t VALUES (?, ?, -?)"
    texts = ",".join(f"({i}, 'alice {i}', 'a{i}@b.example')" for i in range(300)).encode()
    assert obfuscate(b"INSERT INTO t VALUES " + texts) == b"INSERT INTO t VALUES (?, ?, ?)"
    columns = ", ".join(f'"users"."column_{i}" AS "t0_r{i}"' for i in range(300)).encode()
    assert obfuscate(b"SELECT " + columns + b' FROM "users"').endswith(b'AS "t0_r299" FROM "users"')


def test_far_more_signs_than_a_statement_has() -> None:
    assert obfuscate(b"SELECT a FROM t WHERE " + b"a+," * 2000 + b"'x'") == b"?"
    assert (
        obfuscate(b"SELECT a FROM t WHERE b = " + b"1+" * 200 + b"1")
        == b"SELECT a FROM t WHERE b = " + b"?+" * 200 + b"?"
    )
