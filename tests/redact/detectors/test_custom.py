"""Patterns that users write, and the one question to many patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.detectors.catalogue import COMMON, DETECTORS, SEPARATOR, Range, custom, sieve
from sampler_proxy.redact.sieve import CANARY, Sieve
from tests.redact.detectors.finding import find_all


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"TICKET-[0-9]+", b"see TICKET-12 and TICKET-3", [(4, 13), (18, 26)]),
        (r"id=(\w+)", b"id=abc", [(3, 6)]),
        (r"id=(\w+)?", b"id= id=x", [(0, 3), (7, 8)]),
        (r"a.c", b"a\nc", [(0, 3)]),
        (r"a.c", "aéc".encode(), [(0, 4)]),
        (r"^abc$", b"abc", [(0, 3)]),
        (r"^abc$", b"xabc", []),
        (r"\Aabc\z", b"abc", [(0, 3)]),
        (r"(?i)abc", b"ABC", [(0, 3)]),
        (r"\bkey\b", b"a key here", [(2, 5)]),
        (r"\Qa+b", b"a+b", [(0, 3)]),
        (r"größe", "größe".encode(), [(0, 7)]),
        (r"x*y?z", b"xxz", [(0, 3)]),
    ],
)
def test_custom(pattern: str, text: bytes, expected: list[tuple[int, int]]) -> None:
    detector = custom("mine", pattern)
    assert detector.name == "mine"
    assert detector.find(text) == [Range(*one) for one in expected]
    passed = sieve([detector])
    joined = SEPARATOR.join((b"before", text, "später".encode()))
    if expected:
        assert passed(text) == [0]
        assert passed(joined) == [0]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "empty pattern"),
        ("(", "not a regular expression"),
        ("a(?=b)", "not a regular expression"),
        (r"(a)\1", "not a regular expression"),
        ("a*", "matches the empty text"),
        ("|a", "matches the empty text"),
        ("a" * 5000, "at most 4096"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        custom("mine", pattern)


def test_the_sieve_tells_ours_and_theirs_apart() -> None:
    detectors = [custom("a", "aaa"), DETECTORS["card"], custom("b", "bbb"), DETECTORS["email"]]
    passed = sieve(detectors)
    assert passed(b"nothing") == []
    assert passed(b"bbb") == [2]
    assert passed(SEPARATOR.join((b"x@example.com", b"bbb", b"4111111111111111", b"aaa"))) == [0, 1, 2, 3]
    assert passed(b"\xff\xfe bbb \xff x@example.com") == [2, 3]
    assert sieve([])(b"4111111111111111") == []


@pytest.mark.parametrize(
    "halves",
    [
        (b"4111 1111 ", b"1111 1111"),
        (b"http://user:pass", b"word@host"),
        (b"alice@", b"example.com"),
        (b"Bearer", b" abc"),
        (b"token=", b"abc"),
        (b"2001:db8", b"::1"),
    ],
)
def test_no_pattern_of_ours_reaches_across_values(halves: tuple[bytes, bytes]) -> None:
    passed = Sieve([one for one in DETECTORS.values() if one is not DETECTORS["phone"]], sql=True, urls=False)
    assert passed.sift(b"".join((*halves, SEPARATOR, CANARY))) is not None
    assert passed.sift(SEPARATOR.join((*halves, CANARY))) is None


def test_patterns_that_are_too_large_together() -> None:
    with pytest.raises(ValueError, match="too large together"):
        sieve([custom(str(i), f"{i}[a-zäöü]{{900}}") for i in range(300)])


words = st.sampled_from(["a", "b", "é", "\n", " ", "-", "x1"])


@given(
    st.sampled_from(
        ["^a", "b$", r"\Aa", r"b\z", r"a\b", r"\Bb", "a[^b]", "a.b", r"(?m)^b$", r"(?s:a.)b", r"é", r"[^a]b"]
    ),
    st.lists(st.lists(words, max_size=5).map("".join), min_size=1, max_size=4),
)
def test_their_patterns_are_necessary_among_others(pattern: str, values: list[str]) -> None:
    detector = custom("mine", pattern)
    encoded = [value.encode() for value in values]
    if any(detector.find(value) for value in encoded):
        assert sieve([detector])(SEPARATOR.join(encoded)) == [0]


def test_find_all_looks_again_where_secrets_touch() -> None:
    key = "AKIA" + "ABCDEFGH234567AB"
    detectors = [DETECTORS[name] for name in COMMON]
    text = b"4111111111111111" + key.encode()
    assert [(one, COMMON[index]) for one, index in find_all(detectors, text)] == [
        (Range(0, 16), "card"),
        (Range(16, 36), "aws_key"),
    ]


def test_find_all_gives_what_overlaps_to_the_first() -> None:
    detectors = [custom("long", "abc+"), custom("short", "bcd")]
    assert find_all(detectors, b"-abccd-bcd") == [(Range(1, 5), 0), (Range(7, 10), 1)]
    assert find_all(detectors, b"abcd") == [(Range(0, 4), 0)]
