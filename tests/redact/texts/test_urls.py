"""URLs and request targets without queries, credentials and ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.texts.urls import rewrite

UUID = "550e8400-e29b-41d4-a716-446655440000"


def query(text: bytes) -> bytes:
    return rewrite(text, strip_query=True, strip_credentials=False, strip_ids=False)


def credentials(text: bytes) -> bytes:
    return rewrite(text, strip_query=False, strip_credentials=True, strip_ids=False)


def ids(text: bytes) -> bytes:
    return rewrite(text, strip_query=False, strip_credentials=False, strip_ids=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com/x?a=1", "https://example.com/x"),
        ("https://example.com/x?a=1#top", "https://example.com/x"),
        ("https://example.com/x#access_token=1", "https://example.com/x"),
        ("https://example.com?a=1", "https://example.com"),
        ("/x?a=1", "/x"),
        ("/?a=1", "/"),
        ("GET /x?a=1", "GET /x"),
        ("GET /x?a=1 HTTP/1.1", "GET /x HTTP/1.1"),
        ("//example.com/x?a", "//example.com/x"),
        (
            "see https://example.com/x?a=1 and http://example.com/y?b.",
            "see https://example.com/x and http://example.com/y.",
        ),
        ('{"url":"https://example.com/x?a=1"}', '{"url":"https://example.com/x"}'),
        ("https://example.com/x?q=it's", "https://example.com/x"),
        ("/x?next=https://example.com/?a", "/x"),
        ("/x?größe=1", "/x"),
    ],
)
def test_queries(text: str, expected: str) -> None:
    assert query(text.encode()).decode() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://alice:secret@example.com/x?a=1", "https://example.com/x?a=1"),
        ("https://token@example.com/", "https://example.com/"),
        ("postgres://u:p@ss@db:5432/app", "postgres://db:5432/app"),
        ("//u:p@example.com/", "//example.com/"),
        ("connect redis://:p@cache:6379/0 failed", "connect redis://cache:6379/0 failed"),
        ("https://example.com/?next=https://u:p@h/", "https://example.com/?next=https://h/"),
    ],
)
def test_credentials(text: str, expected: str) -> None:
    assert credentials(text.encode()).decode() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/users/123", "/users/{id}"),
        ("/users/123/orders/456?x=789", "/users/{id}/orders/{id}?x=789"),
        ("/1/2/3", "/{id}/{id}/{id}"),
        (f"/users/{UUID}/x", "/users/{id}/x"),
        (f"/users/{UUID.upper()}", "/users/{id}"),
        ("/commit/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/commit/{id}"),
        ("/files/123.json", "/files/{id}.json"),
        ("/users/123;v=1/x", "/users/{id};v=1/x"),
        ("/users/123#top", "/users/{id}#top"),
        ("DELETE /users/123", "DELETE /users/{id}"),
        ("http://10.0.0.1:8080/users/123", "http://10.0.0.1:8080/users/{id}"),
        (
            "see https://example.com/123, https://example.com/456.",
            "see https://example.com/{id}, https://example.com/{id}.",
        ),
        ("(https://example.com/users/123)", "(https://example.com/users/{id})"),
        ("//example.com/123", "//example.com/{id}"),
    ],
)
def test_ids(text: str, expected: str) -> None:
    assert ids(text.encode()).decode() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text",
        "a/123/b",
        "and/or 1/2",
        "/users/{id}",
        "/v1/users",
        "/users/alice",
        "/users/abc123",
        "/deadbeef",
        "/",
        "//",
        "https://example.com",
        "https://example.com:8080/",
        "http://10.0.0.1/",
        "GET",
        "application/json",
        "text with /users/123 inside",
        "2024/11/25",
        "C:/123/x",
        "alice@example.com",
    ],
)
def test_what_has_nothing_to_strip_comes_back_itself(text: str) -> None:
    encoded = text.encode()
    assert rewrite(encoded, strip_query=True, strip_credentials=True, strip_ids=True) is encoded


def test_nothing_asked_for() -> None:
    text = f"https://u:p@example.com/{UUID}?a=1".encode()
    assert rewrite(text, strip_query=False, strip_credentials=False, strip_ids=False) is text


parts = st.sampled_from(
    [
        "https://",
        "http://",
        "//",
        "/",
        "u:p@",
        "h",
        "?",
        "#",
        "a=1",
        "123",
        UUID,
        "abc",
        "GET ",
        " ",
        "{id}",
        ".",
        '"',
        ")",
        ".json",
        "@",
        ":",
        "\xff",
    ]
)


@given(
    st.lists(parts, max_size=10).map(lambda parts: "".join(parts).encode("latin-1")) | st.binary(max_size=40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_rewriting_is_idempotent(text: bytes, strip_query: bool, strip_credentials: bool, strip_ids: bool) -> None:
    once = rewrite(text, strip_query=strip_query, strip_credentials=strip_credentials, strip_ids=strip_ids)
    assert rewrite(once, strip_query=strip_query, strip_credentials=strip_credentials, strip_ids=strip_ids) is once
