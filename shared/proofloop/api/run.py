"""A run as a Python object: iterate over it, and each proof comes once it has a label."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from proofloop.api.drive import OnProgress, drive_here, drive_on_services
from proofloop.api.files import read_run
from proofloop.api.results import ProofResult, best_proofs, labeled_proofs, read_result
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError, Interrupted
from proofloop.method.domains import find_checker
from proofloop.runs.figures import Evaluation, evaluate_run, measuring_checker
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import check_run, find_spec
from proofloop.schema import keys
from proofloop.schema.records import Proof
from proofloop.store import Store, get_record
from proofloop.store import open_store as open_configured_store
from proofloop.worker.logs import configure_default_events

POLL_S = 0.25
"""How often a loop over a run looks for new labels."""

RunFile = str | Path | Mapping[str, Any]
"""A run file's path, or its fields."""


def open_store(folder: str | Path | None = None) -> Store:
    """The store in a folder; by default the one that the PROOFLOOP_ variables name, as in the CLI.

    Raises ConfigError, or StoreError if it is unavailable.
    """
    return open_configured_store(load_settings(), Path(folder) if folder is not None else None)


def as_store(store: Store | str | Path | None) -> Store:
    """This store, or the store in the folder of this name."""
    return open_store(store) if store is None or isinstance(store, str | Path) else store


class Run:
    """One run in a store. The work begins with `finish`, or with a loop `for proof in run`.

    Leaving the loop stops the run, as Ctrl-C does. If an error leaves the loop, call `stop`. The
    next loop continues the run: stored answers are kept, and their proofs come first.
    """

    def __init__(self, spec: RunSpec, store: Store, *, resume: bool, local: bool = False) -> None:
        self.spec = spec
        self.store = store
        self.changes = [str(change) for change in check_run(store, spec, resume=resume)]
        """How the file differs from that with which the run began."""

        self.progress = RunProgress(planned=0)
        """The newest counts of this process."""

        self.is_here = local or load_settings().broker is None
        """Whether this process does the work; otherwise the services do."""

        self._resume = resume
        self._working: _Working | None = None

    @classmethod
    def create(
        cls,
        file: RunFile,
        *,
        store: Store | str | Path | None = None,
        resume: bool = False,
        local: bool = False,
    ) -> Run:
        """A new run, from a run file or its fields; with `resume` also one that the store has.

        With PROOFLOOP_BROKER set, the services do the work; with `local`, this process does. Raises
        ConfigError for a wrong file, or for a name that the store has already.
        """
        spec = read_run(Path(file) if isinstance(file, str) else file)
        return cls(spec, as_store(store), resume=resume, local=local)

    @classmethod
    def open(cls, name: str, *, store: Store | str | Path | None = None) -> Run:
        """A run that the store has. Raises ConfigError if there is none of that name."""
        opened = as_store(store)
        spec = find_spec(opened, name)
        if spec is None:
            raise ConfigError(
                f"no run named {name!r} in {opened}",
                "check the name and `store`, or create the run with Run.create",
            )
        return cls(spec, opened, resume=True)

    @property
    def name(self) -> str:
        return self.spec.name

    def finish(
        self,
        on_progress: OnProgress = lambda progress: None,
        *,
        stopping: threading.Event | None = None,
    ) -> RunProgress:
        """Do all the work that is left, and return the counts.

        Raises ConfigError if a model does not answer, BudgetUsedUp, Interrupted once `stopping` is
        set, and ProofloopError if proofs can get no label.
        """
        configure_default_events()

        def report(progress: RunProgress) -> None:
            self.progress = progress
            on_progress(progress)

        drive = drive_here if self.is_here else drive_on_services
        stopping = stopping or threading.Event()
        try:
            report(drive(self.store, self.spec, stopping, report, resume=self._resume))
        finally:
            self._resume = self._resume or find_spec(self.store, self.name) is not None
        return self.progress

    def __iter__(self) -> Iterator[ProofResult]:
        """Do the work in another thread, and yield each proof once it has a label."""
        self.stop()
        seen = set[str]()
        with _Working(self) as self._working:
            working = self._working
            while working.waits(POLL_S):
                if not seen or len(seen) < self.progress.labeled:
                    yield from self._unseen(seen)
            yield from self._unseen(seen)

    def stop(self) -> None:
        """End the work that a loop began, if there is any."""
        if self._working:
            self._working.stop()

    def _unseen(self, seen: set[str]) -> Iterator[ProofResult]:
        for proof_id in labeled_proofs(self.store, self.name):
            if proof_id not in seen:
                seen.add(proof_id)
                yield self.result(proof_id)

    def results(self) -> Iterator[ProofResult]:
        """The proofs that have a label by now. No model is called."""
        return map(self.result, labeled_proofs(self.store, self.name))

    def best(self) -> Iterator[ProofResult]:
        """The proof that each search of the run chose."""
        return map(self._result, best_proofs(self.store, self.name))

    def result(self, proof_id: str) -> ProofResult:
        """One proof, with its label and critiques so far. Raises NotFound."""
        return self._result(get_record(self.store, keys.proof(self.name, proof_id), Proof))

    def _result(self, proof: Proof) -> ProofResult:
        return read_result(self.store, proof, find_checker(self.spec.problems.checked_by))

    def measure(self) -> Evaluation:
        """The figures by the exact checker, or by the grades of given proofs. Raises ConfigError
        if the problems have neither.
        """
        return evaluate_run(self.store, self.name, measuring_checker(self.spec))

    def report(self, file: str | Path = "report.html") -> Path:
        """Write the report of the run so far; returns its path."""
        from proofloop.report import read_report, write_report

        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(read_report(self.store, self.name), path)
        return path


class _Working:
    """Finishes a run in a thread. Leaving the context stops it and raises its error."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        # a daemon: a second Ctrl-C ends the process at once
        self._thread = threading.Thread(target=self._work, name=f"run {run.name}", daemon=True)

    def __enter__(self) -> _Working:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        was_done = not self._thread.is_alive()
        self.stop()
        is_stop = isinstance(self._error, Interrupted) and not was_done
        if error is None and self._error is not None and not is_stop:
            raise self._error

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def waits(self, seconds: float) -> bool:
        """Wait so long for the end of the work; false once it has ended."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._run.finish(stopping=self._stopping)
        except BaseException as error:  # raised again in the thread that loops over the run
            self._error = error
