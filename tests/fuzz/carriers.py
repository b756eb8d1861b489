"""Texts around a planted secret, damaged: a secret that is found in the sound text is found in every damaged one.

Of the input the first bytes say which secret is planted in which carrier; every three others are a step of the damage,
which leaves alone the secret and the name that announces it (`tests/support/planting/damage.py`).
"""

from __future__ import annotations

from functools import lru_cache

from tests.support.planting import damage


def one(data: bytes) -> None:
    if len(data) < 3:
        return
    planted = _planted(data[0], data[1], data[2])
    if planted is None:
        return
    steps = [damage.Step(*data[at : at + 3]) for at in range(3, min(len(data), 3 + 3 * damage.MAX_STEPS) - 2, 3)]
    text = damage.damaged(planted, steps)
    assert not damage.leaves(planted, text), f"{planted.kind} left {planted.carrier}: {text!r}"


@lru_cache(1 << 12)
def _planted(kind: int, group: int, carrier: int) -> damage.Planted | None:
    kinds, groups = damage.planted_kinds(), [*damage.planted_carriers().values()]
    around = groups[group % len(groups)]
    planted = damage.plant(kinds[kind % len(kinds)], around[carrier % len(around)], seed=1)
    return planted if planted is not None and damage.found_when_sound(planted) else None
