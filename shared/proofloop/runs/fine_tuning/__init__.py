"""The demonstrations of a supervised training, as the run stores them at its start."""
