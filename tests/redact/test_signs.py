"""Signs: natively found as a plain search finds them, and never absent from what a pattern matches."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sampler_proxy.redact import sieve
from sampler_proxy.redact.detectors import commands, name_value_pairs, names
from sampler_proxy.redact.detectors.catalogue import DETECTORS, SEPARATOR, STRICT
from sampler_proxy.redact.detectors.providers import AROUND, FORMS, Form
from sampler_proxy.redact.detectors.types import Digits, Sign, signs
from sampler_proxy.redact.regexes import regex
from sampler_proxy.redact.signs import Signs
from tests.support.examples import examples

# A plain search, from the docstrings of `Sign` and `Digits`.

SPACES_AND_SIGNS = b" \t+./_-"


@functools.cache
def class_of(written: str) -> set[int]:
    return {byte for byte in range(256) if re.match(f"[{written}]".encode("latin-1"), bytes((byte,)))}


def has_sign(joined: bytes, start: int, end: int, sign: Sign) -> bool:
    text = sign.text.encode("latin-1")
    for at in range(start, end):
        found = joined[at : at + len(text)]
        if found != text and not (sign.any_case and found.lower() == text.lower()):
            continue
        if sign.before and (joined[at - 1] if at else 0x0A) not in class_of(sign.before):
            continue
        behind = at + len(text)
        if sign.then:
            following = joined[behind : behind + sign.times]
            if len(following) < sign.times or not set(following) <= class_of(sign.then):
                continue
            behind += sign.times
        while sign.through and behind < len(joined) and joined[behind] in class_of(sign.through):
            behind += 1
        following = joined[behind : behind + 2]
        if not sign.until:
            return True
        if len(following) == 2 and (0 if following == b"\n\x00" else following[0]) in class_of(sign.until):
            return True
    return False


def digits_at(value: bytes, at: int) -> tuple[list[int], bool]:
    """Count the digits from a position on, by group, up to what stands in no number; and whether codes are there."""
    groups = [0]
    within = gap = 0
    coded = False
    for byte in value[at:]:
        if 0x30 <= byte <= 0x39:
            groups += [0] if gap else []
            groups[-1] += 1
            gap = 0
        elif byte >= 0x80 or byte in SPACES_AND_SIGNS + b"&%" or (within and (chr(byte).isalpha() or byte in b"#;")):
            gap += 1
        else:
            break
        coded = coded or byte in b"&%"
        within = {0x26: 16, 0x25: 3}.get(byte, within)
        within -= within > 0
        if gap > 48:
            break
    return groups, coded


def has_digits(value: bytes, asked: Digits) -> bool:
    first, second, third = asked.groups
    for begin in re.finditer(rb"(?=[0-9]{3})", value):
        groups, coded = digits_at(value, begin.start())
        fits = coded or not third
        for a, b, c in zip(groups, groups[1:], groups[2:], strict=False):
            fits = fits or (a >= first and b == second and c >= third)
        if sum(groups) >= asked.least and fits:
            return True
    return False


def plainly(groups: Sequence[Sequence[Sign | Digits]], values: Sequence[bytes]) -> list[tuple[int, int, list[int]]]:
    joined = b"".join(value + SEPARATOR for value in values)
    found = []
    start = 0
    for value in values:
        end = start + len(value)
        hit = [
            group
            for group, asked in enumerate(groups)
            if any(
                has_digits(value, one) if isinstance(one, Digits) else has_sign(joined, start, end, one)
                for one in asked
            )
        ]
        if hit:
            found.append((start, end, hit))
        start = end + len(SEPARATOR)
    return found


ALPHABET = "ab01&;#% -.\xe2\n"
CLASSES = st.sampled_from(["", "a", "ab", "0-9", "^a", r"\s", r"\x80-\xff", r"\x01-\xff"])
SIGNS = st.builds(
    Sign,
    text=st.text("abA0-\xe2", min_size=1, max_size=4),
    then=CLASSES,
    times=st.integers(1, 3),
    through=CLASSES,
    until=CLASSES,
    before=CLASSES,
    any_case=st.booleans(),
)
DIGITS = st.builds(Digits, st.integers(3, 9), st.sampled_from([(0, 0, 0), (1, 1, 1), (2, 1, 2), (3, 2, 1)]))
GROUPS = st.lists(st.lists(SIGNS | DIGITS, max_size=4), max_size=5)
VALUES = st.lists(st.text(ALPHABET + "ABA", max_size=30).map(lambda text: text.encode("latin-1")), max_size=5)


@given(GROUPS, VALUES)
@example([[Sign("a")]], [b"a", b"", b"A", b"ba"])
@example([[Sign("aa", through="a", until="0")]], [b"aaaaaaa", b"aaaaaaa0"])
@example([[Digits(4)], [Digits(5)]], [b"01 012", b"000&#8209;0", b"000x0", b"%20100"])
def test_signs_are_found_as_a_plain_search_finds_them(groups: list[list[Sign | Digits]], values: list[bytes]) -> None:
    joined = b"".join(value + SEPARATOR for value in values)
    assert Signs(groups).values(joined) == plainly(groups, values)


def test_64_groups_and_no_more() -> None:
    found = Signs([(Sign("aaa"),)] * 63 + [(Sign("bbb"),)]).values(b"bbb" + SEPARATOR + b"aaa" + SEPARATOR)
    assert found == [(0, 3, [63]), (6, 9, list(range(63)))]
    with pytest.raises(ValueError, match="64 groups"):
        Signs([(Sign("a"),)] * 65)


def test_a_sign_has_a_text() -> None:
    with pytest.raises(ValueError, match="needs a text"):
        Signs([(Sign("", then="a"),)])


@pytest.mark.parametrize("text", [b"", b"a", b"ab", SEPARATOR[:2], b"\n\x00\n\x00\n", b"a" * 9])
def test_what_no_separator_ends_counts_for_nothing(text: bytes) -> None:
    assert Signs([(Sign("a"),)]).values(text) == []


def test_runs_are_walked_once() -> None:
    """Else each of these would be, and it would take minutes."""
    asked = [(Sign("ab", through="ab", until="0"), Digits(1 << 30))]
    assert Signs(asked).values((b"ab" * 500_000) + SEPARATOR + b"012 " * 500_000 + SEPARATOR) == []


@given(st.lists(SIGNS, max_size=6), VALUES)
def test_places_are_found_as_a_plain_search_finds_them(asked: list[Sign], values: list[bytes]) -> None:
    joined = b"".join(value + SEPARATOR for value in values)
    expected = [at for at in range(len(joined)) if any(has_sign(joined, at, at + 1, sign) for sign in asked)]
    assert Signs([asked]).places(joined) == [at for at in expected if at < len(joined) - 2]


def test_signs_of_texts() -> None:
    assert signs("a bc", then="x", times=2) == (Sign("a", "x", 2), Sign("bc", "x", 2))


# What the signs promise.


def of_form(form: Form) -> str:
    return f"(?:{'|'.join(map(re.escape, form.prefixes.split()))})(?:{form.rest})"


PATTERNS: dict[str, tuple[str, Sequence[Sign | Digits]]] = {
    **{
        f"{name} {number}": (one.pattern, one.signs)
        for name, found in {
            **{name: (one,) for name, one in DETECTORS.items()},
            "form": (sieve._FORM,),
            "statement": (sieve._STATEMENT,),
            "escaped": (sieve._ESCAPED,),
            "keyed": sieve._KEYED,
            "url": (sieve._URL,),
        }.items()
        for number, one in enumerate(found)
        if one.signs and name not in ("provider_key", "url_secrets")  # they have no pattern, and one of another
    },
    # Of these the exact form, as signs say more than the pattern; and what command lines are recognised by.
    **{f"{form.provider} {i}": (of_form(form), DETECTORS["provider_key"].signs) for i, form in enumerate(FORMS)},
    **{form.provider: (form.pattern, DETECTORS["provider_key"].signs) for form in AROUND},
    "names": (f"(?i:{names.PATTERN}|{name_value_pairs.PATTERN})", DETECTORS["url_secrets"].signs),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_nothing_matches_without_a_sign(name: str) -> None:
    pattern, promised = PATTERNS[name]
    few = name in {f"{form.provider} {i}" for i, form in enumerate(FORMS)}
    compiled = regex(re.sub(r"\(\?[!=][^()]*\)", "", pattern))
    asked = Signs([promised])
    readable = re.sub(r"^\(\?i\)(.*)$", r"(?i:\1)", pattern, flags=re.DOTALL).replace(r"\z", r"\Z")
    matched = 0
    for text in examples(readable, 40 if few else 1000):
        for shown in (text, b"_" + text + b" ", b'x "' + text + b'"', text.upper(), text.lower()):
            if compiled.search(shown):
                matched += 1
                assert asked.values(shown + SEPARATOR), shown
    assert matched >= 10


def test_detectors_of_presets_have_signs() -> None:
    assert not [name for name in STRICT if not DETECTORS[name].signs]


def test_commands_are_recognised_by_what_their_search_asks_first() -> None:
    asked = Signs([commands.SIGNS])
    for sign in commands._SIGNS:
        assert asked.values(b"x" + sign + b"p" + SEPARATOR)
