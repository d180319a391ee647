"""The demo's run: what `proofloop demo` does is this spec, nothing hidden."""

from __future__ import annotations

from proofloop.evals import EvalSize
from proofloop.runspec import RunSpec, parse_runspec

EVAL_SIZE = EvalSize(problems=256, proofs_per_problem=2, n=8, m=3, k=2)
STEPS = 24
PROBLEMS_A_STEP = 16
PROOFS_PER_PROBLEM = 8
CRITIQUES = 4


def demo_spec(seed: int, *, quick: bool = False) -> RunSpec:
    """Every 16 problems the generator takes a step on their proofs, and the verifier one on the critiques of them."""
    steps = 2 if quick else STEPS
    answer = {"temperature": 1.0, "max_tokens": 96}
    return parse_runspec(
        {
            "name": f"demo-{seed}" + ("-quick" if quick else ""),
            "seed": seed,
            "prompts": "nano",
            "problems": {"domain": "nano", "count": steps * PROBLEMS_A_STEP, "proofs_per_problem": PROOFS_PER_PROBLEM},
            "engine": {"kind": "local", "settings": {"max_batch": 256, "threads": 1}},
            "sampling": dict.fromkeys(("generator", "verifier", "meta_verifier"), answer),
            "labeling": {"n": CRITIQUES, "m": 3, "k": 2, "stop_early": False},
            "training": {
                "problems": PROBLEMS_A_STEP,
                "ahead": 2,
                "verifier": {"steps": steps, "groups": 48, "settings": {"seed": seed, "minibatch_sequences": 48}},
                "generator": {"steps": steps, "settings": {"seed": seed, "minibatch_sequences": 32}},
            },
            "flow": {
                "max_waiting_proofs": 2 * PROBLEMS_A_STEP * PROOFS_PER_PROBLEM,
                "generator": 128,
                "verifier": 256,
                "meta_verifier": 192,
            },
        },
        "the demo",
    )
