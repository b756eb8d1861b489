"""Versions of four parts under the keys that say so, where IPv4 addresses are masked."""

from __future__ import annotations

import pytest

from tests.support.redacting import attributes_after
from tests.support.secrets import SECRETS

STRICT = {"preset": "strict"}
KEYS = ["service.version", "app.release", "os.build", "build.number", "AppVersion"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("version", ["1.2.3.4", "10.0.19045.4529", "v8.0.100.1", "4.3.2.1-rc1", "1.2.3.4+abc123"])
def test_a_version_stays(key: str, version: str) -> None:
    assert attributes_after(STRICT, {key: version}) == {key: version}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("on 81.2.69.142", "on ****"),
        ("81.2.69.142:8080", "****:8080"),
        ("1.2.3.4-" + SECRETS["card"].text, "****-****"),
    ],
)
def test_what_is_more_than_a_version_is_looked_at(key: str, value: str, expected: str) -> None:
    assert attributes_after(STRICT, {key: value}) == {key: expected}


@pytest.mark.parametrize("settings", [STRICT, {"values": [{"detect": "ipv4", "action": "mask"}]}])
def test_addresses_under_other_keys_are_masked(settings: dict[str, object]) -> None:
    assert attributes_after(settings, {"server.address": "81.2.69.142"}) == {"server.address": "****"}
