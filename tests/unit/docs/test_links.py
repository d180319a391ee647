"""Links and paths in the documentation lead somewhere: in the repository and on the site."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not name.startswith("tests/")
)
TOP_FOLDERS = "benchmarks|docs|examples|helm|scripts|services|serving|shared|tests"


def text_without_code(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", text_without_code(page), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


def links(page: Path) -> list[tuple[Path, str]]:
    """The files and anchors that a page links to."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text_without_code(page))
    targets = [markdown or html for markdown, html in found]
    local = [target.partition("#") for target in targets if not re.match(r"\w+:", target)]
    return [((page.parent / path).resolve() if path else page, name) for path, _, name in local]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS in page.parents], ids=lambda page: page.stem
)
def test_pages_of_the_site_link_to_its_pages_only(page: Path) -> None:
    assert [target for target, _ in links(page) if DOCS not in target.parents] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_code_font_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{TOP_FOLDERS})/[\w./-]+)`", text_without_code(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_menu_has_every_page() -> None:
    menu = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert menu == {str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents}


def test_the_log_events_of_the_guide_exist() -> None:
    logs = (DOCS / "how-to" / "monitor.md").read_text("utf-8").partition("## Logs")[2]
    rows = re.findall(r"^\| (`.+?) \|", logs.partition("\n## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    code = "".join(
        path.read_text("utf-8")
        for folder in ("shared", "services", "serving")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert sorted(name for name in named if f'"{name}"' not in code) == []


def test_the_tests_that_pages_name_exist() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", pages))
    assert sorted(name for name in named if f"def {name}(" not in tests) == []
