"""The house's order: a room imports only from rows above its own, and neighbours in a row do not know each other.

Reads the sources (Cython's too, with their cimports) and imports nothing. A new room has to be given its place here and
in ARCHITECTURE.md; a new file in a room has not.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent / "sampler_proxy"

# From the bottom up: rooms (folders), and the files beside them.
ROWS = [
    "errors metrics units",
    "settings otlp traceql storage",
    "rules",
    "redact",
    "pipeline config",
    "receive export",
    "operate",
    "service",
    "cli",
]
LEVEL = {
    "__init__": -1,
    **{name: level for level, row in enumerate(ROWS) for name in row.split()},
    "__main__": len(ROWS),
}

NETWORK = {"grpc", "aiohttp", "asyncio", "socket", "ssl", "uvloop"}
READ_CERTIFICATES = {("config", "authorities"), ("config", "key_pairs")}  # ssl does, without a connection
MAY_USE_NETWORK = {"receive", "export", "operate", "service", "cli"}

# Bytes and decisions know no I/O, no clock and no chance: these enter as arguments.
WORLD = {"time", "datetime", "random", "secrets", "os", "signal", "subprocess", "logging", "structlog"}
PURE = {"errors", "metrics", "units", "settings", "otlp", "traceql", "rules", "redact", "pipeline", "config"}

FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)", re.MULTILINE)
PLAIN = re.compile(r"^[ \t]*c?import[ \t]+([\w., \t]+)", re.MULTILINE)
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi")


def sources() -> list[Path]:
    return [path for path in sorted(TOP.rglob("*")) if path.suffix in SUFFIXES]


def name_of(path: Path) -> str:
    return "/".join(path.relative_to(TOP).parts)


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(TOP).with_suffix("").parts


def imported(path: Path) -> set[str]:
    """Absolute dotted names of what a file imports; `from a import b` gives a.b."""
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
    for node in ast.walk(ast.parse(text)):
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


def modules(room: str) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """The modules of a room, those in folders of its own too, each with what it imports of the same room."""
    paths = [path for path in sources() if module_of(path)[0] == room]
    there = {module_of(path) for path in paths}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {module: set() for module in there}
    for path in paths:
        for other in own(imported(path)):
            # A name in a module, or the module: the longest prefix that is one.
            target = next((other[:n] for n in range(len(other), 0, -1) if other[:n] in there), None)
            if target is not None and target != module_of(path):
                graph[module_of(path)].add(target)
    return graph


def test_every_room_has_its_place() -> None:
    there = {module_of(path)[0] for path in sources()}
    assert there - set(LEVEL) == set(), "a new room: give it a place in ROWS"
    assert set(LEVEL) - there == set(), "a place in ROWS without a room"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    name = module_of(path)[0]
    for other in own(imported(path)):
        if other[0] != name:
            assert LEVEL[other[0]] < LEVEL[name], f"{name} must not import {other[0]}"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_who_may_touch_the_world(path: Path) -> None:
    name = module_of(path)[0]
    roots = {one.split(".")[0] for one in imported(path)}
    if name not in MAY_USE_NETWORK:
        assert not roots & (NETWORK - ({"ssl"} if module_of(path) in READ_CERTIFICATES else set()))
    if name in PURE:
        assert not roots & WORLD


@pytest.mark.parametrize("room", [path.parent.name for path in sorted(TOP.glob("*/__init__.py"))])
def test_rooms_are_free_of_circles(room: str) -> None:
    """Imports inside functions count: they hide a circle, and do not end it."""
    tuple(TopologicalSorter(modules(room)).static_order())


@pytest.mark.parametrize("path", sorted(TOP.glob("*/**/__init__.py")), ids=name_of)
def test_a_room_opens_with_its_contract(path: Path) -> None:
    """A docstring and nothing else: importing one module of a room must not import the others."""
    (only,) = ast.parse(path.read_text()).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)
    assert isinstance(only.value.value, str)


def test_the_reader_of_imports() -> None:
    """What the other tests stand on: they would pass if it found nothing."""
    pipeline = imported(TOP / "pipeline" / "pipeline.pyx")
    assert {"sampler_proxy.pipeline.scanner.Scanner", "sampler_proxy.metrics", "libc.string.memcpy"} <= pipeline
    assert "sampler_proxy.otlp.protobuf.cbytes" in imported(TOP / "otlp" / "tracestate.pxd")
    compiler = imported(TOP / "traceql" / "compiler.py")
    assert any(name.startswith("sampler_proxy.traceql.program.") for name in compiler)
    assert own({"sampler_proxy.__version__", "sampler_proxy.export.queue.Queue", "grpc.aio"}) == {
        ("__init__",),
        ("export", "queue", "Queue"),
    }
    graph = modules("redact")
    assert ("redact", "lanes") in graph["redact", "value_cache"]
    assert ("redact", "detectors", "types") in graph["redact", "detectors", "numbers"]


def test_architecture_lists_the_same_order() -> None:
    """The rows of the table in ARCHITECTURE.md are those of ROWS."""
    table = (TOP.parent / "ARCHITECTURE.md").read_text().partition("| row | room |")[2].partition("\n\n")[0]
    rows: list[set[str]] = []
    for line in table.splitlines()[2:]:
        number, rooms = (cell.strip() for cell in line.split("|")[1:3])
        if number:
            assert int(number) == len(rows) + 1
            rows.append(set())
        rows[-1] |= {name.strip("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", rooms)}
    assert rows == [set(row.split()) for row in ROWS]
