"""Keys of users whose value is `user:password`."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.redacting import Redacting, attributes_after, pairs, request_of

COMMON = {"preset": "common"}


@pytest.mark.parametrize(
    "key", ["url.user_info", "url.userinfo", "db.user", "spring.datasource.username", "db.username"]
)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("app:hunter2-user", "app:****"),
        ("app:p@ss:w/rd", "app:****"),
        (":hunter2-user", ":****"),
        ("bob@example.test:hunter2-user", "****:****"),
        (" app:hunter2-user ", " app:**** "),
        ("app", "app"),
        ("DOMAIN\\app", "DOMAIN\\app"),
        ("app:", "app:"),
        ("app:****", "app:****"),
        ("app:${PASSWORD}", "app:${PASSWORD}"),
        ("jdbc://x", "jdbc://x"),
    ],
)
def test_the_password_behind_a_user_is_masked(key: str, value: str, expected: str) -> None:
    assert attributes_after(COMMON, {key: value}) == {key: expected}


@pytest.mark.parametrize("key", ["user.name", "enduser.id", "app.user", "http.user_agent"])
def test_other_users_keep_what_they_are(key: str) -> None:
    assert attributes_after(COMMON, {key: "group:42-a"}) == {key: "group:42-a"}


def test_members_of_json_are_users_too() -> None:
    assert attributes_after(COMMON, {"x": '{"db.user": "app:hunter2-user"}'}) == {"x": '{"db.user": "app:****"}'}


def test_a_password_counts_as_found_by_its_key() -> None:
    redacting = Redacting(COMMON)
    redacting.run([request_of(Span(attributes=pairs({"db.user": "app:hunter2-user"})))])
    assert redacting.counts()["key", "mask"] == 1
