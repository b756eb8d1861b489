"""The documentation as the tests read it: pages, fenced blocks, tables, and the commands that pages show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from sampler_proxy.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""What users read."""

_LEFT_OUT = {"build", "dist", "node_modules"}
_FENCE = re.compile(r"^( *)(`{3,})([a-z]*)\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (.+?) -->\s*\Z")


class Block(NamedTuple):
    """A fenced block. `note` is the HTML comment right before it."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def markdown() -> list[Path]:
    """Every page of the repository, without what builds and tools leave in it."""
    found = []
    for path in sorted(ROOT.rglob("*.md")):
        folders = path.relative_to(ROOT).parts[:-1]
        hidden = any(folder.startswith(".") and folder != ".github" for folder in folders)
        if not hidden and not _LEFT_OUT & set(folders) and not any("site-packages" in folder for folder in folders):
            found.append(path)
    return found


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for fence in _FENCE.finditer(text):
        before = _COMMENT.search(text, 0, fence.start())
        indent = len(fence[1])
        content = "".join(line[indent:] if line.strip() else line for line in fence[4].splitlines(keepends=True))
        line = text.count("\n", 0, fence.start()) + 1
        yield Block(page, line, fence[3], content, before[1] if before else "")


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def prose(page: Path) -> str:
    """The page without fenced blocks."""
    return _FENCE.sub("", page.read_text())


def code_spans(text: str) -> list[str]:
    """Inline code, as it is read; the backslash before a bar in a table is none."""
    spans = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text, re.DOTALL)
    return [content.strip().replace("\\|", "|") for _, content in spans]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table, heads included."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def run(*arguments: str, **environ: str) -> str:
    """What a command prints, stdout and stderr as a terminal shows them."""
    return CliRunner().invoke(main, list(arguments), env=environ, catch_exceptions=False).output


@cache
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("schema"))
    return found


def settings() -> dict[str, list[Any]]:
    """Every key of the configuration by its path (`export[].batch.max_wait`), with its different defaults."""
    found: dict[str, list[Any]] = {}
    for path, default in _settings(schema(), ""):
        if default not in found.setdefault(path, []):
            found[path].append(default)
    return found


REQUIRED, SECTION = "required", "section"


def _settings(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    if "$ref" in node:
        yield from _settings(schema()["$defs"][node["$ref"].rpartition("/")[2]], path)
    for name, inner in node.get("properties", {}).items():
        at = f"{path}.{name}".lstrip(".")
        if name in node.get("required", ()):
            yield at, REQUIRED
        else:
            yield at, inner.get("default", SECTION)
        yield from _settings(inner, at)
    for variant in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _settings(variant, path)
    if "items" in node:
        yield from _settings(node["items"], path + "[]")
