"""The planted secrets look like true ones: checksums and structures hold, as others compute them."""

from __future__ import annotations

import base64
import json
import zlib
from functools import lru_cache
from random import Random

import pytest
from stdnum import iban, luhn
from stdnum.us import ssn

from tests.support.planting import carriers
from tests.support.planting.forms import BASE62, Kind, Secret
from tests.support.planting.samples import kinds, samples

DRAWS = 200


@lru_cache(1)
def by_name() -> dict[str, Kind]:
    return {kind.name: kind for _, kind in kinds()}


def drawn(name: str) -> list[Secret]:
    return [by_name()[name].make(Random(number)) for number in range(DRAWS)]


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_cards_have_their_check_digit() -> None:
    for name in ("card", "card grouped", "card, en dash", "card, two spaces", "card full-width"):
        for secret in drawn(name):
            assert luhn.is_valid("".join(str(int(each)) for each in secret.text if each.isdigit()))
    for secret in drawn("card track"):
        assert luhn.is_valid(secret.parts[0])


def test_accounts_have_their_check_digits() -> None:
    for name in ("iban", "iban grouped"):
        assert all(iban.is_valid(secret.text.replace("\u00a0", " ")) for secret in drawn(name))


def test_social_security_numbers_may_have_been_issued() -> None:
    assert all(ssn.is_valid(secret.text) for secret in drawn("ssn"))


@pytest.mark.parametrize("name", ["github", "npm"])
def test_tokens_have_their_checksum(name: str) -> None:
    for secret in drawn(name):
        body = secret.text.partition("_")[2]
        number = 0
        for digit in body[30:]:
            number = number * 62 + BASE62.index(digit)
        assert zlib.crc32(body[:30].encode()) == number


def test_web_tokens_are_some() -> None:
    for secret in drawn("jwt"):
        header, claims, signature = secret.text.split(".")
        assert json.loads(decoded(header))["alg"] in ("HS256", "RS256")
        assert json.loads(decoded(claims))["sub"]
        assert len(decoded(signature)) in (32, 64, 256)
    for secret in drawn("jwe"):
        header, key, iv, _, tag = secret.text.split(".")
        assert (json.loads(decoded(header))["alg"] == "dir") == (not key)
        assert (len(decoded(iv)), len(decoded(tag))) == (12, 16)


def test_base64_is_some() -> None:
    for name in ("azure storage", "storage key", "azure event hub"):
        assert all(base64.b64decode(secret.text, validate=True) for secret in drawn(name))


def test_all_kinds_and_carriers_are_used() -> None:
    made = samples()
    assert {one.kind for one in made} == {kind.name for _, kind in kinds()}
    assert {one.carrier for one in made} >= {carrier.name for carrier in carriers.carriers()}
    names = [carrier.name for carrier in carriers.carriers()]
    assert len(names) == len({*names})


def test_samples_are_the_same_each_time() -> None:
    samples.cache_clear()
    first = samples(3, 0.02)
    samples.cache_clear()
    assert samples(3, 0.02) == first


def test_sound_json_is_json() -> None:
    sound = {
        "json member",
        "json nested",
        "json in an array",
        "array of pairs",
        "name and value",
        "json in json in json",
    }
    sound |= {"json deep in json", "nearly json in json", "otp json", "json with escapes", "argument array", "typed"}
    for one in samples():
        if one.carrier in sound:
            json.loads(one.value)
