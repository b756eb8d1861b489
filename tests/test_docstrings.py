"""Docstrings say what a function does by a verb, and every module says what it is for.

A machine cannot tell a verb: refused are the words with which sentences begin that have none in front. Docstrings of
properties and classes may be nouns, but begin with no pronoun either.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "sampler_proxy"
SOURCES = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".pyi", ".pyx", ".pxd")]
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))

# Pronouns, relative words and conjunctions: no docstring of ours begins with one, a class's or property's neither.
RELATIVE = (
    *("What", "Which", "Who", "Whose", "Where", "When", "Whether", "While", "Why", "How", "That", "This", "These"),
    *("Those", "It", "Its", "They", "Their", "There", "Here", "We", "Our", "You", "If", "As", "For"),
)
# Articles, numerals and prepositions stand before a noun. Where a verb is due none of them comes first.
NOMINAL = (
    *("A", "An", "The", "All", "Any", "Both", "Each", "Either", "Every", "Neither", "No", "None", "Nothing", "Some"),
    *("Same", "Only", "Several", "Many", "One", "Two", "Three", "First", "Last", "Next", "Other", "More", "Less"),
    *("After", "At", "Before", "Beside", "By", "From", "In", "Inside", "Into", "Of", "On", "Out", "To", "With"),
    *("Without", "Not", "Raises"),
)
BEGINNING = re.compile(r"[A-Za-z]+(?=[\s,.;:]|$)")
SENTENCE = re.compile(r"[.:](?=\s|$|\()")

# Text of the command line, shown by --help.
SHOWN = {("cli.py", "main")}
# What is not a sentence by its nature: the name of the product.
TITLES = {"__init__.py"}

FUNCTION = re.compile(r"^(?P<indent>[ \t]*)(?:def|c(?:p?)def)[ \t]+(?!class\b|enum\b|struct\b|extern\b)[^=\n]*?(\w+)\(")
CLASS = re.compile(r"^[ \t]*(?:cdef )?class (\w+)")


class Docstring(NamedTuple):
    line: int
    kind: str  # module, class, function or property
    name: str
    text: str


def of_python(text: str) -> Iterator[Docstring]:
    tree = ast.parse(text)
    yield Docstring(1, "module", "", ast.get_docstring(tree) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (doc := ast.get_docstring(node)):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            if any(ast.unparse(one).endswith(("property", ".setter")) for one in node.decorator_list):
                kind = "property"
            yield Docstring(node.lineno, kind, node.name, doc)


def of_native(text: str) -> Iterator[Docstring]:
    """Read Cython by indentation: a docstring opens the file, or the line behind the head of a function or class."""
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line and not line.startswith("#")), 0)
    yield Docstring(1, "module", "", _quoted(lines, first))
    for number, line in enumerate(lines):
        head = FUNCTION.match(line)
        found = head or CLASS.match(line)
        if found is None:
            continue
        body, nested = number, line.count("(") - line.count(")")
        while nested > 0:
            body += 1
            nested += lines[body].count("(") - lines[body].count(")")
        if re.search(r":\s*(#.*)?$", lines[body]) and body + 1 < len(lines) and (doc := _quoted(lines, body + 1)):
            kind = "class" if head is None else "property" if lines[number - 1].strip() == "@property" else "function"
            yield Docstring(number + 1, kind, found[found.lastindex or 0], doc)


def _quoted(lines: list[str], number: int) -> str:
    """Return the docstring that begins on a line; "" where none does."""
    if not lines or not lines[number].lstrip().startswith('"""'):
        return ""
    return "\n".join(lines[number:]).lstrip()[3:].partition('"""')[0].strip()


def docstrings(path: Path) -> list[Docstring]:
    return [*(of_python if path.suffix in (".py", ".pyi") else of_native)(path.read_text())]


def fault(one: Docstring) -> str | None:
    """Return what is wrong with a docstring that is there."""
    beginning = BEGINNING.match(one.text)
    acts = one.kind in ("function", "module")
    if beginning is None:
        if acts:
            return "begins with no word"
    elif beginning[0] in RELATIVE or (acts and (beginning[0] in NOMINAL or beginning[0].islower())):
        return f"begins with {beginning[0]!r}, not with a verb"
    if SENTENCE.search(one.text.partition("\n\n")[0]) is None:
        return "has a first sentence without an end"
    return None


@every_source
def test_every_module_has_a_docstring(path: Path) -> None:
    module = docstrings(path)[0]
    assert module.kind == "module"
    assert module.text


@every_source
def test_docstrings_begin_with_a_verb_and_end_their_first_sentence(path: Path) -> None:
    found = [
        f"{one.line}: {one.name or 'the module'} {wrong}: {one.text[:40]!r}"
        for one in docstrings(path)
        if (path.name, one.name) not in SHOWN
        and not (one.kind == "module" and path.relative_to(PACKAGE).as_posix() in TITLES)
        and (wrong := fault(one))
    ]
    assert not found


NATIVE = '''# A comment.
"""Holds numbers."""
cdef class A:
    """A list of
    numbers."""
    cdef int declared(self) except -1

    cdef int add(
        self, int a
    ) except -1:
        """Add
        a number."""

    @property
    def last(self):
        """Whether: it."""

cdef inline int f() noexcept: return 1
'''


def test_reading_of_docstrings() -> None:
    """Check the ground on which the other tests stand."""
    assert [one[:3] for one in of_native(NATIVE)] == [
        (1, "module", ""),
        (3, "class", "A"),
        (8, "function", "add"),
        (15, "property", "last"),
    ]
    python = NATIVE.partition("\n    cdef int declared")[0].replace("cdef ", "")
    assert [one.text for one in of_python(python)] == ["Holds numbers.", "A list of\nnumbers."]


@pytest.mark.parametrize(
    ("kind", "text", "sound"),
    [
        ("function", "Return the key. What else?", True),
        ("function", "Tell whether a key is\nthere: a bit.", True),
        ("function", "Whether a key is there.", False),
        ("function", "The key.", False),
        ("function", "`key`: of a trace.", False),
        ("function", "Return the key", False),
        ("property", "The key.", True),
        ("property", "`th`, shown.", True),
        ("property", "Whether a key is there.", False),
        ("class", "A key.", True),
        ("class", "What a key is.", False),
        ("module", "What a key is.", False),
        ("module", "Reads keys.", True),
    ],
)
def test_faults_are_found(kind: str, text: str, sound: bool) -> None:
    assert (fault(Docstring(1, kind, "name", text)) is None) is sound
