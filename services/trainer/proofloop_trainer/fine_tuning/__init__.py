"""Supervised training: of demonstrations, or of the best answers of runs."""
