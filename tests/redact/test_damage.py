"""Whatever is done to the text around a secret, the secret does not leave: by kind of carrier, the smallest damage.

The same is searched by coverage in `tests/fuzz/carriers.py`.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from tests.support.planting import damage

TIMES = 6
STEPS = st.lists(
    st.builds(
        damage.Step,
        what=st.integers(0, 6),
        where=st.integers(0, 120),
        piece=st.integers(0, len(damage.PIECES) - 1),
    ),
    max_size=damage.MAX_STEPS,
)


@pytest.mark.parametrize("group", damage.planted_carriers())
@settings(max_examples=150, derandomize=True)  # one in ten thousand frees one: fuzzing looks for these
@given(data=st.data())
def test_damage_frees_no_secret(group: str, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(damage.planted_kinds()))
    carrier = data.draw(st.sampled_from(damage.planted_carriers()[group]))
    planted = damage.plant(kind, carrier, seed=1)
    assume(planted is not None)
    assert planted is not None
    assume(damage.found_when_sound(planted))
    text = damage.damaged(planted, data.draw(STEPS))
    note(f"{kind.name} in {carrier.name}: {text!r}")
    assert not damage.leaves(planted, text)


@pytest.mark.parametrize("group", damage.planted_carriers())
def test_many_damages_free_no_secret(group: str) -> None:
    """The same, each carrier with each kind, always the same damages: of each carrier the shortest text that leaks."""
    random = Random(group)
    found: dict[str, str] = {}
    for carrier in damage.planted_carriers()[group]:
        for kind in damage.planted_kinds():
            planted = damage.plant(kind, carrier, seed=1)
            if planted is None or not damage.found_when_sound(planted):
                continue
            for _ in range(TIMES):
                steps = [
                    damage.Step(*map(random.randrange, (7, 400, len(damage.PIECES))))
                    for _ in range(random.randint(1, 3))
                ]
                text = damage.damaged(planted, steps)
                if damage.leaves(planted, text):
                    found[carrier.name] = min(text, found.get(carrier.name, text), key=len)
    assert not found, "\n".join(f"{name}: {text!r}" for name, text in found.items())
