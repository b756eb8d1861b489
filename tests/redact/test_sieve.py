"""The sieve's two questions: which values have a sign, and which of these a pattern matches."""

from __future__ import annotations

import pytest

from sampler_proxy.redact.detectors.catalogue import SEPARATOR
from sampler_proxy.redact.detectors.types import Detector, Sign
from sampler_proxy.redact.sieve import CANARY, Sieve

SIGNED = Detector("a", "abc", lambda _: [], signs=(Sign("ab"),))
PLAIN = Detector("b", "zz", lambda _: [])
SIEVE = Sieve([SIGNED, PLAIN], sql=False, urls=False)


def joined(*texts: bytes) -> bytes:
    return SEPARATOR.join((*texts, CANARY))


def test_a_pattern_confirms_a_sign() -> None:
    assert SIEVE.hits(b"ab") == []
    assert SIEVE.hits(b"abc") == [0]
    assert SIEVE.hits(b"ab zz") == [1]
    assert SIEVE.hits(b"zz abc zz") == [0, 1]


def test_only_values_that_it_confirms_are_looked_at() -> None:
    assert SIEVE.sift(joined(b"ab", b"no", b"abd")) is None
    assert SIEVE.sift(joined(b"ab", b"no", b"xabc", b"ab")) == [(10, 14)]
    assert SIEVE.sift(joined(b"ab", b"zz", b"abc")) == [(5, 7), (10, 13)]


def test_a_pattern_is_asked_about_one_value() -> None:
    across = Sieve([Detector("a", r"ab\n\x00\nc", lambda _: [], signs=(Sign("ab"),))], sql=False, urls=False)
    assert across.sift(joined(b"ab", b"c")) is None
    whole = Sieve([Detector("a", r"\Aab\z", lambda _: [], signs=(Sign("ab"),))], sql=False, urls=False)
    assert whole.sift(joined(b"xab", b"ab")) == [(6, 8)]


def test_a_pattern_without_signs_is_asked_about_all() -> None:
    assert Sieve([SIGNED], sql=False, urls=False).sift(joined(b"zz")) is None
    assert SIEVE.sift(joined(b"zz")) == [(0, 2)]


def test_what_fails_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    sieve = Sieve([SIGNED], sql=False, urls=False)
    monkeypatch.setattr(sieve, "_searches", [])
    assert sieve.sift(joined(b"ab")) == [(0, len(joined(b"ab")))]


def test_a_text_that_is_not_confirmed_may_hold_names_only() -> None:
    assert SIEVE.only_names(b'{"k": "ab"}')
    assert not SIEVE.only_names(b'{"k": "abc"}')
