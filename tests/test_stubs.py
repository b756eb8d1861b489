"""The stubs are the manual of the native modules: names, parameters and defaults in them are what the modules have.

`mypy.stubtest` compares all that a compiled module tells of itself. Parameters of constructors it does not tell: these
are compared with the source. Run alone: pytest tests/test_stubs.py
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "sampler_proxy"
ALLOWLIST = Path(__file__).with_name("stubs_allowlist.txt")
STUBS = sorted(path.relative_to(TOP) for path in PACKAGE.rglob("*.pyi"))

CLASS = re.compile(r"^(?:cdef )?class (\w+)", re.MULTILINE)
CONSTRUCTOR = re.compile(r"^    def __c?init__\(\s*self,?([^:]*?)\):", re.MULTILINE)

Parameter = tuple[str, bool, bool]  # name, keyword-only, with a default


def module_of(stub: Path) -> str:
    return ".".join(stub.with_suffix("").parts)


def stubtest(stubs: Path, modules: Sequence[str], *more: str) -> subprocess.CompletedProcess[str]:
    """Of the stubs below a folder, against the modules as they are built."""
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-disjoint-bases"]
    return subprocess.run(
        [*command, "--allowlist", str(ALLOWLIST), *more, *modules],
        cwd=stubs,
        # mypy looks into the current folder first, and Python does not.
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(TOP), "MYPYPATH": "", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


def test_stubs_agree_with_modules() -> None:
    result = stubtest(TOP, [module_of(stub) for stub in STUBS])
    assert result.returncode == 0, result.stdout + result.stderr


def test_drift_is_found(tmp_path: Path) -> None:
    """What the test above stands on: a parameter, a name and a property that are not the module's."""
    for source in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")):
        target = tmp_path / source.relative_to(TOP)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    stub = Path("sampler_proxy/pipeline/limit.pyi")
    text = (tmp_path / stub).read_text()
    for now, then in {
        "def owe(self, size: float, now_ns": "def owe(self, amount: float, now_ns",
        "def grant(": "def granted(",
        "    @property\n    def unit(self)": "    def unit(self)",
    }.items():
        assert now in text
        text = text.replace(now, then, 1)
    (tmp_path / stub).write_text(text)
    result = stubtest(tmp_path, [module_of(stub)], "--ignore-unused-allowlist")
    assert result.returncode == 1
    for found in ("Limit.owe is inconsistent", "Limit.granted is not present at runtime", "Limit.unit is"):
        assert found in result.stdout


def native_constructors(source: str) -> dict[str, list[Parameter]]:
    found: dict[str, list[Parameter]] = {}
    starts = [*CLASS.finditer(source)]
    ends = [*(match.start() for match in starts[1:]), len(source)][: len(starts)]
    for start, end in zip(starts, ends, strict=True):
        if constructor := CONSTRUCTOR.search(source, start.end(), end):
            found[start[1]] = list(_parameters(constructor[1]))
    return found


def _parameters(text: str) -> list[Parameter]:
    """Of Cython's notation: `Plan plan not None, *, uint64_t seed=0`."""
    keyword_only, found = False, []
    for part in re.sub(r"\([^()]*\)", "", text).split(","):
        name, _, default = part.partition("=")
        words = name.replace(" not None", "").split()
        if words == ["*"]:
            keyword_only = True
        elif words:
            found.append((words[-1], keyword_only, bool(default or "=" in part)))
    return found


def stub_constructors(source: str) -> dict[str, list[Parameter]]:
    found = {}
    for node in ast.parse(source).body:
        for function in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                arguments = function.args
                plain = arguments.args[1:]
                first = len(plain) - len(arguments.defaults)
                found[node.name] = [(one.arg, False, number >= first) for number, one in enumerate(plain)] + [
                    (one.arg, True, default is not None)
                    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                ]
    return found


@pytest.mark.parametrize("stub", STUBS, ids=str)
def test_constructors_agree_with_source(stub: Path) -> None:
    """A class without a constructor in its stub cannot be made from Python, as far as types go."""
    native = native_constructors((TOP / stub.with_suffix(".pyx")).read_text())
    for name, parameters in stub_constructors((TOP / stub).read_text()).items():
        assert native[name] == parameters, name


def test_reading_of_constructors() -> None:
    source = "cdef class A:\n    cdef int x\n\n    def __cinit__(self, Plan p not None, n=(), *, uint64_t seed=0, b):\n"
    assert native_constructors(source) == {
        "A": [("p", False, False), ("n", False, True), ("seed", True, True), ("b", True, False)]
    }
    target = native_constructors((PACKAGE / "rules" / "target.pyx").read_text())["Target"]
    assert target[0] == ("per_second", True, False)
