"""Credentials by themselves: what is compared with what, and what is kept."""

from __future__ import annotations

import hmac
from base64 import b64encode
from contextlib import suppress

import pytest

from sampler_proxy.config.doors import SenderAuth, SenderToken, SenderUser
from sampler_proxy.errors import TooManyInFlight, Unauthenticated
from sampler_proxy.receive.credentials import Credentials

TOKENS = tuple(SenderToken(name=f"t{n}", token=f"token-{n}") for n in range(5))
USERS = tuple(SenderUser(name=f"u{n}", user=f"user{n}", password=f"password-{n}") for n in range(3))


@pytest.fixture
def known() -> Credentials:
    return Credentials(SenderAuth(bearer_tokens=TOKENS, basic=USERS), "receive.grpc")


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "comparisons"),
    [
        ("Bearer token-0", 5),
        ("Bearer token-4", 5),
        ("Bearer token-", 5),
        ("Bearer ", 5),
        (basic("user0:password-0"), 3),
        (basic("user2:password-2"), 3),
        (basic("nobody:password-2"), 3),
        (basic("user0:"), 3),
        (basic(":"), 3),
    ],
)
def test_each_is_compared_with_all(
    known: Credentials, monkeypatch: pytest.MonkeyPatch, header: str, comparisons: int
) -> None:
    """And digests are, whose lengths are always the same: so how long it takes tells nothing."""
    seen: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    with suppress(Unauthenticated):
        known.role_of(header, "peer")
    assert len(seen) == 2 * comparisons  # of users, and of secrets
    assert {len(part) for pair in seen for part in pair} <= {0, 32}


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Bearer token-3", "t3"),
        (b"bEARER   token-3 ", "t3"),
        (basic("user1:password-1"), "u1"),
        ("basic " + basic("user1:password-1")[6:], "u1"),
        (None, None),
        ("", None),
        ("token-3", None),
        ("Bearer token-3 token-3", None),
        ("Bearer password-1", None),
        (basic("user1:password-2"), None),
        (basic("user1password-1"), None),
        (basic(":token-3"), None),
        ("Basic ====", None),
        ("Basic \xff", None),
        ("Digest token-3", None),
    ],
)
def test_who_comes_in(known: Credentials, header: str | bytes | None, name: str | None) -> None:
    if name is None:
        with pytest.raises(Unauthenticated):
            known.admit(header, "peer")
    else:
        known.admit(header, "peer")
    assert {each for each, uses in known.uses.items() if uses} == ({name} if name else set())


def test_a_lease_ends_with_whoever_holds_it() -> None:
    known = Credentials(SenderAuth(bearer_tokens=(SenderToken(name="a", token="x", max_in_flight=2),)), "admin")
    leases = [known.admit("Bearer x", "peer") for _ in range(2)]
    with pytest.raises(TooManyInFlight):
        known.admit("Bearer x", "peer")
    leases.pop()
    known.admit("Bearer x", "peer")


def test_credentials_of_the_same_name_go_on_with_their_counts(known: Credentials) -> None:
    lease = known.admit("Bearer token-0", "peer")
    others = (SenderToken(name="t0", token="other", max_in_flight=1), SenderToken(name="new", token="new"))
    known.replace(Credentials(SenderAuth(bearer_tokens=others), "receive.grpc"))
    assert known.uses == {"t0": 1, "new": 0}
    for gone in ("Bearer token-0", basic("user0:password-0")):
        with pytest.raises(Unauthenticated):
            known.role_of(gone, "peer")
    assert known.role_of("Bearer other", "peer")
    assert known.challenge == 'Bearer realm="sampler-proxy"'
    assert lease
