"""The run of `proofloop demo`: demo.toml in this folder, with the seed filled in."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.pipeline.evaluation import EvalSize

EVAL_SIZE = EvalSize(problems=256, proofs_per_problem=2, n=8, m=3, k=2)
QUICK_EVAL_SIZE = EVAL_SIZE.model_copy(update={"problems": 12})
QUICK_STEPS = 2
QUICK_PROBLEMS = 8
"""Problems a step: enough proofs for a verifier's step."""


def demo_spec(seed: int, *, quick: bool = False) -> RunSpec:
    """The demo's run with this seed. `quick` trains each role for only two steps, as a smoke
    test.
    """
    fields = tomllib.loads(files("proofloop.cli.demo").joinpath("demo.toml").read_text("utf-8"))
    fields |= {"name": f"demo-{seed}" + ("-quick" if quick else ""), "seed": seed}
    for role in ("generator", "verifier"):
        fields["training"][role]["settings"]["seed"] = seed
        if quick:
            fields["training"][role] |= {"steps": QUICK_STEPS, "begin": 0}
    if quick:
        fields["training"]["problems"] = QUICK_PROBLEMS
        fields["problems"]["count"] = QUICK_STEPS * fields["training"]["problems"]
    return parse_runspec(fields, "demo.toml")
