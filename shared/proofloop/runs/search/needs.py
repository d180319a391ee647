"""The next needs of a run's searches: critiques of proofs that may be among the best, judgements of
those that are, and no more calls for the others. While slots are idle, also judgements of those
that are among the best so far.

Critiques are read from the store as they come. Nothing else is remembered: a resumed run reads them
again and requests what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from proofloop.config.run_file import RunSpec
from proofloop.method.search_rule import Contender, next_critiques
from proofloop.runs.search.problem import ProblemSearch
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofReviewed, ProofWritten
from proofloop.schema.ids import problem_of
from proofloop.schema.records import NO_TRIGGER, SEARCH, Label, Proof, Record, Verdict
from proofloop.store import Store, find_record, get_record, put_record


@dataclass(frozen=True)
class Needs:
    """Events to publish, and the labels of proofs that the search can do without."""

    events: tuple[Event, ...] = ()
    labels: tuple[Label, ...] = ()


class _Score(Record):
    """Reads a critique without its texts."""

    verdict: Verdict


class SearchNeeds:
    """Follows the critiques of these searches, in one thread."""

    def __init__(self, spec: RunSpec, store: Store, searches: Mapping[str, ProblemSearch]) -> None:
        self._spec = spec
        self._store = store
        self._searches = searches
        self._n = spec.labeling.n
        self._answers: deque[str] = deque()
        """Keys of answers that are to be read."""
        self._entered: deque[str] = deque()
        """Proofs just posed: a resumed run finds answers of theirs."""
        self.is_idle = False
        """If rounds overlap: whether slots had nothing to do when the needs were last found. All
        requested critiques and proofs then leave room.
        """

    def add_posed(self, event: ProblemPosed) -> None:
        self._searches[event.problem_id].add_posed(event.proof_id, event.group)
        self._entered.append(event.proof_id)

    def add_answer(self, key: str) -> None:
        """An answer was stored."""
        self._answers.append(key)

    def look(self) -> None:
        """Look in the store for awaited answers. After an error of the store it may be called
        again.
        """
        for search in self._searches.values():
            for name in tuple(search.awaited()):
                self._look_at(name, search)

    def find(self, room: int) -> Needs:
        """The needs, with critiques in flight for at most `room` messages.

        After an error of the store it may be called again.
        """
        self._read_all()
        changed = {name: each for name, each in self._searches.items() if each.is_changed}
        events: list[Event] = []
        labels = [
            self._close(problem_id, name, search.groups[name])
            for problem_id, search in changed.items()
            for name in search.outranked(n=self._n, keep=self._keep(search))
        ]
        for search in changed.values():
            names = search.to_judge(n=self._n, keep=self._keep(search))
            events += self._judgements(names, search)
            search.find_open(n=self._n, keep=self._keep(search))
        found = [each for search in self._searches.values() for each in search.open]
        room -= sum(each.in_flight for each in found)
        events += self._critiques(found, room)
        if room > 0 and all(each.written + each.in_flight >= self._n for each in found):
            for search in self._searches.values():  # slots are idle, and no critique is missing
                names = search.to_judge_early(n=self._n, keep=self._keep(search))
                events += self._judgements(names, search)
        may_overlap = self._spec.search.overlap and not events
        self.is_idle = may_overlap and room > self._num_unwritten()
        return Needs(tuple(events), tuple(labels))

    def _num_unwritten(self) -> int:
        return sum(len(search.waiting - search.pool.keys()) for search in self._searches.values())

    # -- what is written

    def _read_all(self) -> None:
        while self._entered:
            search = self._searches.get(problem_of(self._entered[0]))
            if search and search.compares(self._entered[0]):
                self._look_at(self._entered[0], search)
            self._entered.popleft()
        while self._answers:
            self._read(self._answers[0])
            self._answers.popleft()

    def _look_at(self, name: str, search: ProblemSearch) -> None:
        run = self._spec.name
        if name not in search.pool and not self._store.exists(keys.proof(run, name)):
            return
        self._answers.append(keys.proof(run, name))
        self._answers.extend(self._store.list(keys.critiques(run, name)))

    def _read(self, key: str) -> None:
        answer = keys.parse_answer(key)
        if answer is None or answer.name.kind not in ("proof", "critique"):
            return
        name = answer.proof_id
        search = self._searches.get(problem_of(name))
        if search is None or not search.compares(name):
            return
        if name not in search.pool:
            self._read_proof(name, search)
        if answer.name.kind == "critique" and search.misses(name, answer.name.index):
            score = get_record(self._store, key, _Score).verdict.score or 0.0
            search.add_critique(name, answer.name.index, score, self._n)

    def _read_proof(self, name: str, search: ProblemSearch) -> None:
        """Only a readable proof is compared with others."""
        proof = find_record(self._store, keys.proof(self._spec.name, name), Proof)
        if proof and proof.verdict.outcome == "valid":
            search.add_written(name, proof.verifier_version)

    # -- what is needed

    def _keep(self, search: ProblemSearch) -> int:
        """The number of proofs that the search must know: after the last round only the best."""
        is_last = len(search.best_by_round) == self._spec.search.rounds
        return 1 if is_last else self._spec.search.keep

    def _close(self, problem_id: str, name: str, group: str) -> Label:
        """Give the proof a label, which ends its calls. Returns the label that is stored."""
        label = Label(
            run_id=self._spec.name,
            proof_id=name,
            problem_id=problem_id,
            group=group,
            outcome="outranked",
            kind="outranked",
            score=None,
            self_quality=0.0,
            critiques=(),
            trigger=NO_TRIGGER,
            by=SEARCH,
        )
        return put_record(self._store, keys.label(label.run_id, name), label)

    def _judgements(self, names: Iterable[str], search: ProblemSearch) -> Iterator[ProofReviewed]:
        """Of all critiques of these proofs. A search has no use for those of their own ones."""
        for name in sorted(names):
            search.begin_judging(name)
            for index in range(self._n):
                yield ProofReviewed(run_id=self._spec.name, proof_id=name, index=index)

    def _critiques(self, pool: Iterable[Contender], room: int) -> Iterator[ProofWritten]:
        for name in next_critiques(pool, n=self._n, room=room):
            index, version = self._searches[problem_of(name)].request(name, self._n)
            yield ProofWritten(
                run_id=self._spec.name, proof_id=name, index=index, verifier_version=version
            )
