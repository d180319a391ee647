"""A curriculum in the store: its stages and its progress."""
