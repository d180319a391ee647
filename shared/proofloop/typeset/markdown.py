"""Renders a model's Markdown as HTML that the script of `assets/` completes.

The text is untrusted, and a person grades by what it shows. HTML, links, images and references are
off: they stay as written. Marks of lists and quotations stay visible, since `- 5` or `> 0` may be a
line of a calculation. A table stays as written if Markdown would leave out some of its cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any
from unicodedata import east_asian_width

from markdown_it import MarkdownIt
from markdown_it.common.utils import mdTrim
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, getLine, table
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.rules_inline import escape as escapes
from markdown_it.token import Token
from markupsafe import Markup, escape

from proofloop.typeset.formulas import find_formulas
from proofloop.typeset.printable import printable

MAX_TEXT = 100_000
"""The most characters of a text that are read as Markdown, in about a second at worst; the rest is
shown as written.
"""

MAX_DEPTH = 18
"""The deepest nesting of lists and quotations. The parser drops what lies 20 levels deep."""

_BEGIN, _END, _END_OF_DISPLAY = "\ue000", "\ue001", "\ue002"
"""They enclose a formula's number while Markdown is read. Texts cannot contain them."""

_NO_MARKS = dict.fromkeys(map(ord, (_BEGIN, _END, _END_OF_DISPLAY)), "\N{REPLACEMENT CHARACTER}")
_PLACE = re.compile(f"{_BEGIN}(\\d+)[{_END}{_END_OF_DISPLAY}]")
_ROOM = re.compile(f"(?:<br>\n)?({_BEGIN}\\d+{_END_OF_DISPLAY})(?:<br>\n)?")
_SCORE = re.compile(r"\\boxed *\{([\d.]+)\}")
"""The end of every critique; a page with no other formula needs no KaTeX."""
_LANGUAGE = re.compile(r"(?:[A-Za-z]+\d*)?")
"""What is not shown behind an opening fence: nothing, or one word such as `python` or `lean4`."""
_OFF = [
    "autolink", "code", "entity", "html_block", "html_inline", "image", "lheading", "link",
    "reference",
]  # fmt: skip


def typeset(text: str) -> Markup:
    """The text as a block of HTML; formulas are set by the page's script."""
    begin, rest = _cut(printable(text).translate(_NO_MARKS))
    html = _block(begin)
    if rest:
        note = f"The text is long: its last {len(rest):,} characters are shown as written."
        html += f"<p><em>{note}</em></p>{_as_written(rest)}"
    return Markup(f'<div class="typeset" dir="auto">{html}</div>')


def typeset_line(text: str) -> Markup:
    """A short text as one line of HTML, for a list: its formulas stand in the line."""
    page = _Page(" ".join(printable(text).translate(_NO_MARKS).split()), in_line=True)
    line = _parser().renderInline(page.marked, {"page": page})
    return Markup(f'<span class="typeset">{page.with_formulas(line)}</span>')


def _cut(text: str) -> tuple[str, str]:
    """The text that is read as Markdown and the rest, cut at a paragraph if there is one."""
    if len(text) <= MAX_TEXT:
        return text, ""
    paragraph = text.rfind("\n\n", MAX_TEXT // 2, MAX_TEXT)
    end = paragraph if paragraph > 0 else MAX_TEXT
    return text[:end], text[end:]


def _block(text: str) -> str:
    page, parser = _Page(text), _parser()
    env = {"page": page}
    tokens = parser.parse(page.marked, env)
    if any(token.level > MAX_DEPTH for token in tokens):
        return _as_written(text)
    for token in tokens:
        if token.map and token.type in _WITH_LINES:
            token.attrSet("data-line", page.lines(*token.map))
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 3, 6)}"  # h1 to h3 are the page's
    html = parser.renderer.render(tokens, parser.options, env)
    return page.with_formulas(_ROOM.sub(r"\1", html))


def _as_written(text: str) -> str:
    return f'<pre class="unset">{escape(text)}</pre>'


class _Page:
    """A text whose formulas are replaced by numbered marks."""

    def __init__(self, text: str, in_line: bool = False) -> None:
        self._formulas: list[tuple[str, bool]] = []
        parts: list[str] = []
        position = 0
        for found in find_formulas(text):
            is_display = found.is_display and not in_line
            number = f"{_BEGIN}{len(self._formulas)}{_END_OF_DISPLAY if is_display else _END}"
            parts += [text[position : found.begin], number]
            self._formulas.append((text[found.begin : found.end], is_display))
            position = found.end
        self.marked = "".join([*parts, text[position:]])

    def lines(self, begin: int, end: int) -> str:
        """The lines of the source, counted from 1, behind these lines of the marked text."""
        while end > begin + 1 and not self._lines[end - 1].strip():
            end -= 1
        first, last = self._begins[begin] + 1, self._begins[end]
        return f"{first}-{last}"

    @cached_property
    def _lines(self) -> list[str]:
        return self.marked.split("\n")

    @cached_property
    def _begins(self) -> list[int]:
        """The line of the source at which each line of the marked text begins: a formula of several
        lines is one mark.
        """
        return list(
            accumulate((1 + self.source(line).count("\n") for line in self._lines), initial=0)
        )

    def with_formulas(self, html: str) -> str:
        return _PLACE.sub(lambda place: self._element(int(place[1])), html)

    def source(self, text: str) -> str:
        """A part of the marked text as it was written."""
        return _PLACE.sub(lambda place: self._formulas[int(place[1])][0], text)

    def _element(self, number: int) -> str:
        source, is_display = self._formulas[number]
        if score := _SCORE.fullmatch(source):
            return f'<span class="boxed">{score[1]}</span>'
        return f'<code class="formula{" display" if is_display else ""}">{escape(source)}</code>'


class _Renderer(RendererHTML):
    """HTML with a fixed set of attributes. Code shows formulas as written."""

    def code_inline(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f"<code>{escape(env['page'].source(tokens[index].content))}</code>"

    def fence(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        words = token.info.strip()
        code = token.content if _LANGUAGE.fullmatch(words) else f"{words}\n{token.content}"
        shown = escape(env["page"].source(code))
        return f"<pre{self.renderAttrs(token)}><code>{shown}</code></pre>\n"

    def list_item_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        mark = f"{token.info}{token.markup}" if token.info else _BULLETS[token.markup]
        return f'<li data-mark="{escape(mark)}"{self.renderAttrs(token)}>'

    def td_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        align = str(token.attrGet("style") or "").removeprefix("text-align:")
        return f'<{token.tag} class="{align}">' if align else f"<{token.tag}>"

    th_open = td_open

    def as_written(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        lines = escape(env["page"].source(token.content))
        return f'<pre class="unset"{self.renderAttrs(token)}>{lines}</pre>\n'

    def table_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f'<div class="table"{self.renderAttrs(tokens[index])}><table>\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return "</table></div>\n"


_WITH_LINES = {
    "as_written", "fence", "heading_open", "list_item_open", "paragraph_open", "table_open"
}  # fmt: skip
"""The blocks that name the lines of their source, `data-line="3-4"`, for marks on lines."""

_BULLETS = {"*": "•", "-": "–", "+": "+"}


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark", {"html": False, "breaks": True, "xhtmlOut": False}, renderer_cls=_Renderer
    )
    parser.enable("table").disable(_OFF)
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.inline.ruler.at("escape", _escape)
    return parser


def _table(state: StateBlock, begin: int, end: int, silent: bool) -> bool:
    """Markdown's rule for tables, but one with a row that is longer than its header stays as
    written: the rule drops the further cells.
    """
    known = len(state.tokens)
    if not table(state, begin, end, silent):
        return False
    if silent:
        return True
    columns = sum(token.type == "th_open" for token in state.tokens[known:])
    if any(_num_cells(getLine(state, line)) > columns for line in range(begin + 2, state.line)):
        del state.tokens[known:]
        token = state.push("as_written", "pre", 0)
        token.map = [begin, state.line]
        token.content = state.getLines(begin, state.line, state.blkIndent, False)
    return True


def _num_cells(row: str) -> int:
    """The cells of a table's row; bars at both ends make none."""
    cells = escapedSplit(mdTrim(row))
    return len(cells) - (cells[0] == "") - (len(cells) > 1 and cells[-1] == "")


def _emphasis(state: StateInline, silent: bool) -> bool:
    """CommonMark's rule for `*` and `_`, with exceptions that keep the asterisks of `2*3*4` and of
    labels such as `(*)`, and that let `**` begin and end beside Chinese.
    """
    begin, known = state.pos, len(state.delimiters)
    if not emphasis.tokenize(state, silent):
        return False
    before, after = state.src[begin - 1 : begin], state.src[state.pos : state.pos + 1]
    for delimiter in state.delimiters[known:]:
        if _is_wide(before) or _is_wide(after):
            delimiter.open, delimiter.close = bool(after.strip()), bool(before.strip())
        delimiter.open &= not (after in _CLOSING or (before.isascii() and before.isalnum()))
        delimiter.open &= before not in _CLOSING
        delimiter.close &= before not in _OPENING
    return True


_OPENING, _CLOSING = tuple("([{"), tuple(")]}")


def _escape(state: StateInline, silent: bool) -> bool:
    """Read `\\*` as an asterisk, but keep the backslash of LaTeX that is not in a formula."""
    after = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or (after and after in _ESCAPABLE):
        return escapes(state, silent)
    written = "\\\\" if after == "\\" else "\\"
    if not silent:
        state.pending += written
    state.pos += len(written)
    return True


_ESCAPABLE = "*_#`~+-.$%&<>\n"


def _is_wide(character: str) -> bool:
    return bool(character) and east_asian_width(character) in "WF"
