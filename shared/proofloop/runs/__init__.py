"""A run in the store: its spec, answers, labels, costs, figures, model versions and progress."""
