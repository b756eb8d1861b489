"""How many synthetic secrets leave redaction, and how many innocent values it hits: by kind, carrier and place.

usage: python -m benchmarks.recall [--preset common|strict] [--by kind|family|carrier|group|place] [--of FAMILY] [--all]
       python -m benchmarks.recall --leaks KIND        the forms that leave, of a kind, carrier, group or place
       python -m benchmarks.recall --hits FAMILY       the innocents of a family that are changed, and to what
       python -m benchmarks.recall --write             record the figures for the test, and on the pages

The corpus is made by `tests/support/planting`: kinds of secrets in carriers (JSON, what is nearly JSON, forms, dumps,
logs) in the places of a span. A secret has left if the exact bytes, or over half of a long one, are in the result, read
as they are or without escapes and base64. *Whole* counts texts of which over half of the words beside the secret are
gone with it: no leak, but a loss. An innocent is hit if anything in its span changed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampler_proxy.redact.policy import Policy
from tests.support.planting import judge
from tests.support.planting.carriers import carriers
from tests.support.planting.innocents import innocents, stays_under_strict
from tests.support.planting.samples import kinds, samples
from tests.support.redacting import policy

RECORD = Path(__file__).parents[1] / "tests" / "redact" / "recall.json"
Record = Mapping[str, Mapping[str, Mapping[str, Sequence[int]]]]
"""Preset, what is counted by, name: how many left or were hit, and how many were tried."""
PRESETS = ("common", "strict")
SEED = 1
WORST = 40  # rows, unless all are asked for
SHOWN = 30


def policy_of(preset: str) -> Policy:
    found = policy({"preset": preset})
    assert found is not None
    return found


def measure(preset: str, seed: int = SEED, of: str | None = None) -> tuple[list[judge.Outcome], list[judge.Outcome]]:
    """Send secrets and innocents through redaction under a preset. `of`: secrets of one family only."""
    made = policy_of(preset)
    gentle = [one for one in innocents(seed) if preset == "common" or stays_under_strict(one)]
    secrets = [one for one in samples(seed) if of in (None, one.family)]
    return judge.judge_secrets(made, secrets), judge.judge_innocents(made, gentle)


def table(judged: Sequence[judge.Outcome], by: str, every: bool, word: str) -> None:
    """Print the rows with the most findings, the worst first."""
    rows = sorted(judge.counts(judged, by).items(), key=lambda row: (-row[1][0] / row[1][1], row[0]))
    blotted = Counter(getattr(one.sample, by) for one in judged if one.blotted)
    clean = sum(not bad for _, (bad, _) in rows)
    shown = rows if every else [row for row in rows if row[1][0]][:WORST]
    print(f"\n| {by} | {word} | of | share | whole |\n|---|---|---|---|---|")
    for name, (bad, number) in shown:
        print(f"| {name} | {bad} | {number} | {bad / number:.1%} | {blotted[name] or ''} |")
    if not every:
        print(f"({clean} of {len(rows)} without any; --all shows every row)")


def total(judged: Sequence[judge.Outcome], word: str) -> str:
    bad = sum(one.leaked for one in judged)
    return f"{bad} of {len(judged)} {word} ({bad / len(judged):.2%})"


def show(judged: Sequence[judge.Outcome], name: str) -> None:
    """Print the samples of one kind, carrier, group or place that leaked or were hit, and what left of them."""
    found = [one for one in judged if one.leaked]
    some = [one for one in found if name in one.sample[:4]]
    print(f"{len(some)} of {len(found)}" + (f", the first {SHOWN}" if len(some) > SHOWN else ""))
    for one in some[:SHOWN]:
        sample = one.sample
        beside = "".join(f", {key}={value}" for key, value in sample.beside)
        print(f"\n{sample.kind} / {sample.carrier} / {sample.place} {sample.key}{beside}\n  in  {sample.value!r}")
        print(
            f"  out {[text for text in one.left if text not in ('shop', 'service.name', 'GET /orders', sample.key)]!r}"
        )


def record() -> Record:
    """Count under every preset, by kind, family and group of carriers: so many left or were hit, of so many."""
    found: dict[str, dict[str, dict[str, tuple[int, int]]]] = {}
    for preset in PRESETS:
        secrets, innocent = measure(preset)
        figures = {by: judge.counts(secrets, by) for by in ("family", "group", "kind")}
        found[preset] = {**figures, "innocent": judge.counts(innocent, "kind")}
    return found


def write(found: Record) -> None:
    """Write the figures into the record and into the pages that show them."""
    RECORD.write_text(_compact(found))
    for page, shown in PAGES.items():
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{shown(found)}{END}{rest.partition(END)[2]}")


def _compact(found: Record) -> str:
    """Write JSON with a line for each kind."""
    blocks = []
    for preset, tables in found.items():
        parts = []
        for by, rows in tables.items():
            lines = ",\n".join(f"   {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
            parts.append(f"  {json.dumps(by)}: {{\n{lines}\n  }}")
        blocks.append(f" {json.dumps(preset)}: {{\n" + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def families(found: Record) -> str:
    """Write the table of families of kinds, and of innocents."""
    around, innocent = len(carriers()), sum(number for _, number in found[PRESETS[0]]["innocent"].values())
    lines = [f"{len(kinds())} kinds of secrets in {around} kinds of text, and {innocent} innocent values:", ""]
    lines += ["| | kinds | tried | `common` | `strict` |", "|---|---|---|---|---|"]
    numbers = Counter(family for family, _ in kinds())
    for family, title in TITLES.items():
        lines.append(_row(f"{title} | {numbers[family]}", [found[preset]["family"][family] for preset in PRESETS]))
    lines.append(_row(f"all that left | {numbers.total()}", [_sum(found[preset]["kind"]) for preset in PRESETS]))
    lines.append(_row("innocent values that were hit | ", [_sum(found[preset]["innocent"]) for preset in PRESETS]))
    return "\n".join(lines) + "\n"


def details(found: Record) -> str:
    """Write the tables of groups of carriers, of the worst kinds, and of the innocents that are hit."""
    groups = _table("carriers", "group", found, least=-1)
    worst = _table("kinds of which more than 1 % leave", "kind", found, least=0.01)
    hit = _table("innocents that are hit", "innocent", found, least=0)
    return "\n".join((families(found), groups, worst, hit))


def _table(title: str, by: str, found: Record, least: float) -> str:
    """Write the rows in which more than a share leaves under `common`, the worst first."""
    rows = found[PRESETS[0]][by]
    names = sorted(rows, key=lambda name: (-rows[name][0] / rows[name][1], name))
    lines = [f"| {title} | tried | `common` | `strict` |", "|---|---|---|---|"]
    for name in names:
        if rows[name][0] / rows[name][1] > least:
            lines.append(_row(name, [found[preset][by].get(name, (0, 0)) for preset in PRESETS]))
    return "\n".join(lines) + "\n" if len(lines) > 2 else f"{title.capitalize()}: none.\n"


def _row(title: str, figures: Sequence[Sequence[int]]) -> str:
    shares = " | ".join(f"{bad / number:.1%} ({bad})" if number else "" for bad, number in figures)
    return f"| {title} | {figures[0][1]} | {shares} |"


def _sum(rows: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    return sum(row[0] for row in rows.values()), sum(row[1] for row in rows.values())


TOP = Path(__file__).parents[1]
PAGES = {TOP / "benchmarks" / "README.md": details, TOP / "docs" / "redaction.md": families}
BEGIN, END = "<!-- figures of benchmarks.recall -->", "<!-- end of the figures -->"
TITLES = {
    "provider": "keys in the form of a provider, with or without its name beside",
    "token": "tokens of standards, hashes of passwords, private keys",
    "personal": "cards, bank accounts, social security numbers, e-mail",
    "named": "secrets that only their name announces",
    "text": "command lines, connection URLs, links, headers, statements",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.recall", description="Secrets that leave, innocents that are hit."
    )
    parser.add_argument("--preset", choices=PRESETS, help="both, if none is given")
    parser.add_argument("--by", choices=("kind", "family", "carrier", "group", "place"), default="kind")
    parser.add_argument("--of", metavar="FAMILY", help="only kinds of a family: provider personal token named text")
    parser.add_argument("--all", action="store_true", help="rows without findings, too")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--leaks", metavar="NAME", help="show what left, of a kind, carrier, group or place")
    parser.add_argument("--hits", metavar="FAMILY", help="show which innocents were changed")
    parser.add_argument("--write", action="store_true", help="record the figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the table may be read by `head`
    if arguments.write:
        write(record())
        return 0
    if arguments.leaks or arguments.hits:
        secrets, innocent = measure(arguments.preset or "common", arguments.seed, arguments.of)
        show(secrets if arguments.leaks else innocent, arguments.leaks or arguments.hits)
        return 0
    for preset in (arguments.preset,) if arguments.preset else PRESETS:
        secrets, innocent = measure(preset, arguments.seed, arguments.of)
        blotted = sum(one.blotted for one in secrets)
        print(f"{preset}: {total(secrets, 'secrets left')}, {blotted} texts masked whole;", end=" ")
        print(total(innocent, "innocents hit"))
        table(secrets, arguments.by, arguments.all, "left")
        table(innocent, "kind", arguments.all, "hit")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
