"""The run file: a TOML file that says what a run does. The store keeps it with the run.

[problems] (or [fine_tuning]) is required, and [models] for an engine that has no default model; all
other keys have defaults.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from proofloop.config.explain import EXAMPLES, explain, known_keys
from proofloop.config.run_labeling import Labeling, Refinement, Search
from proofloop.config.run_problems import Problems
from proofloop.config.run_training import FineTuning, RewardSection, Training
from proofloop.config.section import Section
from proofloop.engine import find_engine
from proofloop.errors import ConfigError
from proofloop.method.domains import load_domain, need_checker, prompts_of
from proofloop.method.prompts import Reading
from proofloop.schema.ids import check_id
from proofloop.schema.records import ALL_ROLES, MODEL_ROLES, ModelRole, Role, Sampling
from proofloop.schema.validation import HINT

SECRET = re.compile(r"(^|_)(key|secret|password)$")
"""The names of secret engine settings."""


def _check_no_secret(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a secret in an engine's settings, or in those of an endpoint."""
    endpoints = settings.get("endpoints")
    tables = (
        [table for table in endpoints if isinstance(table, Mapping)]
        if isinstance(endpoints, list)
        else []
    )
    for name in filter(SECRET.search, [name for table in (settings, *tables) for name in table]):
        raise ValueError(
            f"settings has the secret {name}, and the store keeps a copy of the run file"
            f"{HINT}remove it, and set PROOFLOOP_OPENAI_API_KEY or PROOFLOOP_TRITON_KEY"
        )


class EngineSection(Section):
    """The engine that runs the models."""

    kind: str = Field(
        "local", description="the engine's name; `proofloop doctor` lists the installed engines"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="the engine's settings, checked by the engine"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> EngineSection:
        _check_no_secret(self.settings)
        return self


class RoleEngine(Section):
    """The engine of one role, where it differs from [engine]."""

    kind: str | None = Field(
        None, description="another engine; it inherits no settings from [engine]"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that replace or extend those of [engine]"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> RoleEngine:
        _check_no_secret(self.settings)
        return self


ADDRESSES = ("base_url", "endpoints")
"""The settings with an engine's address. A role that sets one of them inherits neither."""


class RunEngine(EngineSection):
    """The engine of all roles. The tables of single roles override it."""

    generator: RoleEngine = RoleEngine()
    verifier: RoleEngine = RoleEngine()
    meta_verifier: RoleEngine = RoleEngine()

    def of(self, role: ModelRole) -> EngineSection:
        """The engine of one role."""
        own: RoleEngine = getattr(self, role)
        if own.kind not in (None, self.kind):
            return EngineSection(kind=own.kind, settings=own.settings)
        has_address = any(name in own.settings for name in ADDRESSES)
        shared = {
            name: value
            for name, value in self.settings.items()
            if not has_address or name not in ADDRESSES
        }
        return EngineSection(kind=self.kind, settings={**shared, **own.settings})

    def table_of(self, role: ModelRole) -> str:
        """The table of the file that describes a role's engine."""
        return "engine" if getattr(self, role) == RoleEngine() else f"engine.{role}"

    @property
    def kinds(self) -> str:
        """The engines as text: `openai`, or `openai, verifier triton`."""
        others = [
            f"{role} {self.of(role).kind}"
            for role in MODEL_ROLES
            if self.of(role).kind != self.kind
        ]
        return ", ".join([self.kind, *others])


class Models(Section):
    """The model that each role starts with: a name at the server, a Hugging Face folder, or
    "nano-base". The engines `openai` and `triton` have no default.
    """

    generator: str = Field("nano-base", description="the model that writes proofs")
    verifier: str = Field("nano-base", description="the model that criticizes proofs")
    meta_verifier: str = Field("nano-base", description="the model that judges critiques")


class RoleSampling(Sampling, Section):
    """The sampling of one role."""


class SamplingSection(Section):
    """The sampling of each role."""

    generator: RoleSampling = RoleSampling()
    verifier: RoleSampling = RoleSampling()
    meta_verifier: RoleSampling = RoleSampling()


class Flow(Section):
    """How much work runs at the same time, in a run on one machine. By default enough to keep the
    engines busy. Services take their concurrency from `--concurrency`.
    """

    max_waiting_proofs: int | None = Field(
        None, ge=1, description="the most proofs that are posed and have no label yet"
    )
    generator: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    verifier: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    meta_verifier: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    labeler: int | None = Field(None, ge=1, le=64, description="messages handled at the same time")


class EnginePrices(Section):
    """The prices of an engine, in any one currency."""

    per_million_prompt_tokens: float = Field(
        0.0, ge=0, description="price of a million prompt tokens; not used by a curriculum"
    )
    per_million_completion_tokens: float = Field(
        0.0, ge=0, description="price of a million answer tokens; not used by a curriculum"
    )
    per_engine_hour: float = Field(
        0.0, ge=0, description="price of an hour of the engine; in a curriculum, of its stages"
    )


class RolePrices(Section):
    """The prices of one role's engine, where they differ from [prices]."""

    per_million_prompt_tokens: float | None = Field(
        None, ge=0, description="replaces the price of [prices]"
    )
    per_million_completion_tokens: float | None = Field(
        None, ge=0, description="replaces the price of [prices]"
    )
    per_engine_hour: float | None = Field(None, ge=0, description="replaces the price of [prices]")


class Prices(EnginePrices):
    """The prices of all engines. The tables of single roles override them."""

    generator: RolePrices = RolePrices()
    verifier: RolePrices = RolePrices()
    meta_verifier: RolePrices = RolePrices()

    def of(self, role: Role) -> EnginePrices:
        own: RolePrices = getattr(self, role, RolePrices())
        shared = {name: getattr(self, name) for name in EnginePrices.model_fields}
        return EnginePrices(**{**shared, **own.model_dump(exclude_none=True)})


class Budget(Section):
    """The most that a run may use in total, over all resumes. By default there is no limit.

    The run stops at a limit. Raise the limit and use --resume to continue.
    """

    tokens: int | None = Field(
        None, ge=1, description="the most tokens of prompts and answers together"
    )
    money: float | None = Field(
        None, gt=0, description="the most money, in the currency of [prices]"
    )
    hours: float | None = Field(None, gt=0, description="the most hours of `proofloop run`")


SOURCES_HINT = (
    "give [problems] one of domain, file, given_proofs and given_analyses; `proofloop init` writes"
    " a run file that works"
)
NO_SOURCE = "[problems] has none of domain, file, given_proofs and given_analyses"


def _needs_model_name(kind: str) -> bool:
    info = find_engine(kind)
    return info is not None and info.needs_model_names


def _prompts(checked: dict[str, Any]) -> str:
    """The default prompt pack of the problems. Invalid problems are reported elsewhere."""
    problems = checked.get("problems")
    return prompts_of(problems.checked_by if problems else None)


class RunSpec(Section):
    """The whole run."""

    name: str = Field(description="the run's name in the store and for `proofloop runs`")
    seed: int = Field(0, description="the random seed of problems, sampling and training")
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
    flow: Flow = Flow()
    prices: Prices = Prices()
    budget: Budget = Budget()
    base: Path = Field(Path(), strict=False)
    """The folder of the file, from which relative paths start."""

    @model_validator(mode="after")
    def _models_named(self) -> RunSpec:
        for role in self.asked_roles:
            kind = self.engine.of(role).kind
            if role not in self.models.model_fields_set and _needs_model_name(kind):
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
        """Whether a checker grades each proof that the generator writes, and no judge is asked."""
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


def load_runspec(file: Path) -> RunSpec:
    """Read and check a run file. Raises ConfigError."""
    spec = parse_runspec(read_fields(file, RunSpec), str(file))
    if spec.problems.material or spec.problems.has_proofs:
        key = "material" if spec.problems.material else "has_proofs"
        raise ConfigError(
            f"[problems] {key} = true in {file}: a run file cannot set it", SOURCES_HINT
        )
    return spec


class _PricesFile(Section):
    prices: Prices


def load_prices(file: Path) -> Prices:
    """Read [prices] of a TOML file, such as a run file; other tables are ignored. Raises
    ConfigError.
    """
    fields = read_fields(file, RunSpec, "a TOML file with [prices]")
    known = f"known keys: {known_keys(Prices)}"
    if "prices" not in fields:
        raise ConfigError(f"{file} has no [prices]", known)
    try:
        prices = _PricesFile.model_validate({"prices": fields["prices"]}).prices
    except ValidationError as error:
        raise explain(error, str(file), _PricesFile) from error
    if prices == Prices():
        raise ConfigError(f"[prices] in {file} has no price above 0", known)
    return prices


def read_fields(file: Path, root: type[BaseModel], expected: str = "a run.toml") -> dict[str, Any]:
    """Read the fields of a TOML file, with its folder as `base`. Raises ConfigError.

    `root`: the class of the whole file. `expected`: the kind of file, for errors.
    """
    try:
        fields = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", f"give the path of {expected}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}", EXAMPLES) from error
    if "base" in fields:
        raise ConfigError(f"unknown key base in {file}", f"known keys: {known_keys(root)}")
    return {"name": file.stem, "base": file.parent.absolute(), **fields}


def parse_runspec(fields: dict[str, Any], origin: str) -> RunSpec:
    """Check the fields of a run file. Raises ConfigError for the first invalid one."""
    try:
        spec = RunSpec.model_validate(fields)
    except ValidationError as error:
        raise explain(error, origin, RunSpec) from error
    check_id(spec.name, f"name in {origin}")
    if spec.seed_as is not None:
        check_id(spec.seed_as, f"seed_as in {origin}")
    check_has_checker(spec)
    # not a validator, because older runs in the store must stay readable
    if spec.labeling.stop_early and "verifier" in spec.training.roles:
        raise ConfigError(
            f"[labeling] stop_early = true and [training.verifier] in {origin} do not go together:"
            " the verifier learns from all n critiques of a proof",
            "set stop_early = false",
        )
    for role in spec.training.roles:
        table = spec.engine.table_of(role)
        check_loads_versions(spec.engine.of(role), f"[training.{role}]", origin, table)
    return spec


def check_has_checker(spec: RunSpec) -> None:
    """Raise ConfigError if a checker is to label the proofs, and the domain has none."""
    if spec.labeling.by == "checker" and spec.problems.checked_by is not None:
        need_checker(load_domain(spec.problems.checked_by))


def check_loads_versions(
    engine: EngineSection, trained: str, origin: str, table: str = "engine"
) -> None:
    """Raise ConfigError for an engine that cannot serve the versions that training makes.

    `trained`: what trains. `table`: the file's table that describes the engine.
    """
    info = find_engine(engine.kind)
    if info is None:
        return
    name = engine.settings.get("model") if "model" in info.settings.model_fields else None
    if info.serves_new_versions and not name:
        return
    setting = (
        f"[{table}.settings] model = {json.dumps(name)}"
        if name
        else f'[{table}] kind = "{engine.kind}"'
    )
    why = "this engine serves the models it was started with, and cannot load trained versions"
    if name:
        why = "with a fixed name, the start model would answer the calls to trained versions"
    raise ConfigError(
        f"{setting} and {trained} in {origin} do not go together: {why}",
        'train with an engine that loads versions: kind = "local", or kind = "triton" without'
        " `model`",
    )
