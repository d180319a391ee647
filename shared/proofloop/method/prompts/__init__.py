"""Prompt templates, and the parsers of the answers."""

from proofloop.method.prompts.packs import (
    Prompt,
    PromptPack,
    find_pack,
    load_pack,
    pack_names,
)
from proofloop.method.prompts.reading.parsing import Reader, Reading

__all__ = ["Prompt", "PromptPack", "Reader", "Reading", "find_pack", "load_pack", "pack_names"]
