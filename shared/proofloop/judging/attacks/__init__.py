"""Attacks on judges: how they are made, and how often they succeed."""
