"""Prompts and the parsers of what comes back."""

from proofloop.method.prompts.packs import BUILT_IN, Prompt, PromptPack, find_pack, load_pack
from proofloop.method.prompts.reading.parsing import Reader, Reading

__all__ = ["BUILT_IN", "Prompt", "PromptPack", "Reader", "Reading", "find_pack", "load_pack"]
