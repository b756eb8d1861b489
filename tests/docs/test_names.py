"""Names that pages quote exist: keys of the configuration with their defaults, metrics, commands, detectors."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sampler_proxy import metrics
from tests.docs import pages

CONFIGURATION = pages.ROOT / "docs" / "configuration.md"
SETTINGS = pages.settings()
SECTIONS = {path for path in SETTINGS if any(inner.startswith((f"{path}.", f"{path}[]")) for inner in SETTINGS)}
METRICS = {metric.name: metric for metric in metrics.METRICS}


def documented() -> dict[str, str]:
    """The keys of docs/configuration.md, with what stands as their default."""
    found = {}
    for cells in pages.rows(CONFIGURATION.read_text()):
        if cells[0] != "key":
            for key in expanded(cells[0].strip("`")):
                assert key not in found, f"{key} is documented twice"
                found[key] = cells[2]
    return found


def expanded(key: str) -> list[str]:
    """The keys that `{a,b}.c` stands for, as in a shell."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", key)
    return [key] if match is None else [f"{match[1]}{each}{match[3]}" for each in match[2].split(",")]


def shown(default: Any) -> str:
    """A default as the page writes it."""
    if default is None or default == pages.SECTION:
        return "none"
    if default == pages.REQUIRED:
        return "required"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def test_every_key_is_documented_once_and_no_other() -> None:
    in_sections = {
        "rules[].keep",
        "redact.keys[].action",
        "redact.values[].action",
        "redact.hash_key",
        "export[].headers",
    }
    assert set(documented()) == {path for path in SETTINGS if path not in SECTIONS or path in in_sections}


@pytest.mark.parametrize("path", documented())
def test_defaults_are_those_of_the_schema(path: str) -> None:
    assert documented()[path] in {shown(default) for default in SETTINGS[path]}


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_quoted_keys_exist(page: Path) -> None:
    top = "|".join(path for path in SETTINGS if "." not in path and "[" not in path)
    for span in pages.code_spans(pages.prose(page)):
        if re.fullmatch(rf"(?:{top})(?:\[\])?\.[a-z_.\[\]]+", span) and not span.endswith((".yaml", ".md")):
            assert span in SETTINGS, span


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_defaults_in_the_text_are_those_of_the_schema(page: Path) -> None:
    """Written in brackets behind the key: `buffer.decision_wait` (30 s)."""
    text = pages.prose(page)
    quoted = re.findall(r"`([a-z_.\[\]]+)`\s\((?:default )?([0-9][0-9.]*\s?[A-Za-z%]*)\)", text)
    quoted += [span.split(": ") for span in pages.code_spans(text) if re.fullmatch(r"floor: [0-9]+%", span)]
    for key, value in quoted:
        defaults = [SETTINGS[path] for path in SETTINGS if path == key or path.endswith(f".{key}")]
        assert [re.sub(r"\s", "", value)] in defaults, key


def quoted_metrics(text: str) -> list[tuple[str, set[str]]]:
    """Metrics in inline code, with the labels that stand in braces behind them: `name_total{label="value"}`."""
    found = []
    for span in pages.code_spans(text):
        match = re.fullmatch(r"(?:sampler_proxy_)?([a-z_]+)(?:\{(.*)\})?", span)
        if match and (match[2] is not None or match[1] in METRICS or match[1].endswith("_total")):
            labels = {part.partition("=")[0].strip() for part in (match[2] or "").split(",")}
            found.append((match[1], labels - {""}))
    return found


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_quoted_metrics_exist_with_their_labels(page: Path) -> None:
    for name, labels in quoted_metrics(pages.prose(page)):
        assert name in METRICS
        assert labels <= set(METRICS[name].labels)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_no_metric_is_misspelt(page: Path) -> None:
    keys = {path.rpartition(".")[2] for path in SETTINGS}
    for span in pages.code_spans(pages.prose(page)):
        if re.fullmatch(r"[a-z]+(?:_[a-z]+)+", span) and span not in METRICS and span not in keys:
            assert difflib.get_close_matches(span, METRICS, cutoff=0.9) == []


def test_every_metric_worth_an_alert_exists() -> None:
    section = pages.prose(pages.ROOT / "docs" / "operating.md").partition("## Metrics worth an alert")[2]
    cells = [cells[0] for cells in pages.rows(section.partition("\n## ")[0])][1:]
    assert len(cells) > 10
    for cell in cells:
        names = [span.partition("{")[0] for span in pages.code_spans(cell) if "=" not in span.partition("{")[0]]
        assert set(names) <= METRICS.keys(), cell


def test_the_ledger_names_metrics() -> None:
    equations = next(
        block.text
        for block in pages.blocks(pages.ROOT / "docs" / "operating.md")
        if "spans_received_total" in block.text
    )
    assert set(re.findall(r"[a-z]+(?:_[a-z]+)+", equations)) <= METRICS.keys()


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_quoted_commands_exist(page: Path) -> None:
    commands = set(re.findall(r"^  ([a-z]+) ", pages.run("--help").partition("Commands:")[2], re.MULTILINE))
    assert {"run", "check", "schema"} <= commands
    for span in pages.code_spans(pages.prose(page)):
        if match := re.match(r"sampler-proxy ([a-z]+)", span):
            assert match[1] in commands


def test_detectors_are_those_that_can_be_written() -> None:
    words = next(
        choice["enum"]
        for choice in pages.schema()["$defs"]["ValueRule"]["properties"]["detect"]["anyOf"]
        if "enum" in choice
    )
    section = pages.prose(pages.ROOT / "docs" / "redaction.md").partition("### Detectors")[2].partition("\n## ")[0]
    listed = [name for cells in pages.rows(section) for name in pages.code_spans(cells[0])]
    assert sorted(listed) == sorted(words)
