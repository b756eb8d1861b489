"""What requests come with: which of it is kept, and what cannot be."""

from __future__ import annotations

import pytest

from sampler_proxy.errors import MalformedRequest
from sampler_proxy.otlp.metadata import decode
from sampler_proxy.receive.metadata import SenderMetadata, bind

KEPT = SenderMetadata(["x-scope-orgid", "x-zone"])


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([], ()),
        ([("content-type", "application/grpc"), ("x-scope-orgid-2", "1")], ()),
        ([("X-Zone", "eu"), ("x-other", "1"), ("X-Scope-OrgID", "a b")], (("x-scope-orgid", "a b"), ("x-zone", "eu"))),
        ([("x-zone", "eu"), ("X-ZONE", "us"), ("x-zone", "")], (("x-zone", "eu, us, "),)),
        ([("x-scope-orgid", "")], (("x-scope-orgid", ""),)),
    ],
)
def test_which_headers_are_kept(headers: list[tuple[str, str]], kept: tuple[tuple[str, str], ...]) -> None:
    assert decode(KEPT.of(headers)) == kept
    assert bool(KEPT.of(headers)) == bool(kept)


@pytest.mark.parametrize("value", ["caf\u00e9", "a\tb", "a\n", "\x7f", "\udc80"])
def test_what_cannot_go_out_is_refused(value: str) -> None:
    with pytest.raises(MalformedRequest, match=r"^the header x-zone has other characters") as caught:
        KEPT.of([("x-zone", value)])
    assert value not in str(caught.value)


def test_a_handler_gets_what_is_bound() -> None:
    assert bind(lambda message, metadata=b"": message + metadata, b"2")(b"1") == b"12"
