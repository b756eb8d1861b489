"""Parses YAML into plain data, with the position of every key, value and character; every problem is reported.

Scalars stay text, whatever they look like: the model defines the type of each setting, so `name: on` is a name, and a
variable's content can be a number but never YAML. Only an empty or `null` plain scalar is None. Refused: several
documents, duplicate keys, keys that are not plain text, merge keys, application tags, nesting and alias expansion
without bounds.

After problems the data is still as complete as it can be, so that the rest can be checked too; `Document.broken` names
the values (by path) that stand for something that could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from sampler_proxy.config.expansion import Expanded, TooLongError, expand
from sampler_proxy.errors import printable
from sampler_proxy.units import MIB

MAX_DEPTH = 32
MAX_NODES = 100_000  # with aliases expanded; a rule has about 4
MAX_CHARACTERS = 4 * MIB  # with aliases and references expanded
EXCERPT, EXCERPT_BEFORE = 160, 100  # characters of a line that are shown, and how many of them before the fault

_YAML = "tag:yaml.org,2002:"
_TAGS = {_YAML + name for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "value")}
_PROPERTIES = re.compile(r"(?:[&!]\S*[ \t]+)+")
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPE_LENGTH = {"x": 4, "u": 6, "U": 10}

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """Line and column, from 1; both 0 where nothing is known, that is: the file as a whole."""

    line: int
    column: int


class Problem(NamedTuple):
    """Something that is not YAML, or not YAML that is supported here."""

    position: Position
    message: str


@dataclass(frozen=True, slots=True)
class _Scalar:
    start: Position
    style: str | None  # as PyYAML has it: None plain, ' and " quoted, | and > blocks
    source: str  # as written, with quotes
    value: str  # before expansion
    expanded: Expanded

    def position(self, written_at: int) -> Position:
        """Locate a character of the value; in scalars folded over lines only their start can be located."""
        if self.style == "|":
            row = self.value.count("\n", 0, written_at)
            line, source = self.value.split("\n")[row], (self.source.split("\n")[row + 1 :] or [""])[0]
            if source.endswith(line):
                column = len(source) - len(line) + written_at - (self.value.rfind("\n", 0, written_at) + 1)
                return Position(self.start.line + 1 + row, column + 1)
        elif self.style != ">" and "\n" not in self.source:
            at = 1 if self.style else 0
            for index in range(written_at):
                if self.style == '"' and self.source[at] == "\\":
                    halves = 2 if self.source[at + 1] == "u" and self.value[index] > "\uffff" else 1
                    at += halves * _ESCAPE_LENGTH.get(self.source[at + 1], 2)
                elif self.style == "'" and self.source[at] == "'":
                    at += 2
                else:
                    at += 1
            return Position(self.start.line, self.start.column + at)
        return self.start


@dataclass(slots=True)
class Positions:
    """The positions of keys and values in the file, by path: `("rules", 0, "match")`."""

    _keys: dict[Path, Position] = field(default_factory=dict)
    _values: dict[Path, Position] = field(default_factory=dict)
    _scalars: dict[Path, _Scalar] = field(default_factory=dict)

    def key(self, path: Path) -> Position:
        """Locate the key that ends the path; the value, for an item of a list."""
        return self._keys.get(path) or self.value(path)

    def value(self, path: Path, offset: int | None = None) -> Position:
        """Locate a value, or one character of its text. A value that is not in the file has its parent's position."""
        if offset is not None and path in self._scalars:
            scalar = self._scalars[path]
            return scalar.position(scalar.expanded.written_at(offset))
        while path and path not in self._values:
            path = path[:-1]
        return self._values.get(path, Position(0, 0))

    def references(self, path: Path) -> tuple[str, ...]:
        """Return what references put into a text, which must not be shown."""
        return self._scalars[path].expanded.values if path in self._scalars else ()

    def unexpanded(self, path: Path) -> str:
        """Return a text with its references, not what they put into it."""
        return self._scalars[path].value

    def excerpt(self, path: Path, offset: int) -> str:
        """Quote the line of a text that holds a character, references not expanded, with a caret under the character;
        of a long line only the neighbourhood."""
        scalar = self._scalars[path]
        at = scalar.expanded.written_at(offset)
        begin = scalar.value.rfind("\n", 0, at) + 1
        end = scalar.value.find("\n", begin)
        end = len(scalar.value) if end < 0 else end
        first = max(begin, min(at - EXCERPT_BEFORE, end - EXCERPT))
        last = min(end, first + EXCERPT)
        head, tail = "..." * (first > begin), "..." * (last < end)
        before, behind = (_with_tabs(part) for part in (scalar.value[first:at], scalar.value[at:last]))
        indent = re.sub(r"[^\t]", " ", head + before)
        return f"    {head}{before}{behind}{tail}\n    {indent}^"


def _with_tabs(text: str) -> str:
    return "\t".join(map(printable, text.split("\t")))


class Document(NamedTuple):
    """A parsed text. `broken` has the paths of values that stand for something that could not be read."""

    data: Any  # dict, list, str or None
    positions: Positions
    problems: list[Problem]
    broken: set[Path]


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with bounds of depth and size, so that Python's stack and the machine's memory are not what
    bounds them, and the refusal has a position."""

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=self._here())
        self.nodes += 1
        if self.nodes > 2 * MAX_NODES:  # keys are nodes, too
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=self._here())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if _SURROGATES.search(node.value):  # as in JSON, whose writers escape what is beyond U+FFFF in two halves
            node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return node

    def _here(self) -> yaml.Mark:
        return self.peek_event().start_mark  # type: ignore[no-any-return,no-untyped-call]


_TOO_MANY = f"more than {MAX_NODES} values once aliases are expanded: write fewer"


class _TooMuchError(Exception):
    """A document beyond its bounds, and where; the message says which."""

    def __init__(self, message: str, position: Position) -> None:
        self.position = position
        super().__init__(message)


def parse(text: str, environ: Mapping[str, str]) -> Document:
    """Parse one YAML document, references to the environment expanded. Does not raise: problems are in the result."""
    text = text.replace("\r\n", "\n")
    document = Document(None, Positions(), [], set())
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "not YAML"
        if what.startswith("but found another document"):
            what = "a second document: write one only"
        elif r"'\t'" in what:
            what = "YAML is indented by spaces only: write spaces instead of the tab"
        elif what.startswith(("expected", "mapping values")):
            what += " (a value that contains signs of YAML, such as an expression, needs quotes round the whole value)"
        document.problems.append(Problem(_position(mark), what))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        document.problems.append(
            Problem(position, "a character that YAML does not allow: remove it, or escape it in double quotes")
        )
    else:
        if root is not None:
            try:
                return document._replace(data=_Builder(document, text, environ).build(root, ()))
            except _TooMuchError as error:
                document.problems.append(Problem(error.position, str(error)))
    return document


def _position(mark: yaml.Mark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else Position(0, 0)


class _Builder:
    """Turns PyYAML's nodes into plain data, and notes positions and problems in the document."""

    def __init__(self, document: Document, text: str, environ: Mapping[str, str]) -> None:
        self._document = document
        self._positions = document.positions
        self._text = text
        self._environ = environ
        self._nodes = self._characters = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooMuchError(_TOO_MANY, _position(node.start_mark))
        position = self._positions._values[path] = _position(node.start_mark)
        if len(path) > MAX_DEPTH:  # only an alias inside its own value gets here
            return self._break(path, position, "an alias inside of what it stands for")
        if node.tag not in _TAGS:
            return self._break(path, position, "tags are not supported: remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(position, "a key must be plain text")
                continue
            key = key_node.value
            if key_node.tag == _YAML + "merge":
                self._problem(
                    position, "merge keys (<<) are not supported: repeat the keys, or use an alias for a whole value"
                )
            elif key in result:
                first = self._positions.key((*path, key))
                self._problem(
                    position, f"duplicate key '{key}', first written in line {first.line}: remove one of them"
                )
            else:
                self._positions._keys[(*path, key)] = position
                result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> str | None:
        if node.tag == _YAML + "null" and node.style is None:
            return None
        start, source = _position(node.start_mark), self._text[node.start_mark.index : node.end_mark.index]
        if properties := _PROPERTIES.match(source):  # an anchor: the text begins after it
            start, source = Position(start.line, start.column + properties.end()), source[properties.end() :]
        try:
            expanded = expand(node.value, self._environ, MAX_CHARACTERS - self._characters)
        except TooLongError:
            message = "more than 4MiB once references and aliases are expanded: write less"
            raise _TooMuchError(message, start) from None
        self._characters += len(expanded.text)
        scalar = _Scalar(start, node.style, source, node.value, expanded)
        self._positions._scalars[path] = scalar
        self._positions._values[path] = start
        for written_at, message in expanded.problems:
            self._problem(scalar.position(written_at), message)
        if expanded.problems:
            self._document.broken.add(path)
            return None
        return expanded.text

    def _problem(self, position: Position, message: str) -> None:
        self._document.problems.append(Problem(position, message))

    def _break(self, path: Path, position: Position, message: str) -> None:
        self._problem(position, message)
        self._document.broken.add(path)
