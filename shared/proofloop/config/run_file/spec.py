"""The whole run file, and the sections that exclude each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from proofloop.config.run_file.engine import RunEngine, needs_model_name
from proofloop.config.run_file.labeling import Labeling, Refinement, Search
from proofloop.config.run_file.prices import Budget, Prices
from proofloop.config.run_file.problems import Problems
from proofloop.config.run_file.sections import Flow, Models, RoleSampling, SamplingSection
from proofloop.config.run_file.training import FineTuning, Lora, RewardSection, Training
from proofloop.config.section import LARGEST_SEED, Section
from proofloop.method.domains import prompts_of
from proofloop.method.prompts import Reading
from proofloop.schema.records import ALL_ROLES, MODEL_ROLES, ModelRole, Sampling
from proofloop.schema.validation import HINT

SOURCES_HINT = (
    "give [problems] one of domain, file, given_proofs and given_analyses; `proofloop init` writes"
    " a run file that works"
)
NO_SOURCE = "[problems] has none of domain, file, given_proofs and given_analyses"


def _prompts(checked: dict[str, Any]) -> str:
    """The default prompt pack of the problems. Invalid problems are reported elsewhere."""
    problems = checked.get("problems")
    return prompts_of(problems.checked_by if problems else None)


class RunSpec(Section):
    """The whole run."""

    name: str = Field(description="the run's name in the store and for `proofloop runs`")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="the random seed of problems, sampling and training"
    )
    seed_as: str | None = Field(
        None,
        description="sample with the random numbers of the run of this name, to compare two"
        " versions on the same cases",
    )
    keep_tokens: bool = Field(
        False,
        description="keep the sampled tokens of all answers, for a later [fine_tuning]; those of a"
        " role in training are always kept",
    )
    problems: Problems = Problems()
    prompts: str = Field(
        default_factory=_prompts,
        description="the prompt pack: a name, or a folder relative to the run file",
    )
    reading: Reading | None = Field(
        None,
        description="how answers are read; default: `strict` in a run that trains, else `lenient`",
    )
    engine: RunEngine = RunEngine()
    models: Models = Models()
    sampling: SamplingSection = SamplingSection()
    refinement: Refinement = Refinement()
    search: Search = Search()
    labeling: Labeling = Labeling()
    reward: RewardSection = RewardSection()
    training: Training = Training()
    fine_tuning: FineTuning | None = None
    lora: Lora | None = None
    flow: Flow = Flow()
    prices: Prices = Prices()
    budget: Budget = Budget()
    base: Path = Field(Path(), strict=False)
    """The folder of the file, from which relative paths start."""

    @model_validator(mode="after")
    def _models_named(self) -> RunSpec:
        for role in self.asked_roles:
            kind = self.engine.of(role).kind
            if role not in self.models.model_fields_set and needs_model_name(kind):
                raise ValueError(
                    f"[models] {role} is missing: engine {kind!r} has no default model"
                    f"{HINT}name the model by the name that the engine uses"
                )
        return self

    @model_validator(mode="after")
    def _has_problems_or_fine_tuning(self) -> RunSpec:
        if not self.problems.sources and self.fine_tuning is None:
            missing = "problems is missing" if self.problems == Problems() else NO_SOURCE
            raise ValueError(f"{missing}{HINT}{SOURCES_HINT}")
        if self.fine_tuning and (self.problems.sources or self.training.roles):
            other = "training" if self.training.roles else "problems"
            raise ValueError(
                f"[fine_tuning] and [{other}] do not go together: a run does one of them"
                f"{HINT}give each a run file"
            )
        return self

    @model_validator(mode="after")
    def _lora_trains(self) -> RunSpec:
        if self.lora is None:
            return self
        if not self.trained:
            raise ValueError(
                "[lora] says how models are trained, and this run trains none"
                f"{HINT}set [training.ROLE] steps, or leave [lora] out"
            )
        if self.fine_tuning and self.fine_tuning.domain:
            raise ValueError(
                f"[lora] and [fine_tuning] domain = {self.fine_tuning.domain!r} do not go together:"
                " a domain's demonstrations train all weights"
                f"{HINT}give demonstrations or runs, or leave [lora] out"
            )
        return self

    @model_validator(mode="after")
    def _given_is_judged_only(self) -> RunSpec:
        if self.problems.given_file is None:
            return self
        does = {
            "[search] rounds": self.search.rounds,
            "[refinement] iterations": self.refinement.iterations - 1,
            "[training.generator] steps": self.training.generator.steps,
        }
        for what, value in does.items():
            if value:
                raise ValueError(
                    f"[problems] {self.problems.sources[0]} and {what} do not go together: the"
                    f" generator writes no proofs in this run{HINT}use domain or file"
                )
        return self

    @model_validator(mode="after")
    def _meta_verifier_has_analyses(self) -> RunSpec:
        has_analyses = self.problems.material or self.problems.given_analyses
        if self.training.meta_verifier.steps and not has_analyses:
            raise ValueError(
                "[training.meta_verifier] needs analyses of known quality, and the problems have"
                f" none{HINT}set [problems] given_analyses"
            )
        if self.problems.given_analyses and not self.labeling.metas_of_given:
            raise ValueError(
                "[problems] given_analyses and [labeling] m = 0 do not go together: no analysis"
                f" would be judged{HINT}set [labeling] given_m"
            )
        return self

    @model_validator(mode="after")
    def _checker_only_measures(self) -> RunSpec:
        if self.labeling.by != "checker":
            return self
        if self.training.roles:
            raise ValueError(
                f'[labeling] by = "checker" and [training.{self.training.roles[0]}] do not go'
                " together: the checker only measures, and rewards no model"
                f'{HINT}set by = "rule", or measure in a run of its own'
            )
        if self.search.rounds:
            raise ValueError(
                f'[labeling] by = "checker" and [search] rounds = {self.search.rounds} do not go'
                " together: a search compares proofs by their critiques"
                f'{HINT}set rounds = 0, or by = "rule"'
            )
        if self.problems.checked_by is None:
            raise ValueError(
                '[labeling] by = "checker": the problems have no checker'
                f"{HINT}set [problems] checker to a domain with an exact checker"
            )
        return self

    @model_validator(mode="after")
    def _one_prompt_a_group(self) -> RunSpec:
        if self.refinement.iterations > 1 and "generator" in self.training.roles:
            raise ValueError(
                f"[refinement] iterations = {self.refinement.iterations} and [training.generator]"
                " do not go together: GRPO compares answers to the same prompt, and each refinement"
                f" has a different one{HINT}set iterations = 1, or refine in a separate run"
            )
        return self

    @model_validator(mode="after")
    def _search_or_training(self) -> RunSpec:
        if self.search.rounds and self.training.roles:
            raise ValueError(
                f"[search] rounds = {self.search.rounds} and [training.{self.training.roles[0]}] do"
                " not go together: a run either searches or trains"
                f"{HINT}set rounds = 0, or train in a separate run"
            )
        return self

    @model_validator(mode="after")
    def _overlap_is_by_need(self) -> RunSpec:
        if self.search.overlap and not self.labeling.stop_early:
            raise ValueError(
                "[search] overlap = true and [labeling] stop_early = false do not go together: with"
                f" all critiques of every proof no slot is idle{HINT}set stop_early = true, or"
                " overlap = false"
            )
        return self

    @model_validator(mode="after")
    def _money_has_prices(self) -> RunSpec:
        if self.budget.money is not None and self.prices == Prices():
            raise ValueError(
                f"[budget] money = {self.budget.money:g} without [prices]: every call costs 0"
                f"{HINT}set [prices] per_million_prompt_tokens and per_million_completion_tokens,"
                " or per_engine_hour"
            )
        return self

    @property
    def seeds_of(self) -> str:
        """The name of the run in all its random seeds."""
        return self.seed_as or self.name

    @property
    def trained(self) -> tuple[str, ...]:
        """The names of the run's new versions: the roles in training, or "all"."""
        return (ALL_ROLES,) if self.fine_tuning else self.training.roles

    @property
    def asked_roles(self) -> tuple[ModelRole, ...]:
        """The roles whose models the run calls."""
        if self.fine_tuning:
            return ()
        if self.only_checks:
            return ("generator",)
        roles = MODEL_ROLES[MODEL_ROLES.index(self.problems.first_role) :]
        has_metas = self.labeling.most_metas or self.problems.given_analyses
        return roles if has_metas else roles[:-1]

    @property
    def only_checks(self) -> bool:
        """Whether a checker grades each new proof, without any judge."""
        return self.labeling.by == "checker" and not self.problems.is_given

    @property
    def how_to_read(self) -> Reading:
        """The reading of all answers: strict in a run that trains, because answers of all roles
        enter rewards.
        """
        return self.reading or ("strict" if self.training.roles else "lenient")

    @property
    def most_proofs_per_problem(self) -> int:
        """The most proofs of a problem, with all rounds of its search."""
        return self.most_proofs_after(self.problems.first_proofs, self.search.rounds)

    def most_proofs_after(self, proofs: int, rounds: int) -> int:
        """The most proofs of a problem that has `proofs` now, after `rounds` more rounds of
        search.
        """
        refinements = min(self.search.analyses, self.labeling.n)
        for _ in range(rounds):
            proofs += min(self.search.keep, proofs) * refinements
        return proofs

    @property
    def retries_unreadable(self) -> bool:
        """Whether an unreadable critique is requested once more. A verifier in training learns from
        its unreadable ones.
        """
        return self.labeling.retry_unreadable and "verifier" not in self.training.roles

    @property
    def stops_when_decided(self) -> bool:
        """Whether a proof gets no more critiques once its label is decided. In a search the need is
        another one.
        """
        return self.labeling.stop_early and not self.search.rounds

    @property
    def searches_by_need(self) -> bool:
        """Whether a proof gets no more critiques once its search can do without."""
        return self.labeling.stop_early and self.search.rounds > 0

    @property
    def most_calls_per_proof(self) -> int:
        """The most model calls for a proof, of all roles together."""
        n, m = self.labeling.n, self.labeling.m
        critiques = 2 * n if self.retries_unreadable else n
        metas = max(n * m + self.labeling.metas_of_self, self.labeling.metas_of_given)
        return self.refinement.iterations + critiques + metas

    def keeps_tokens(self, role: ModelRole) -> bool:
        """Whether the sampled tokens of this role's answers are kept."""
        return self.keep_tokens or role in self.training.roles

    def model_of(self, role: ModelRole) -> str:
        name: str = getattr(self.models, role)
        return name

    def sampling_of(self, role: ModelRole) -> Sampling:
        section: RoleSampling = getattr(self.sampling, role)
        return Sampling(**dict(section))
