"""The whole walk in one process: every role's worker on the local bus, over one store, with no
server.

A run is planned by its spec alone: the same problems and proof ids each time. Taking it up again
therefore means posing what has no label yet; every step finds what it already stored, and nothing
that was paid is paid again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import structlog

from proofloop.bus import DeadLetter, LocalBus
from proofloop.config.problem_file import count_problems, problems_of
from proofloop.config.run_file import Budget, Prices, RunSpec
from proofloop.engine.base import Engine
from proofloop.errors import RESUME_HINT, BudgetUsedUp, HintedError, ProofloopError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.budget import BudgetGate, Meter, RunClock
from proofloop.runs.costs import ByRole, Spent, summed
from proofloop.runs.flow import in_work, most_waiting_proofs
from proofloop.runs.labels import find_label
from proofloop.runs.model_registry import published_versions, verify_version
from proofloop.runs.progress import ProgressTracker, RunProgress
from proofloop.runs.search_driver import refinements_posed, searches_of
from proofloop.runs.spec import check_prompts, check_run, find_spec, keep_change, keep_problems
from proofloop.schema import keys
from proofloop.schema.events import Event, ModelPublished, ProblemPosed, ProofLabeled, read_event
from proofloop.schema.ids import proof_id
from proofloop.schema.records import Record, Role, digest
from proofloop.store import LocalStore, Store, get_record, put_record
from proofloop.worker.calls.early_warning import EarlyWarnings
from proofloop.worker.calls.unusable_engine import StopProcess
from proofloop.worker.calls.usage import spent_before
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import load_role
from proofloop.worker.runtime import Worker
from proofloop.worker.shutdown import Shutdown
from proofloop.worker.tools import Tools

log = structlog.get_logger()

WALK_ROLES: tuple[Role, ...] = ("generator", "verifier", "meta_verifier", "labeler")


class DeadLetterRecord(Record):
    """A dead letter as it lies in the store."""

    queue: str
    reason: str
    body: str
    deliveries: int

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterRecord:
        body = letter.body.decode("utf-8", "replace")
        return cls(
            queue=letter.queue, reason=letter.reason, body=body, deliveries=letter.deliveries
        )

    @property
    def event(self) -> Event | None:
        """None for a body that can never be one."""
        return read_event(self.body.encode())

    def keep(self, store: Store, run_id: str) -> None:
        put_record(store, f"{keys.dead_letters(run_id)}{self.queue}-{digest(self.body)}.json", self)


def letters_in(store: Store, run_id: str) -> list[DeadLetterRecord]:
    """The run's dead letters that lie in the store."""
    return [
        get_record(store, key, DeadLetterRecord) for key in store.list(keys.dead_letters(run_id))
    ]


def forget_letters_of_proofs(store: Store, run_id: str) -> None:
    """Drop what a run that is taken up makes good: it poses proofs without a label again, and tells
    the other labels.

    Letters that name no proof stay.
    """
    letters = letters_in(store, run_id)
    left = [letter for letter in letters if proof_named(letter.event) is None]
    if len(left) < len(letters):
        store.delete_prefix(keys.dead_letters(run_id))
        for letter in left:
            letter.keep(store, run_id)


def proof_named(event: Event | None) -> str | None:
    return getattr(event, "proof_id", None)


class _NoBudget(Exception):
    """The budget is used up: what runs is still waited for."""


class Interrupted(ProofloopError):
    """The walk was asked to stop; it can be resumed."""


def create_run(
    store: Store, spec: RunSpec, *, resume: bool, pack: PromptPack | None = None
) -> RunSpec:
    """Freeze the spec and its prompts (`pack`, or what it names) with the run, or find them there
    when resuming.

    A resumed run keeps what has changed and may. Raises ConfigError, or CorruptObject when its
    training cannot go on.
    """
    while True:
        if find_spec(store, spec.name) is None:
            put_record(
                store,
                keys.prompts(spec.name),
                pack or load_pack(spec.prompts, spec.base),
                durable=True,
            )
            check_prompts(
                store, spec, pack
            )  # a process that died here may have left those of before
            if store.put_if_absent(
                keys.run_spec(spec.name), spec.model_dump_json().encode(), durable=True
            ):
                return (
                    spec
                    if keep_problems(store, spec)
                    else create_run(store, spec, resume=True, pack=pack)
                )
        check_run(store, spec, resume=resume, pack=pack)  # another process may have been first
        check_training(store, spec)
        if keep_change(store, spec):
            return spec


def planned(spec: RunSpec, store: Store) -> Iterator[ProblemPosed]:
    """The first proofs of every problem in order; the problem is written before they are
    yielded.
    """
    for problem in problems_of(spec):
        put_record(store, keys.problem(spec.name, problem.id), problem)
        for number in range(spec.problems.proofs_per_problem):
            name = proof_id(problem.id, number)
            yield ProblemPosed(
                run_id=spec.name, problem_id=problem.id, proof_id=name, group=problem.id
            )


def planned_proofs(spec: RunSpec) -> int:
    """How many proofs the run will have, before any search."""
    return count_problems(spec) * spec.problems.proofs_per_problem


def is_complete(store: Store, spec: RunSpec) -> bool:
    """Whether every proof has its label and every search has ended. Raises ConfigError without its
    problem file.
    """
    if spec.search.rounds and sum(1 for _ in searches_of(store, spec.name)) < count_problems(spec):
        return False
    labeled = sum(1 for _ in store.list(keys.labels(spec.name)))
    return labeled >= planned_proofs(spec) + refinements_posed(store, spec)


def steps_taken(store: Store, spec: RunSpec) -> dict[str, int]:
    """How many versions of each trained role are complete."""
    return {role: len(published_versions(store, spec.name, role)) for role in spec.training.roles}


def is_training(store: Store, spec: RunSpec) -> bool:
    """Whether a step was begun and is not taken yet: its batch is written before it, its version at
    its end.
    """
    taken = steps_taken(store, spec)
    return any(
        sum(1 for _ in store.list(keys.batches(spec.name, role))) > steps
        for role, steps in taken.items()
    )


def check_training(store: Store, spec: RunSpec) -> None:
    """Raise CorruptObject if what a run's training goes on from was damaged: better now than in an
    hour.
    """
    for role in spec.training.roles:
        steps = len(published_versions(store, spec.name, role))
        if 0 < steps < spec.training.of(role).steps:
            verify_version(store, keys.checkpoint(spec.name, role, steps))


def used_up(meter: Meter, store: Store, spec: RunSpec, running: int = 0) -> BudgetUsedUp:
    """What to say when the budget is used up; `running` calls end without this process."""
    labeled = sum(1 for _ in store.list(keys.labels(spec.name)))
    return meter.used_up(labeled, planned_proofs(spec) + refinements_posed(store, spec), running)


def stuck(spec: RunSpec, planned: int, unlabeled: Collection[str]) -> ProofloopError:
    """What to say when these proofs will get no label."""
    some = ", ".join(sorted(unlabeled)[:3])
    return ProofloopError(
        f"{len(unlabeled)} of {planned} proofs have no label because a message of theirs died:"
        f" {some}\n"
        f"hint: `proofloop dead list --run {spec.name}` says why; `--resume` tries them again"
    )


def with_usage(
    progress: RunProgress, meter: Meter, spec: RunSpec, by_role: ByRole, calls: dict[str, int]
) -> RunProgress:
    """The progress with what the calls cost: `by_role` since the run was taken up, `calls` in
    flight.
    """
    now = sum(by_role.values(), start=Spent())
    return replace(
        progress,
        calls=calls,
        answered=int(now.calls),
        tokens=int(now.prompt_tokens + now.completion_tokens),
        money=None if spec.prices == Prices() else meter.money,
    )


USAGE_S = 0.5
"""How often the calls in flight are counted for the progress."""


class LocalWalk:
    """Runs one run from beginning to end in this process. Use as a context manager: leaving it
    stops the workers.

    An `engine` that is given answers in the place of the run's own.
    """

    def __init__(
        self,
        store: Store,
        engines: Engines,
        spec: RunSpec,
        *,
        stopping: threading.Event | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._locks = ExitStack()
        self._spec, self._store = spec, store
        engine_for = engines.of if engine is None else lambda *_: engine
        shutdown = Shutdown(stopping)
        self._tools = Tools(
            store,
            engine_for,
            shutdown=shutdown,
            unusable=StopProcess(shutdown),
            early_warnings=EarlyWarnings(store, is_shown=True),
        )
        self._bus = LocalBus(on_dead=self._bury, on_publish=self._observe)
        self._slots = threading.Semaphore(most_waiting_proofs(spec))
        self._tracker = ProgressTracker(spec, store, 0, {})
        self._report: Callable[[RunProgress], None] = lambda progress: None
        self._before: ByRole = {}
        self._clock: RunClock | None = None
        self._gate: BudgetGate | None = None
        self._meter = Meter(spec, self._used, lambda: self._clock.seconds if self._clock else 0.0)
        self._counted: tuple[float, ByRole, dict[str, int]] = 0.0, {}, {}
        self._untrained = ""
        self._buried: list[DeadLetterRecord] = []

    def __enter__(self) -> LocalWalk:
        self._before = spent_before(self._store, self._spec)
        if isinstance(self._store, LocalStore):
            self._locks.enter_context(self._store.only_here(self._spec.name))
        self._clock = RunClock(self._store, self._spec.name)
        if self._spec.budget != Budget():
            self._tools.gate = self._gate = BudgetGate(self._meter, self._tools.shutdown.stopping)
        roles = [*WALK_ROLES, *(["trainer"] if self._spec.training.roles else [])]
        for name in roles:
            Worker(load_role(name), self._bus, self._tools).start(
                concurrency=in_work(self._spec, name)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._tools.shutdown.stop("the walk was interrupted")
        self._bus.close(grace_s=30.0)
        if self._clock:
            self._clock.keep(now=True)
        self._locks.close()

    @property
    def tools(self) -> Tools:
        return self._tools

    def run(
        self, planned_proofs: int, report: Callable[[RunProgress], None] = lambda progress: None
    ) -> RunProgress:
        """Pose everything that has no label and wait until all is done.

        Raises Interrupted when asked to stop, BudgetUsedUp, ProofloopError when proofs got stuck.
        """
        self._tracker = ProgressTracker(
            self._spec, self._store, planned_proofs, steps_taken(self._store, self._spec)
        )
        self._report = report
        forget_letters_of_proofs(self._store, self._spec.name)
        try:
            self._go()
        except _NoBudget:
            self._end_calls()
        self._check_complete()
        return self._progress(at_end=True)

    def _go(self) -> None:
        for position, event in enumerate(planned(self._spec, self._store)):
            self._wait_for_trainer(position // self._spec.problems.proofs_per_problem)
            self._pose(event)
            self._pose_refinements()
            self._report(self._progress())
        is_idle = False
        while self._pose_refinements() or not is_idle:
            is_idle = self._bus.wait_idle(0.5)
            self._check_going_on()
            self._report(self._progress())

    def _end_calls(self) -> None:
        """Wait for the calls that run when the budget is used up. Raises BudgetUsedUp unless they
        complete the run.
        """
        while not self._bus.wait_idle(0.5):
            self._check_stopping()
            self._report(self._progress())
        self._report(self._progress(at_end=True))
        if self._tracker.next_refinement() is not None or not is_complete(self._store, self._spec):
            raise used_up(self._meter, self._store, self._spec)

    def _used(self) -> ByRole:
        return summed(self._before, self._tools.usage.spent(self._spec.name))

    def _progress(self, *, at_end: bool = False) -> RunProgress:
        at, now, calls = self._counted
        if at_end or time.monotonic() - at > USAGE_S:
            usage, name = self._tools.usage, self._spec.name
            now, calls = usage.spent(name), usage.in_flight(name)
            self._counted = time.monotonic(), now, calls
            if self._clock:
                self._clock.keep()
        return with_usage(
            self._tracker.progress(at_end=at_end), self._meter, self._spec, now, calls
        )

    def replay(self, events: Sequence[Event]) -> list[DeadLetterRecord]:
        """Deliver events once more and wait until all that follows from them is done; what died of
        it.

        Raises Interrupted when asked to stop, and BudgetUsedUp if the budget ended before all of it
        was done.
        """
        self._bus.publish(events)
        while not self._bus.wait_idle(0.5):
            self._check_stopping()
        self._check_stopping()
        if self._gate and self._gate.has_dropped:
            raise used_up(self._meter, self._store, self._spec)
        return self._buried

    def _wait_for_trainer(self, problem: int) -> None:
        """Do not run further ahead of the trainer than the run allows.

        Where it has handled all labels and took no step, they were nothing to learn from: a step's
        problems more.
        """
        while not self._tracker.may_pose(problem):
            self._check_going_on()
            self._report(self._progress())
            if self._bus.wait_idle(0.2) and not self._tracker.may_pose(problem):
                self._tracker.expect_no_step()

    def _pose_refinements(self) -> bool:
        """Pose what the searches ask for; whether they did."""
        has_posed = False
        while (event := self._tracker.next_refinement()) is not None:
            self._pose(event)
            has_posed = True
        return has_posed

    def _pose(self, event: ProblemPosed) -> None:
        label = find_label(self._store, event.run_id, event.proof_id)
        if label is not None:
            self._tracker.add_posed(event)
            self._tracker.add_label(
                label.proof_id, label.outcome, solved=label.solved, was_stored=True
            )
            if self._spec.training.roles:
                self._bus.publish([ProofLabeled.of(label)])
            return
        while not self._slots.acquire(timeout=0.5):
            self._check_going_on()
            self._report(self._progress())
        self._check_going_on()
        self._tracker.add_posed(event)
        self._bus.publish([event])

    def _observe(self, event: Event) -> None:
        """Count a label once, however often it is announced, and let the next proof in."""
        if isinstance(event, ModelPublished) and (version := keys.parse_numbered(event.version)):
            self._tracker.add_steps({event.role: version.number})
        if isinstance(event, ProofLabeled) and self._tracker.add_label(
            event.proof_id, event.outcome, solved=event.solved
        ):
            self._slots.release()

    def _bury(self, letter: DeadLetter) -> None:
        """Keep the dead letter, and do not wait for its proof."""
        log.error("dead_letter", queue=letter.queue, reason=letter.reason)
        if letter.queue == "trainer":
            self._untrained = self._untrained or letter.reason
        self._let_go(letter.body)
        self._buried.append(record := DeadLetterRecord.of(letter))
        record.keep(
            self._store, self._spec.name
        )  # last: should the store be away, the proof is let go all the same

    def _let_go(self, body: bytes) -> None:
        """Give the place of a dead message's proof to the next one; should its label come all the
        same, it counts.
        """
        proof_id = proof_named(read_event(body))
        if proof_id is not None and self._tracker.add_dead(proof_id):
            self._slots.release()

    def _check_going_on(self) -> None:
        self._check_stopping()
        if self._meter.over():
            raise _NoBudget

    def _check_stopping(self) -> None:
        if self._tools.shutdown.stopping.is_set():
            if self._tools.shutdown.reason:
                raise HintedError(self._tools.shutdown.reason, f"fix this, then {RESUME_HINT}")
            raise Interrupted("asked to stop")

    def _check_complete(self) -> None:
        if unlabeled := self._tracker.without_label:
            raise stuck(self._spec, self._tracker.progress().planned, unlabeled)
        if self._untrained:
            raise ProofloopError(
                f"all proofs are labeled, but the trainer could not go on: {self._untrained}"
            )
