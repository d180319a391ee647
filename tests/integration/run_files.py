"""A run file with simulated models, four critiques a proof and three meta-critiques a critique."""

from __future__ import annotations


def simulated_run(
    name: str, *, count: int, proofs_per_problem: int, settings: str, flow: str = ""
) -> str:
    """`settings`: those of the engine; `flow`: the lines of that section."""
    return f"""
name = "{name}"
[problems]
domain = "nano"
count = {count}
proofs_per_problem = {proofs_per_problem}
[engine]
kind = "simulated"
settings = {{ {settings} }}
[flow]
{flow}
[models]
generator = "rehearsal"
verifier = "rehearsal"
meta_verifier = "rehearsal"
[labeling]
n = 4
m = 3
k = 2
"""
