"""The files that a page needs to set formulas: KaTeX with its fonts, and proofloop's own script and
style.

A web application serves `FOLDER` and puts `head` into its pages. A file without network contains
`style` and, if it has formulas, `inlined`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup

FOLDER = Path(__file__).parent / "assets"
"""The files to serve. Their policy: script-src 'self'; style-src 'self'; font-src 'self'."""

STYLES = ("katex/katex.min.css", "typeset.css")
SCRIPTS = ("katex/katex.min.js", "typeset.js")
_SOURCES = re.compile(r"src:url\((fonts/[\w-]+\.woff2)\)[^}]*")


@dataclass(frozen=True)
class Inlined:
    """KaTeX and the script as one piece of HTML, and their part of the Content-Security-Policy."""

    html: Markup
    policy: str


def head(prefix: str) -> Markup:
    """The tags for the head of a page, if `FOLDER` is served at the prefix."""
    styles = (Markup('<link rel="stylesheet" href="{}/{}">').format(prefix, it) for it in STYLES)
    scripts = (Markup('<script defer src="{}/{}"></script>').format(prefix, it) for it in SCRIPTS)
    return Markup("\n").join([*styles, *scripts])


def style() -> str:
    """The style of typeset texts, for the head of a page that loads nothing."""
    return _read("typeset.css")


@lru_cache(maxsize=1)
def inlined() -> Inlined:
    """The tags for the end of a page that loads nothing: about 700 kB, most of it fonts."""
    katex = _SOURCES.sub(_as_data, _read("katex/katex.min.css"))
    scripts = [_read(name) for name in SCRIPTS]
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    html = [
        f"<style>{katex}</style>",
        *(f"<script>{script}</script>" for script in scripts),
    ]
    return Inlined(Markup("\n".join(html)), f"script-src {sources}; font-src data:")


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _as_data(sources: re.Match[str]) -> str:
    font = b64encode((FOLDER / "katex" / sources[1]).read_bytes()).decode()
    return f'src:url(data:font/woff2;base64,{font}) format("woff2")'
