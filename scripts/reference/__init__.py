"""Writes docs/reference from the code: `python -m scripts.reference`. A test compares the two."""
