"""Samples many answers at once from a Hugging Face causal language model by continuous batching.

Each row has its own stream of random numbers, so its answer does not depend on the other rows.
Identical prompts are read once.
"""
