"""Prompts and the parsers of what comes back."""

from proofloop.prompts.packs import BUILT_IN, Prompt, PromptPack, find_pack, load_pack
from proofloop.prompts.parsing import Reader, Reading

__all__ = ["BUILT_IN", "Prompt", "PromptPack", "Reader", "Reading", "find_pack", "load_pack"]
