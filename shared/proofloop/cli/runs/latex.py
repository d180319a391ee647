"""The best proofs of a run as a LaTeX document, which pandoc makes from their Markdown.

The texts are untrusted, and TeX reads files and runs code: pandoc escapes all commands outside
formulas, and a formula stays only if its commands are those of mathematics. Any other formula
stands as its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.resources import files

from proofloop.cli.runs.document import as_markdown
from proofloop.cli.runs.exported import ExportedProof
from proofloop.errors import library
from proofloop.typeset.formulas import find_formulas

MARKDOWN = (
    "markdown+tex_math_single_backslash+hard_line_breaks+lists_without_preceding_blankline"
    "-tex_math_dollars-raw_tex-raw_html-raw_attribute-yaml_metadata_block-citations-footnotes"
    "-example_lists-implicit_figures-link_attributes-header_attributes-auto_identifiers"
    "-fenced_code_attributes-native_divs-native_spans"
)
"""The Markdown that models write: line breaks count, and commands outside formulas are text."""

HEADER = r"""\usepackage{mathtools,amssymb,cancel}
\ifxetex\IfFileExists{ctexhook.sty}{\usepackage{xeCJK}}{}\fi"""

_COMMAND = re.compile(r"\\(?:(begin|end)\{([^{}]*)\}|([a-zA-Z]+)|.)", re.DOTALL)
_UNSAFE = re.compile(r"\^\^|(?<!\\)[%#]")
_DELIMITERS = re.compile(r"\A(?:\$\$?|\\[\[(])|(?:\$\$?|\\[\])])\Z")
_GROUP = re.compile(r"\\(?:begin|end)\{[^{}]*\}|\\(?:left|right)(?![a-zA-Z])|\\.|[{}]", re.DOTALL)
_CLOSES = re.compile(r"\}|\\right\Z|\\end\{")
_CLOSERS = {"{": "}", "\\left": "\\right"}
_NUMBERED = re.compile(r"\\(begin|end)\{(align|gather)(?:at)?\*?\}(?:\{\d+\})?")
_EQUATION = re.compile(r"\\(?:begin|end)\{equation\*?\}")
_TAG = re.compile(r"\\tag\*?\{([^{}]*)\}")
_ENVIRONMENTS = re.compile(
    r"(?:align|gather)ed(?:at)?|array|[bBpvV]?matrix|smallmatrix|[dr]?cases|split"
)


def as_latex(run: str, rows: Iterable[ExportedProof]) -> Iterator[str]:
    """The document, for xelatex or lualatex. Raises ConfigError if pandoc is not installed."""
    with library("pandoc, which writes LaTeX, is not installed", "[documents]"):
        import pypandoc  # type: ignore[import-untyped]
    text = "".join(as_markdown(run, rows, inert))
    options = [
        "--standalone",
        "-V",
        "geometry:a4paper,margin=25mm",
        "-V",
        f"header-includes:{HEADER}",
    ]
    yield pypandoc.convert_text(text, "latex", format=MARKDOWN, extra_args=options, sandbox=True)


def inert(text: str) -> str:
    """A model's Markdown without images, and with formulas that TeX may read."""
    parts, position = list[str](), 0
    for found in find_formulas(text):
        parts.append(_text(text[position : found.begin]))
        parts.append(_formula(text[found.begin : found.end], found.is_display))
        position = found.end
    return "".join([*parts, _text(text[position:])])


def _text(text: str) -> str:
    """The text without images, and without marks that begin a formula."""
    return re.sub(r"!\[|\\[\[(]", lambda mark: f"\\{mark[0]}", text)


def _formula(source: str, is_display: bool) -> str:
    latex = _inner(_DELIMITERS.sub("", source), is_display).strip()
    if not is_mathematical(latex):
        fence = "`" * (1 + max((len(run) for run in re.findall("`+", source)), default=0))
        return f"{fence} {source} {fence}"
    return f"\\[{latex}\\]" if is_display else f"\\({latex}\\)"


def _inner(latex: str, is_display: bool) -> str:
    """The formula without blank lines, and with environments that may be inside a formula. Such an
    environment has no numbers of its own, nor has a formula in a line.
    """
    closed = re.sub(r"\n\s*\n", "\n", _EQUATION.sub("", latex))
    inner, changes = _NUMBERED.subn(r"\\\1{\2ed}", closed)
    return _TAG.sub(r"\\quad\\text{(\1)}", inner) if changes or not is_display else inner


def is_mathematical(latex: str) -> bool:
    """Whether a formula has only commands of mathematics, and its groups are closed."""
    if _UNSAFE.search(latex) or not _is_balanced(latex):
        return False
    return all(
        name in _commands() if name else edge is None or bool(_ENVIRONMENTS.fullmatch(environment))
        for edge, environment, name in (found.groups() for found in _COMMAND.finditer(latex))
    )


def _is_balanced(latex: str) -> bool:
    """Whether braces, environments and \\left with \\right are closed in their order."""
    waiting: list[str] = []
    for mark in _GROUP.findall(latex):
        if mark in _CLOSERS or mark.startswith("\\begin"):
            waiting.append(_CLOSERS.get(mark, mark.replace("begin", "end", 1)))
        elif _CLOSES.match(mark) and (not waiting or waiting.pop() != mark):
            return False
    return not waiting


@lru_cache(maxsize=1)
def _commands() -> frozenset[str]:
    """The commands that both KaTeX 0.16.22 and LaTeX (with mathtools and amssymb) know, without
    those that define, expand or read.
    """
    return frozenset((files(__package__) / "math_commands.txt").read_text("ascii").split())
