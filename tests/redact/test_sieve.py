"""The sieve's second question, where a detector has a finer pattern."""

from __future__ import annotations

from sampler_proxy.redact.detectors.catalogue import SEPARATOR
from sampler_proxy.redact.detectors.types import Detector
from sampler_proxy.redact.sieve import CANARY, Sieve

COARSE = Detector("a", "ab", lambda _: [], finer="abc")
PLAIN = Detector("b", "zz", lambda _: [])
SIEVE = Sieve([COARSE, PLAIN], sql=False, urls=False)


def joined(*texts: bytes) -> bytes:
    return SEPARATOR.join((*texts, CANARY))


def test_a_finer_pattern_confirms_a_hit() -> None:
    assert SIEVE.hits(b"ab") == []
    assert SIEVE.hits(b"abc")[0] == 0
    assert SIEVE.hits(b"ab zz")[0] == 1


def test_only_values_that_it_confirms_are_looked_at() -> None:
    assert SIEVE.sift(joined(b"ab", b"no", b"abd")) is None
    assert SIEVE.sift(joined(b"ab", b"no", b"abc", b"ab")) == [(10, 12)]
    assert SIEVE.sift(joined(b"ab", b"zz")) == [(5, 7)]


def test_a_finer_pattern_does_not_reach_across_values() -> None:
    across = Sieve([Detector("a", "ab", lambda _: [], finer=r"ab\n\x00\nc")], sql=False, urls=False)
    assert across.sift(joined(b"ab", b"c")) is None


def test_a_text_that_is_not_confirmed_may_hold_names_only() -> None:
    assert SIEVE.only_names(b'{"k": "ab"}')
    assert not SIEVE.only_names(b'{"k": "abc"}')
