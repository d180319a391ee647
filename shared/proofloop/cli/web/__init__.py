"""The commands that serve web pages."""
