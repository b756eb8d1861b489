"""Every relative link of every page leads to a file that exists, and every anchor to a heading of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs import pages

_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$", re.MULTILINE)


def slug(heading: str) -> str:
    """GitHub's rule: the text as it is shown, in lower case, without punctuation, spaces as hyphens."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Of a page without its fenced blocks; of equal headings the second ends with -1, and so on."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(text):
        name = slug(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def links(page: Path) -> Iterator[str]:
    """Targets of the page's links that are not addresses of the web."""
    without_code = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "`code`", pages.prose(page), flags=re.DOTALL)
    for target in _LINK.findall(without_code):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield unquote(target)


def broken(page: Path) -> list[str]:
    found = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(pages.prose(to))):
            found.append(target)
    return found


@pytest.mark.parametrize("page", pages.markdown(), ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    assert broken(page) == []


def test_every_page_of_docs_is_in_the_index() -> None:
    listed = {target.partition("#")[0] for target in links(pages.ROOT / "docs" / "README.md")}
    assert {page.name for page in (pages.ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Percentage, target, minimum or limit?", "percentage-target-minimum-or-limit"),
        ("What `th` says", "what-th-says"),
        ("OTLP/gRPC & more", "otlpgrpc--more"),
        ("Back-off [here](there.md)", "back-off-here"),
        ("snake_case stays", "snake_case-stays"),
    ],
)
def test_slugs_follow_the_rule_of_github(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# There\n\n## There\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md#there) [b](other.md#there-1) [c](#here) [d](https://host.example) `[e](not-a-link.md)`\n"
        "[f](none.md) [g](other.md#there-2) [h](#nowhere)\n```\n# in a block\n[i](none.md)\n```\n[j](#in-a-block)\n"
    )
    assert broken(page) == ["none.md", "other.md#there-2", "#nowhere", "#in-a-block"]
