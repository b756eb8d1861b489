"""docs/messages.md has every log line, refusal, start error and trace file error that the sources can make.

The texts are read from the sources, wherever these lie; the parts of a text that are filled in at run time are not
compared. Faults of a configuration are too many to be listed: that page names their kinds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampler_proxy import errors
from sampler_proxy.export import reasons
from sampler_proxy.pipeline.ledger import REFUSALS
from tests.docs import pages

SOURCES = sorted(path for path in (pages.ROOT / "sampler_proxy").rglob("*") if path.suffix in (".py", ".pyx"))
PAGE = re.sub(r"\s+", " ", (pages.ROOT / "docs" / "messages.md").read_text().replace("\\|", "|"))

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
RAISED = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.RequestError | errors.StartError | errors.TraceFileError)
}
ANSWERS = {"Refusal", "_refusal", "Refused", "complain", "failed_alone", "_reject", "Failed"}
"""What else makes a text that somebody reads: refusals without an exception, and what exporters log."""

_IN_CYTHON = re.compile(rf"\b(?:{'|'.join(sorted(RAISED))})\(\s*f?\"((?:[^\"\\]|\\.)*)\"")
_FILLED_IN = re.compile(r"%(?:\.\d+)?[a-z]|\{[^{}]*\}")


def called(call: ast.Call) -> str | None:
    """The name of a function whose text arguments are shown to somebody."""
    if isinstance(call.func, ast.Attribute):
        logs = isinstance(call.func.value, ast.Name) and call.func.value.id in ("log", "_log", "logger")
        return call.func.attr if (logs and call.func.attr in LEVELS) or call.func.attr in ANSWERS else None
    return call.func.id if isinstance(call.func, ast.Name) and call.func.id in RAISED | ANSWERS else None


def text_of(node: ast.expr) -> str:
    """A literal as one text, `{}` for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def texts(path: Path) -> Iterator[str]:
    if path.suffix == ".pyx":
        yield from _IN_CYTHON.findall(path.read_text())
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and called(node):
            found = [text for argument in node.args if " " in (text := text_of(argument))]
            yield from found[:1]


def parts(text: str) -> list[str]:
    """What does not depend on anything, as far as it is long enough to be looked for."""
    fixed = (re.sub(r"\s+", " ", part).strip(" :;,.()") for part in _FILLED_IN.split(text))
    return [part for part in fixed if len(part) >= 4]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_every_text_is_in_the_catalogue(path: Path) -> None:
    missing = [part for text in texts(path) for part in parts(text) if part not in PAGE]
    assert missing == []


def test_every_reason_of_a_refusal_is_in_the_catalogue() -> None:
    counted = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    for path in SOURCES:
        counted |= set(re.findall(r"(?:on|count)_refused\(\"([a-z_]+)\"\)", path.read_text()))
    counted |= set(REFUSALS)
    assert {"memory", "draining", "malformed", "too_large", "busy", "stalled", "internal"} <= counted
    assert [reason for reason in sorted(counted) if f"`{reason}`" not in PAGE] == []


def test_every_reason_of_a_failed_request_is_in_the_catalogue() -> None:
    sentences = [sentence for _, sentence in reasons.CONNECTION]
    sentences += [text for name, text in vars(reasons).items() if name.isupper() and isinstance(text, str)]
    sentences += reasons.STATUSES.values()
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in PAGE] == []


def test_the_reader_of_sources_finds_texts() -> None:
    """What the first test stands on: it would pass if nothing were found."""
    found = [text for path in SOURCES for text in texts(path)]
    assert len(found) > 40
    assert "the buffer is full" in found
    assert "ready" not in found  # one word: too short to be looked for
    assert "export {}: cannot write {}: {}" in found
    assert parts("export %s: works again after %.1f s") == ["export", "works again after"]
