"""Supervised training in the store: the demonstrations that a run began with."""
