"""A whole run in one process: from problems to labels, with everything that can go wrong on the
way.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import Call, Engine, GenerationRequest
from proofloop.errors import (
    BudgetUsedUp,
    ConfigError,
    EngineError,
    HintedError,
    Interrupted,
    ProofloopError,
    Reject,
    StoreError,
)
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.answers import ROLE_OF_KIND
from proofloop.runs.budget import TimeTaken
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.runs.dead_letters import DeadLetterRecord
from proofloop.runs.planned import planned
from proofloop.runs.progress import RunProgress
from proofloop.runs.search.records import SearchRound, searches_of
from proofloop.schema import keys
from proofloop.schema.events import (
    Event,
    ModelPublished,
    ProofLabeled,
    ProofReviewed,
    ProofWritten,
    decode,
    encode,
)
from proofloop.schema.ids import critique_name, unread_name
from proofloop.schema.records import Label, ModelRole, Proof
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import Role, load_role
from proofloop.worker.tools import Tools
from tests.builders import RUN, CountingEngine, runspec

pytestmark = pytest.mark.usefixtures("quiet_log")

NOISY = {
    "kind": "simulated",
    "settings": {"malformed_share": 0.1, "truncated_share": 0.05, "verifier_noise": 0.3},
}


class OneEngine(Engines):
    """All runs on one engine that is already open, so that a test can count."""

    def __init__(self, store: LocalStore, engine: Engine) -> None:
        super().__init__(store, store.root / "cache")
        self._engine = engine

    def of(self, spec: RunSpec, role: ModelRole) -> Engine:
        return self._engine


@contextmanager
def opened(
    store: LocalStore, spec: RunSpec, engine: Engine | None = None, **options: Any
) -> Iterator[EmbeddedPipeline]:
    create_run(store, spec, resume=True)
    engines = OneEngine(store, engine) if engine else Engines(store, store.root / "cache")
    try:
        with EmbeddedPipeline(store, engines, spec, **options) as pipeline:
            yield pipeline
    finally:
        engines.close()


def run(store: LocalStore, spec: RunSpec, engine: Engine | None = None) -> RunProgress:
    with opened(store, spec, engine) as pipeline:
        return pipeline.run()


def labels_of(store: LocalStore, spec: RunSpec) -> dict[str, Label]:
    found = [get_record(store, key, Label) for key in store.list(keys.labels(spec.name))]
    return {label.proof_id: label for label in found}


def check_every_proof_is_labeled_once(
    store: LocalStore, spec: RunSpec, progress: RunProgress
) -> dict[str, Label]:
    labels, wanted = labels_of(store, spec), [event.proof_id for event in planned(spec, store)]
    assert sorted(labels) == sorted(wanted)
    assert progress.planned == progress.labeled == len(wanted)
    assert progress.waiting == 0
    assert progress.outcomes == Counter(label.outcome for label in labels.values())
    return labels


def said(label: Label) -> tuple[object, ...]:
    return label.outcome, label.kind, label.score


def paid(store: LocalStore, spec: RunSpec) -> dict[str, int]:
    """Every stored record of an engine's answer, with the moment at which it was written."""
    return {
        key: store.path(key).stat().st_mtime_ns
        for key in store.list(keys.proofs(spec.name))
        if keys.parse_answer(key)
    }


def answers_in(store: LocalStore, spec: RunSpec) -> int:
    """How many engine answers the store holds: proofs, critiques, meta-critiques."""
    return len(paid(store, spec))


def test_nano_problems_get_labels(tmp_path: Path) -> None:
    store, engine = LocalStore(tmp_path), CountingEngine()
    spec = runspec(problems={"domain": "nano", "count": 5, "proofs_per_problem": 4}, prompts="nano")
    labels = check_every_proof_is_labeled_once(store, spec, run(store, spec, engine))
    assert len(labels) == 20
    assert {label.outcome for label in labels.values()} >= {"accepted", "rejected"}


def test_problems_of_a_file_get_labels(tmp_path: Path) -> None:
    rows = [
        {"question": f"Prove that {n} < {n + 1}.", "problem_idx": f"Q-{n}", "answer": n}
        for n in range(3)
    ]
    (tmp_path / "problems.json").write_text(json.dumps(rows))
    store = LocalStore(tmp_path / "store")
    spec = runspec(problems={"file": "problems.json", "proofs_per_problem": 3}, base=tmp_path)
    labels = check_every_proof_is_labeled_once(store, spec, run(store, spec))
    assert sorted(labels) == [f"Q-{n}-{number:03d}" for n in range(3) for number in range(3)]


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_answers_as_json_give_the_labels_of_answers_as_text(tmp_path: Path, reading: str) -> None:
    labels = []
    for prompts in ("math", "math-json"):
        store = LocalStore(tmp_path / prompts)
        spec = runspec(prompts=prompts, reading=reading, engine=NOISY)
        found = check_every_proof_is_labeled_once(store, spec, run(store, spec))
        labels.append({proof_id: said(label) for proof_id, label in found.items()})
    assert labels[0] == labels[1]
    assert any(score is not None for _, _, score in labels[1].values())


def test_every_answer_is_paid_once_and_kept(tmp_path: Path) -> None:
    store, engine = LocalStore(tmp_path), CountingEngine(verifier_noise=0.3)
    spec = runspec(
        problems={"domain": "nano", "count": 4, "proofs_per_problem": 3},
        labeling={"stop_early": False},
    )
    run(store, spec, engine)
    asked = Counter(engine.names())
    assert set(asked.values()) == {1}
    assert asked.total() == answers_in(store, spec)


def test_a_run_through_bad_answers_and_a_failing_engine_labels_every_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pause, not a behaviour.
    monkeypatch.setattr("proofloop.worker.calls.model_call.ENGINE_AWAY_S", 0.02)
    store = LocalStore(tmp_path)
    engine = CountingEngine(
        malformed_share=0.1, truncated_share=0.1, failure_share=0.1, verifier_noise=0.2
    )
    spec = runspec(problems={"domain": "nano", "count": 8, "proofs_per_problem": 5})
    labels = check_every_proof_is_labeled_once(store, spec, run(store, spec, engine))
    assert {label.outcome for label in labels.values()} == {
        "accepted",
        "rejected",
        "undecided",
        "unreadable",
    }
    assert max(Counter(engine.names()).values()) > 1  # some failed and were asked again
    for proof_id, label in labels.items():
        proof = get_record(store, keys.proof(RUN, proof_id), Proof)
        assert (label.outcome == "unreadable") == (proof.verdict.outcome != "valid")
        assert (label.score is None) == (label.outcome in ("undecided", "unreadable"))


class EchoingPipeline(EmbeddedPipeline):
    """A pipeline whose bus says everything twice, as a real one may."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.announced: Counter[str] = Counter()
        once, observe = self._bus.publish, self._bus._on_publish
        assert observe is not None

        def watch(event: Event) -> None:
            self.announced[event.id] += isinstance(event, ProofLabeled)
            observe(event)

        def twice(events: Any) -> None:
            batch = list(events)
            once([*batch, *(event for event in batch if not isinstance(event, ProofLabeled))])

        self._bus._on_publish = watch
        self._bus.publish = twice  # type: ignore[method-assign]


def test_a_run_on_a_bus_that_says_everything_twice_gives_the_same_labels(tmp_path: Path) -> None:
    spec = runspec(problems={"domain": "nano", "count": 3, "proofs_per_problem": 3}, engine=NOISY)
    alone, store = LocalStore(tmp_path / "once"), LocalStore(tmp_path / "twice")
    run(alone, spec)
    create_run(store, spec, resume=False)
    with EchoingPipeline(store, Engines(store, tmp_path), spec) as pipeline:
        progress = pipeline.run()
    labels = check_every_proof_is_labeled_once(store, spec, progress)
    assert {name: said(label) for name, label in labels.items()} == {
        name: said(label) for name, label in labels_of(alone, spec).items()
    }
    assert {name for name, times in pipeline.announced.items() if times} == {
        f"ProofLabeled/{RUN}/{name}" for name in labels
    }


@pytest.mark.parametrize(
    "rule", [{"n": 4, "m": 3, "k": 2}, {"n": 7, "m": 4, "k": 3}, {"n": 3, "m": 1, "k": 1}]
)
def test_early_stop_changes_no_label_and_asks_no_more_than_a_majority(
    tmp_path: Path, rule: dict[str, int]
) -> None:
    found, asked = [], []
    for early in (True, False):
        store, engine = LocalStore(tmp_path / str(early)), CountingEngine(**NOISY["settings"])
        spec = runspec(
            problems={"domain": "nano", "count": 6, "proofs_per_problem": 4},
            labeling={**rule, "stop_early": early},
        )
        labels = check_every_proof_is_labeled_once(store, spec, run(store, spec, engine))
        found.append({name: said(label) for name, label in labels.items()})
        asked.append(len(engine.requests))
    assert found[0] == found[1]
    # A majority of one is all; when critiques are saved depends on time.
    assert asked[0] + (rule["m"] > 1) <= asked[1]


def test_a_run_that_is_done_is_taken_up_at_no_cost(tmp_path: Path) -> None:
    store, engine, spec = LocalStore(tmp_path), CountingEngine(), runspec()
    first = run(store, spec, engine)
    asked, before = len(engine.requests), paid(store, spec)
    again = run(store, spec, engine)
    assert (again.planned, again.labeled, again.outcomes) == (
        first.planned,
        first.labeled,
        first.outcomes,
    )
    assert (first.stored, again.stored) == (0, 4)
    assert (len(engine.requests), paid(store, spec)) == (asked, before)


class StoppingEngine(CountingEngine):
    """Asks the run to stop when it is asked for the n-th time."""

    def __init__(self, after: int, stopping: threading.Event, **settings: Any) -> None:
        super().__init__(**settings)
        self._after, self._stopping = after, stopping

    def submit(self, request: GenerationRequest) -> Call:
        if len(self.requests) == self._after:
            self._stopping.set()
        return super().submit(request)


def test_a_run_that_is_stopped_says_so_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    spec = runspec(
        problems={"domain": "nano", "count": 6, "proofs_per_problem": 4},
        engine=NOISY,
        flow={"max_waiting_proofs": 4},
    )
    whole = LocalStore(tmp_path / "whole")
    run(whole, spec)
    store, stopping = LocalStore(tmp_path / "stopped"), threading.Event()
    stopper = StoppingEngine(60, stopping, **NOISY["settings"])
    with pytest.raises(Interrupted), opened(store, spec, stopper, stopping=stopping) as pipeline:
        pipeline.run()
    before = paid(store, spec)
    assert 0 < len(labels_of(store, spec)) < 24
    engine = CountingEngine(**NOISY["settings"])
    labels = check_every_proof_is_labeled_once(store, spec, run(store, spec, engine))
    assert {name: said(label) for name, label in labels.items()} == {
        name: said(label) for name, label in labels_of(whole, spec).items()
    }
    assert paid(store, spec).items() >= before.items()
    check_nothing_stored_was_asked_again(before, engine)


def check_nothing_stored_was_asked_again(before: dict[str, int], engine: CountingEngine) -> None:
    assert {name_of_question(key, before) for key in before} & set(engine.names()) == set()


def name_of_question(key: str, stored: Collection[str]) -> str:
    """The call whose reply a stored record holds, as the engine was asked it.

    An unreadable critique is kept as `unread`; its critique then holds the reply to a second call.
    """
    answer = keys.parse_answer(key)
    assert answer is not None
    name = answer.name
    if name.kind == "unread":
        name = critique_name(name.index)
    elif name.kind == "critique":
        unread = keys.unread_critique(answer.run_id, answer.proof_id, name.index)
        name = unread_name(name.index) if unread in stored else name
    return f"{ROLE_OF_KIND[name.kind]}:{answer.proof_id}:{name}"


KILLED = """
import sys
from pathlib import Path
from proofloop.worker.engine_pool import Engines
from proofloop.config.run_file import RunSpec
from proofloop.store import LocalStore
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.planned import planned_proofs
store = LocalStore(Path(sys.argv[1]))
spec = create_run(store, RunSpec.model_validate_json(sys.stdin.read()), resume=True)
with EmbeddedPipeline(store, Engines(store, Path(sys.argv[1]) / "cache"), spec) as pipeline:
    pipeline.run(lambda progress: print(progress.labeled, flush=True))
"""


def kill_in_the_middle(store: LocalStore, spec: RunSpec, labels: int) -> None:
    """Run it in another process and kill it when it has so many labels."""
    command = [sys.executable, "-c", KILLED, str(store.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(spec.model_dump_json().encode())
    process.stdin.close()
    deadline = time.monotonic() + 60
    while len(list(store.list(keys.labels(spec.name)))) < labels:
        assert time.monotonic() < deadline, "the run is too slow"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL


def test_a_killed_run_is_taken_up_and_pays_nothing_twice(tmp_path: Path) -> None:
    slow = {"kind": "simulated", "settings": {**NOISY["settings"], "latency_s": 0.05}}
    spec = runspec(
        problems={"domain": "nano", "count": 10, "proofs_per_problem": 4},
        engine=slow,
        flow={"max_waiting_proofs": 8},
    )
    whole, store = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "killed")
    run(whole, spec, CountingEngine(**NOISY["settings"]))
    for wanted in (4, 12, 20):
        before, labeled = paid(store, spec), labels_of(store, spec)
        kill_in_the_middle(store, spec, wanted)
        # Nothing that was there is written again.
        assert paid(store, spec).items() >= before.items()
        assert labels_of(store, spec).items() >= labeled.items()
    assert len(labels_of(store, spec)) < 40
    before, engine = paid(store, spec), CountingEngine(**NOISY["settings"])
    labels = check_every_proof_is_labeled_once(store, spec, run(store, spec, engine))
    assert paid(store, spec).items() >= before.items()
    check_nothing_stored_was_asked_again(before, engine)
    assert {name: said(label) for name, label in labels.items()} == {
        name: said(label) for name, label in labels_of(whole, spec).items()
    }


def test_an_engine_that_ends_the_process_is_survived_by_taking_the_run_up(tmp_path: Path) -> None:
    engine_section = {"kind": "simulated", "settings": {"crash_share": 0.04}}
    spec = runspec(
        problems={"domain": "nano", "count": 6, "proofs_per_problem": 3}, engine=engine_section
    )
    store, body, codes = LocalStore(tmp_path), spec.model_dump_json().encode(), list[int]()
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    while 0 not in codes and len(codes) < 30:
        codes.append(
            subprocess.run(command, input=body, stdout=subprocess.DEVNULL, timeout=60).returncode
        )
    assert set(codes) == {137, 0}
    check_every_proof_is_labeled_once(store, spec, run(store, spec))


# -- search
# --------------------------------------------------------------------------------------------------

SEARCH = {
    "problems": {"domain": "nano", "count": 6, "proofs_per_problem": 2},
    "search": {"rounds": 3, "keep": 2, "analyses": 2},
    "flow": {"max_waiting_proofs": 8},
}


def check_searches(store: LocalStore, spec: RunSpec, progress: RunProgress) -> None:
    """Every search ended, every proof that it asked for has one label, and the counts are true."""
    labels, found = labels_of(store, spec), list(searches_of(store, spec.name))
    assert len(found) == spec.problems.count
    assert sum(each.proofs for each in found) == len(labels) == progress.labeled == progress.planned
    for each in found:
        assert each.solved == any(
            label.solved for label in labels.values() if label.problem_id == each.problem_id
        )
        assert each.solved or len(each.best_by_round) == 1 + spec.search.rounds


def test_a_search_refines_the_best_proofs_until_one_passes_every_critique(tmp_path: Path) -> None:
    store, engine = LocalStore(tmp_path), CountingEngine(verifier_noise=0.2)
    spec = runspec(**SEARCH)
    check_searches(store, spec, run(store, spec, engine))
    found = list(searches_of(store, RUN))
    assert {len(each.best_by_round) for each in found} > {1}, (
        "no problem was searched for, or all were"
    )
    refined = [
        get_record(store, key, Proof) for key in paid(store, spec) if key.endswith("/proof.json")
    ]
    asked = (request for request in engine.requests if request.id.startswith("generator:"))
    shown = {request.id.split(":")[1]: request.messages[0].content for request in asked}
    for proof in refined:
        for parent in proof.parents:
            assert get_record(store, keys.proof(RUN, parent), Proof).solution in shown[proof.id]
    paid_for = len(engine.requests)
    check_searches(store, spec, run(store, spec, engine))
    assert len(engine.requests) == paid_for


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_early_stop_changes_no_search_and_asks_for_fewer_critiques(
    tmp_path: Path, seed: int
) -> None:
    found, critiques, judgements = [], [], []
    for early in (True, False):
        store = LocalStore(tmp_path / str(early))
        engine = CountingEngine(verifier_noise=0.3, malformed_share=0.1, seed=seed)
        labeling = {"n": 8, "m": 3, "k": 2, "stop_early": early}
        search = {"rounds": 2, "keep": 3, "analyses": 3}
        problems = {"domain": "nano", "count": 6, "proofs_per_problem": 4}
        spec = runspec(seed=seed, problems=problems, search=search, labeling=labeling)
        check_searches(store, spec, run(store, spec, engine))
        found.append(searched(store))
        asked = Counter(request.id.split(":")[0] for request in engine.requests)
        critiques.append(asked["verifier"])
        judgements.append(asked["meta_verifier"])
    assert found[0] == found[1]
    assert critiques[0] < 0.9 * critiques[1]
    assert judgements[0] < 0.5 * judgements[1]


@pytest.mark.parametrize("m", [0, 1])
def test_a_search_by_need_ends_with_fewer_waiting_proofs_than_it_keeps(
    tmp_path: Path, m: int
) -> None:
    store = LocalStore(tmp_path)
    spec = runspec(
        problems={"domain": "nano", "count": 2, "proofs_per_problem": 6},
        search={"rounds": 1, "keep": 4, "analyses": 2},
        labeling={"m": m},
        flow={"max_waiting_proofs": 1},
    )
    check_searches(store, spec, run(store, spec, CountingEngine(verifier_noise=0.5)))


def searched(store: LocalStore) -> dict[str, Any]:
    """The rounds of each search, and its best proofs; of a problem that was solved only that, since
    the first proof to pass all critiques is a matter of time.
    """
    rounds = {key: get_record(store, key, SearchRound) for key in store.list(keys.rounds(RUN))}
    for each in searches_of(store, RUN):
        best = each.best_by_round[:-1] if each.solved else each.best_by_round
        rounds[each.problem_id] = (each.solved, best, each.score)
    return rounds


def test_a_killed_search_is_taken_up_and_poses_the_same(tmp_path: Path) -> None:
    noise = {"verifier_noise": 0.3, "malformed_share": 0.1}
    spec = runspec(**SEARCH, engine={"kind": "simulated", "settings": {**noise, "latency_s": 0.03}})
    store = LocalStore(tmp_path)
    for wanted in (6, 14, 24):
        before = paid(store, spec)
        kill_in_the_middle(store, spec, wanted)
        assert paid(store, spec).items() >= before.items()
    before, engine = paid(store, spec), CountingEngine(**noise)
    check_searches(store, spec, run(store, spec, engine))
    check_nothing_stored_was_asked_again(before, engine)


TRAINED: dict[str, Any] = {
    "problems": {"domain": "nano", "count": 12, "proofs_per_problem": 1},
    "training": {"problems": 4, "ahead": 1.0, "generator": {"steps": 2}},
}


def train_with(
    handle: Callable[[Event, Tools], Iterator[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the trainer."""
    trainer = Role("trainer", {"ProofLabeled": handle})
    monkeypatch.setattr(
        "proofloop.pipeline.embedded.load_role",
        lambda name: trainer if name == "trainer" else load_role(name),
    )


def test_a_run_whose_trainer_rejects_every_label_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(event: Event, tools: Tools) -> Iterator[Event]:
        raise Reject("the learner is broken")

    train_with(reject, monkeypatch)
    store, spec = LocalStore(tmp_path), runspec(**TRAINED)
    with (
        opened(store, spec, CountingEngine()) as pipeline,
        pytest.raises(HintedError, match=r"but the trainer failed: the learner is broken") as error,
    ):
        pipeline.run()
    assert "proofloop dead list --run" in error.value.hint


def test_a_trainer_that_takes_no_step_holds_a_run_up_a_step_s_worth_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_with(lambda event, tools: iter(()), monkeypatch)
    spec = runspec(**TRAINED)
    store, waits = LocalStore(tmp_path), []
    with opened(store, spec, CountingEngine()) as pipeline:
        wait = pipeline._bus.wait_idle
        monkeypatch.setattr(
            pipeline._bus,
            "wait_idle",
            lambda timeout_s: waits.append(found := wait(timeout_s)) or found,
        )
        check_every_proof_is_labeled_once(store, spec, pipeline.run())
    assert waits.count(True) == 3  # twice for the trainer, and at the end


class GoneEngine(CountingEngine):
    """Its model was taken away."""

    def submit(self, request: GenerationRequest) -> Call:
        raise EngineError("no such model", retryable=False)


def test_a_run_that_its_engine_cannot_answer_says_how_to_go_on(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), runspec()
    said = pytest.raises(
        ProofloopError, match=r"no such model\nhint: fix this, then run .*--resume"
    )
    with opened(store, spec, GoneEngine()) as pipeline, said:
        pipeline.run()


# -- dead letters
# --------------------------------------------------------------------------------------------------


def dead_letters(store: LocalStore) -> list[DeadLetterRecord]:
    return [get_record(store, key, DeadLetterRecord) for key in store.list(keys.dead_letters(RUN))]


def test_an_event_of_a_deleted_proof_becomes_a_dead_letter_and_delays_no_other(
    tmp_path: Path,
) -> None:
    store, spec = LocalStore(tmp_path), runspec()
    run(store, spec)
    gone, *_ = labels_of(store, spec)
    store.path(keys.proof(RUN, gone)).unlink()
    store.path(keys.label(RUN, gone)).unlink()
    event = ProofReviewed(run_id=RUN, proof_id=gone, index=-1)
    store.delete_prefix(keys.judgements(RUN, gone))
    other = ProofWritten(run_id=RUN, proof_id=gone, index=9, verifier_version="m-1")
    with opened(store, spec) as pipeline:
        pipeline.replay([event, other])
        dead = dead_letters(store)
        assert {(letter.queue, letter.deliveries) for letter in dead} == {
            ("meta_verifier", 4),
            ("verifier", 4),
        }
        assert {decode(letter.body.encode()) for letter in dead} == {event, other}
        assert all(gone in letter.reason and "the store lacks" in letter.reason for letter in dead)
        check_every_proof_is_labeled_once(store, spec, pipeline.run())


class CursedEngine(CountingEngine):
    """Breaks on every third proof as only a bug can."""

    def submit(self, request: GenerationRequest) -> Call:
        if request.id.startswith("generator:") and request.seed % 3 == 0:
            raise RuntimeError("a bug")
        return super().submit(request)


def test_proofs_that_die_give_their_place_to_the_next_and_are_named_in_the_end(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path)
    spec = runspec(
        problems={"domain": "nano", "count": 10, "proofs_per_problem": 2},
        flow={"max_waiting_proofs": 2, "generator": 2, "verifier": 2, "meta_verifier": 2},
    )
    with opened(store, spec, CursedEngine()) as pipeline, pytest.raises(ProofloopError) as caught:
        pipeline.run()
    dead = dead_letters(store)
    assert 0 < len(dead) < 20
    assert len(labels_of(store, spec)) + len(dead) == 20
    assert str(caught.value).startswith(
        f"{len(dead)} of 20 proofs have no label because one of their messages is a dead letter: "
    )
    assert {letter.reason for letter in dead} == {"RuntimeError: a bug"}
    # And --resume tries them again.
    check_every_proof_is_labeled_once(store, spec, run(store, spec, CountingEngine()))
    assert dead_letters(store) == []


def test_a_letter_of_no_proof_outlives_the_resumed_run(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), runspec()
    published = ModelPublished(run_id=RUN, role="verifier", version="gone", digest="0" * 64)
    for body in (
        encode(published),
        encode(ProofReviewed(run_id=RUN, proof_id="p", index=0)),
        b"no event",
    ):
        DeadLetterRecord(queue="verifier", reason="a bug", body=body.decode(), deliveries=4).keep(
            store, RUN
        )
    run(store, spec)
    assert sorted(letter.body for letter in dead_letters(store)) == sorted(
        [encode(published).decode(), "no event"]
    )


class FullStore(LocalStore):
    """A disk that is full until `room` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.room = threading.Event()
        self.refused = threading.Event()

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if not self.room.is_set() and "/problems/" in key:
            self.refused.set()
            raise StoreError(f"cannot write {key}: no space left on device")
        return super().put_if_absent(key, data, durable=durable)


def test_a_run_waits_for_room_on_the_disk(tmp_path: Path) -> None:
    store, spec = FullStore(tmp_path), runspec()
    with opened(store, spec) as pipeline, ThreadPoolExecutor() as pool:
        progress = pool.submit(pipeline.run)
        assert store.refused.wait(10)
        assert not progress.done()
        store.room.set()
        check_every_proof_is_labeled_once(store, spec, progress.result(60))


def test_a_dead_letter_that_cannot_be_stored_makes_room_for_the_next_proof(
    tmp_path: Path,
) -> None:
    store, stopping = LocalStore(tmp_path), threading.Event()
    store.put_if_absent(
        keys.dead_letters(RUN).removesuffix("/"), b"a file where their folder would be"
    )
    spec = runspec(
        problems={"domain": "nano", "count": 10, "proofs_per_problem": 2},
        flow={"max_waiting_proofs": 2, "generator": 2, "verifier": 2, "meta_verifier": 2},
    )
    patience = threading.Timer(20, stopping.set)
    patience.start()
    with (
        opened(store, spec, CursedEngine(), stopping=stopping) as pipeline,
        pytest.raises(
            ProofloopError,
            match="of 20 proofs have no label because one of their messages is a dead letter",
        ),
    ):
        pipeline.run()
    patience.cancel()


# -- the run's spec
# --------------------------------------------------------------------------------------------------


def test_a_run_is_begun_once_and_resumed_only_with_its_own_spec(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), runspec()
    assert create_run(store, spec, resume=False) == spec
    with pytest.raises(ConfigError, match=r"run 'r1' is already in the store\nhint: use --resume"):
        create_run(store, spec, resume=False)
    assert create_run(store, spec, resume=True) == spec
    with pytest.raises(
        ConfigError, match=r"run 'r1' was begun with another run file: seed = 1, was 0\nhint: "
    ):
        create_run(store, runspec(seed=1), resume=True)


def test_a_run_is_not_resumed_on_a_problem_file_that_changed(tmp_path: Path) -> None:
    store, file = LocalStore(tmp_path / "store"), tmp_path / "problems.json"
    spec = runspec(problems={"file": file})
    file.write_text('[{"id": 1, "question": "Prove that 1 < 2."}]')
    create_run(store, spec, resume=False)
    file.write_text('[{"id": 1, "question": "Prove that 1 < 2.", "source": "a book"}]')
    file = file.rename(tmp_path / "moved.json")
    moved = runspec(problems={"file": file})
    create_run(store, moved, resume=True)  # what is asked is the same
    file.write_text('[{"id": 1, "question": "Prove that 1 < 3."}]')
    with pytest.raises(ConfigError, match=r"differs from the file that run 'r1' began with"):
        create_run(store, moved, resume=True)


def test_a_run_that_grew_pays_for_what_is_new_alone(tmp_path: Path) -> None:
    store, began, grew = LocalStore(tmp_path), CountingEngine(), CountingEngine()
    run(store, runspec(), began)
    more = runspec(
        problems={"domain": "nano", "count": 3, "proofs_per_problem": 3}, flow={"verifier": 2}
    )
    check_every_proof_is_labeled_once(store, more, run(store, more, grew))
    assert not {*began.names()} & {*grew.names()}
    assert sum(name.startswith("generator") for name in grew.names()) == 3 * 3 - 2 * 2


def test_the_hours_before_there_was_a_budget_count(tmp_path: Path) -> None:
    store, engine = LocalStore(tmp_path), CountingEngine(latency_s=0.05)
    run(store, runspec(), engine)
    (taken,) = (get_record(store, key, TimeTaken) for key in store.list(keys.times(RUN)))
    assert taken.seconds > 0.15  # of a proof, a critique and a judgement at least
    budget = {"hours": taken.seconds / 3600}
    more = runspec(problems={"domain": "nano", "count": 3, "proofs_per_problem": 2}, budget=budget)
    with (
        opened(store, more, engine) as pipeline,
        pytest.raises(BudgetUsedUp, match=r"hours = .* is used up"),
    ):
        pipeline.run()


@pytest.mark.parametrize("iterations", [1, 8])
def test_a_run_ends_when_its_budget_is_used_up_and_goes_on_with_more(
    tmp_path: Path, iterations: int
) -> None:
    store = LocalStore(tmp_path)
    engine = CountingEngine(latency_s=0.02, tokens=100, good_share=0.4 / iterations)
    problems = {"domain": "nano", "count": 6, "proofs_per_problem": 2}
    least, all_names = 0.0, set[str]()
    for tokens in (5_000, 15_000, 10_000_000):
        spec = runspec(
            problems=problems, budget={"tokens": tokens}, refinement={"iterations": iterations}
        )
        with opened(store, spec, engine) as pipeline:
            if tokens < 1_000_000:
                with pytest.raises(
                    BudgetUsedUp, match=rf"tokens = {tokens} is used up.* of 12 proofs have a label"
                ):
                    pipeline.run()
            else:
                check_every_proof_is_labeled_once(store, spec, pipeline.run())
        spent = costs(store, spec.name).total
        used = spent.prompt_tokens + spent.completion_tokens
        assert used > least
        assert tokens <= used <= 1.4 * tokens or tokens == 10_000_000
        least = used
        # None lost, none paid twice.
        assert spent.calls == len(engine.names()) == len({*engine.names()} | all_names)
        all_names |= {*engine.names()}


def test_of_racing_creators_of_a_run_with_different_specs_one_wins(tmp_path: Path) -> None:
    for turn in range(20):
        store, gate = LocalStore(tmp_path / str(turn)), threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(
                pool.map(lambda seed, store=store, gate=gate: _begin(store, seed, gate), range(4))
            )
        winner = json.loads(store.get(keys.run_spec(RUN)))["seed"]
        assert sorted(outcomes) == [-1, -1, -1, winner]


def _begin(store: LocalStore, seed: int, gate: threading.Barrier) -> int:
    """The seed of the run as it was begun, -1 if it was begun with another."""
    gate.wait()
    try:
        return create_run(store, runspec(seed=seed), resume=True).seed
    except ConfigError:
        return -1
