"""Members of JSON values and of forms, with the bytes they take, against the standard library's reading."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.texts.brackets import members
from sampler_proxy.redact.texts.embedded import read
from sampler_proxy.redact.texts.members import Member, quoted

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
documents = st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=4), values, max_size=4)


def walk(value: object, key: str = "", outermost: bool = True, element: bool = False) -> list[tuple[str, object]]:
    """What `members` has to give, in its order."""
    found: list[tuple[str, object]] = []
    if not outermost and (not element or isinstance(value, str | list | dict)):
        found.append((key, value))
    if isinstance(value, dict):
        for name, inner in value.items():
            found += walk(inner, name, False)
    elif isinstance(value, list):
        for inner in value:
            found += walk(inner, key, False, True)
    return found


@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_every_member_at_its_place(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    found = members(b" \n" + text + b"\t ")
    assert [(one.key, json.loads((b" \n" + text)[one.start : one.end])) for one in found] == walk(document)
    for one, (_, value) in zip(found, walk(document), strict=True):
        assert one.is_string == isinstance(value, str)
        assert not one.form
        if isinstance(value, str):
            assert one.text == value.encode()
        elif isinstance(value, dict | list):
            assert one.text == b""
        else:
            assert one.text == (b" \n" + text)[one.start : one.end]


@given(documents)
def test_replacing_every_string_leaves_json(document: object) -> None:
    text = json.dumps(document).encode()
    for one in reversed([one for one in members(text) if one.is_string]):
        text = text[: one.start] + one.encoded(b'\xff"*') + text[one.end :]
    for key, value in walk(json.loads(text)):
        assert not isinstance(value, str) or value == '\ufffd"*', key


def test_duplicate_keys_are_kept() -> None:
    assert [(one.key, one.text) for one in members(b'{"a":"1","a":"2"}')] == [("a", b"1"), ("a", b"2")]


def test_elements_have_the_key_around_them() -> None:
    found = members(b'{"tokens": ["a", {"x": 1}, [["b"]], 2]}')
    assert [(one.key, one.text) for one in found] == [
        ("tokens", b""),
        ("tokens", b"a"),
        ("tokens", b""),
        ("x", b"1"),
        ("tokens", b""),
        ("tokens", b""),
        ("tokens", b"b"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"password": "hun', [("password", b'"hun', b"hun")]),
        (b'{"password": "hun\\', [("password", b'"hun\\', b"hun")]),
        (b'{"a": 1, "password": "x\\u00e9\\u0', [("a", b"1", b"1"), ("password", b'"x\\u00e9\\u0', "xéu0".encode())]),
        (b'{"a": {"b": "c"', [("a", b'{"b": "c"', b""), ("b", b'"c"', b"c")]),
        (b'{"a": "b"} and more', [("a", b'"b"', b"b")]),
        (b'{"a": "b"}\n{"c": "d"}', [("a", b'"b"', b"b"), ("c", b'"d"', b"d")]),
        (b'{"password": undefined}', [("password", b"undefined", b"undefined")]),
        (b'{"a": "b\x01", "c": "d"}', [("a", b'"b\x01"', b"b\x01"), ("c", b'"d"', b"d")]),
        (b'{"a": "b",}', [("a", b'"b"', b"b")]),
        (b'{"\xff": "\xff"}', [("\ufffd", b'"\xff"', b"\xff")]),
        (b'{"\\u0070w": "\\ud83d\\ude00\\ud800"}', [("pw", b'"\\ud83d\\ude00\\ud800"', "😀?".encode())]),
    ],
)
def test_what_stops_being_json(text: bytes, expected: list[tuple[str, bytes, bytes]]) -> None:
    assert [(one.key, text[one.start : one.end], one.text) for one in members(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"text",
        b'"string"',
        b"1",
        b"null",
        b"{}",
        b"[]",
        b"[1, 2]",
        b"[INFO] started",
        b"{id}",
        b"[object Object]",
        b"}",
        b"]",
        b"[}",
        b"{]",
        b"a=1",
        b"a=1&b",
        b"a=1& b=2",
        b"x = 1 && y = 2",
        b"if (a=1&b=2) {}",
        b"a=1&&b=2",
        b"SELECT a=1&b='x'",
    ],
)
def test_no_members(text: bytes) -> None:
    assert members(text) == []


def test_deep_nesting_is_read_in_linear_time_without_recursion() -> None:
    depth = 30_000
    found = members(b'{"a":' * depth + b'"x"' + b"}" * depth)
    assert len(found) == depth
    assert found[-1] == Member("a", 5 * depth, 5 * depth + 3, True, b"x", around=5 * (depth - 1))
    assert members(b"[" * depth)[-1].end == depth


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]:,"\\u0d8 1-.etrufalsn'), max_size=40).map(str.encode))
def test_any_bytes(text: bytes) -> None:
    for one in members(b'{"a":' + text) + members(b"[" + text) + members(text):
        assert one.start <= one.end


def test_forms() -> None:
    text = b"a=1&password=hunter%202+x&a%5Bb%5D=&a=2&\xc3\xa9=\xff"
    found = read(text).members
    assert [(one.key, text[one.start : one.end], one.text) for one in found] == [
        ("a", b"1", b"1"),
        ("password", b"hunter%202+x", b"hunter 2 x"),
        ("a[b]", b"", b""),
        ("a", b"2", b"2"),
        ("é", b"\xff", b"\xff"),
    ]
    assert all(one.form and one.is_string for one in found)
    assert found[1].encoded(b"****") == b"****"
    assert found[1].encoded(b"a&b=c \xff") == b"a%26b%3Dc%20%FF"


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=5)), min_size=2, max_size=4))
def test_every_field_of_a_form(fields: list[tuple[str, str]]) -> None:
    text = urlencode(fields)
    assert [(one.key, one.text.decode()) for one in read(text.encode()).members] == parse_qsl(
        text, keep_blank_values=True
    )


@given(st.binary(max_size=20))
def test_quoted(value: bytes) -> None:
    assert json.loads(quoted(value)) == value.decode(errors="replace")
