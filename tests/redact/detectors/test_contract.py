"""What holds for every detector, whatever the bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sampler_proxy.redact.detectors.catalogue import DETECTORS, SEPARATOR, STRICT, Range, sieve
from sampler_proxy.redact.sieve import CANARY, Sieve
from tests.redact.detectors.finding import find_all
from tests.redact.detectors.marked import unmarked
from tests.redact.detectors.test_tables import HITS, MISSES, masked

ALL = tuple(DETECTORS.values())
SIEVE = sieve(ALL)
SIFTING = Sieve(ALL, sql=False, urls=False)
EXAMPLES = [unmarked(text)[0] for table in (HITS, MISSES) for texts in table.values() for text in texts]


@st.composite
def pieces(draw: st.DrawFn) -> bytes:
    """Of texts from the tables: whole, or cut anywhere."""
    example = draw(st.sampled_from(EXAMPLES))
    if draw(st.booleans()):
        return example
    cut = draw(st.integers(0, len(example)))
    return example[:cut] if draw(st.booleans()) else example[cut:]


glue = st.sampled_from([b"", b" ", b"-", b",", b"\n", b"\x00", b"\xff", b'"', b"=", b"?", b"&", b":", b"/", b"@", b"."])
texts = st.binary(max_size=200) | st.lists(pieces() | glue | st.binary(max_size=4), max_size=6).map(b"".join)


@given(texts)
def test_ranges_are_sorted_disjoint_and_inside(text: bytes) -> None:
    for detector in ALL:
        end = 0
        for found in detector.find(text):
            assert isinstance(found, Range)
            assert end <= found.start < found.end <= len(text), detector.name
            end = found.end


@given(st.lists(texts, min_size=1, max_size=4))
def test_the_pattern_is_necessary_alone_and_among_others(values: list[bytes]) -> None:
    finding = {i for i, detector in enumerate(ALL) for value in values if detector.find(value)}
    assert finding <= set(SIEVE(SEPARATOR.join(values)))
    for value in values:
        assert {i for i, detector in enumerate(ALL) if detector.find(value)} <= set(SIEVE(value))


@given(st.lists(texts, min_size=1, max_size=4))
def test_values_with_findings_have_signs(values: list[bytes]) -> None:
    regions = SIFTING.sift(SEPARATOR.join((*values, CANARY))) or []
    start = 0
    for value in values:
        end = start + len(value)
        finding = {i for i, detector in enumerate(ALL) if detector.find(value)}
        assert finding <= set(SIFTING.hits(value))
        assert not finding or any(low < end and start < high for low, high in regions)
        start = end + len(SEPARATOR)


@given(texts)
def test_masking_is_idempotent(text: bytes) -> None:
    for detector in ALL:
        once = masked(text, [found for found, _ in find_all([detector], text)])
        assert detector.find(once) == [], detector.name


@given(texts)
def test_the_preset_masks_everything_it_finds_at_once(text: bytes) -> None:
    strict = [DETECTORS[name] for name in STRICT]
    found = find_all(strict, text)
    once = masked(text, [one for one, _ in found])
    assert find_all(strict, once) == []
    for detector in strict:
        for start, end in detector.find(text):
            assert any(one.start <= start and end <= one.end for one, _ in found)
    assert all(a.end <= b.start for (a, _), (b, _) in pairwise(found))
