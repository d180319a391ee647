"""Prompts and the parsers of what comes back."""

from proofloop.prompts.packs import BUILT_IN, Prompt, PromptPack, load_pack

__all__ = ["BUILT_IN", "Prompt", "PromptPack", "load_pack"]
