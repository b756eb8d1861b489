"""The code blocks of README and docs are true: configurations load, commands print what pages show, code compiles.

How a page writes them:

- A `yaml` block is a configuration, and loads. It may be a fragment: where the last of its rules has a condition, a
  rule that matches everything is put after it; variables that it names are set.
- `<!-- file: NAME -->` before a `yaml` or `json` block makes it a file for the page's `console` blocks. Such a
  configuration may be faulty, if a `console` block shows what `check` says of it.
- A `console` block is a session: each line `$ sampler-proxy ...` runs in a folder with the page's files, and prints the
  lines below it. What cannot be run here stands in a block without a language.
- `<!-- not a configuration -->` before a `yaml` block: it is YAML of somebody else.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs import pages
from tests.docs.pages import Block

NOT_OURS = "not a configuration"
CATCH_ALL = {"name": "the rest", "keep": "none"}
LANGUAGES = {"", "console", "json", "mermaid", "python", "yaml"}


def file_name(block: Block) -> str | None:
    return block.note.removeprefix("file: ") if block.note.startswith("file: ") else None


def variables(text: str) -> dict[str, str]:
    """A value for each variable that a configuration names, good as a key, too."""
    return dict.fromkeys(re.findall(r"\$\{env:([A-Za-z0-9_]+)", text), "0123456789abcdef" * 2)


def framed(text: str) -> str:
    """The configuration that a fragment stands for."""
    data: Any = yaml.safe_load(text)
    rules = data.get("rules")
    if rules and {"match", "unless"} & rules[-1].keys():
        rules.append(CATCH_ALL)
    return yaml.safe_dump(data, sort_keys=False)


def sessions(block: Block) -> list[tuple[list[str], str]]:
    """The commands of a console block, and what each prints."""
    found: list[tuple[list[str], str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), ""))
        else:
            command, output = found[-1]
            found[-1] = (command, output + line)
    return found


def checked_files(page: Path) -> set[str]:
    """Files of which a console block of the page shows what `check` says."""
    commands = [
        command for block in pages.blocks(page) if block.language == "console" for command, _ in sessions(block)
    ]
    return {command[2] for command in commands if command[:2] == ["sampler-proxy", "check"]}


def configurations() -> list[Block]:
    blocks = [block for block in pages.all_blocks("yaml") if block.note != NOT_OURS]
    return [block for block in blocks if file_name(block) not in checked_files(block.page)]


@pytest.mark.parametrize("block", configurations(), ids=str)
def test_configurations_load(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("block.yaml").write_text(framed(block.text))
    assert pages.run("check", "block.yaml", **variables(block.text)) == "block.yaml: ok\n"


@pytest.mark.parametrize("block", pages.all_blocks("console"), ids=str)
def test_commands_print_what_is_shown(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ: dict[str, str] = {}
    for other in pages.blocks(block.page):
        if (name := file_name(other)) is not None:
            Path(name).write_text(other.text)
            environ |= variables(other.text)
    for command, output in sessions(block):
        assert command[0] == "sampler-proxy"
        assert pages.run(*command[1:], **environ) == output


@pytest.mark.parametrize("block", pages.all_blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", pages.all_blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_notes_and_languages_mean_something(page: Path) -> None:
    for block in pages.blocks(page):
        assert block.language in LANGUAGES, block
        assert block.note in ("", NOT_OURS) or file_name(block), block
        if block.note == NOT_OURS:
            assert yaml.safe_load(block.text)


def test_the_readme_keeps_its_two_commands() -> None:
    """Newcomers, and `.ci/run` in its own way, use them as they stand."""
    commands = [block.text.strip() for block in pages.blocks(pages.ROOT / "README.md") if not block.language]
    assert "pip install . && sampler-proxy run" in commands
    assert "pip install -e '.[dev]' && pytest" in commands


def test_the_readme_stays_short() -> None:
    assert len((pages.ROOT / "README.md").read_text().splitlines()) <= 170


def test_a_fragment_is_framed() -> None:
    whole = "rules:\n  - {name: a, keep: 1%}\n"
    assert yaml.safe_load(framed(whole)) == yaml.safe_load(whole)
    rules = yaml.safe_load(framed("rules:\n  - {name: a, match: '{ }', keep: all}\n"))["rules"]
    assert [rule["name"] for rule in rules] == ["a", "the rest"]
