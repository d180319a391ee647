"""Reads what models answer. Model output is untrusted: nothing here raises on any text."""
