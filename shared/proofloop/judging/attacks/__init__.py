"""Attacks on judges: their making, and how often they succeed."""
