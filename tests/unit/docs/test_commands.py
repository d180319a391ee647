"""The commands in the pages exist, with their options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.test_links import PAGES, ROOT

# test_reference compares this page to the code.
REFERENCE = ROOT / "docs" / "reference" / "command-line.md"
SECTIONS = re.split(r"^## proofloop ?", REFERENCE.read_text("utf-8"), flags=re.MULTILINE)[1:]
OPTIONS = {
    tuple(section.partition("\n")[0].split()): {"--help"}
    | set(re.findall(r"^\| `(?:-\w, )?(--[\w-]+)", section, re.MULTILINE))
    for section in SECTIONS
}
GROUPS = {words[:1] for words in OPTIONS}


def commands(text: str) -> list[list[str]]:
    """The words after each `proofloop` in code blocks and code font, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    indented = re.findall(r"^    (.*)$", text, re.MULTILINE)
    lines = [line for code in (*blocks, *inline, *indented) for line in joined(code).splitlines()]
    called = [re.findall(r"(?:^|&& |-- )proofloop ([a-z][^#;|&']*)", line) for line in lines]
    return [command.split() for found in called for command in found]


def joined(code: str) -> str:
    """The code with continued lines as one."""
    return re.sub(r"\\\n\s*", "", code)


def test_run_files_of_commands_exist_or_are_made_by_a_page() -> None:
    guides = (page for page in PAGES if page.parent.name in ("tutorials", "how-to"))
    pages = [ROOT / "README.md", *guides]
    called = [words for page in pages for words in commands(page.read_text("utf-8"))]
    made = {f"{words[1]}/run.toml" for words in called if words[0] == "init" and len(words) > 1}
    named = {word for words in called for word in words if re.fullmatch(r"[a-z./-]+\.toml", word)}
    of_the_reader = {"other/run.toml", "run.toml", "curriculum.toml"}
    assert [name for name in named - made - of_the_reader if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    unknown = []
    for words in commands(page.read_text("utf-8")):
        name = next((n for n in (tuple(words[:2]), tuple(words[:1])) if n in OPTIONS), None)
        if name is None and not (len(words) == 1 and tuple(words) in GROUPS):
            unknown.append(" ".join(words))
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        unknown += sorted(options - OPTIONS.get(name or (), set()))
    assert unknown == []
