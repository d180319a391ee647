"""Proofs with people's grades: read from files, their columns and scales."""
