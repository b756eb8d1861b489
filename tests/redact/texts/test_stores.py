"""Statements by the store that they are for, or by their own text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.lanes import Family
from sampler_proxy.redact.texts.stores import FAMILIES, family_of, obfuscate

SQL, COMMANDS, DOCUMENTS, QUERIES, DIRECTORY, BY_TEXT = Family


@pytest.mark.parametrize(
    ("system", "family"),
    [
        *(("postgresql", SQL), ("MySQL", SQL), ("microsoft.sql_server", SQL), ("oracle.db", SQL), ("cassandra", SQL)),
        *(("redis", COMMANDS), ("memcached", COMMANDS), ("mongodb", DOCUMENTS), ("aws.dynamodb", DOCUMENTS)),
        *(("elasticsearch", DOCUMENTS), ("neo4j", QUERIES), ("prometheus", QUERIES), ("activedirectory", DIRECTORY)),
        *(("", BY_TEXT), ("something else", BY_TEXT)),
    ],
)
def test_names_of_stores(system: str, family: Family) -> None:
    assert family_of(system) is family


def test_names_are_listed_once_and_in_lower_case() -> None:
    assert all(name == name.lower() for name in FAMILIES)
    assert {*FAMILIES.values()} == {*Family} - {BY_TEXT}


SHAPES = [
    (SQL, "SELECT a FROM t WHERE b = 's3cret'", "SELECT a FROM t WHERE b = ?"),
    (SQL, "dbo.GetUser", "dbo.GetUser"),
    (SQL, "FROB name s3cret", "FROB name ?"),
    (SQL, "MATCH (u:User {token: 's3cret'}) RETURN u", "MATCH (u:User {token: ?}) RETURN u"),
    (COMMANDS, "SET x = s3cret", "SET x = ?"),
    (COMMANDS, "SELECT 5", "SELECT ?"),
    (COMMANDS, "DELETE s3cret FROM t", "DELETE s3cret ? ?"),
    (DOCUMENTS, "SELECT * FROM c WHERE c.a = 's3cret'", "SELECT * FROM c WHERE c.a = ?"),
    (DOCUMENTS, "GetItem", "GetItem"),
    (DOCUMENTS, '{"a": "s3cret"}', '{"a": "?"}'),
    (QUERIES, 'SELECT mean("v") FROM "cpu" WHERE h = \'s3cret\'', 'SELECT mean("v") FROM "cpu" WHERE h = ?'),
    (QUERIES, "MATCH (n:U {a: 's3cret', b: \"s3cret\", c: 5}) RETURN n", "MATCH (n:U {a: ?, b: ?, c: ?}) RETURN n"),
    (QUERIES, "MATCH (n {a: $a}) WHERE n.`my b` > $b RETURN n", "MATCH (n {a: $a}) WHERE n.`my b` > $b RETURN n"),
    (QUERIES, 'up{job="s3cret", path=~`s3cret`}[5m]', "up{job=?, path=~?}[?]"),
    (
        QUERIES,
        'PREFIX f: <http://x/y#z> SELECT ?a { ?a f:n "s3cret". }',
        "PREFIX f: <http://x/y#z> SELECT ?a { ?a f:n ?. }",
    ),
    (QUERIES, 'T | where A == "s3cret" | take 5 // s3cret', "T | where A == ? | take ?"),
    (QUERIES, "put 'table', 'row', 'cf:a', 's3cret'", "put ?, ?, ?, ?"),
    (QUERIES, "my s3cret sentence", "my ?"),
    (DIRECTORY, "(uid=s3cret)", "(uid=?)"),
    (DIRECTORY, "(&(objectClass=*)(|(cn=s3*)(mail~=s3cret)))", "(&(objectClass=*)(|(cn=?)(mail~=?)))"),
    (DIRECTORY, "(!(cn:dn:=s3cret)) s3cret", "(!(cn:dn:=?)) ?"),
    (DIRECTORY, "(userPassword=s3\\28cret\\29)", "(userPassword=?)"),
    (DIRECTORY, "modify uid=bob userPassword s3cret", "modify ?"),
    (DIRECTORY, "BIND cn=admin,dc=acme s3cret", "BIND ?"),
    (
        DIRECTORY,
        "dn: uid=bob\nchangetype: modify\nreplace: userPassword\nuserPassword: s3cret\n s3cret",
        "dn: ?\nchangetype: modify\nreplace: userPassword\nuserPassword: ?\n?",
    ),
    (BY_TEXT, "SET session:42 s3cret", "SET session:42 ?"),
    (BY_TEXT, "RENAME a b", "RENAME a b"),
    (BY_TEXT, "replace k 0 0 5\r\ns3cret", "replace k ? ? ?\r\n?"),
    (BY_TEXT, "CREATE USER u PASSWORD s3cret", "CREATE USER u PASSWORD ?"),
    (BY_TEXT, "modify uid=bob s3cret", "modify ? ?"),
    (BY_TEXT, "DELETE /users/_doc/s3cret", "DELETE /users/_doc/?"),
    (BY_TEXT, '{"find":"c","filter":{"a":"s3cret"}}', '{"find":"c","filter":{"a":"?"}}'),
    (BY_TEXT, 'CREATE (n:User {pw: "s3cret"})', "CREATE (n:User {pw: ?})"),
    (BY_TEXT, "(&(uid=s3cret)(a=b))", "(&(uid=?)(a=?))"),
    (BY_TEXT, "g.V().has('name','s3cret')", "g.V().has(?,?)"),
    (BY_TEXT, 'FOR u IN users FILTER u.name == "s3cret" RETURN u', "FOR u IN users FILTER u.name == ? RETURN u"),
    (BY_TEXT, 'from(bucket:"s3cret") |> range(start: -1h)', "from(bucket:?) |> range(start: -?)"),
    (BY_TEXT, "-- name: GetUser\nSELECT * FROM users WHERE id = $1", "SELECT * FROM users WHERE id = $1"),
    (BY_TEXT, "near: INSERT INTO users VALUES ('s3cret')", "?"),
    (BY_TEXT, "my s3cret sentence", "my ? ?"),
    (BY_TEXT, "see TICKET-****", "see TICKET-****"),
    (BY_TEXT, "see s3cret****", "see ?"),
    (BY_TEXT, "findOne", "findOne"),
    (BY_TEXT, "?", "?"),
    (BY_TEXT, " ", " "),
]


@pytest.mark.parametrize(("family", "text", "shape"), SHAPES, ids=lambda value: str(value)[:40])
def test_shapes(family: Family, text: str, shape: str) -> None:
    assert obfuscate(family, text.encode()).decode() == shape
    assert obfuscate(family, shape.encode()).decode() == shape


WORDS = """SELECT a FROM t WHERE x = IN ( ) , ; INSERT INTO VALUES UPDATE SET CREATE USER PASSWORD IDENTIFIED BY EXEC
p @a CONNECT / KEY get GET HSET DEL k AUTH { } [ ] : " ' ` $ $$ -- # /* */ // ? $1 %s 12 0x1F 'x' "y" `z` E'a' q'[ ]'
\'\'\' db.c.find( find $set POST /idx/_search ?q=a & | (uid= *) dn: MATCH (n RETURN PREFIX <http://x#y> . ~ = => -5
session:42 token:ab12 é AS "u"."id" FORMAT CSV BEGIN"""
PIECES = [*WORDS.split(), "\\", "\n", "\r\n", '"""']
STARTS = ("", "SELECT ", "{", "GET ", "INSERT INTO t VALUES (", "EXEC p ", "CREATE USER b ", "db.c.find(", "(a=")


@given(st.sampled_from(STARTS), st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(["", " "]))
def test_obfuscation_is_idempotent(start: str, pieces: list[str], between: str) -> None:
    text = (start + between.join(pieces)).encode()
    for family in Family:
        shape = obfuscate(family, text)
        assert obfuscate(family, shape) == shape


@given(st.binary(max_size=80))
def test_any_bytes(text: bytes) -> None:
    for family in Family:
        shape = obfuscate(family, text)
        assert obfuscate(family, shape) == shape


SECRET = "zebra-77"


def doubled(quote: str, text: str) -> str:
    return quote + text.replace(quote, 2 * quote) + quote


def escaped(quote: str, text: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


# Writers of literals, and of comments, by dialect: PostgreSQL, MySQL, Oracle, Transact-SQL, BigQuery, Snowflake.
DIALECTS = [
    [
        lambda text: doubled("'", text),
        lambda text: "E" + escaped("'", text),
        lambda text: "$$" + text.replace("$", "") + "$$",
        lambda text: f"1 /* {text.replace('*/', '').replace('/*', '')} */",
        lambda text: f"1 -- {text.replace(chr(10), '')}\n",
    ],
    [
        lambda text: escaped("'", text),
        lambda text: escaped('"', text),
        lambda text: f"1 # {text.replace(chr(10), '')}\n",
        lambda text: f"1 -- {text.replace(chr(10), '')}\n",
    ],
    [lambda text: doubled("'", text), lambda text: f"q'[{text.replace(']', '')}]'"],
    [lambda text: "N" + doubled("'", text)],
    [
        lambda text: escaped("'", text),
        lambda text: "'''" + escaped("'", text)[1:-1] + "'''",
        lambda text: f"1 # {text.replace(chr(10), '')}\n",
    ],
    [
        lambda text: escaped("'", text),
        lambda text: "$$" + text.replace("$", "") + "$$",
        lambda text: f"1 // {text.replace(chr(10), '')}\n",
    ],
]
AROUND = (
    "it's ",
    "x\\",
    'say "',
    ", ",
    "-- ",
    "/* ",
    "# ",
    "// ",
    "$$",
    "`",
    ")",
    "C:\\d\\",
    "'",
    "''",
    "\n",
    "{",
    "]",
    "é",
)
STATEMENTS = (
    "SELECT a FROM t WHERE x = {} AND y = {} ORDER BY z",
    "INSERT INTO t (a, b) VALUES ({}, {})",
    "UPDATE t SET a = {}, b={} WHERE c = d",
    "CALL p({}, {})",
)


@given(st.data())
def test_a_literal_never_leaves_whatever_dialect_writes_it(data: st.DataObject) -> None:
    """Nor do those of a statement that was cut off."""
    writers = data.draw(st.sampled_from(DIALECTS))
    around = st.lists(st.sampled_from(AROUND), max_size=2).map("".join)
    values = [
        data.draw(st.sampled_from(writers))(data.draw(around) + SECRET + data.draw(around)),
        data.draw(st.sampled_from(writers))(data.draw(around) + data.draw(st.sampled_from(["", "b"]))),
    ]
    statement = data.draw(st.sampled_from(STATEMENTS)).format(*data.draw(st.permutations(values)))
    cut = data.draw(st.integers(0, len(statement)) | st.none())
    assert b"zebra" not in obfuscate(SQL, statement[:cut].encode())


@given(st.data())
def test_a_value_never_leaves_a_command_or_document(data: st.DataObject) -> None:
    inside = data.draw(st.lists(st.sampled_from(AROUND), max_size=2).map("".join)) + SECRET
    family, template = data.draw(
        st.sampled_from(
            [
                *((COMMANDS, one) for one in ("SET k {}", "HSET h f {}", "LPUSH l {}", "AUTH {}", "set k 0 0 9\r\n{}")),
                *(
                    (DOCUMENTS, one)
                    for one in ('{{"a": "{}"}}', '{{"a": {{"b": ["{}", 1]}}}}', 'db.c.find({{a: "{}"}})')
                ),
                (QUERIES, 'MATCH (n {{a: "{}"}}) RETURN n'),
                (DIRECTORY, "(&(uid={})(a=b))"),
            ]
        )
    )
    if family in (DOCUMENTS, QUERIES):
        inside = escaped('"', inside)[1:-1]
    if family is DIRECTORY:
        inside = inside.replace("\\", "\\5c").replace(")", "\\29").replace("(", "\\28")
    for one in (family, BY_TEXT):
        assert b"zebra" not in obfuscate(one, template.format(inside).encode())
