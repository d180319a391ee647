"""The shipped files of KaTeX, and the ways to put them into a page."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from proofloop.typeset.assets import FOLDER, head, inlined

KATEX = FOLDER / "katex"


def test_katex_is_the_published_version() -> None:
    """The digests are of the files in the package `katex` on npm; the README names its version."""
    lines = (KATEX / "SHA256SUMS").read_text().splitlines()
    expected = {name: digest for digest, name in (line.split() for line in lines)}
    files = [path for path in KATEX.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    assert {
        str(path.relative_to(KATEX)): sha256(path.read_bytes()).hexdigest() for path in files
    } == expected
    version = re.search(r"version:\"(\d+\.\d+\.\d+)\"", (KATEX / "katex.min.js").read_text())
    assert version and f"KaTeX {version[1]}" in (FOLDER / "README.md").read_text()


def test_every_font_of_the_style_is_there() -> None:
    fonts = re.findall(r"url\((fonts/[\w-]+\.woff2)\)", (KATEX / "katex.min.css").read_text())
    assert len(fonts) == 20
    assert all((KATEX / font).is_file() for font in fonts)


def test_the_head_names_files_that_are_there() -> None:
    names = re.findall(r'(?:href|src)="/assets/([^"]+)"', head("/assets"))
    assert len(names) == 4
    assert all((FOLDER / name).is_file() for name in names)


def test_the_inlined_files_load_nothing_and_match_their_policy() -> None:
    found = inlined()
    style = "".join(re.findall(r"<style>(.*?)</style>", found.html, re.DOTALL))
    assert re.findall(r"url\((?!data:)", style) == []
    assert style.count("url(data:font/woff2;base64,") == 20
    scripts = re.findall(r"<script>(.*?)</script>", found.html, re.DOTALL)
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(digests) == 2
    assert all(f"'sha256-{digest}'" in found.policy for digest in digests)
