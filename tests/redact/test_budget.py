"""What a text may take: what has more places to judge than that is masked, whatever they are, and nothing beside it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampler_proxy.redact import budget
from sampler_proxy.redact.detectors import named
from sampler_proxy.redact.detectors.name_value_pairs import content
from sampler_proxy.redact.detectors.reading import MAX_JUDGED, read
from sampler_proxy.redact.lanes import MAX_VALUE_BYTES
from sampler_proxy.redact.policy import View
from tests.support.redacting import policy

SIZE = MAX_VALUE_BYTES
OVERSIZE = (b"****", ((("oversize", "mask"), 1),))


@pytest.fixture(scope="module")
def view() -> View:
    found = policy({"preset": "common"})
    assert found is not None
    return found.strict


def repeated(part: str, size: int = SIZE) -> bytes:
    return (part * (size // len(part) + 1)).encode()[:size]


BEYOND = [
    "&pw=a",
    "pin ",
    '{"a":"password":1 ',
    "Secret('x')",
    "echo a | chpasswd ",
    "Key (token)=(",
    "['--a','b'],",
    "\\n[a]=>b token x1 ",
    "curl -u a:b ",
]


@pytest.mark.parametrize("part", BEYOND)
def test_a_text_of_nothing_but_places_to_judge_is_masked(part: str, view: View) -> None:
    assert view.apply(1, repeated(part)) == OVERSIZE
    assert view.apply(1, repeated(part, 400)) != OVERSIZE


def test_members_that_must_be_looked_at_by_themselves(view: View) -> None:
    assert view.apply(1, json.dumps(["select a from b\n"] * 2800).encode()) == OVERSIZE


@pytest.mark.parametrize("name", ["k{}", "ab{}"])
def test_names_that_are_all_different(name: str, view: View) -> None:
    members = ",".join(f'"{name.format(i)}":1' for i in range(SIZE // (len(name) + 7)))
    assert view.apply(1, f"{{{members}".encode()) == OVERSIZE


RECORD = {"id": 17, "name": "order", "state": None, "price": "12.50", "note": "it's two boxes", "password": "x1-{}"}
USUAL = {
    "cut off": lambda size: json.dumps([RECORD] * (size // 120))[: size - 3],
    "printed": lambda size: repr([RECORD] * (size // 120)),
    "escaped": lambda size: "body=" + json.dumps(json.dumps([RECORD] * (size // 150))),
    "log": lambda size: "GET /a?token=a1b2c3d4 HTTP/1.1 200 12 bob@example.com\n" * (size // 60),
    "list": lambda size: json.dumps([f"user.{i}@example.com" for i in range(size // 30)]),
    "environment": lambda size: (
        "DB_PASSWORD=a1b2c3d4e5\nLANG=C\nPATH=/usr/bin\nAPI_KEY=0123456789abcdef\n" * (size // 80)
    ),
}


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("size", [2000, 10_000, 40_000])
def test_what_programs_print_is_within_it(kind: str, size: int, view: View) -> None:
    result = view.apply(1, USUAL[kind](size).encode())
    assert result is not None
    assert len(result[0]) > size / 6
    assert not {label for label, _ in result[1]} & {("oversize", "mask"), ("failure", "mask")}


def test_each_text_has_a_budget_of_its_own(view: View) -> None:
    assert view.apply(1, repeated("&pw=a")) == OVERSIZE
    assert view.apply(1, b"password=a1b2c3") == (b"password=****", ((("url_secrets", "mask"), 1),))
    budget.spend(10 * SIZE)  # outside of any text: nothing is counted


def test_each_thread_has_a_budget_of_its_own() -> None:
    budget.begin(0)
    try:
        with ThreadPoolExecutor(1) as other:
            other.submit(budget.spend, 10 * SIZE).result()
        with pytest.raises(budget.SpentError):
            budget.spend(budget.FEW_STEPS + 1)
    finally:
        budget.end()


def test_a_name_reads_so_much_of_a_value_and_the_rest_only_of_a_secret() -> None:
    """Else names within the value would read it once more each."""
    long = b"aB3" * MAX_JUDGED
    for value in (read(long, 0), content(long, 0)):
        assert value is not None
        assert MAX_JUDGED <= value.end <= MAX_JUDGED + 1
        assert value.whole(long) == (0, len(long))
    for text in (b"?token=%b", b"x password=%b", b"<password>%b</password>", b"the token is %b", b"SAMLRequest=%b&a=b"):
        start = text.index(b"%b")
        assert named.URL_SECRETS.find(text % long) == [(start, start + len(long))]
