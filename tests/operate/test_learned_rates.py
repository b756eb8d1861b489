"""What rules with a target have learned, from one rule set to the next and over a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampler_proxy import metrics
from sampler_proxy.config.check import Loaded, check, load_config
from sampler_proxy.config.model import Adaptive, Config, Rule
from sampler_proxy.operate.learned_rates import Rates, identity
from sampler_proxy.rules.rule_set import Keep
from sampler_proxy.rules.target import Target
from sampler_proxy.storage.learned import Learned
from sampler_proxy.units import Rate

SECOND = 1_000_000_000
TARGET = Rate(100.0, "traces")
KEYED = Rule(name="rest", keep=Adaptive(target=TARGET, per=("resource.service.name",)))
FIRST = Rule(name="errors", match="{ status = error }", keep=1.0)


def loaded(*rules: Rule) -> Loaded:
    return load_config(Config(rules=rules))


def target_of(keep: float | Keep) -> Target:
    assert isinstance(keep, Keep)
    assert isinstance(keep.controller, Target)
    return keep.controller


def feed(target: Target, keys: dict[bytes, int], seconds: int = 5) -> None:
    """So many traces a second of each key."""
    for tenth in range(seconds * 10):
        for key, count in keys.items():
            for number in range(count // 10):
                target.decide(key, now_ns=tenth * SECOND // 10 + number)


def fingerprint(text: bytes) -> bytes:
    return text[:16].ljust(16, b".")


def test_a_rule_that_has_not_changed_keeps_its_controller() -> None:
    rates = Rates(1)
    prepared = rates.prepare(loaded(KEYED))
    assert isinstance(prepared.keeps[0], Keep)
    rates.adopt(prepared)
    target = target_of(prepared.keeps[0])
    again = rates.prepare(loaded(FIRST, KEYED))
    assert again.keeps[0] == 1.0
    assert target_of(again.keeps[1]) is target
    # What was prepared and not adopted has changed nothing.
    other = Rule(name="rest", keep=Adaptive(target=Rate(7.0, "spans")))
    assert target_of(rates.prepare(loaded(other)).keeps[0]) is not target
    assert target_of(rates.prepare(loaded(KEYED)).keeps[0]) is target
    rates.adopt(rates.prepare(loaded(other)))
    assert target_of(rates.prepare(loaded(KEYED)).keeps[0]) is not target


def test_what_a_former_process_has_learned_is_for_the_first_rule_set_only() -> None:
    rates = Rates(1)
    rates.restore({identity(KEYED): Learned(2.5, {})}, fingerprint)
    prepared = rates.prepare(loaded(KEYED))
    assert target_of(prepared.keeps[0]).learned().level == 2.5
    rates.adopt(prepared)
    rates.adopt(rates.prepare(loaded(FIRST, Rule(name="x", keep=0.1))))
    assert target_of(rates.prepare(loaded(KEYED)).keeps[0]).learned().level != 2.5


def test_nothing_is_saved_of_a_process_that_has_seen_nothing() -> None:
    rates = Rates(1)
    rates.restore({identity(KEYED): Learned(2.5, {fingerprint(b"a"): 3.0})}, fingerprint)
    rates.adopt(rates.prepare(loaded(KEYED)))
    assert not rates.learned().seen


def test_what_has_not_been_seen_again_is_saved_for_a_minute() -> None:
    rates = Rates(1)
    rates.restore(
        {identity(KEYED): Learned(2.5, {fingerprint(b"a"): 3.0, fingerprint(b"quiet"): 7.0})},
        fingerprint,
    )
    prepared = rates.prepare(loaded(KEYED))
    rates.adopt(prepared)
    feed(target_of(prepared.keeps[0]), {b"a": 20, b"b": 10})
    for number in range(3):
        saved = rates.learned().hashed(fingerprint)[identity(KEYED)]
        assert saved.demands[fingerprint(b"a")] == pytest.approx(20, rel=0.3)
        assert saved.demands[fingerprint(b"b")] == pytest.approx(10, rel=0.3)
        assert saved.demands.get(fingerprint(b"quiet")) == (7.0 if number < 2 else None)


def test_a_rule_without_traffic_keeps_what_a_former_process_has_learned() -> None:
    quiet = Rule(name="quiet", match="{ .x = 1 }", keep=Adaptive(target=TARGET))
    before = Learned(2.5, {fingerprint(b"a"): 3.0})
    rates = Rates(1)
    rates.restore({identity(quiet): before, "a rule that is gone": before}, fingerprint)
    prepared = rates.prepare(loaded(quiet, KEYED))
    rates.adopt(prepared)
    feed(target_of(prepared.keeps[1]), {b"a": 20})
    for _ in range(4):
        saved = rates.learned().hashed(fingerprint)
        assert saved.keys() == {identity(quiet), identity(KEYED)}
        assert saved[identity(quiet)] == before


def test_keys_whose_texts_are_equal_once_cut_are_saved_as_one() -> None:
    rates = Rates(1)
    prepared = rates.prepare(loaded(KEYED))
    rates.adopt(prepared)
    feed(target_of(prepared.keeps[0]), {b"same same same same one": 20, b"same same same same two": 10})
    saved = rates.learned().hashed(fingerprint)[identity(KEYED)]
    assert list(saved.demands) == [fingerprint(b"same same same same")]
    assert saved.demands[fingerprint(b"same same same same")] == pytest.approx(30, rel=0.3)


def test_what_is_shown_and_measured() -> None:
    rates = Rates(1)
    prepared = rates.prepare(loaded(KEYED))
    rates.adopt(prepared)
    feed(target_of(prepared.keeps[0]), {b"big": 500, b"small": 10}, 20)
    (shown,) = rates.describe(20 * SECOND, None)
    assert (shown["rule"], shown["unit"], shown["target_per_second"], shown["keys"]) == ("rest", "traces", 100.0, 2)
    assert shown["keep"] == {
        "target": "100 traces/s",
        "per": ["resource.service.name"],
        "at_least": "none",
        "at_most": "all",
        "minimum": None,
    }
    top = shown["top"]
    assert isinstance(top, list)
    assert [key["key"] for key in top] == [{"resource.service.name": "big"}, {"resource.service.name": "small"}]
    assert top[1]["probability"] == 1.0
    values = rates.values(20 * SECOND)
    assert values[metrics.TARGET_PER_SECOND] == {("rest", "traces"): 100.0}
    assert values[metrics.TARGET_DEMAND_PER_SECOND]["rest", "traces"] == pytest.approx(510, rel=0.05)
    assert values[metrics.TARGET_KEPT_PER_SECOND]["rest", "traces"] == pytest.approx(100, rel=0.1)
    assert values[metrics.TARGET_KEYS] == {("rest",): 2}


def test_identity_is_of_all_that_a_rule_says() -> None:
    changed = [
        KEYED.model_copy(update={"name": "other"}),
        KEYED.model_copy(update={"match": "{ .x = 1 }"}),
        KEYED.model_copy(update={"unless": "{ .x = 1 }"}),
        KEYED.model_copy(update={"keep": Adaptive(target=TARGET)}),
        KEYED.model_copy(update={"keep": 0.1}),
    ]
    assert len({identity(rule) for rule in (KEYED, *changed)}) == 6
    assert identity(KEYED) == identity(KEYED.model_copy())


def test_the_smallest_rate_that_check_takes_is_one_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "rules: [{name: a, keep: {target: 0.0036 traces/h, minimum: 0.0036/h}}]\nlimit: {spans: 0.0036/h}\n"
    )
    rates = Rates(1)
    assert rates.prepare(check(str(file), {})).keeps
