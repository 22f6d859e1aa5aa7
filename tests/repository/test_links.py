"""Links in the Markdown pages lead to files and headings that exist, and none leaves the repository."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support.messages import ROOT

SKIPPED = {".venv", ".venv-reference", ".venv-demo", "build", "dist", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in SKIPPED or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
)
PAGES += sorted((ROOT / ".github").rglob("*.md"))


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[Token]:
    """Yield the parts of all texts of a page, such as links, images and code."""
    for token in tokens(page):
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """Return the targets of all links and images that are not addresses on the web."""
    targets = [token.attrs.get("href") or token.attrs.get("src") for token in inline(page)]
    return [str(target) for target in targets if target and not re.match(r"https?:|mailto:", str(target))]


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those of its headings, and those written as HTML."""
    found: dict[str, int] = {}
    for opening, content in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open":
            name = slug("".join(part.content for part in content.children or ()))
            found[name] = found.get(name, -1) + 1
    numbered = {f"{name}-{n}" if n else name for name, last in found.items() for n in range(last + 1)}
    return numbered | set(re.findall(r'<a id="([^"]+)"', page.read_text(encoding="utf-8")))


def problem(page: Path, link: str) -> str | None:
    """Return what is wrong with a link, or None."""
    path, _, anchor = link.partition("#")
    target = (page.parent / unquote(path)).resolve() if path else page
    if not target.is_relative_to(ROOT):
        return "leaves the repository"
    if not target.exists():
        return "leads to no file"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return "leads to no heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert {link: found for link in links(page) if (found := problem(page, link))} == {}


def test_every_page_of_the_docs_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {path for path in (ROOT / "docs").rglob("*.md") if path != index} - linked == set()


def test_every_image_of_the_docs_is_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert set((ROOT / "docs/images").iterdir()) - shown == set()


def test_problems_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# The *first* `part`, again\n\n# Twice\n\n# Twice\n\n"
        "[a](#the-first-part-again) [b](#twice-1) [c](#twice-2) [d](none.md) [e](../e.md) [f](https://example.org)\n\n"
        '<a id="here"></a>[g](page.md#here) ![h](none.png) `[i](none.md)`\n',
        encoding="utf-8",
    )
    assert {link: problem(page, link) for link in links(page)} == {
        "#the-first-part-again": None,
        "#twice-1": None,
        "#twice-2": "leads to no heading",
        "none.md": "leads to no file",
        "../e.md": "leaves the repository",
        "page.md#here": None,
        "none.png": "leads to no file",
    }
