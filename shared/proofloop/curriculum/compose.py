"""Composes the runs of a curriculum: pure functions from its file to run specs.

All its runs read answers strictly and have its engine, prompts, sampling and prices. `sections` are
further sections of the run file.
"""

from __future__ import annotations

from typing import Any

from proofloop.config.curriculum_file import (
    SAMPLED,
    CurriculumSpec,
    GrpoStage,
    StageKind,
    grpo_fields,
)
from proofloop.config.run_file import RunSpec
from proofloop.schema.records import MODEL_ROLES, ModelRole

Served = dict[ModelRole, str]
"""The version of each role."""

FLOW = {"max_waiting_proofs": 256, "generator": 128, "verifier": 256, "meta_verifier": 192}
"""Enough to fill the batches of an engine in this process."""


def everywhere(version: str) -> Served:
    """The same version in each role."""
    return dict.fromkeys(MODEL_ROLES, version)


def proving(
    spec: CurriculumSpec, name: str, served: Served, proofs: int = 1, **sections: Any
) -> RunSpec:
    """Proofs of problems, labeled by the exact checker, without any judge."""
    problems = {"proofs_per_problem": proofs, "checker": spec.domain}
    labeling = {"by": "checker"}
    return run_spec(spec, name, served, problems=problems, labeling=labeling, **sections)


def proving_with_judges(
    spec: CurriculumSpec, name: str, served: Served, proofs: int, metas: int = 0, **sections: Any
) -> RunSpec:
    """Proofs of problems with critiques each, whose mean score is R_Y. `metas`: meta-critiques of
    each self-evaluation.
    """
    wanted = spec.generator
    weights = sections.pop("reward", {"alpha": wanted.alpha, "beta": wanted.beta})
    return run_spec(
        spec,
        name,
        served,
        problems={"proofs_per_problem": proofs},
        labeling=_labeling(n=wanted.critiques, self_m=metas),
        reward={"proof_score": "mean", **weights},
        **sections,
    )


def reviewing(
    spec: CurriculumSpec,
    name: str,
    served: Served,
    critiques: int,
    metas: int = 0,
    given_m: int | None = None,
    **sections: Any,
) -> RunSpec:
    """Critiques of given proofs. `metas`: meta-critiques of each critique that reports an issue.
    `given_m`: those of a given analysis.
    """
    labeling = _labeling(n=critiques, m=metas, given_m=given_m)
    reward = {"meta": bool(metas)}
    return run_spec(spec, name, served, labeling=labeling, reward=reward, **sections)


def judging(
    spec: CurriculumSpec, name: str, served: Served, metas: int, **sections: Any
) -> RunSpec:
    """Meta-critiques of given analyses."""
    return run_spec(spec, name, served, labeling=_labeling(given_m=metas), **sections)


def at_temperature(spec: CurriculumSpec, role: ModelRole, temperature: float) -> dict[str, Any]:
    """The section of a run whose `role` samples at another temperature."""
    own = getattr(spec.sampling, role).model_copy(update={"temperature": temperature})
    return {"sampling": spec.sampling.model_copy(update={role: own})}


def training(
    spec: CurriculumSpec,
    kind: StageKind,
    *,
    groups: int | None = None,
    steps: int | None = None,
    reference: str | None = None,
) -> dict[str, Any]:
    """The section of a run that trains as this kind of stage does. Each case is a group, and every
    group trains.
    """
    section: GrpoStage = getattr(spec, kind)
    count = groups or section.groups
    role = {
        "steps": section.steps if steps is None else steps,
        "groups": count,
        "train_on": "all",
        "reference": reference,
        "settings": grpo_fields(spec, kind, steps),
    }
    return {"training": {"problems": count, "ahead": section.ahead, SAMPLED[kind]: role}}


def cold_start(spec: CurriculumSpec, name: str) -> RunSpec:
    """Supervised steps of the start model, on the section's demonstrations or the domain's."""
    wanted = spec.cold_start
    names = ("demonstrations", "runs", "keep") if wanted.has_source else ()
    source = {name: getattr(wanted, name) for name in names} or {"domain": spec.domain}
    section = {"start": spec.start, **source, "steps": wanted.steps, **wanted.schedule}
    return run_spec(spec, name, everywhere(spec.start), fine_tuning=section)


def consolidation(spec: CurriculumSpec, name: str, served: Served, runs: list[str]) -> RunSpec:
    """Rejection fine-tuning of the generator's model on the best answers of these runs."""
    wanted = spec.consolidate
    section = {"start": served["generator"], "runs": runs, "most": wanted.prompts}
    section |= {"keep": wanted.keep, "epochs": wanted.epochs, **wanted.schedule}
    return run_spec(spec, name, served, fine_tuning=section)


def example_of(spec: CurriculumSpec, kind: StageKind) -> RunSpec:
    """A run that trains the start model by the settings of a kind of stage, for the checks of
    engine and trainer.
    """
    served, section = everywhere(spec.start), training(spec, kind, steps=1)
    return run_spec(spec, "example", served, labeling=_labeling(given_m=1), **section)


def run_spec(spec: CurriculumSpec, name: str, served: Served, **sections: Any) -> RunSpec:
    """A run of the curriculum; by default its cases are stored with it."""
    problems = sections.pop("problems", {})
    if isinstance(problems, dict) and "fine_tuning" not in sections:
        problems = {"material": True, "proofs_per_problem": 1, **problems}
    fields = {
        "name": f"{spec.name}-{name}",
        "seed": spec.seed,
        "problems": problems,
        "prompts": spec.prompts,
        "reading": "strict",
        "engine": spec.engine.model_dump(),
        "models": served,
        "sampling": spec.sampling,
        "flow": FLOW,
        "prices": spec.prices.model_dump(),
        "base": spec.base,
    }
    if spec.lora and sections.keys() & {"training", "fine_tuning"}:
        fields["lora"] = spec.lora
    return RunSpec.model_validate({**fields, **sections})


def _labeling(*, n: int = 1, m: int = 0, **others: Any) -> dict[str, Any]:
    """All n critiques, each requested once: their number is what is measured or trained on."""
    return {"n": n, "m": m, "k": 1, "stop_early": False, "retry_unreadable": False, **others}
