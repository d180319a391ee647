"""Checks and prepares a release: `make release-check VERSION=0.1.0`."""
