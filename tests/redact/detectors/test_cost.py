"""What looking takes, counted in calls and not in time: in proportion to the text, whatever it is made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from sampler_proxy.redact.detectors.catalogue import DETECTORS
from sampler_proxy.redact.lanes import Family
from sampler_proxy.redact.policy import Policy
from sampler_proxy.redact.texts import stores
from tests.support.redacting import policy

SIZE = 4000
CALLS_A_BYTE = 14

REPEATED = [
    *(
        "4111\u2011",
        "&nbsp;",
        "\uff14",
        "%B4111111111111111^A/",
        ";4111111111111=1",
        "ssn 1",
        "\u00ad1",
        "NO11_1 ",
        "B111111111111^a",
    ),
    *("DE11 ", "de11 ", "DE11-", "MT11 MT11 ", "DE11AAAA BBBB CCCC ", "NO11AAAAAAAAAAA ", "KZ11 111A ", "AD11AD11"),
    *("4111 ", "4111 1111 1111 1112 ", "4111111111111112 ", "4111-", "&pw=a", "'&pw=a", " pw=a", "--pw a ", "pw: a1,"),
    *(
        "a@b.c ",
        "a:b@tcp(",
        "a://b:c@d ",
        "123-45-6788 ",
        "bearer aaaaaaa1 ",
        "basic YTpi ",
        "eyJhIjoxfQ.a ",
        "%41",
        "%25",
    ),
    *(
        "'a':",
        '\\"a\\":',
        '"password":1 ',
        '"password":[',
        "\\u0041",
        "ghp_",
        "xoxb-1-",
        "ALTER USER a ",
        *(
            "password ",
            "password is ",
            "password: |\n  a\n",
            "password:\n  ",
            "pin ",
            "key ",
            "api key ",
            "code=",
            "code=1",
        ),
        *("token: ", "<password>", "<password a", "(password,", "name=password ", "name='token' ", "Key (token)=("),
        *("Key (a)=(1) ", "Cookie: a=b;", "Authorization: a ", "Authorization: Digest a=b,", "chpasswd ", "pass=("),
        *(
            "echo a | chpasswd ",
            "curl -u ",
            "mysql -p ",
            "curl a ",
            "net use a ",
            "htpasswd -b a b ",
            "password=&quot;",
        ),
        *(
            "password=a<",
            "password: Some(",
            "Duplicate entry 'a' for key 'token' ",
            "arn:secret:",
            "password=“",
            "\x1b[0m",
        ),
        "select 'a' ",
        "sk-",
        "glpat-",
        "hf_",
        "pat",
        "AAAA",
        "/reset/",
        "/hook/aB3dE5fG7h1J",
        "a://a:b@",
        "postgres://u:p ",
        "a://b:c/@",
        "a:b@c:80 ",
        "*:*:*:a:b\n",
        "$1$a",
        "AUTH default x ",
        '"kty":"EC","d":"aaaaaaaaaaaaaaaaaaaa",',
    ),
    *("[", "{", "(", '{"a":', '["a","b"],', "['--a','b'],", '{"name":"a","value":"b"},', "[a]=>b ", 's:1:"a";'),
    *(
        "&quot;a&quot;:",
        "'a'->",
        "{a:'b'}",
        "Secret('x')",
        '["',
        "['",
        "/*",
        '"a":Some(',
        "\x1b[1m",
        '\\\\\\"a\\\\\\":',
    ),
]


def calls(work: Callable[[], object]) -> int:
    made = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return made


def of_size(part: str, size: int) -> bytes:
    return (part * (size // len(part) + 1))[:size].encode()


@pytest.fixture(scope="module")
def strict() -> Policy:
    found = policy({"preset": "strict", "values": [{"detect": "phone", "action": "mask"}]})
    assert found is not None
    return found


def looked_at(under: Policy, text: bytes) -> int:
    view = under.view(under.everything)
    view.apply(1, text)
    return calls(lambda: view.apply(1, text))


@pytest.mark.parametrize("part", REPEATED)
def test_calls_grow_with_the_text_and_are_few(part: str, strict: Policy) -> None:
    once, four_times = (looked_at(strict, of_size(part, size)) for size in (SIZE, 4 * SIZE))
    assert four_times < 4.5 * once + 200
    assert four_times < 4 * CALLS_A_BYTE * SIZE


COMBINED = [
    ('{"a":"', '"password":1 '),
    ('{"a":"', '"key":'),
    ("[", '["code='),
    ("", "sk-=>\xa0Bearer "),
    ("", "Duplicate entry 'a' for key 'token' [a]=>b \x1b[0mtoken"),
    ("", ">/>password "),
    ("[", "pin {a:'b'}%3D[a]=>b "),
    ("", "[a]=>b --from-literal=a=b AUTH default x "),
    ("(", '"key":insert into a values(\uff11\'&pw=a'),
    ('{"a":"', "\uff14/reset/'a'->password"),
    ("'", '\\nAUTH default x [a]=>b "kty":"EC","d":"aaaaaaaaaaaaaaaaaaaa",'),
    ('{"a":"', "header DE89370400440532013000&quot;"),
    ("", "'''password=&quot;123-45-6788 ["),
    ('{"a":"', '"a@b.c'),
    ("", "password=${"),
    ("", "Set-Cookie:a=b;"),
    ("", "?pw={"),
    ("", "key: |\n  "),
    ("", ")=("),
]
"""Beginnings, and what is repeated behind them: texts that several ways of reading see something in."""
LARGE = 65_000
CALLS_A_BYTE_OF_LARGE = 11


@pytest.mark.parametrize(("start", "part"), COMBINED)
def test_calls_for_large_texts_are_fewer(start: str, part: str, strict: Policy) -> None:
    """Whatever it is, it is given up where its budget ends."""
    assert looked_at(strict, start.encode() + of_size(part, LARGE - len(start))) < CALLS_A_BYTE_OF_LARGE * LARGE


MEMBERS = [
    "\n",
    "4111 1111 1111 1111\n",
    "a=b&c=d",
    "select a from b\n",
    '["[]"]',
    "DE11 DE11 DE11 DE11 DE11\n",
    "it's a@b.example",
    "--a\n",
    "{'a': b, 'c'",
]


@pytest.mark.parametrize("member", MEMBERS)
def test_calls_for_members_of_json_are_few(member: str, strict: Policy) -> None:
    text = json.dumps([member] * (4 * SIZE // len(json.dumps(member)))).encode()
    assert looked_at(strict, text) < CALLS_A_BYTE * len(text)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("part", REPEATED)
def test_calls_of_each_detector_are_few(part: str, name: str) -> None:
    find = DETECTORS[name].find
    assert calls(lambda: find(of_size(part, SIZE))) < CALLS_A_BYTE * SIZE


STATEMENTS = {
    Family.SQL: (
        "SELECT a FROM b WHERE c = ",
        (",", "a,", "(", '"a",', "?,", "?::x,", "1+", "@a;", "'a',", "\\'", "/*", "`a`"),
    ),
    Family.COMMANDS: ("", ("SET a b\n", "a ", '"a" ', "a:b:", "GET a\nb\n", "'")),
    Family.DOCUMENTS: ("{", ("1,", '"a":1,', "a:", "{", "[]", "'", "/a/", "a.b(")),
    Family.QUERIES: ("MATCH (n) ", ("1,", "'a' ", "=`a`", "{a:", "//")),
    Family.DIRECTORY: ("(a=b)", ("(a=b)", "(", ")a", "a: b\n")),
    Family.BY_TEXT: ("", ("SELECT ", "(a=", "{", "a b ", "1 ", "#a\n")),
}


@pytest.mark.parametrize(
    ("family", "part"), [(family, part) for family, (_, parts) in STATEMENTS.items() for part in parts], ids=str
)
def test_calls_for_statements_are_few(family: Family, part: str) -> None:
    start, _ = STATEMENTS[family]
    for size in (SIZE, 3 * SIZE):
        statement = start.encode() + of_size(part, size)
        assert calls(lambda text=statement: stores.obfuscate(family, text)) < CALLS_A_BYTE * len(statement)
