"""Draws the expected pictures of the sheet with LaTeX: `python -m tests.browser.latex` (needs the
packages texlive-latex-extra, texlive-fonts-recommended and dvipng).

LaTeX is the reference: KaTeX follows TeX's rules and has its fonts, so both pictures agree closely.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.sheet import EM_PX, FOLDER, constructs, ink

POINTS_PER_EM, POINTS_PER_INCH = 10, 72.27
# KaTeX scales the fonts of size 10 for indices; LaTeX has wider ones of size 7 and 5.
FONTS = {
    "{OT1}{cmr}{m}{n}": "cmr10", "{OT1}{cmr}{m}{it}": "cmti10", "{OT1}{cmr}{bx}{n}": "cmbx10",
    "{OML}{cmm}{m}{it}": "cmmi10", "{OML}{cmm}{b}{it}": "cmmib10", "{OMS}{cmsy}{m}{n}": "cmsy10",
    "{U}{msa}{m}{n}": "msam10", "{U}{msb}{m}{n}": "msbm10",
}  # fmt: skip
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage{amsmath,amssymb,mathtools,mathrsfs,cancel}
FONTS
\usepackage[active,tightpage]{preview}
\renewcommand{\PreviewBorder}{4pt}
\setlength{\parindent}{0pt}
\begin{document}
\frenchspacing\fontdimen2\font=2.5pt % KaTeX's space between words
"""
LEVELS = 16
"""Grey levels of a stored picture."""


def main() -> None:
    named = dict(constructs())
    pages = "".join(
        f"\\begin{{preview}}\n\\begin{{minipage}}{{40em}}{latex}\\end{{minipage}}\n\\end{{preview}}\n"
        for latex in named.values()
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = PREAMBLE.replace("FONTS", "\n".join(_font(*font) for font in FONTS.items()))
        Path(folder, "sheet.tex").write_text(f"{begin}{pages}\\end{{document}}\n", "utf-8")
        _run(folder, "latex", "-interaction=nonstopmode", "-halt-on-error", "sheet.tex")
        density = EM_PX / POINTS_PER_EM * POINTS_PER_INCH
        _run(
            folder, "dvipng", "-D", f"{density:.0f}", "-bg", "White", "-o", "%03d.png", "sheet.dvi"
        )
        for stale in FOLDER.glob("*.png"):
            stale.unlink()
        for number, name in enumerate(named, 1):
            picture = ink(Image.open(Path(folder, f"{number:03d}.png")))
            picture.quantize(LEVELS).save(FOLDER / f"{name}.png", optimize=True)


def _font(shape: str, file: str) -> str:
    family = shape.partition("}{m}")[0].partition("}{b")[0] + "}"
    return rf"\DeclareFontFamily{family}{{}}\DeclareFontShape{shape}{{<->{file}}}{{}}"


def _run(folder: str, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr}")


if __name__ == "__main__":
    main()
