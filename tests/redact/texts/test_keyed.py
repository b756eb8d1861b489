"""Keys in quotes and their values, in texts that are no JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.texts import encoded, keyed


def read(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(key.text, text[slice(*keyed.value_of(text, key)[:2])]) for key in keyed.keys(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'x {"a":"b", "c" : 1}', [(b"a", b"b"), (b"c", b"1")]),
        (rb"{'a': 'it\'s', 'b': None}", [(b"a", rb"it\'s"), (b"b", b"None")]),
        (rb'"{\"a\":\"b\",\"c\":{\"d\":2}}"', [(b"a", b"b"), (b"c", rb"{\"d\":2}"), (b"d", b"2")]),
        (rb'{"a\"b":"c\\", "d":"e"}', [(b'a"b', rb"c\\"), (b"d", b"e")]),
        (rb'{"\u0061":"b"}', [(b"a", b"b")]),
        (b'"a" => [1, "]", 2], "b" => 3', [(b"a", b'[1, "]", 2]'), (b"b", b"3")]),
        (b'"a":"open', [(b"a", b"open")]),
        (b'"a":{"b":"open', [(b"a", b'{"b":"open'), (b"b", b"open")]),
        (b'"a":', [(b"a", b"")]),
        (b"'x'::text", []),
        (b'say "a" and: b', []),
        (b'"' + b"k" * 300 + b'":1', [(b"k" * keyed.MAX_QUOTED_KEY_BYTES, b"1")]),
    ],
)
def test_keys_and_values(text: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert read(text) == expected


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4), st.integers(0, 3))
def test_every_member_of_json_in_strings(members: dict[str, str], depth: int) -> None:
    text = json.dumps(members)
    for _ in range(depth):
        text = json.dumps(text)
    found = [(key.text.decode("utf-8", "replace"), key) for key in keyed.keys(b"x " + text.encode())]
    for key in members:
        if not any(sign in key for sign in "\"'`\\:=") and key.isascii() and key.isprintable():
            assert key in [one for one, _ in found]


@given(
    st.lists(
        st.sampled_from(["%41", "%25", "\\u0041", "\\u00e9", "\\n", "\\\\", "a", "%", "\\", "é", "u", "4"]), max_size=12
    )
)
def test_places_in_what_is_decoded(parts: list[str]) -> None:
    text = "".join(parts).encode()
    for level, place in encoded.decoded(text):
        assert (place(0), place(len(level))) == (0, len(text))
        places = [place(i) for i in range(len(level) + 1)]
        assert places == sorted(set(places))


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from(list("\"'`:\\{}[]=>,a ")), max_size=40).map("".join).map(str.encode)
)
def test_any_bytes(text: bytes) -> None:
    for key in keyed.keys(text):
        start, end, _ = keyed.value_of(text, key)
        assert key.end <= start <= end <= len(text)
