"""Typesets models' texts, which are Markdown with LaTeX formulas, on every page and in the report.

`markdown.typeset` makes HTML in which each formula is its escaped source. The script of `assets/`
sets it in the browser with KaTeX; without scripts, or if KaTeX refuses a formula, the source stays.
"""
