"""Runs a whole run: with all roles in this process, or on services."""
