"""Prompt templates, and the parsers of the answers."""

from proofloop.method.prompts.loading import find_pack, load_pack, pack_names
from proofloop.method.prompts.packs import Prompt, PromptPack
from proofloop.method.prompts.reading.parsing import Reader, Reading

__all__ = ["Prompt", "PromptPack", "Reader", "Reading", "find_pack", "load_pack", "pack_names"]
