"""A run's spec in the store: its frozen part, and the changes that a resume may make.

Settings that decide answers are frozen at the start. The address of the engine, concurrency, prices
and budgets may change; problems and proofs may be added. Each change is one more object beside the
first spec, and the last one counts: read a spec through `find_spec`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from typing import NoReturn

from proofloop.config.frozen import Difference, differences, read_frozen
from proofloop.config.given_files import given_cases
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.changes import FILES, engine_decides, is_engine_setting, is_free
from proofloop.errors import ConfigError, NotFound, RunNotFound
from proofloop.method.prompts import PromptPack, find_pack, pack_names
from proofloop.runs.given import new_cases
from proofloop.schema import keys
from proofloop.schema.ids import is_id
from proofloop.schema.records import MODEL_ROLES, ModelRole, Problem, Record
from proofloop.store import Store, find_record, put_new, put_record, records_below

FROZEN_HINT = (
    "a run keeps what decides its answers: take the stored value, or give the run another name"
)


class ProblemsDigest(Record):
    """The digest of a run's problem file: ids and questions, in order. Older records lack the
    number of problems.
    """

    digest: str
    problems: int | None = None


class Creation(Record):
    """Distinguishes a run from a deleted one of the same name and the same spec."""

    id: str


def keep_creation(store: Store, run_id: str) -> None:
    """Give a new run the id of its creation. Safe to repeat. Raises StoreError."""
    put_record(store, keys.creation(run_id), Creation(id=uuid.uuid4().hex), durable=True)


def find_creation(store: Store, run_id: str) -> str:
    """The id of the run's creation; empty for a run that an older version created. Raises
    StoreError.
    """
    found = find_record(store, keys.creation(run_id), Creation)
    return found.id if found else ""


def find_spec(store: Store, run_id: str) -> RunSpec | None:
    """The spec of a run at its last start or resume; None if there is no such run."""
    try:
        return get_spec(store, run_id) if is_id(run_id) else None
    except RunNotFound:
        return None


def get_spec(store: Store, run_id: str) -> RunSpec:
    """The spec of a run at its last start or resume. Raises RunNotFound, CorruptObject."""
    changes = list(store.list(keys.spec_changes(run_id)))
    key = changes[-1] if changes else keys.run_spec(run_id)
    try:
        data = store.get(key)
    except NotFound as error:
        raise RunNotFound(key) from error
    return read_frozen(data, RunSpec, key)


def check_run(
    store: Store, spec: RunSpec, *, resume: bool, pack: PromptPack | None = None
) -> list[Difference]:
    """The changes by a resume with this spec, apart from the places of files; empty for a new run.
    Writes nothing.

    `pack`: the prompts, if they are not the spec's. Raises ConfigError if the run exists and must
    not be resumed, and for a change of a frozen key.
    """
    stored = find_spec(store, spec.name)
    if stored is None:
        return []
    if not resume:
        raise ConfigError(
            f"run {spec.name!r} is already in the store",
            "use --resume (in Python resume=True) to continue it, or choose another name",
        )
    changes = list(differences(spec, stored))
    others = [
        role for role in MODEL_ROLES if engine_decides(spec, role) != engine_decides(stored, role)
    ]
    for change in changes:
        if not is_free(change, spec) and (others or not is_engine_setting(change)):
            raise ConfigError(
                f"run {spec.name!r} was begun with another run file: {change}", FROZEN_HINT
            )
    if others:
        _refuse_engine(spec, stored, others[0])
    check_prompts(store, spec, pack)
    _check_growth(store, spec, stored)
    _check_problems(store, spec)
    if spec.problems.given_file:
        new_cases(store, spec, given_cases(spec))
    return [change for change in changes if change.path not in FILES]


def check_prompts(store: Store, spec: RunSpec, pack: PromptPack | None = None) -> None:
    """Raise ConfigError if the pack was edited since the run began.

    A run continues with its stored pack if the folder is gone, or if a newer package brings other
    prompts.
    """
    now = pack or (None if spec.prompts in pack_names() else find_pack(spec.prompts, spec.base))
    kept = find_record(store, keys.prompts(spec.name), PromptPack) if now else None
    if now is None or kept is None or now == kept:
        return
    edited = [name for name in now.templates if now.digest(name) != kept.digest(name)]
    what = f": {', '.join(edited)}" if edited else ""
    raise ConfigError(
        f"prompt pack {spec.prompts!r} was edited since run {spec.name!r} began{what}",
        "give the run another name, or restore the pack: a run keeps the prompts it began with",
    )


def keep_change(store: Store, spec: RunSpec) -> bool:
    """Store a checked spec if it differs from the stored one; false if another process stored one
    meanwhile.
    """
    if not keep_problems(store, spec):
        return False
    if find_spec(store, spec.name) == spec:
        return True
    number = sum(1 for _ in store.list(keys.spec_changes(spec.name)))
    return put_new(store, keys.spec_change(spec.name, number), spec, durable=True)


def keep_problems(store: Store, spec: RunSpec) -> bool:
    """Store a digest of a file's problems if they are new or more; false if another process was
    first. Raises ConfigError if they differ from the stored ones.
    """
    now, kept = _check_problems(store, spec)
    if now is None or (kept and kept[-1].digest == now.digest):
        return True
    run = spec.name
    key = keys.problem_file_growth(run, len(kept) - 1) if kept else keys.problem_file(run)
    return put_new(store, key, now, durable=True)


def _refuse_engine(spec: RunSpec, stored: RunSpec, role: ModelRole) -> NoReturn:
    """Raise the error for a role that got an address of its own: it inherits neither endpoints nor
    their settings.
    """
    now, before = (", ".join(engine_decides(each, role)) for each in (spec, stored))
    raise ConfigError(
        f"run {spec.name!r} was begun with other settings of the {role}'s engine: {now}, was"
        f" {before}",
        f"repeat what the endpoints set under [engine.{role}.settings], or give the run another"
        " name",
    )


def _check_growth(store: Store, spec: RunSpec, stored: RunSpec) -> None:
    now, before = spec.problems, stored.problems
    is_drawn = (now.domain or now.split) and not now.is_given
    if is_drawn and now.drawn < before.drawn:
        raise _shrunk("count", now.drawn, before.drawn)
    if now.proofs_per_problem < before.proofs_per_problem:
        raise _shrunk("proofs_per_problem", now.proofs_per_problem, before.proofs_per_problem)
    if now.proofs_per_problem == before.proofs_per_problem:
        return
    problem = (
        f"[problems] proofs_per_problem = {now.proofs_per_problem}, was {before.proofs_per_problem}"
    )
    if spec.training.roles:
        raise ConfigError(
            f"{problem}: the proofs of a problem are a group that training has learnt from",
            FROZEN_HINT,
        )
    if spec.search.rounds and _has_searched(store, spec.name):
        raise ConfigError(
            f"{problem}: the search has refined the first proofs already", FROZEN_HINT
        )


def _has_searched(store: Store, run_id: str) -> bool:
    return any(
        True for prefix in (keys.rounds(run_id), keys.searches(run_id)) for _ in store.list(prefix)
    )


def _shrunk(key: str, now: int, before: int) -> ConfigError:
    return ConfigError(
        f"[problems] {key} = {now}, was {before}: it may only grow",
        f"set it to {before} or more, or give another name",
    )


def _check_problems(
    store: Store, spec: RunSpec
) -> tuple[ProblemsDigest | None, list[ProblemsDigest]]:
    """The digest of a file's problems, and those that are kept. Raises ConfigError unless they
    begin with the kept.
    """
    if spec.problems.file is None:
        return None, []
    digests = list(_digests(problems_of(spec)))
    kept = _kept(store, spec.name)
    if kept and kept[-1].digest not in digests:
        _refuse_problems(spec, len(digests), digests[-1], kept[-1])
    return ProblemsDigest(digest=digests[-1], problems=len(digests)), kept


def _kept(store: Store, run_id: str) -> list[ProblemsDigest]:
    first = find_record(store, keys.problem_file(run_id), ProblemsDigest)
    growths = records_below(store, keys.problem_file_growths(run_id), ProblemsDigest)
    return [first, *growths] if first else []


def _refuse_problems(spec: RunSpec, count: int, now: str, kept: ProblemsDigest) -> None:
    if kept.problems is not None and count < kept.problems:
        raise ConfigError(
            f"{spec.problems.file} has {count} problems, but run {spec.name!r} has {kept.problems}:"
            " problems may only be added",
            "put the missing rows back, raise or leave out [problems] count, or give the run"
            " another name",
        )
    where = (
        ""
        if spec.problems.split is None
        else "; with a split no row may be added, for the order is drawn anew"
    )
    raise ConfigError(
        f"{spec.problems.file} differs from the file that run {spec.name!r} began with: its digest"
        f" is {now}, and was {kept.digest}",
        "put the old rows back in their order and new ones behind them, or give the run another"
        f" name{where}",
    )


def _digests(problems: Iterator[Problem] | Sequence[Problem]) -> Iterator[str]:
    """The digests of the first problem, of the first two, and so on; each is `records.digest` of
    their lines.
    """
    running = hashlib.sha256()
    for problem in problems:
        running.update(f"{problem.id} {problem.question}\n".encode(errors="replace"))
        yield running.hexdigest()[:12]
