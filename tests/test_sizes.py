"""No module over 500 lines and no function over 60, tests and benchmarks apart, but where a comment argues it.

The reason is a line that begins with `# long: `, or with `Long: ` in a docstring. A module's stands before its first
import; a function's directly above it, or among its first lines.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent
SOURCES = [
    path for path in sorted((TOP / "sampler_proxy").rglob("*")) if path.suffix in (".py", ".pyx", ".pxd", ".pyi")
]

MAX_MODULE, MAX_FUNCTION = 500, 60
ARGUED = re.compile(r"^\s*(?:# )?[Ll]ong: \S.{10,}")
NEAR = 12  # lines: so far below the head of a function its reason may stand

FUNCTION = re.compile(
    r"^(?P<indent>[ \t]*)(?:def|c(?:p?)def)[ \t]+(?!class\b|enum\b|struct\b|union\b|extern\b)[^=\n]*?(?P<name>\w+)\("
)
IMPORT = re.compile(r"^(?:from|import|cimport)\b")


class Function(NamedTuple):
    name: str
    first: int  # lines, from 0
    last: int


def python_functions(text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield Function(node.name, node.lineno - 1, node.end_lineno - 1)


def native_functions(lines: list[str]) -> Iterator[Function]:
    """By indentation: to the last line that is deeper than the head, lines of the head itself apart."""
    for first, line in enumerate(lines):
        if (head := FUNCTION.match(line)) is None:
            continue
        body = first
        while body + 1 < len(lines) and not re.search(r":\s*(#.*)?$", lines[body]):
            if not lines[body].rstrip().endswith((",", "(")):
                break  # a declaration
            body += 1
        if not re.search(r":\s*(#.*)?$", lines[body]):
            continue
        last = body
        for number in range(body + 1, len(lines)):
            if lines[number].strip() and len(lines[number]) - len(lines[number].lstrip()) <= len(head["indent"]):
                break
            last = number if lines[number].strip() else last
        yield Function(head["name"], first, last)


def functions(path: Path, lines: list[str]) -> list[Function]:
    if path.suffix in (".py", ".pyi"):
        return [*python_functions("\n".join(lines))]
    return [*native_functions(lines)]


def argued(lines: list[str]) -> bool:
    return any(map(ARGUED.match, lines))


def too_long(path: Path, lines: list[str]) -> Iterator[str]:
    for one in functions(path, lines):
        size = one.last - one.first + 1
        if size > MAX_FUNCTION and not argued(lines[max(one.first - 3, 0) : one.first + NEAR]):
            yield f"{path.name}:{one.first + 1}: {one.name} has {size} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TOP)))
def test_modules_and_functions_are_of_readable_size(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = list(too_long(path, lines))
    opening = next((number for number, line in enumerate(lines) if IMPORT.match(line)), len(lines))
    if len(lines) > MAX_MODULE and not argued(lines[:opening]):
        found.append(f"{path.name} has {len(lines)} lines")
    assert not found, "split it, or say why not in a line `# long: because ...`"


NATIVE = """
cdef class A:
    cdef int x
    cdef int declared(self, int a) except -1

    def __init__(
        self, a,
        b,
    ):
        # long: the reason for it
        self.a = a

    cdef inline uint8_t* short(self, uint32_t* a) except NULL:  # why

        return NULL

cdef enum Kind:
    ONE = 1
cdef double X = f(1)
cpdef bint last(int a) noexcept nogil:
    return a
"""


def test_reading_of_functions() -> None:
    """What the other test stands on."""
    lines = NATIVE.splitlines()
    found = {one.name: one.last - one.first + 1 for one in native_functions(lines)}
    assert found == {"__init__": 6, "short": 3, "last": 2}
    padded = NATIVE.replace("return a", "    pass\n" * 60 + "    return a").splitlines()
    assert list(too_long(Path("limit.pyx"), padded)) == ["limit.pyx:20: last has 62 lines"]
    padded = NATIVE.replace("self.a = a", "self.a = a\n" + "        pass\n" * 60).splitlines()
    assert list(too_long(Path("limit.pyx"), padded)) == []
