"""Sums of fractions for proofloop: a domain, its prompts, and an engine that calculates."""
