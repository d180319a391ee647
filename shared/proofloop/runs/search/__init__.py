"""Searches of a run: their rounds, the critiques that they need, their results."""
