"""Small makers of records, answers and stores: a test names only what it is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.engine.base import Call, Engine, GenerationRequest
from proofloop.engine.simulated.answers import SimulatedSettings
from proofloop.engine.simulated.engine import SimulatedEngine
from proofloop.method.label_rule import decide_by_person
from proofloop.method.prompts.phrases import (
    EVALUATION_INTRO,
    EVALUATION_SCORE,
    META_INTRO,
    META_SCORE,
)
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Grade,
    Judgement,
    Label,
    Problem,
    Proof,
    Provenance,
    Sampling,
    Verdict,
)
from proofloop.store import LocalStore, Store, put_record
from proofloop.store.model_folders import MANIFEST, publish_folder
from proofloop.worker.tools import Tools

RUN = "r1"
PROOF = "p1-000"
PROVENANCE = Provenance(
    model_version="m-1",
    prompt_digest="0123456789ab",
    seed=7,
    sampling=Sampling(),
    prompt_tokens=10,
    completion_tokens=20,
    engine_seconds=0.5,
)
MALFORMED = Verdict(outcome="malformed", reason="no score")


def valid(score: float) -> Verdict:
    return Verdict(outcome="valid", score=score)


def evaluation(score: str = "1", analysis: str = "Every step holds.") -> str:
    """A verifier's answer in its format."""
    return f"{EVALUATION_INTRO}\n{analysis}\n\n{EVALUATION_SCORE}\n\\boxed{{{score}}}"


def meta_evaluation(score: str = "1", analysis: str = "What it claims is there.") -> str:
    """A meta-verifier's answer in its format."""
    return f"{META_INTRO}\n{analysis}\n\n{META_SCORE}\n\\boxed{{{score}}}"


def answer(
    solution: str = "Let $n = 2k$.", score: str = "1", analysis: str = "Every step holds."
) -> str:
    """A generator's answer in its format."""
    return f"## Solution\n\n{solution}\n\n## Self Evaluation\n\n{evaluation(score, analysis)}"


def visible(page: str) -> str:
    """A page's text as a reader sees it, spaces joined."""
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(page.split("</style>", 1)[1])
    return " ".join(" ".join(words).split())


def judgement(
    index: int,
    score: float | None = 1.0,
    confirmed: bool | None = None,
    quality: float | None = 1.0,
) -> Judgement:
    verdict = MALFORMED if score is None else valid(score)
    return Judgement(
        proof_id=PROOF, index=index, verdict=verdict, confirmed=confirmed, quality=quality
    )


PRAISED = valid(1.0)


def proof(verdict: Verdict = PRAISED, **changes: Any) -> Proof:
    fields: dict[str, Any] = {
        "id": PROOF,
        "run_id": RUN,
        "problem_id": "p1",
        "group": "p1",
        "solution": "Simulated proof 8f3a of quality 1.",
        "self_analysis": evaluation(),
        "verdict": verdict,
        "provenance": PROVENANCE,
        "verifier_version": "v-1",
    }
    return Proof(**{**fields, **changes})


def critique(index: int, verdict: Verdict, analysis: str = "") -> Critique:
    text = analysis or evaluation(f"{verdict.score:g}" if verdict.score is not None else "?")
    return Critique(
        proof_id=PROOF, index=index, analysis=text, verdict=verdict, provenance=PROVENANCE
    )


def label(score: float | None = 1.0, **changes: Any) -> Label:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "proof_id": PROOF,
        "problem_id": "p1",
        "group": "p1",
        "outcome": "accepted",
        "kind": "accepted",
        "score": score,
        "self_quality": 1.0,
        "critiques": (0, 1),
        "trigger": 1,
    }
    return Label(**{**fields, **changes})


def undecided_label(**changes: Any) -> Label:
    return label(None, **{"outcome": "undecided", "kind": "undecided", "critiques": (), **changes})


def grade(score: float | None = 0.5, **changes: Any) -> Grade:
    """A grade of the undecided proof by Emmy, as the page stores it."""
    by = changes.get("by", "Emmy")
    person = None if score is None else decide_by_person(undecided_label(), [], score=score, by=by)
    fields: dict[str, Any] = {
        "run_id": RUN,
        "proof_id": PROOF,
        "number": 0,
        "score": score,
        "by": by,
        "at_s": 1_760_000_000.0,
        "label": None if changes.get("critique") is not None else person,
    }
    return Grade(**{**fields, **changes})


def put_grade(store: Store, score: float | None = 0.5, **changes: Any) -> Grade:
    """Store a grade."""
    made = grade(score, **changes)
    return put_record(store, keys.grade(RUN, made.proof_id, made.number, made.critique), made)


def put_case(
    store: Store,
    proof_id: str = PROOF,
    solution: str = "Let $n = 2k$.",
    scores: Sequence[float | None] = (0.5, 0.0, 1.0),
) -> None:
    """An undecided proof of the run with its problem and critiques, of which only the first is
    confirmed.
    """
    put_record(
        store, keys.problem(RUN, "p1"), Problem(id="p1", question="Prove that $2n$ is even.")
    )
    put_record(store, keys.proof(RUN, proof_id), proof(id=proof_id, solution=solution))
    for index, score in enumerate(scores):
        verdict = MALFORMED if score is None else valid(score)
        of_this = {"proof_id": proof_id}
        put_record(
            store,
            keys.critique(RUN, proof_id, index),
            critique(index, verdict).model_copy(update=of_this),
        )
        judged = judgement(index, score, confirmed=index == 0 if score in (0.0, 0.5) else None)
        put_record(store, keys.judgement(RUN, proof_id, index), judged.model_copy(update=of_this))
    put_record(store, keys.label(RUN, proof_id), undecided_label(proof_id=proof_id))


def runspec(name: str = RUN, **sections: Any) -> RunSpec:
    """A run on the simulated engine: two nano problems with two proofs each, n = 4, m = 3, k =
    2.
    """
    fields: dict[str, Any] = {
        "name": name,
        "prompts": "math",
        "problems": {"domain": "nano", "count": 2, "proofs_per_problem": 2},
        "engine": {"kind": "simulated"},
        "models": dict.fromkeys(("generator", "verifier", "meta_verifier"), "m-1"),
        "labeling": {"n": 4, "m": 3, "k": 2},
        "flow": {"generator": 4, "verifier": 8, "meta_verifier": 8, "labeler": 2},
    }
    for section, values in sections.items():
        is_table = isinstance(values, dict) and section in ("labeling", "flow", "models")
        fields[section] = {**fields[section], **values} if is_table else values
    return parse_runspec(fields, "a test")


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    """A version's files with their manifest."""
    files = {"model.bin": weights, "config.json": b"{}"}
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entries = [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    ]
    (folder / MANIFEST).write_text(json.dumps({"files": entries}))
    return folder


def publish_versions(store: LocalStore, folder: Path, *versions: str) -> None:
    """Put these versions into the store, each with different weights."""
    for version in versions:
        publish_folder(store, model_folder(folder / version, version.encode()), version)


class CountingEngine:
    """The simulated engine, and every request that it was asked."""

    def __init__(self, **settings: Any) -> None:
        self._engine: Engine = SimulatedEngine(SimulatedSettings(**settings))
        self.requests: list[GenerationRequest] = []

    def submit(self, request: GenerationRequest) -> Call:
        self.requests.append(request)
        return self._engine.submit(request)

    def close(self) -> None:
        self._engine.close()

    def names(self) -> list[str]:
        """What was asked, in order: `role:proof:name`, without the attempt."""
        return [request.id.rpartition(":")[0] for request in self.requests]


def workplace(
    root: Path, engine: Engine, spec: RunSpec | None = None, problems: Sequence[str] = ("p1",)
) -> Tools:
    """Tools over a fresh store that holds the run and its problems."""
    store, spec = LocalStore(root), spec or runspec()
    create_run(store, spec, resume=False)
    for name in problems:
        problem = Problem(id=name, question=f"Prove {name}.")
        store.put_if_absent(keys.problem(spec.name, name), problem.model_dump_json().encode())
    return Tools(store, lambda *_: engine)
