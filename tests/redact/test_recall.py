"""No kind of secret leaves more often, and no innocent is hit more often, than `recall.json` says.

The figures are those of the corpus in `tests/support/planting`. Where they get better, record them:
`python -m benchmarks.recall --write`; what leaked is shown by `python -m benchmarks.recall --leaks KIND`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import recall
from tests.support.planting import judge
from tests.support.planting.innocents import innocents
from tests.support.planting.samples import kinds, samples

RECORDED = json.loads(recall.RECORD.read_text())


@pytest.mark.parametrize("preset", recall.PRESETS)
def test_recall_does_not_get_worse(preset: str) -> None:
    secrets, innocent = recall.measure(preset)
    for judged, name in ((secrets, "kind"), (innocent, "innocent")):
        recorded = {kind: bad for kind, (bad, _) in RECORDED[preset][name].items()}
        found = {kind: bad for kind, (bad, _) in judge.counts(judged, "kind").items()}
        worse = {kind: (recorded.get(kind, 0), bad) for kind, bad in found.items() if bad > recorded.get(kind, 0)}
        assert not worse, f"recorded, and found now: {worse}; see `python -m benchmarks.recall`"


@pytest.mark.parametrize("page", recall.PAGES, ids=lambda page: page.name)
def test_pages_show_what_is_recorded(page: Path) -> None:
    shown = page.read_text().partition(recall.BEGIN)[2].partition(recall.END)[0]
    assert shown.strip() == recall.PAGES[page](RECORDED).strip()


def test_the_corpus_is_large_enough() -> None:
    assert len({kind.name for _, kind in kinds()}) == len(kinds()) >= 60
    assert len(samples()) >= 1_000
    assert len(innocents()) >= 1_000


def test_every_secret_is_seen_where_nothing_is_redacted() -> None:
    """Else the judge is blind."""
    made = samples()
    blind = [one for one, texts in zip(made, judge.redacted(None, made), strict=True) if not judge.leaks(one, texts)]
    assert not blind


def test_nothing_is_left_of_what_is_masked() -> None:
    """Else the judge sees secrets in what a carrier holds anyway."""
    made = [one._replace(value=masked(str(one.value), one.parts), key="k") for one in samples()]
    seen = [one for one, texts in zip(made, judge.redacted(None, made), strict=True) if judge.leaks(one, texts)]
    assert not seen


def masked(text: str, parts: tuple[str, ...]) -> str:
    """Mask the parts where they stand as they are; a text with escapes goes whole."""
    masked = text
    for part in parts:
        masked = masked.replace(part, "****")
    return masked if masked != text else "****"
