"""Nano: a language model of half a million parameters and the domain in which its learning can be checked exactly."""

from pathlib import Path


def base_folder() -> Path:
    """The base model that comes with this package, in Hugging Face format."""
    return Path(__file__).parent / "base"
