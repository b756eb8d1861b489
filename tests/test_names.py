"""Comments, docstrings and pages name only what there is: files, modules, and no name that has been given up.

Read as text: every .py, .pyx, .pxd, .pyi and .md file, configuration and scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
HERE = Path(__file__)
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".md", ".toml", ".yaml", ".yml", ".lark", ".c"}
FOLDERS = ("sampler_proxy", "tests", "benchmarks", "docs", "deploy", ".ci", ".github")
SKIPPED = {"build", "corpus", "found", "data", "__pycache__"}
# The pages of the past may say what things were called.
PAST = {"CHANGELOG.md"}

FILE = re.compile(r"(?<![\w./*{<$-])((?:[\w.-]+/)*\w[\w-]*\.(?:pyx|pxd|pyi|py))\b(?![\w/])")
DOTTED = re.compile(r"(?<![\w./])sampler_proxy(?:\.\w+)+")

# Attributes of spans, and names of metrics' kin, that only look like modules.
ATTRIBUTES = {
    f"sampler_proxy.{name}" for name in ("rule", "reason", "incomplete", "adjusted_count", "redacted", "sampled_out")
}

# Files that are somebody else's, or a reader's own.
FOREIGN = {"app.py", "pricing.py", "stock.py", "fraud.py"}

# What was called so is called otherwise now, or is gone.
RETIRED = (
    *("Judge", "Judged", "Verdicts", "Entrance"),
    *("redact_values", "redact_presets", "config_redact", "config_file", "config_types", "config_section"),
    *("judge_bound", "ask_about", "look_ahead", "SET_ASIDE", "AHEAD", "NOWHERE", "_obey", "_stirred"),
    *("text_is_valid", "_tells", "JOINED", "ALONE", "LEAVES"),
    *("NESTED", "EFFORT_OF_TRACE"),
)
# Modules of which the name alone may stand for something else: in back quotes, and imported.
MODULES = (
    *("_wire", "_judge", "_rows", "_terms", "_verdicts", "_mend", "_edits", "_redact", "_plan", "_keys", "_key_reader"),
    *("_proto", "_conditions", "_tracestate", "_uniformity", "_ledger", "Rows", "Terms", "preview", "config_file"),
    "Chosen",
)
# Methods whose names are plain words, too.
METHODS = "entrance|settle"
WORD = re.compile(
    rf"(?<![\w.])(?:{'|'.join(RETIRED)})(?!\w)"
    rf"|(?<=`)(?:{'|'.join(MODULES)})(?=[`.])"
    rf"|(?<=import )(?:{'|'.join(MODULES)})(?!\w)"
    rf"|\bChosen(?=[*(\[])"
    rf"|(?<=\w\.)(?:{METHODS})(?!\w)|(?<=cdef int )(?:{METHODS})(?=\()|(?<!\w)entrance(?=\()"
)


def ours(path: Path) -> bool:
    """A file of the repository, not something built."""
    if set(path.relative_to(TOP).parts) & SKIPPED or not path.is_file():
        return False
    return path.suffix in SUFFIXES and not (path.suffix == ".c" and path.with_suffix(".pyx").exists())


ROOT = [path for path in TOP.iterdir() if ours(path)]
BELOW = [path for folder in FOLDERS for path in (TOP / folder).rglob("*") if ours(path) or path == TOP / ".ci" / "run"]
FILES = sorted(path for path in (*ROOT, *BELOW) if path != HERE and path.name not in PAST)
IDS = [str(path.relative_to(TOP)) for path in FILES]
THERE = [f"/{path.relative_to(TOP)}" for path in (*ROOT, *BELOW)]
every_file = pytest.mark.parametrize("path", FILES, ids=IDS)


def exists(name: str) -> bool:
    return any(path.endswith("/" + name) for path in THERE)


def resolves(dotted: str) -> bool:
    """A room, a module, or a name that is written in one: `sampler_proxy.errors.ConfigError`."""
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        place = TOP.joinpath(*parts[:size])
        rest = parts[size:]
        if place.is_dir():
            return not rest or (rest[0] in ("__version__", "egg-info") and len(rest) == 1)
        sources = [source for suffix in (".py", ".pyx", ".pxd") if (source := place.with_suffix(suffix)).exists()]
        if sources:
            text = "\n".join(source.read_text() for source in sources)
            return all(re.search(rf"\b{re.escape(name)}\b", text) for name in rest)
    return False


def lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text().splitlines(), 1)


@every_file
def test_files_that_are_named_exist(path: Path) -> None:
    found = [
        f"{number}: {name}"
        for number, line in lines(path)
        for name in FILE.findall(line)
        if name not in FOREIGN and not exists(name)
    ]
    assert not found


@every_file
def test_dotted_paths_resolve(path: Path) -> None:
    found = [
        f"{number}: {name}"
        for number, line in lines(path)
        for name in DOTTED.findall(line)
        if name not in ATTRIBUTES and not name.endswith("__") and not resolves(name)
    ]
    assert not found


@every_file
def test_retired_names_are_gone(path: Path) -> None:
    assert not [f"{number}: {name}" for number, line in lines(path) for name in WORD.findall(line)]


def test_reading_of_names() -> None:
    """What the other tests stand on."""
    assert FILE.findall("see `fragments.pyx`, rules/rate.pyi and (receive/grpc.py): a.b.c, python app.python") == [
        "fragments.pyx",
        "rules/rate.pyi",
        "receive/grpc.py",
    ]
    assert exists("rules/rate.pyx")
    assert not exists("ate.pyx")
    assert resolves("sampler_proxy.errors.ConfigError")
    assert resolves("sampler_proxy.rules.rate")
    assert not resolves("sampler_proxy.redact_values")
    assert not resolves("sampler_proxy.errors.NoSuchError")
    assert WORD.findall("`Judge`, a `_wire.Scanner`, an adjudicated case, self._keys") == ["Judge", "_wire"]
    assert WORD.findall("Chosen traces settle; a cdef Chosen* chosen, `Chosen`, self.settle(), NESTED") == [
        "Chosen",
        "Chosen",
        "settle",
        "NESTED",
    ]
    assert len(FILES) > 200
