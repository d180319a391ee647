"""Supervised training on demonstrations, or on the best answers of runs."""
