"""Prompts and the parsers of what comes back."""

from proofloop.prompts.packs import Prompt, PromptPack, load_pack

__all__ = ["Prompt", "PromptPack", "load_pack"]
