"""Every detector against a table of what it must find, with its exact bytes, and of what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from sampler_proxy.redact.detectors.catalogue import COMMON, DETECTORS, SEPARATOR, STRICT, Range, sieve
from tests.redact.detectors import (
    table_addresses,
    table_connections,
    table_credentials,
    table_named,
    table_numbers,
    table_paths,
    table_provider_keys,
    table_providers,
)
from tests.redact.detectors.marked import unmarked

TABLES = (
    *(table_numbers, table_addresses, table_credentials, table_connections, table_named, table_paths),
    *(table_provider_keys, table_providers),
)
HITS = {name: texts for table in TABLES for name, texts in table.HITS.items()}
MISSES = {name: texts for table in TABLES for name, texts in table.MISSES.items()}


def cases(table: dict[str, list[str]]) -> list[object]:
    return [pytest.param(name, text, id=f"{name}-{i}") for name, texts in table.items() for i, text in enumerate(texts)]


@cache
def sieve_of(name: str) -> Callable[[bytes], list[int]]:
    return sieve([DETECTORS[name]])


def masked(text: bytes, ranges: list[Range]) -> bytes:
    for start, end in reversed(ranges):
        text = text[:start] + b"****" + text[end:]
    return text


@pytest.mark.parametrize(("name", "marked"), cases(HITS))
def test_finds(name: str, marked: str) -> None:
    text, expected = unmarked(marked)
    assert expected, "mark the secret"
    assert DETECTORS[name].find(text) == expected
    assert sieve_of(name)(text) == [0]
    assert sieve_of(name)(SEPARATOR.join((b"before", text, b"after"))) == [0]


@pytest.mark.parametrize(("name", "marked"), cases(HITS))
def test_finds_nothing_where_it_was_masked(name: str, marked: str) -> None:
    text, ranges = unmarked(marked)
    assert DETECTORS[name].find(masked(text, ranges)) == []


@pytest.mark.parametrize(("name", "text"), cases(MISSES))
def test_leaves_alone(name: str, text: str) -> None:
    assert DETECTORS[name].find(text.encode()) == []


def test_the_tables_are_complete() -> None:
    assert set(HITS) == set(MISSES) == set(DETECTORS)
    for name in DETECTORS:
        assert len(set(HITS[name])) >= 15, name
        assert len(set(MISSES[name])) >= 15, name
        assert len(set(HITS[name])) + len(set(MISSES[name])) >= 30, name


def test_presets() -> None:
    assert set(COMMON) < set(STRICT) < set(DETECTORS)
    assert set(STRICT) - set(COMMON) == {"ipv4", "ipv6"}
    assert set(DETECTORS) - set(STRICT) == {"phone"}
    assert all(name == detector.name for name, detector in DETECTORS.items())


ORDINARY = [
    "GET /api/v1/users/{id}/orders",
    "https://shop.example.com/cart?page=2&sort=-price",
    "checkout-7f9c6d5b8-x2x9q",
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "550e8400-e29b-41d4-a716-446655440000",
    "1732550501123456789",
    "2024-11-25T16:01:41.123456789Z",
    "docker://sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "java.lang.IllegalStateException: no token\n\tat com.example.auth.TokenFilter.check(TokenFilter.java:42)",
    "SELECT id, password_hash FROM users WHERE id = $1",
    "arn:aws:s3:::bucket/key",
    "registry.example.com/team/app:1.2.3@sha256:9b2cf1c5",
    "application/json; charset=utf-8",
    "opentelemetry-instrumentation-flask 0.45b0",
    "ip-10-0-0-1.ec2.internal",
    "EUR 1,234.56",
]


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_attributes_are_left_alone(name: str, text: str) -> None:
    assert DETECTORS[name].find(text.encode()) == []
