"""The engine for Triton servers."""
