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
    ("SELECT f($1,$2), g($a,$b) FROM t WHERE x = 5", "SELECT f($1,$2), g($a,$b) FROM t WHERE x = ?"),
    ("UPDATE t SET a = :a, b = %s, c = %(c)s, d = @d, e = ?", "UPDATE t SET a = :a, b = %s, c = %(c)s, d = @d, e = ?"),
    ("SELECT * FROM t WHERE a IN (1, 2, 3) AND b in('x')", "SELECT * FROM t WHERE a IN (?) AND b in (?)"),
    (
        "SELECT * FROM t WHERE a IN ($1, $2) OR a IN (:a, :b) AND c = 5",
        "SELECT * FROM t WHERE a IN (?) OR a IN (?) AND c = ?",
    ),
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
    ("ALTER USER bob IDENTIFIED BY new REPLACE old", "ALTER USER bob IDENTIFIED BY ? REPLACE ?"),
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
    # Where dialects disagree: the reading without faults, or what any reading takes for a literal.
    ("SELECT * FROM t WHERE a LIKE @p ESCAPE N'\\' AND b = 'x'", "SELECT * FROM t WHERE a LIKE @p ESCAPE ? AND b = ?"),
    ("SELECT * FROM t WHERE a = 'O\\'Brien' AND b = 'x'", "SELECT * FROM t WHERE a = ? AND b = ?"),
    ("SELECT * FROM t WHERE a = 'O\\'Brien secret'", "SELECT * FROM t WHERE a = ?"),
    ("INSERT INTO f VALUES ('C:\\temp\\', 'b', 'x')", "INSERT INTO f VALUES (?, ?, ?)"),
    ("SELECT a FROM t WHERE b = 'it is \\', ' , '-secret')", "SELECT a FROM t WHERE b = ?"),
    ("SELECT 'a\\', secret, 'b'", "SELECT ?, secret, ?"),  # in MySQL a word would stand next to a string
    ("select x from y where a='x'and b='C:\\'and c='d'", "select x from y where a=?and b=?and c=?"),
    ("SELECT q'[it's secret]' FROM dual", "SELECT ? FROM dual"),
    ("SELECT q'[a'secret'b]' FROM dual", "SELECT ? FROM dual"),
    ("SELECT '''a'secret'b''' FROM t", "SELECT ? FROM t"),
    ('SELECT """a"secret"b""" FROM t', "SELECT ? FROM t"),
    ("SELECT [it's] = 'secret' OR [b's] = 'x'", "SELECT ? = ? OR ? = ?"),
    ("SELECT a FROM #tmp JOIN ##all ON x = 'y'", "SELECT a FROM #tmp JOIN ##all ON x = ?"),
    ("SELECT a // it's a secret\nFROM t", "SELECT a ?"),
    # What is not closed reaches to the end.
    ("SELECT 'unterminated", "SELECT ?"),
    ("SELECT a, $$unterminated", "SELECT a, ?"),
    ("SELECT a ` 'x` secret ` y' ` b", "SELECT a ?"),
    ("SELECT a, \x00'secret'", "SELECT a, ?"),
    ("INSERT INTO t FORMAT CSV\n1,secret", "INSERT INTO t FORMAT CSV\n?"),
    ("COPY t FROM STDIN;\nsecret\tword", "COPY t FROM STDIN;\n?"),
    # Secrets that need no quotes.
    ("CREATE USER u PASSWORD secret", "CREATE USER u PASSWORD ?"),
    ("ALTER ROLE u WITH PASSWORD secret LOGIN", "ALTER ROLE u WITH PASSWORD ? LOGIN"),
    (
        "ALTER LOGIN sa WITH PASSWORD = secret, CHECK_POLICY = OFF",
        "ALTER LOGIN sa WITH PASSWORD = ?, CHECK_POLICY = OFF",
    ),
    ("ALTER USER bob IDENTIFIED BY s3!cr-et;", "ALTER USER bob IDENTIFIED BY ?;"),
    ("ALTER USER a PASSWORD EXPIRE INTERVAL 90 DAY", "ALTER USER a PASSWORD EXPIRE INTERVAL ? DAY"),
    ("SET PASSWORD FOR bob = secret", "SET PASSWORD FOR bob = ?"),
    ("SET PASSWORD FOR 'bob'@'%' = PASSWORD('secret')", "SET PASSWORD FOR ?@? = PASSWORD(?)"),
    ("SET s3_secret_access_key=secret", "SET s3_secret_access_key=?"),
    ("PRAGMA key = secret", "PRAGMA key = ?"),
    ("ATTACH DATABASE 'a.db' AS e KEY secret", "ATTACH DATABASE ? AS e KEY ?"),
    ("CREATE SECRET s (TYPE S3, KEY_ID secret, SECRET secret)", "CREATE SECRET s (TYPE S3, KEY_ID ?, SECRET ?)"),
    (
        "COPY t FROM 's3://b' ACCESS_KEY_ID a SECRET_ACCESS_KEY secret CSV",
        "COPY t FROM ? ACCESS_KEY_ID ? SECRET_ACCESS_KEY ? CSV",
    ),
    (
        "CREATE DATABASE LINK l CONNECT TO scott IDENTIFIED BY secret USING 'db'",
        "CREATE DATABASE LINK l CONNECT TO scott IDENTIFIED BY ? USING ?",
    ),
    (
        "CREATE USER MAPPING FOR u SERVER s OPTIONS (user bob, password secret)",
        "CREATE USER MAPPING FOR u SERVER s OPTIONS (user bob, password ?)",
    ),
    ("CONNECT scott/secret@db", "CONNECT scott/?"),
    ("ATTACH 'x.db' (TYPE sqlite, KEY secret)", "ATTACH ? (TYPE sqlite, KEY ?)"),
    ("CREATE STAGE s CREDENTIALS=(AWS_SECRET_KEY=secret)", "CREATE STAGE s CREDENTIALS=(AWS_SECRET_KEY=?)"),
    ("SELECT a FROM t WHERE id IN (?, ?) /* trace=1 */", "SELECT a FROM t WHERE id IN (?, ?)"),
    ("EXEC sp_addlogin bob, secret", "EXEC sp_addlogin ?, ?"),
    ("EXEC sp_login @user = bob, @pw = N'x'", "EXEC sp_login @user = ?, @pw = ?"),
    ("SELECT * FROM dblink('password=x', 'select 1')", "SELECT * FROM dblink(?, ?)"),
]

UNCHANGED = [
    "SELECT * FROM t WHERE a = $1 AND b IN ($2, $3) AND c = $tag",
    "SELECT * FROM t WHERE a IN (?, ?, ?) AND b = %s AND c = %(name)s AND d = :name AND e = :1 AND f = ?1",
    "INSERT INTO t VALUES (?, ?), (?, ?)",
    "SELECT * FROM t WHERE a = {id:UInt64} AND b = {0} AND c = #{name} AND d = ${name} AND e = @P1",
    "{call getUser(?, ?)}",
    "{? = call f(?)}",
    'SELECT "users".* FROM "users" WHERE "users"."id" = $1 LIMIT $2',
    "SELECT password, token FROM users u WHERE u.password = $1 AND u.token = t.token",
    "CREATE TABLE users (password text, api_token text, secret_key text)",
    "UPDATE t SET password = u.password FROM u",
    "GRANT EXECUTE ON FUNCTION f TO bob",
    "EXEC dbo.GetUser",
    "EXECUTE s USING @a",
    "BEGIN pkg.proc(:1); END;",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = s.b",
    "SET search_path TO app, public",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET NAMES utf8mb4",
    "ROLLBACK TO SAVEPOINT sp1",
    "DROP TABLE IF EXISTS t",
    "VACUUM FULL t",
    "SHOW TABLES",
    "FETCH ALL FROM c",
    "BEGIN",
]


@pytest.mark.parametrize("statement", UNCHANGED)
def test_statements_without_literals_stay_byte_for_byte(statement: str) -> None:
    assert obfuscate(statement.encode()).decode() == statement


@pytest.mark.parametrize(("statement", "shape"), SHAPES, ids=lambda text: text[:40])
def test_shapes(statement: str, shape: str) -> None:
    assert obfuscate(statement.encode()).decode() == shape


@pytest.mark.parametrize(
    "statement",
    [
        "SET user:1 secret",
        "GET user:1",
        "HSET user name secret",
        "RENAME a secret",
        "replace key 0 0 6\r\nsecret",
        "modify uid=bob secret",
        "DELETE /users/_doc/secret",
        '{"find": "users", "filter": {"name": "secret"}}',
        "db.users.find({name: 'secret'})",
        "MATCH (n) WHERE n.a = secret RETURN n",
        "my secret sentence",
        "Selection of secrets",
        "select secret for me",
        "show me the secret",
        "use password secret",
    ],
)
def test_what_does_not_begin_like_sql_goes_whole(statement: str) -> None:
    assert obfuscate(statement.encode()) == UNREADABLE


def test_of_a_long_statement_the_beginning_stays() -> None:
    statement = b"SELECT a FROM t WHERE b = 'x' AND c IN (" + b"'secret 1', " * 2000 + b"'x')"
    assert len(statement) > MAX_BYTES
    shape = obfuscate(statement)
    assert shape.startswith(b"SELECT a FROM t WHERE b = ? AND c IN (?, ?, ")
    assert shape.endswith(b" ?")
    assert b"secret" not in shape
    assert obfuscate(shape) == shape
    assert obfuscate(b"SELECT '" + b"x" * MAX_BYTES + b"'") == b"SELECT ?"


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
def test_no_literal_is_left(parts: list[str]) -> None:
    shape = obfuscate(("SELECT " + " ".join(parts)).encode())
    assert SECRET.encode() not in shape
    assert not re.search(rb"(?<![\w?])[0-9]", shape)
    assert b"'" not in shape


@given(st.binary(max_size=120) | st.text(st.sampled_from("'\"`$\\\n-/*#qe[]1a "), max_size=60).map(str.encode))
def test_any_bytes(statement: bytes) -> None:
    for text in (statement, b"SELECT " + statement):
        shape = obfuscate(text)
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


def test_many_literals() -> None:
    """What is behind thousands of them goes, and so does what is behind signs of many dialects."""
    assert (
        obfuscate(b"SELECT a FROM t WHERE b = " + b"1+" * 200 + b"1")
        == b"SELECT a FROM t WHERE b = " + b"?+" * 200 + b"?"
    )
    shape = obfuscate(b"SELECT a FROM t WHERE b = " + b"1+" * 6000 + b"secret")
    assert shape.startswith(b"SELECT a FROM t WHERE b = ?+?+")
    assert b"secret" not in shape
    assert obfuscate(b"SELECT a, 'b' FROM t WHERE c = 'x\\'y' # z\n AND d = q'[x]' --e\n AND f = secret").startswith(
        b"SELECT a, ? FROM t WHERE c = ?"
    )


def test_more_words_in_quotes_than_are_looked_at() -> None:
    """None of them is taken for a name then, whatever stands beside it."""
    few, many = ('SELECT "a" FROM "t" WHERE "a" IN (' + ", ".join(['"b"'] * n) + ")" for n in (900, 1100))
    assert obfuscate(few.encode()) == few.encode()
    assert b'"' not in obfuscate(many.encode())
