"""`python -m scripts.reference` writes every generated page."""

from __future__ import annotations

from scripts.reference.pages import write_pages

if __name__ == "__main__":
    write_pages()
