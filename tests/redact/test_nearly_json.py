"""Names of values in what is nearly JSON, and in what programs print: the value goes, and nothing else.

The key rule is the tests' own, so that no detector helps; `V` stands for the secret.
"""

from __future__ import annotations

import json
import re
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampler_proxy.redact.lanes import TEXT
from sampler_proxy.redact.policy import Policy
from tests.support.redacting import attributes_after, policy, text_after

SETTINGS = {"preset": "common", "keys": [{"match": "*zugang*", "action": "mask"}]}
VIEW = cast(Policy, policy(SETTINGS)).view(0)
SECRET = "swordfish" + "77"
V = re.compile(r"(?<![A-Za-z])V(?![A-Za-z])")


def after(text: str) -> str:
    found = VIEW.apply(TEXT, text.encode())
    return text if found is None else found[0].decode()


# Where a value should stand, and what has broken readers there.
NO_VALUES = [
    *("NaN", "-Infinity", "None", "True", "undefined", "+5", ".5", "5.", "0x1F", "1_000", "...", "<x>", "<a at 0x7f>"),
    *("${x}", "{{ x }}", "%s", "[Object]", "[Circular *1]", 'ObjectId("5f")', "new Date(12)", "Decimal('1.2')"),
    *("datetime.date(2024, 1, 2)", "b'abc'", "u'abc'", "'abc'", "`abc`", "/re/", '"a\tb"', '"a\nb"', '"C:\\Users\\x"'),
    *('"{"a": "b"}"', '"5" tall"', '"say "hi" to"', '"a" + "b"', "1 /* c */", "function() { return 1; }", "x => y"),
    *("(1, 2)", "{1, 2}", "[1, 2", "", "1,", '"a" "b"', "it's", "http://x/y", "http://x/{y}", '"a" // b\n'),
]


@pytest.mark.parametrize("value", NO_VALUES)
@pytest.mark.parametrize("around", ["{}", "x {}", "[1] {}"])
def test_members_behind_what_is_no_value(value: str, around: str) -> None:
    text = around.replace("{}", f'{{"n": {value}, "zugang": "V", "z": 1}}')
    assert after(text.replace("V", SECRET)) == text.replace("V", "****")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "zugang": "V",}',
        "{'a': None, 'zugang': 'V'}",
        "{a: 1, 'zugang': `V`}",
        '{"a": 1 "zugang": "V"}',
        '{"a" :1,"zugang" :"V","n" :true}',
        '{"a" :true,"zugang":"V"}',
        '[["a","b"],["zugang","V"',
        "[x('a', ('zugang', 'V'",
        '["zugang", "V","]]',
        '{"a": 1}\n{"zugang": "V"}\n',
        '{"a": 1}{"zugang": "V"} and more',
        '}{"zugang": "V"}',
        '{"zugang": "V',
        '[ERROR] it\'s failed {"zugang": "V"}',
        '[f3a1] Parameters: {"user"=>{"zugang"=>"V"}, "commit"=>"x"}',
        "{:user=>{:zugang=>'V'}}",
        '{:user "bob", :zugang "V"}',
        "[x] `zugang`: `V`",
        '"zugang" = "V"; "a" = 1',
        'Map("zugang" -> "V")',
        '{"name":"Zugang","value":"V"}',
        '{"value":"V","id":7,"name":"zugang"}',
        '{"Name":"ZUGANG","Value":"V"}',
        "headers: [{'name': 'a', 'value': 'b'}, {'name': 'Zugang', 'value': 'V'}]",
        'x {\\"name\\":\\"Zugang\\",\\"value\\":\\"V\\"}',
        '{:name=>"Zugang", :value=>"V"}',
        '[["a","b"],["zugang","V"]]',
        "[('user', 'bob'), ('zugang', 'V')]",
        '("zugang", "V")',
        '{"rawHeaders":["Host","x","Zugang","V"]}',
        '["app","--zugang","V","x"]',
        "args=['app', '--zugang=V', 'x']",
        'env ["PATH=/bin","ZUGANG=V"]',
        'array(1) { ["zugang"]=> string(1) "V" }',
        "array('user' => 'bob', 'zugang' => 'V')",
        "Array ( [user] => bob [zugang] => V )",
        "[zugang] => V\n[user] => bob",
        's:6:"zugang";s:1:"V";s:1:"a";i:1;',
        "User(name='bob', zugang='V')",
        'User { name: "bob", zugang: "V" }',
        "{user=bob, zugang=V, id=7}",
        'login(user: "bob", zugang: "V") { id }',
        '{"query":"mutation { login(zugang: \\"V\\") }","variables":{"zugang":"V"}}',
        'user: "bob" zugang: "V" id: 7',
        "{&quot;zugang&quot;:&quot;V&quot;}",
        "{&amp;#34;zugang&amp;#34;:&amp;#34;V&amp;#34;}",
        "\\u0022zugang\\u0022:\\u0022V\\u0022",
        'x {\\\\\\"zugang\\\\\\":\\\\\\"V\\\\\\"}',
        '"{""zugang"":""V""}"',
        '\x1b[34m"zugang"\x1b[0m: \x1b[32m"V"\x1b[0m',
        '[{<<"user">>,<<"bob">>},{<<"zugang">>,<<"V">>}]',
        '(("user" . "bob") ("zugang" . "V"))',
        '{"field":"zugang","newValue":"V"}',
        '{"field":"zugang","old":"V","new":"V"}',
        '{"name":"zugang","default_value":"V"}',
        '{"path":"/user/zugang","op":"replace","value":"V"}',
        ': [{"Key":[{"Key": "x", "zugang": "V"}]}',
        "{\"body\":\"{'zugang': 'V', 'n': None}\"}",
    ],
)
def test_the_value_goes_and_nothing_else(text: str) -> None:
    found = after(V.sub(SECRET, text))
    assert found == V.sub("****", text)
    assert after(found) == found
    assert attributes_after(SETTINGS, {"a": "x", "k": V.sub(SECRET, text)})["k"] == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "zugang": Some("V")}', '{"a": 1, "zugang": ****}'),
        ("{'zugang': ['V', 'x'], 'n': None}", "{'zugang': ****, 'n': None}"),
        ('Config { a: 1, zugang: Some(Secret("V")) }', "Config { a: 1, zugang: **** }"),
        ('[{user,<<"bob">>},{zugang,<<"V">>}]', '[{user,<<"bob">>},{zugang,****}]'),
        ('{"key":"zugang","value":{"stringValue":"V"}}', '{"key":"zugang","value":"****"}'),
        ('{"zugang": "V"5"V", "a": 1}', '{"zugang": "****", "a": 1}'),
        ("[zugang] => Array ( [a] => V ) [b] => c", "[zugang] => **** [b] => c"),
        ('x = Secret("V")', 'x = Secret("****")'),
        ("SecretStr('V')", "SecretStr('****')"),
        ('{"zugang": undefinedV, "n": 1}', '{"zugang": ****, "n": 1}'),
    ],
)
def test_values_of_several_tokens(text: str, expected: str) -> None:
    assert after(text.replace("V", SECRET)) == expected


NONE = [
    "null",
    "None",
    "nil",
    "~",
    "true",
    "false",
    "undefined",
    "n/a",
    '""',
    "-",
    "[]",
    "{}",
    "(null)",
    "<none>",
    "xxx",
]


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize(
    "text",
    [
        '{"zugang": V}',
        '{"n": NaN, "zugang": V, "m": 1}',
        'x {"zugang": V} y',
        "{zugang=V, n=1}",
        '{"n": 1, "zugang": V, "m',
        '{"zugang":"V","n":NaN}',
        '{\\"zugang\\":V}',
        '{"name":"zugang","value":V}',
    ],
)
def test_what_says_that_there_is_none_stays(text: str, value: str) -> None:
    if '"V"' in text:
        value = value.strip('"')
    assert after(text.replace("V", value)) == text.replace("V", value)


def test_arguments_are_looked_at_as_a_line() -> None:
    known = {"preset": "common", "values": [{"name": "own", "pattern": r"mysql -p ?(\S+)", "action": "mask"}]}
    for text in (
        '["mysql","-p","V","db"]',
        '["mysql","-pV","db"]',
        "run ['mysql', '-p', 'V']",
        '{"a": ["mysql","-p","V"]}',
    ):
        assert text_after(known, text.replace("V", SECRET)) == text.replace("V", "****")
    assert text_after(known, '["ps","-p","1234"]') == '["ps","-p","1234"]'


@pytest.mark.parametrize(
    "text",
    [
        '[ERROR] login failed {"user": "bob"}',
        "{'user': 'bob', 'n': None}",
        '{"name":"color","value":"blue"}',
        '{"required":["user","zugang"]}',
        '["zugang","email"]',
        'validate("zugang", "required")',
        '{"type":"zugang","name":"x"}',
        *(f"{{'zugang': {value}, 'n': None}}" for value in ("'[hidden]'", "'****'", "'<redacted>'", "'[FILTERED]'")),
        *(f"{{'zugang': {value}, 'n': None}}" for value in ("None", "null", "True", "''")),
        *(f'{{"zugang": {value}}}' for value in ('"[hidden]"', '"****"', "null", "true", '""', '"[REDACTED]"')),
        "SecretStr('**********')",
        '["ps","-p","1234"]',
        '[WARN] unexpected zugang: "}" at 5',
        '(see "the docs", section 5) and {id}',
        '"Chromium";v="118", "Google Chrome";v="118"',
        '{x, "y"} (a == b), f(c=d)',
        "the 'zugang'::text cast",
        '["error: zugang expired"]',
        "&lt;a class=&quot;zugang&quot;&gt;",
    ],
)
def test_what_stays(text: str) -> None:
    assert after(text) == text


SCALARS = st.none() | st.booleans() | st.integers(-9, 99) | st.text("ab:,'\"{}[] \\\n=/", max_size=8)
DOCUMENTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
        max_leaves=6,
    ),
    min_size=1,
    max_size=3,
)
PIECES = [
    *("\"'`\\{}[](),:=;\n\t \x00#%&"),
    *(
        '\\"',
        "/*",
        "//",
        "*/",
        "%22",
        "&quot;",
        "\\u",
        "NaN",
        "${x}",
        "=>",
        "''",
        '"""',
        "SELECT 'x' FROM t",
        "--",
        "é",
    ),
]
DAMAGE = st.lists(
    st.tuples(st.booleans(), st.integers(0, 200), st.integers(0, 9), st.sampled_from(["", *PIECES])), max_size=4
)


@settings(max_examples=400, derandomize=True)
@given(DOCUMENTS, DOCUMENTS, DAMAGE, st.booleans(), st.booleans())
def test_no_damage_frees_a_member(
    before: object, behind: object, damage: list[tuple[bool, int, int, str]], printed: bool, prose: bool
) -> None:
    """Bytes that are put in, replaced and cut, before and behind."""
    sides = (
        [repr(before)[:-1] + ", ", ", " + repr(behind)[1:]]
        if printed
        else [json.dumps(before)[:-1] + ", ", ", " + json.dumps(behind)[1:]]
    )
    for first, at, gone, piece in damage:
        side = sides[not first]
        at %= len(side) + 1
        sides[not first] = side[:at] + piece + side[at + gone :]
    text = f'{"it is " * prose}{sides[0]}"zugang": "{SECRET}"{sides[1]}'
    assert SECRET not in after(text), text


@given(DOCUMENTS, st.sampled_from(["zugang", "a"]), st.sampled_from(["name", "k0"]))
def test_the_short_way_gives_what_the_long_way_gives(document: dict[str, object], name: str, key: str) -> None:
    """With an escape in it, JSON is looked at closely."""
    document = {
        **document,
        "pair": [name, "b_1"],
        "list": [{key: name, "value": "v_1"}],
        "args": ["x", f"--{name}=y_1"],
    }
    plain, escaped = json.dumps(document), json.dumps({**document, "escape": "\n"})
    assert json.loads(after(escaped)) == {**json.loads(after(plain)), "escape": "\n"}
