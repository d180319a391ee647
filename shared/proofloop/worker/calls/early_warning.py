"""Warns early if most of a role's first answers in a run are unreadable or failed, with the reason
and a way out.

Each process counts the answers of its own calls. The warning is stored, so a role of a run is
warned of once, and the process of `proofloop run` finds the warnings of all services.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.errors import StoreError
from proofloop.method.prompts.reading.parsing import EMPTY
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, ModelRole, Record, Verdict
from proofloop.store import Store, get_record, put_new

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
"""How often the store is asked for new warnings."""

FIRST_ANSWERS = 10
"""How many answers of a role are looked at; more than half of them must be unreadable or failed."""


class EarlyWarning(Record):
    """`bad` of the role's `seen` first answers are unreadable, most of them for `reason`. `example`
    names one of them.
    """

    role: ModelRole
    seen: int
    bad: int
    reason: str
    example: str
    ways_out: tuple[str, ...]

    def line(self, run_id: str) -> str:
        ways = "; ".join(self.ways_out)
        return (
            f"warning: {self.bad} of the first {self.seen} answers of the"
            f" {self.role.replace('_', '-')} were not read, "
            f"most often because: {self.reason}. See one: `proofloop proof {run_id}"
            f" {self.example}`. Ways out: {ways}"
        )


class EarlyWarnings:
    """Counts the first answers of each role of each run in this process. Safe to share between
    threads. `is_shown`: this process also prints the warnings, so it logs them only at level info.
    """

    def __init__(self, store: Store, *, is_shown: bool = False) -> None:
        self._store, self._level = store, logging.INFO if is_shown else logging.WARNING
        self._first: defaultdict[tuple[str, ModelRole], list[tuple[str, Verdict]]] = defaultdict(
            list
        )
        self._lock = threading.Lock()

    def add(self, spec: RunSpec, role: ModelRole, name: str, verdict: Verdict) -> None:
        """Count an answer. The tenth answer of a role decides."""
        with self._lock:
            first = self._first[spec.name, role]
            if len(first) == FIRST_ANSWERS:
                return
            first.append((name, verdict))
            if len(first) < FIRST_ANSWERS:
                return
        bad = [(name, verdict) for name, verdict in first if verdict.score is None]
        if 2 * len(bad) > len(first):
            self._warn(spec, _warning(spec, role, len(first), bad))

    def _warn(self, spec: RunSpec, warning: EarlyWarning) -> None:
        """Store and log the warning, once for a run and role. If the store is unavailable, only the
        log has it.
        """
        key = keys.early_warning(spec.name, warning.role)
        try:
            if not put_new(self._store, key, warning):
                return
        except StoreError as error:
            log.warning("early_warning_not_stored", reason=str(error))
        fields = warning.model_dump(exclude={"role"})
        log.log(self._level, "answers_not_read", run=spec.name, role=warning.role, **fields)


class NewWarnings:
    """The warnings of a run since the creation of this object, for the process that shows the run's
    progress.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        """Raises StoreError."""
        self._store, self._prefix = store, keys.early_warnings(run_id)
        self._seen = set(store.list(self._prefix))
        self._looked_s = time.monotonic()

    def look(self, every_s: float = LOOK_EVERY_S) -> list[EarlyWarning]:
        """The new warnings. Empty if the last look was a moment ago or the store is unavailable."""
        if time.monotonic() - self._looked_s < every_s or len(self._seen) == len(MODEL_ROLES):
            return []
        self._looked_s = time.monotonic()
        try:
            new = [key for key in self._store.list(self._prefix) if key not in self._seen]
            found = [get_record(self._store, key, EarlyWarning) for key in new]
        except StoreError:
            return []
        self._seen.update(new)
        return found


def _warning(
    spec: RunSpec, role: ModelRole, seen: int, bad: list[tuple[str, Verdict]]
) -> EarlyWarning:
    reasons = Counter((verdict.outcome, verdict.shared_reason) for _, verdict in bad)
    outcome, reason = reasons.most_common(1)[0][0]
    example = next(
        name
        for name, verdict in bad
        if (verdict.outcome, verdict.shared_reason) == (outcome, reason)
    )
    ways = _ways_out(spec, role, outcome, reason)
    return EarlyWarning(
        role=role, seen=seen, bad=len(bad), reason=reason, example=example, ways_out=ways
    )


def _ways_out(spec: RunSpec, role: ModelRole, outcome: str, reason: str) -> tuple[str, ...]:
    """The ways out for this reason, the likeliest first."""
    doctor = "`proofloop doctor FILE` asks the role a question and shows the answer"
    max_tokens = spec.sampling_of(role).max_tokens
    raise_tokens = f"raise [sampling.{role}] max_tokens = {max_tokens}"
    if outcome == "truncated":
        return raise_tokens, "let the model think less (extra_body)", doctor
    if outcome == "engine_failed":
        return "see to the server, or to the engine's settings", doctor
    if reason.startswith(EMPTY):
        return (
            "turn off the server's reasoning parser, which may have put all into the reasoning",
            raise_tokens,
            doctor,
        )
    lenient = (
        ('reading = "lenient"',) if spec.how_to_read == "strict" and not spec.training.roles else ()
    )
    return *lenient, f"another prompt pack than {spec.prompts!r}", doctor
