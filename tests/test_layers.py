"""The house's order: a module imports only from rows above its own, and neighbours in a row do not know each other.

Reads the sources (Cython's too) and imports nothing. A new module has to be given its place here.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent / "sampler_proxy"

# From the bottom up. A package is one module here; inside it imports must only not go round in circles.
LAYERS = [
    "__init__",
    "allocator errors metrics units conditions expansion detectors redact_presets _proto",
    "config_section config_types yaml_positions _mend _tracestate _conditions _keys",
    "config_redact fragments sampling _terms",
    "config",
    "config_file redact_values _plan",
    "_judge",
    "_key_reader _rows _wire",
    "traceql",
    "_ledger _uniformity limit rate",
    "buffer decided redact rules",
    "_verdicts check",
    "_edits",
    "_redact",
    "stamp",
    "pipeline",
    "explain preview",
    "state",
    "export receive admin reload rates",
    "service",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row.split()}

NETWORK = {"grpc", "aiohttp", "asyncio", "socket", "ssl", "uvloop"}
MAY_USE_NETWORK = {"export", "receive", "admin", "reload", "service", "cli"}

# Bytes and decisions know no I/O, no clock and no chance: these enter as arguments.
WORLD = {"time", "datetime", "random", "secrets", "os", "signal", "subprocess", "logging", "structlog"}
PURE = {
    *(name for name, level in LEVEL.items() if level <= LEVEL["pipeline"]),
} - {"__init__"}

FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)", re.MULTILINE)
PLAIN = re.compile(r"^[ \t]*c?import[ \t]+([\w., \t]+)", re.MULTILINE)


def sources() -> list[Path]:
    return [path for path in sorted(TOP.rglob("*")) if path.suffix in (".py", ".pyx", ".pxd", ".pyi")]


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(TOP).with_suffix("").parts


def imported(path: Path, *, at_once: bool = False) -> set[str]:
    """Absolute dotted names of what a file imports; `from a import b` gives a.b. `at_once`: not those inside
    functions."""
    found: set[str] = set()
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        for module, names in FROM.findall(text):
            plain = re.sub(r"#.*", "", names).strip("()")
            found |= {f"{module}.{name.split()[0]}" for name in plain.split(",") if name.strip()}
        for names in PLAIN.findall(text):
            found |= {name.split()[0] for name in names.split(",") if name.strip()}
        return found
    package = ("sampler_proxy", *module_of(path)[:-1])
    tree = ast.parse(text)
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            found |= {".".join([*base, *([node.module] if node.module else []), name.name]) for name in node.names}
    return found


def own(names: set[str]) -> set[tuple[str, ...]]:
    """What of it is ours, as the parts of the module's name; `from sampler_proxy import __version__` is __init__."""
    found = set()
    for name in names:
        first, *rest = name.split(".")
        if first == "sampler_proxy":
            found.add(tuple(rest) if rest and rest[0] in LEVEL else ("__init__",))
    return found


def test_every_module_has_its_place() -> None:
    there = {module_of(path)[0] for path in sources()}
    assert there - set(LEVEL) == set(), "a new module: give it a place in LAYERS"
    assert set(LEVEL) - there == set(), "a place in LAYERS without a module"


@pytest.mark.parametrize("path", sources(), ids=lambda path: "/".join(path.relative_to(TOP).parts))
def test_imports_point_down(path: Path) -> None:
    name = module_of(path)[0]
    for other in own(imported(path)):
        if other[0] != name:
            assert LEVEL[other[0]] < LEVEL[name], f"{name} must not import {other[0]}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: "/".join(path.relative_to(TOP).parts))
def test_who_may_touch_the_world(path: Path) -> None:
    name = module_of(path)[0]
    roots = {one.split(".")[0] for one in imported(path)}
    if name not in MAY_USE_NETWORK:
        assert not roots & NETWORK
    if name in PURE:
        assert not roots & WORLD


@pytest.mark.parametrize("package", [path.parent.name for path in sorted(TOP.glob("*/__init__.py"))])
def test_packages_are_free_of_circles(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in (TOP / package).glob("*.py"):
        inside = {other[1] for other in own(imported(path, at_once=True)) if other[0] == package and len(other) > 1}
        graph[path.stem] = {other for other in inside if (TOP / package / f"{other}.py").exists()}
    tuple(TopologicalSorter(graph).static_order())


def test_the_reader_of_imports() -> None:
    """What the other tests stand on: they would pass if it found nothing."""
    assert {"sampler_proxy._wire.Scanner", "sampler_proxy.metrics", "threading"} <= imported(TOP / "pipeline.pyx")
    assert "sampler_proxy._proto.cbytes" in imported(TOP / "_tracestate.pxd")
    assert any(name.startswith("sampler_proxy.conditions.") for name in imported(TOP / "traceql" / "plan.py"))
    assert own({"sampler_proxy.__version__", "sampler_proxy.export.queue.Queue", "grpc.aio"}) == {
        ("__init__",),
        ("export", "queue", "Queue"),
    }
