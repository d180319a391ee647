"""The keys of the store, computed from ids: a repeated step finds the output of the first time."""

from __future__ import annotations

import re
from typing import NamedTuple

from proofloop.schema.ids import (
    ID_PATTERN,
    PROOF,
    AnswerName,
    critique_name,
    index_name,
    matched_answer,
)
from proofloop.schema.records import digest


def name_of(key: str) -> str:
    """The last part of a key, without the ending of a record."""
    return key.rpartition("/")[2].removesuffix(".json")


def folder_of(key: str) -> str:
    """A key without its last part."""
    return key.rpartition("/")[0]


def name_below(prefix: str, key: str) -> str:
    """The rest of a key after the prefix, without the ending of a record."""
    return key.removeprefix(prefix).removesuffix(".json")


def first_below(prefix: str, key: str) -> str:
    """The part of a key that follows the prefix."""
    return key.removeprefix(prefix).partition("/")[0]


def run(run_id: str) -> str:
    return f"runs/{run_id}/"


SPECS = "specs/"
"""One object a run: a short listing tells which runs there are."""


def run_spec(run_id: str) -> str:
    return f"{SPECS}{run_id}.json"


def spec_changes(run_id: str) -> str:
    """The changed specs of a run's resumes; the last one counts."""
    return f"runs/{run_id}/specs/"


def spec_change(run_id: str, number: int) -> str:
    return f"{spec_changes(run_id)}{number:06d}.json"


def creation(run_id: str) -> str:
    """The id of this creation of the run: another run of the same name has another."""
    return f"runs/{run_id}/creation.json"


def prompts(run_id: str) -> str:
    return f"runs/{run_id}/prompts.json"


def problem_file(run_id: str) -> str:
    """The digest of the run's problem file at its start."""
    return f"runs/{run_id}/problem_file.json"


def problem_file_growths(run_id: str) -> str:
    """The digests of the problems each time there were more of them."""
    return f"runs/{run_id}/problem_file_growths/"


def problem_file_growth(run_id: str, number: int) -> str:
    return f"{problem_file_growths(run_id)}{number:06d}.json"


def given_portions(run_id: str) -> str:
    """The given cases of a run, in portions; their number only grows."""
    return f"runs/{run_id}/given/"


def given_portion(run_id: str, number: int) -> str:
    return f"{given_portions(run_id)}{number:06d}.json"


def demonstrations(run_id: str) -> str:
    """The rows of a supervised training's file, in portions."""
    return f"runs/{run_id}/demonstrations/"


def demonstration_portion(run_id: str, number: int) -> str:
    return f"{demonstrations(run_id)}{number:06d}.json"


def problems(run_id: str) -> str:
    return f"runs/{run_id}/problems/"


def problem(run_id: str, problem_id: str) -> str:
    return f"{problems(run_id)}{problem_id}.json"


def proofs(run_id: str) -> str:
    return f"runs/{run_id}/proofs/"


def proof(run_id: str, proof_id: str) -> str:
    return f"runs/{run_id}/proofs/{proof_id}/proof.json"


def attempts(run_id: str, proof_id: str) -> str:
    """The attempts that were refined; the last one is the proof."""
    return f"runs/{run_id}/proofs/{proof_id}/attempts/"


def attempt(run_id: str, proof_id: str, number: int) -> str:
    return f"{attempts(run_id, proof_id)}{number:05d}.json"


def critiques(run_id: str, proof_id: str) -> str:
    return f"runs/{run_id}/proofs/{proof_id}/critiques/"


def critique(run_id: str, proof_id: str, index: int) -> str:
    return f"{critiques(run_id, proof_id)}{index:05d}.json"


def unread_critique(run_id: str, proof_id: str, index: int) -> str:
    """The unreadable answer in whose place the critique was requested again."""
    return f"runs/{run_id}/proofs/{proof_id}/unread/{index:05d}.json"


def critique_requests(run_id: str, proof_id: str) -> str:
    """The requests for more critiques of a proof, in order."""
    return f"runs/{run_id}/proofs/{proof_id}/critique_requests/"


def critique_request(run_id: str, proof_id: str, number: int) -> str:
    return f"{critique_requests(run_id, proof_id)}{number:05d}.json"


def judgements(run_id: str, proof_id: str) -> str:
    return f"runs/{run_id}/proofs/{proof_id}/judgements/"


def judgement(run_id: str, proof_id: str, index: int) -> str:
    return f"{judgements(run_id, proof_id)}{index_name(index, digits=5)}.json"


def meta_critiques(run_id: str, proof_id: str, index: int) -> str:
    """Each meta-critique is an object of its own: it is kept even if its siblings fail."""
    return f"runs/{run_id}/proofs/{proof_id}/meta_critiques/{index_name(index, digits=5)}/"


def meta_critique(run_id: str, proof_id: str, index: int, number: int) -> str:
    return f"{meta_critiques(run_id, proof_id, index)}{number:03d}.json"


_ANSWER = re.compile(
    r"runs/(?P<run_id>[^/]+)/proofs/(?P<proof_id>[^/]+)"
    r"/(?:proof|attempts/(?P<attempt>\d+)|critiques/(?P<critique>\d+)"
    r"|unread/(?P<unread>\d+)"
    r"|meta_critiques/(?P<of>\d+|self)/(?P<meta>\d+))\.json",
    re.ASCII,
)


class AnswerKey(NamedTuple):
    """The run, the proof and the name of an answer in the store."""

    run_id: str
    proof_id: str
    name: AnswerName


def answer(run_id: str, proof_id: str, name: AnswerName) -> str:
    """The key of an answer about a proof."""
    match name.kind:
        case "proof":
            return proof(run_id, proof_id)
        case "attempt":
            return attempt(run_id, proof_id, name.index)
        case "critique":
            return critique(run_id, proof_id, name.index)
        case "unread":
            return unread_critique(run_id, proof_id, name.index)
        case "meta":
            return meta_critique(run_id, proof_id, name.index, name.number)


def parse_answer(key: str) -> AnswerKey | None:
    """The answer at a key; None for a key of something else."""
    match = _ANSWER.fullmatch(key)
    if match is None:
        return None
    return AnswerKey(match["run_id"], match["proof_id"], matched_answer(match) or PROOF)


def raw_answer(run_id: str, proof_id: str, answer: str, content_digest: str) -> str:
    """The generator's raw answer. The key has a digest of the content, because two workers may
    answer the same request.
    """
    return f"runs/{run_id}/proofs/{proof_id}/raw/{answer}-{content_digest}.json"


def tokens(run_id: str, proof_id: str, answer: str, content_digest: str) -> str:
    """If two workers answer the same request at once, both token objects are kept; the stored
    record names its own.
    """
    return f"runs/{run_id}/proofs/{proof_id}/tokens/{answer}-{content_digest}.json"


def labels(run_id: str) -> str:
    return f"runs/{run_id}/labels/"


def label(run_id: str, proof_id: str) -> str:
    return f"runs/{run_id}/labels/{proof_id}.json"


def all_grades(run_id: str) -> str:
    """People's grades of the run's proofs and analyses."""
    return f"runs/{run_id}/grades/"


def grades(run_id: str, proof_id: str, critique: int | None = None) -> str:
    """The grades of a proof, or of one of its critiques, in order."""
    answer = PROOF if critique is None else critique_name(critique)
    return f"{all_grades(run_id)}{proof_id}/{answer}/"


def grade(run_id: str, proof_id: str, number: int, critique: int | None = None) -> str:
    return f"{grades(run_id, proof_id, critique)}{number:05d}.json"


def openings_of(run_id: str, by: str) -> str:
    """All that a person saw of a run's proofs besides the proofs."""
    return f"runs/{run_id}/openings/{digest(by)}/"


def opening_folder(run_id: str, by: str, proof_id: str) -> str:
    """What a person saw about a proof besides the proof."""
    return f"{openings_of(run_id, by)}{proof_id}/"


def opening(run_id: str, by: str, proof_id: str, what: str) -> str:
    return f"{opening_folder(run_id, by, proof_id)}{what}.json"


def announced(run_id: str) -> str:
    """The grades that the services know: a copy of the event, written after it."""
    return f"runs/{run_id}/announced/"


def announcement(run_id: str, proof_id: str, number: int) -> str:
    return f"{announced(run_id)}{proof_id}/{number:05d}.json"


def evaluation(run_id: str) -> str:
    """The figures of an evaluation run."""
    return f"runs/{run_id}/evaluation.json"


def summary(run_id: str) -> str:
    """The figures of a run before and after training."""
    return f"runs/{run_id}/summary.json"


def early_warnings(run_id: str) -> str:
    """The early warnings: one for each role whose first answers were mostly unreadable."""
    return f"runs/{run_id}/early_warnings/"


def early_warning(run_id: str, role: str) -> str:
    return f"{early_warnings(run_id)}{role}.json"


def rounds(run_id: str) -> str:
    """The proofs that each round of the search refines, by problem."""
    return f"runs/{run_id}/rounds/"


def rounds_of(run_id: str, problem_id: str) -> str:
    return f"{rounds(run_id)}{problem_id}/"


def search_round(run_id: str, problem_id: str, number: int) -> str:
    return f"{rounds_of(run_id, problem_id)}{number:03d}.json"


def searches(run_id: str) -> str:
    """The results of ended searches, by problem."""
    return f"runs/{run_id}/searches/"


def search_result(run_id: str, problem_id: str) -> str:
    return f"{searches(run_id)}{problem_id}.json"


def usages(run_id: str) -> str:
    """The services' counters for the run by process: calls, tokens, calls in flight."""
    return f"runs/{run_id}/usage/"


def times(run_id: str) -> str:
    """How long each process of `proofloop run` has worked on the run."""
    return f"runs/{run_id}/times/"


def budget_marks(run_id: str) -> str:
    return f"runs/{run_id}/budget/"


def budget_mark(run_id: str) -> str:
    """The mark of a used-up budget: services drop the run's messages."""
    return f"{budget_marks(run_id)}used_up.json"


def dead_letters(run_id: str) -> str:
    return f"runs/{run_id}/dead/"


def holders(name: str) -> str:
    """The process that works on a run or a curriculum (see `store.lease`)."""
    return f"runs/{name}/holders/"


def holder(name: str, number: int) -> str:
    """The holder's record, in a folder of its own because the store deletes by prefix."""
    return f"{holders(name)}{number:09d}/holder.json"


LEASES = "leases/"
"""Which process waits for which answers: the only keys that do not belong to a run."""


def renewed_by(prefix: str, process: str) -> str:
    """All that a process wrote below `prefix`, the prefix of records that are renewed (see
    `store.renewed`).
    """
    return f"{prefix}{process}/"


def renewed_folder(prefix: str, process: str, number: int) -> str:
    return f"{renewed_by(prefix, process)}{number:09d}/"


def renewed(prefix: str, process: str, number: int, name: str) -> str:
    return f"{renewed_folder(prefix, process, number)}{name}.json"


CURRICULA = "curricula/"
"""One object a curriculum, as with runs."""


def curriculum(name: str) -> str:
    return f"{CURRICULA}{name}.json"


def curriculum_files(name: str) -> str:
    """The digests of a curriculum's files at its start."""
    return f"runs/{name}/files.json"


def curriculum_runs(name: str) -> str:
    """One object for each run of a curriculum."""
    return f"runs/{name}/runs/"


def curriculum_run(name: str, run_id: str) -> str:
    return f"{curriculum_runs(name)}{run_id}.json"


def stage(name: str, stage: str) -> str:
    """The manifest of a curriculum's stage."""
    return f"runs/{name}/stages/{stage}.json"


def cases(name: str, data: str) -> str:
    """A data set that a curriculum drew."""
    return f"runs/{name}/data/{data}.json"


def all_figures(name: str) -> str:
    return f"runs/{name}/figures/"


def figures(name: str, what: str) -> str:
    """The measured figures of a curriculum's version."""
    return f"{all_figures(name)}{what}.json"


def all_batches(run_id: str) -> str:
    return f"runs/{run_id}/batches/"


def batches(run_id: str, role: str) -> str:
    return f"{all_batches(run_id)}{role}/"


def batch(run_id: str, role: str, step: int) -> str:
    return f"{batches(run_id, role)}{step:06d}.json"


def skipped_problems(run_id: str, role: str) -> str:
    return f"runs/{run_id}/skipped/{role}/"


def skipped_problem(run_id: str, role: str, problem_id: str) -> str:
    """A marker: no trainer of this role learns from this problem."""
    return f"{skipped_problems(run_id, role)}{problem_id}.json"


def all_steps(run_id: str) -> str:
    return f"runs/{run_id}/steps/"


def steps(run_id: str, role: str) -> str:
    return f"{all_steps(run_id)}{role}/"


def step(run_id: str, role: str, step: int) -> str:
    return f"{steps(run_id, role)}{step:06d}.json"


def all_checkpoints(run_id: str) -> str:
    """The trainer's checkpoints: weights with the optimizer's state."""
    return f"runs/{run_id}/checkpoints/"


def checkpoints(run_id: str, role: str) -> str:
    return f"{all_checkpoints(run_id)}{role}/"


def checkpoint(run_id: str, role: str, step: int) -> str:
    return f"{checkpoints(run_id, role)}{step:06d}"


def all_models(run_id: str) -> str:
    return f"runs/{run_id}/models/"


def models(run_id: str, role: str) -> str:
    return f"{all_models(run_id)}{role}/"


def model(run_id: str, role: str, step: int) -> str:
    """The name of a model version is its key prefix, so the name alone locates it."""
    return f"{models(run_id, role)}{step:06d}"


def version_of(key: str) -> str:
    """The model version or checkpoint that a file belongs to, by the file's key."""
    return "/".join(key.split("/")[:5])


_NUMBERED = re.compile(
    rf"runs/(?P<run_id>{ID_PATTERN})/(?:batches|checkpoints|models|rounds|steps|weights)"
    rf"/(?P<name>{ID_PATTERN})/(?P<number>\d+)(?:\.json|/.+)?",
    re.ASCII,
)


class Numbered(NamedTuple):
    """The run, the name (a role, stage or problem) and the number in a key."""

    run_id: str
    name: str
    number: int


def parse_numbered(key: str) -> Numbered | None:
    """The parts of the key of a batch, checkpoint, model version, search round or step; None for
    other keys. A key of a file in a model version or checkpoint is parsed as that version.
    """
    match = _NUMBERED.fullmatch(key)
    return Numbered(match["run_id"], match["name"], int(match["number"])) if match else None


def is_version(name: str) -> bool:
    """Whether a model's name is a version in the store, not a folder or an installed model."""
    return name.startswith("runs/")


def all_weights(run_id: str) -> str:
    return f"runs/{run_id}/weights/"


def weights(version: str) -> str:
    """The weights for further training: if the version has fewer than 32 bits, its weights before
    rounding. Another name, such as a folder's, stays as it is.
    """
    return re.sub(r"^(runs/[^/]+)/models/", r"\1/weights/", version)


def served(run_id: str, role: str) -> str:
    return f"runs/{run_id}/served/{role}/"
