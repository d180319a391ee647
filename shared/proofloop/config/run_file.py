"""What a run does: one TOML file, checked at once, frozen with the run in the store.

Only [problems] has to be there, and with an engine of others [models]; everything else has a
default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from proofloop.engine import find_engine
from proofloop.errors import ConfigError, CorruptObject
from proofloop.method.domains import prompts_of
from proofloop.method.prompts import Reading
from proofloop.method.rewards import PAPER_ALPHA, PAPER_BETA, RewardPreset
from proofloop.schema.ids import check_id
from proofloop.schema.records import (
    MODEL_ROLES,
    TRAINED_ROLES,
    ModelRole,
    Role,
    Sampling,
    TrainedRole,
)


class Section(BaseModel):
    """The base of the file's sections: an unknown key is an error, and `"8"` and `true` are no
    numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)

HINT = "\nhint: "
"""What comes after it in a validator's error is the way out, as in the text of a ConfigError."""

DRAWN = 32
Split = Literal["train", "validation", "test"]


class Problems(Section):
    """The problems: those of a domain, or those of a file. Give exactly one of the two."""

    domain: str | None = Field(None, description="the domain that poses the problems")
    file: Path | None = Field(
        None,
        strict=False,
        description="a JSON, JSONL, CSV, TSV or Parquet file, relative to the run file",
    )
    split: Split | None = Field(
        None,
        description="the part of the problems to draw from; default: `train` of a domain, and the"
        " whole of a file",
    )
    count: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="the number of problems; default: 32 of a domain or a split, else all of the"
        " file. Without a split these are the first of the file",
    )
    proofs_per_problem: int = Field(
        8, ge=1, le=4096, description="proofs of each problem; they are one group in training"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Problems:
        if (self.domain is None) == (self.file is None):
            raise ValueError("give exactly one of domain and file")
        return self

    @property
    def drawn(self) -> int:
        """How many are drawn from a domain or a split."""
        return DRAWN if self.count is None else self.count


SECRET = re.compile(r"(^|_)(key|secret|password)$")
"""Names of engine settings that are secret: each engine's own are SecretStr, and are called so."""


def _check_no_secret(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a secret among an engine's settings, or among those of one of its
    endpoints.
    """
    endpoints = settings.get("endpoints")
    tables = (
        [table for table in endpoints if isinstance(table, Mapping)]
        if isinstance(endpoints, list)
        else []
    )
    for name in filter(SECRET.search, [name for table in (settings, *tables) for name in table]):
        raise ValueError(
            f"settings has {name}, but a run file is stored with the run and holds no secret"
            f"{HINT}set PROOFLOOP_OPENAI_API_KEY or PROOFLOOP_TRITON_KEY instead"
        )


class EngineSection(Section):
    """Which engine answers."""

    kind: str = Field(
        "local", description="the engine's name; `proofloop doctor` lists those that are installed"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="the engine's own, checked by it"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> EngineSection:
        _check_no_secret(self.settings)
        return self


class RoleEngine(Section):
    """What differs from [engine] for one role."""

    kind: str | None = Field(
        None, description="another engine, which has none of the settings of [engine]"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="each takes the place of the same one there"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> RoleEngine:
        _check_no_secret(self.settings)
        return self


ADDRESSES = ("base_url", "endpoints")
"""Settings that say where an engine is: a role that gives one of them inherits none."""


class RunEngine(EngineSection):
    """The engine of all roles, and what differs for some of them."""

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
        """Where the file describes a role's engine."""
        return "engine" if getattr(self, role) == RoleEngine() else f"engine.{role}"

    @property
    def kinds(self) -> str:
        """For people: `openai`, or `openai, verifier triton`."""
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
    verifier: str = Field("nano-base", description="the model that criticises proofs")
    meta_verifier: str = Field("nano-base", description="the model that judges critiques")


class RoleSampling(Sampling, Section):
    """How one role samples."""


class SamplingSection(Section):
    """How each role samples."""

    generator: RoleSampling = RoleSampling()
    verifier: RoleSampling = RoleSampling()
    meta_verifier: RoleSampling = RoleSampling()


class Labeling(Section):
    """The auto-label of section 2.3."""

    n: int = Field(8, ge=1, le=1024, description="critiques a proof")
    m: int = Field(3, ge=1, le=255, description="meta-critiques a critique that reports an issue")
    k: int = Field(2, ge=1, description="confirmed critiques that a label below 1 needs; at most n")
    confirm_at: Literal[0.5, 1.0] = Field(  # type: ignore[valid-type]  # as records.Score
        0.5, description="the lowest meta-score that confirms an issue"
    )
    stop_early: bool = Field(
        True, description="no more critiques of a proof once they cannot change its label"
    )

    @model_validator(mode="after")
    def _quorum_fits(self) -> Labeling:
        if self.k > self.n:
            raise ValueError(
                f"k = {self.k} is more than n = {self.n}: no label could ever reach its quorum"
                f"{HINT}lower k to {self.n} or less, or raise n to {self.k} or more"
            )
        return self


class Refinement(Section):
    """Sequential refinement, section 3.3.2: the generator rewrites a proof until it scores its own
    proof 1. Each prompt has the previous attempt and its evaluation.
    """

    iterations: int = Field(1, ge=1, le=64, description="the most attempts at a proof")


class Search(Section):
    """Search over the proofs of a problem, section 3.3.3. It ends with a proof that passes all n
    critiques, or after the last round.
    """

    rounds: int = Field(
        0, ge=0, le=64, description="the most rounds after the first proofs; 0: no search"
    )
    keep: int = Field(
        64, ge=1, le=1024, description="a round refines this many proofs, by highest mean score"
    )
    analyses: int = Field(
        8,
        ge=1,
        le=1024,
        description="refinements of each kept proof, each with another of its critiques",
    )


class RewardSection(Section):
    """The rewards of a run that trains."""

    preset: RewardPreset = Field(
        "paper",
        description="`paper`: eq. (5); `weighted`: 0.6 proof score + 0.3 accuracy of the"
        " self-score + 0.1 format",
    )
    alpha: float = Field(
        PAPER_ALPHA, ge=0, le=1, description="`paper`: weight of R_Y, the proof's score"
    )
    beta: float = Field(
        PAPER_BETA,
        ge=0,
        le=1,
        description="`paper`: weight of R_Z, the reward of the self-evaluation",
    )
    meta: bool = Field(True, description="multiply the verifier's reward by R_meta, eq. (3)")


class RoleTraining(Section):
    """The training of one role."""

    steps: int = Field(0, ge=0, description="GRPO steps; 0: the role does not learn")
    begin: int = Field(
        0, ge=0, description="steps of the other role before the first step of this one"
    )
    groups: int = Field(
        64,
        ge=1,
        description="the most groups with a signal in a step; half of them are about flawed"
        " proofs if there are enough",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="GRPO's settings, checked by the trainer"
    )


class Training(Section):
    """Training on the run's labels. By default a run does not train."""

    problems: int = Field(16, ge=1, description="completely labeled problems in a step")
    ahead: float = Field(
        2.0,
        ge=1.0,
        description="problems of this many steps may wait for the trainer; this limits their"
        " number, not their age",
    )
    generator: RoleTraining = RoleTraining()
    verifier: RoleTraining = RoleTraining()

    def of(self, role: TrainedRole) -> RoleTraining:
        return self.generator if role == "generator" else self.verifier

    @property
    def roles(self) -> tuple[TrainedRole, ...]:
        """The roles that are trained."""
        return tuple(role for role in TRAINED_ROLES if self.of(role).steps > 0)

    def problems_allowed(self, steps: Mapping[str, int]) -> int | None:
        """How many problems may be posed by now, when each role has taken so many steps; None: as
        many as one likes.
        """
        learning = [role for role in self.roles if steps.get(role, 0) < self.of(role).steps]
        rounds = [self.of(role).begin + steps.get(role, 0) for role in learning]
        return round((min(rounds) + self.ahead) * self.problems) if rounds else None


class Flow(Section):
    """How much is in work at once in a run on one machine; unset: enough to keep the engines full.
    Services take their concurrency from `--concurrency`.
    """

    max_waiting_proofs: int | None = Field(
        None, ge=1, description="the most proofs that are posed and have no label yet"
    )
    generator: int | None = Field(None, ge=1, le=4096, description="messages at once")
    verifier: int | None = Field(None, ge=1, le=4096, description="messages at once")
    meta_verifier: int | None = Field(None, ge=1, le=4096, description="messages at once")
    labeler: int | None = Field(None, ge=1, le=64, description="messages at once")


class EnginePrices(Section):
    """What an engine costs, in one currency; by default nothing."""

    per_million_prompt_tokens: float = Field(
        0.0, ge=0, description="of runs alone, not of a curriculum"
    )
    per_million_completion_tokens: float = Field(
        0.0, ge=0, description="of runs alone, not of a curriculum"
    )
    per_engine_hour: float = Field(
        0.0, ge=0, description="an hour of the engine; of a curriculum, of its stages"
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
    """What the engines of a run cost: that of all roles, and what differs for some."""

    generator: RolePrices = RolePrices()
    verifier: RolePrices = RolePrices()
    meta_verifier: RolePrices = RolePrices()

    def of(self, role: Role) -> EnginePrices:
        own: RolePrices = getattr(self, role, RolePrices())
        shared = {name: getattr(self, name) for name in EnginePrices.model_fields}
        return EnginePrices(**{**shared, **own.model_dump(exclude_none=True)})


class Budget(Section):
    """What a run may use in all, however often it is resumed; without a limit as much as it takes.

    The run ends when a limit is reached, and --resume continues it once the file allows more.
    """

    tokens: int | None = Field(None, ge=1, description="of prompts and answers together")
    money: float | None = Field(None, gt=0, description="in the currency of [prices]")
    hours: float | None = Field(None, gt=0, description="for which `proofloop run` works on it")


def _needs_model_name(kind: str) -> bool:
    info = find_engine(kind)
    return info is not None and info.needs_model_names


def _prompts(checked: dict[str, Any]) -> str:
    """The pack that fits the problems; of wrong ones, which are not among what is checked, any."""
    problems = checked.get("problems")
    return prompts_of(problems.domain if problems else None)


class RunSpec(Section):
    """The whole run."""

    name: str = Field(description="the run's name in the store and for `proofloop runs`")
    seed: int = Field(0, description="the random seed of problems, sampling and training")
    problems: Problems
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
    flow: Flow = Flow()
    prices: Prices = Prices()
    budget: Budget = Budget()
    base: Path = Field(Path(), strict=False)
    """The folder that relative paths mean: that of the file."""

    @model_validator(mode="after")
    def _models_named(self) -> RunSpec:
        for role in MODEL_ROLES:
            kind = self.engine.of(role).kind
            if role not in self.models.model_fields_set and _needs_model_name(kind):
                raise ValueError(
                    f"[models] {role} is missing: name the model that engine {kind!r} serves"
                )
        return self

    @model_validator(mode="after")
    def _one_prompt_a_group(self) -> RunSpec:
        if self.refinement.iterations > 1 and "generator" in self.training.roles:
            raise ValueError(
                f"[refinement] iterations = {self.refinement.iterations} and [training.generator]"
                " do not go together:"
                " GRPO compares answers to one prompt, and each refinement has a prompt of its own"
            )
        return self

    @model_validator(mode="after")
    def _search_or_training(self) -> RunSpec:
        if self.search.rounds and self.training.roles:
            raise ValueError(
                f"[search] rounds = {self.search.rounds} and [training.{self.training.roles[0]}] do"
                " not go together:"
                " a search refines what its models wrote, whatever it takes; train in a run of its"
                " own"
            )
        return self

    @model_validator(mode="after")
    def _money_has_prices(self) -> RunSpec:
        if self.budget.money is not None and self.prices == Prices():
            raise ValueError(
                f"[budget] money = {self.budget.money:g} without [prices]: nothing costs anything"
                f"{HINT}set [prices] per_million_prompt_tokens and per_million_completion_tokens,"
                " or per_engine_hour"
            )
        return self

    @property
    def how_to_read(self) -> Reading:
        """The reading of every role's answers: in a run that trains, all of them are part of some
        reward.
        """
        return self.reading or ("strict" if self.training.roles else "lenient")

    @property
    def most_proofs_per_problem(self) -> int:
        """With as many rounds of search as there may be."""
        return self.most_proofs_after(self.problems.proofs_per_problem, self.search.rounds)

    def most_proofs_after(self, proofs: int, rounds: int) -> int:
        """Of a problem that has so many proofs, when its search takes so many rounds more."""
        refinements = min(self.search.analyses, self.labeling.n)
        for _ in range(rounds):
            proofs += min(self.search.keep, proofs) * refinements
        return proofs

    @property
    def stops_when_decided(self) -> bool:
        """Whether a proof gets no more critiques once its label is decided.

        A search compares proofs by all their critiques, so its proofs get all of them.
        """
        return self.labeling.stop_early and not self.search.rounds

    @property
    def most_calls_per_proof(self) -> int:
        """Of the generator, the verifier and the meta-verifier."""
        return (
            self.refinement.iterations + self.labeling.n + (self.labeling.n + 1) * self.labeling.m
        )

    def model_of(self, role: ModelRole) -> str:
        name: str = getattr(self.models, role)
        return name

    def sampling_of(self, role: ModelRole) -> Sampling:
        section: RoleSampling = getattr(self.sampling, role)
        return Sampling(**dict(section))


def load_runspec(file: Path) -> RunSpec:
    """Read and check a run.toml. Raises ConfigError with the key, the value and the limit."""
    return parse_runspec(read_fields(file, RunSpec), str(file))


class _PricesFile(Section):
    prices: Prices


def load_prices(file: Path) -> Prices:
    """The [prices] of a TOML file, whose other tables are not looked at: a run file will do. Raises
    ConfigError.
    """
    fields = read_fields(file, RunSpec, "a TOML file with [prices]")
    known = f"known there: {', '.join(Prices.model_fields)}"
    if "prices" not in fields:
        raise ConfigError(f"{file} has no [prices]", known)
    try:
        prices = _PricesFile.model_validate({"prices": fields["prices"]}).prices
    except ValidationError as error:
        raise explain(error, str(file), _PricesFile) from error
    if prices == Prices():
        raise ConfigError(f"[prices] in {file} has no price above 0", known)
    return prices


def read_fields(file: Path, root: type[BaseModel], wanted: str = "a run.toml") -> dict[str, Any]:
    """The fields of a TOML file that describes a `root`, with the folder it lies in as `base`.
    Raises ConfigError.

    `wanted`: what such a file is called.
    """
    try:
        fields = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", f"give the path of {wanted}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{file} is not TOML: {error}", "see examples/ for files that work"
        ) from error
    if "base" in fields:
        raise ConfigError(
            f"unknown key base in {file}", f"known here: {', '.join(_known_keys([], root))}"
        )
    return {"name": file.stem, "base": file.parent.absolute(), **fields}


def parse_runspec(fields: dict[str, Any], origin: str) -> RunSpec:
    """Check the fields of a run. Raises ConfigError for the first that is wrong."""
    try:
        spec = RunSpec.model_validate(fields)
    except ValidationError as error:
        raise explain(error, origin, RunSpec) from error
    check_id(spec.name, f"name in {origin}")
    if (
        spec.labeling.stop_early and "verifier" in spec.training.roles
    ):  # not a validator: old runs stay readable
        raise ConfigError(
            f"[labeling] stop_early = true and [training.verifier] in {origin} do not go together:"
            " a proof"
            " that is decided early lacks critiques and meta-critiques, and the verifier learns"
            " from groups of them",
            "set stop_early = false",
        )
    for role in spec.training.roles:
        table = spec.engine.table_of(role)
        check_loads_versions(spec.engine.of(role), f"[training.{role}]", origin, table)
    return spec


def check_loads_versions(
    engine: EngineSection, trained: str, origin: str, table: str = "engine"
) -> None:
    """Raise ConfigError for an engine that has no answers by the versions that training makes.

    `table` is where the file describes the engine.
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
    why = (
        "such a server has the models that it was started with, and none of the versions that"
        " training makes"
    )
    if name:
        why = (
            "every version that training makes would be asked by that name, and the model of the"
            " start would answer"
        )
    raise ConfigError(
        f"{setting} and {trained} in {origin} do not go together: {why}",
        'train with an engine that loads versions: kind = "local", or kind = "triton" without'
        " `model`",
    )


def read_frozen(body: bytes, kind: type[S]) -> S:
    """A run or curriculum as it lies in the store. Raises CorruptObject.

    What a newer version wrote beside the keys of this one is passed over, as in the events.
    """
    try:
        return kind.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptObject(
            f"the stored spec is no {kind.__name__} of this version: {where}: {first['msg']}"
        ) from error


class Difference(NamedTuple):
    """A key that has another value than before. As text: `[flow] verifier = 8, was 4`; secrets are
    withheld.
    """

    path: tuple[str, ...]
    now: Any
    before: Any

    def __str__(self) -> str:
        name = self.path[-1]
        return (
            f"{_place(list(self.path))} = {_shown(name, self.now)}, was {_shown(name, self.before)}"
        )


def first_difference(
    now: Section, begun: Section, *, apart_from: Mapping[str, Any]
) -> Difference | None:
    """The first key in which a file is not as it was.

    `apart_from` are the keys that count as no difference, as those that say only where files lie.
    """
    return next(differences(now, begun, apart_from=apart_from), None)


def differences(
    now: Section, begun: Section | None, *, apart_from: Mapping[str, Any] | None = None
) -> Iterator[Difference]:
    """All keys in which a file is not as it was; begun as None: all that are set."""
    fields, before = (
        spec.model_dump(mode="json", exclude=apart_from) if spec else {} for spec in (now, begun)
    )
    yield from _differences(fields, before, ())


def _differences(
    now: Mapping[str, Any], begun: Mapping[str, Any], sections: tuple[str, ...]
) -> Iterator[Difference]:
    for name in {**now, **begun}:
        value, before = now.get(name), begun.get(name)
        if isinstance(value, Mapping) or isinstance(before, Mapping):
            yield from _differences(_table(value), _table(before), (*sections, name))
        elif value != before:
            yield Difference((*sections, name), value, before)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(name: str, value: Any) -> str:
    return (
        "unset"
        if value is None
        else "(withheld)"
        if SECRET.search(name)
        else json.dumps(value, ensure_ascii=False)
    )


def _place(names: list[str]) -> str:
    *sections, key = names
    return f"[{'.'.join(sections)}] {key}" if sections else key


def explain(error: ValidationError, origin: str, root: type[BaseModel]) -> ConfigError:
    """Pydantic's first error in the words of the file: `[labeling] k = 9: ...`.

    An unknown key comes before what is missing: that is mostly what it was meant to be.
    """
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    said, _, hint = first["msg"].removeprefix("Value error, ").partition(HINT)
    if not first["loc"]:  # sections that do not go together
        return ConfigError(f"{said} (in {origin})", hint or "see examples/ for files that work")
    *sections, key = names = _names(first["loc"])
    place = _place(names)
    if first["type"] == "extra_forbidden":
        hint = f"known here: {', '.join(_known_keys(sections, root))}"
        if "settings" in _known_keys(sections, root):
            hint += f"; settings of its own stand under [{'.'.join([*sections, 'settings'])}]"
        return ConfigError(f"unknown key {place} in {origin}", hint)
    if first["type"] == "missing":
        return ConfigError(f"{place} is missing in {origin}", "see examples/ for files that work")
    if first["type"] == "value_error" and _section_class(
        [*sections, key], root
    ) is not _section_class(sections, root):
        place = f"[{'.'.join([*sections, key])}]"  # its keys do not go together
    if first["type"] in ("model_type", "dict_type"):
        said = f"should be a table: write its keys under [{'.'.join(names)}]"
    shown = f" = {first['input']!r}" if isinstance(first["input"], str | int | float | bool) else ""
    return ConfigError(
        f"{place}{shown} in {origin}: {said}", hint or _quotes(first["type"], first["input"])
    )


def _names(parts: tuple[int | str, ...]) -> list[str]:
    """The way to a value, one of a list by its position: `temperatures[0]`."""
    names: list[str] = []
    for part in parts:
        if isinstance(part, int) and names:
            names[-1] += f"[{part}]"
        else:
            names.append(str(part))
    return names


def _section_class(names: list[str], root: type[BaseModel]) -> type[BaseModel]:
    kind = root
    for name in names:
        annotation = kind.model_fields[name].annotation if name in kind.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        kind = annotation
    return kind


def _known_keys(sections: list[str], root: type[BaseModel]) -> list[str]:
    return sorted(set(_section_class(sections, root).model_fields) - {"base"})


def _quotes(wrong: str, given: object) -> str:
    """What to do about quotes that are too many or missing; nothing where the error already says
    its limit.
    """
    if isinstance(given, str) and wrong in ("int_type", "float_type", "bool_type"):
        return "numbers, true and false stand without quotes"
    return "a text stands in quotes" if wrong in ("string_type", "path_type") else ""
