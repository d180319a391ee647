"""The search for a proof of each problem: after its first proofs, round after round of refinements
of the best ones.

Whoever poses a run's proofs also follows its searches (`walk`, `remote`): the services know nothing
of them. A round lies in the store before its proofs are posed, so whoever goes on with the run
poses the same.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from proofloop.config.run_file import RunSpec
from proofloop.method.search_rule import Candidate, best, candidate, refinements
from proofloop.schema import keys
from proofloop.schema.events import ParentProof, ProblemPosed
from proofloop.schema.ids import problem_of, proof_id
from proofloop.schema.records import Judgement, Label, Record, derive_seed
from proofloop.store import Store, find_record, get_record, put_record


class Round(Record):
    """Refinements of a problem: proof number `first` + i refines `parents[i]`."""

    first: int
    parents: tuple[ParentProof, ...]


class Found(Record):
    """How the search for a problem's proof ended. `best`: the proof of the highest score, or the
    one that solved it.

    `best_by_round`: the best proof of the first proofs, then after each round. `score`: the mean of
      its critiques.
    """

    problem_id: str
    proofs: int
    best: str | None
    score: float | None
    solved: bool
    best_by_round: tuple[str | None, ...]


@dataclass
class _Problem:
    """A problem whose search goes on. `waiting`: the newest round's proofs without a label; `new`:
    those with one.
    """

    waiting: set[str]
    posed: int
    new: list[str] = field(default_factory=list)
    kept: list[Candidate] = field(default_factory=list)
    best_by_round: list[str | None] = field(default_factory=list)
    solved: str | None = None


@dataclass(frozen=True)
class Outlook:
    """How many searches there are, how many of them ended, and how many proofs all may come to.

    `expected`: those that go on come to as many as the ended ones in the mean; while none ended, to
      the most.
    """

    searches: int
    ended: int
    expected: int
    most: int


class Rounds:
    """Follows the searches of a run, for one thread. Without [search] it keeps nothing and asks for
    nothing.
    """

    def __init__(self, spec: RunSpec, store: Store) -> None:
        self._spec, self._store = spec, store
        self._problems: dict[str, _Problem] = {}
        self._due: deque[str] = deque()
        self._ended, self._proofs_of_ended = 0, 0

    def posed(self, event: ProblemPosed) -> None:
        """A first proof is being posed."""
        if (
            self._spec.search.rounds
            and not event.parents
            and event.problem_id not in self._problems
        ):
            count = self._spec.problems.proofs_per_problem
            names = {proof_id(event.problem_id, number) for number in range(count)}
            self._problems[event.problem_id] = _Problem(names, count)

    def outlook(self, planned: int) -> Outlook:
        """How far the searches are, when so many proofs are asked for by now: of problems not posed
        yet the first.
        """
        first, rounds = self._spec.problems.proofs_per_problem, self._spec.search.rounds
        going_on = [
            (each.posed, len(each.best_by_round), each.solved) for each in self._problems.values()
        ]
        posed = self._proofs_of_ended + sum(proofs for proofs, _, _ in going_on)
        not_posed = max(0, planned - posed) // first
        going_on += [(first, 0, None)] * not_posed
        most = [
            proofs if solved else self._spec.most_proofs_after(proofs, rounds - drawn)
            for proofs, drawn, solved in going_on
        ]
        mean = self._proofs_of_ended / self._ended if self._ended else float("inf")
        likely = [
            min(limit, max(proofs, mean))
            for limit, (proofs, _, _) in zip(most, going_on, strict=True)
        ]
        return Outlook(
            searches=self._ended + len(going_on),
            ended=self._ended,
            expected=round(self._proofs_of_ended + sum(likely)),
            most=self._proofs_of_ended + sum(most),
        )

    def is_wanted(self, event: ProblemPosed) -> bool:
        """Whether a refinement is still to be posed: not once its problem is solved, unless its
        label is there.
        """
        problem = self._problems.get(event.problem_id)
        if problem is None or not problem.solved or not event.parents:
            return True
        if self._store.exists(keys.label(event.run_id, event.proof_id)):
            return True
        problem.posed -= 1
        self._close(event.problem_id, event.proof_id)
        return False

    def labelled(self, name: str, *, solved: bool) -> None:
        """A proof has its label, or will never have one; that it comes twice does not matter."""
        problem_id = problem_of(name)
        if (problem := self._problems.get(problem_id)) is None:
            return
        if solved and problem.solved is None:
            problem.solved = name
        if name in problem.waiting:
            problem.new.append(name)
            self._close(problem_id, name)

    def _close(self, problem_id: str, name: str) -> None:
        waiting = self._problems[problem_id].waiting
        waiting.discard(name)
        if not waiting and problem_id not in self._due:
            self._due.append(problem_id)

    def next_round(self) -> list[ProblemPosed]:
        """The next round of a problem whose last one is complete; none when there is no such
        problem.

        After an error of the store it may be called again.
        """
        while self._due:
            name = self._due[0]
            events = self._round(name, self._problems[name])
            self._due.popleft()
            if events:
                self._problems[name].waiting = {event.proof_id for event in events}
                return events
            self._ended += 1
            self._proofs_of_ended += self._problems.pop(name).posed
        return []

    def _round(self, name: str, problem: _Problem) -> list[ProblemPosed]:
        """What the next round poses; nothing where the search ends."""
        run, search, number = self._spec.name, self._spec.search, len(problem.best_by_round)
        kept = best([*problem.kept, *self._candidates(problem.new)], search.keep)
        found = [*problem.best_by_round, problem.solved or (kept[0].proof_id if kept else None)]
        rng = random.Random(derive_seed(self._spec.seed, run, name, "round", number))
        parents = refinements(kept, search.analyses, rng)
        if problem.solved or number == search.rounds or not parents:
            self._end(name, problem, kept, found)
            return []
        drawn = Round(first=problem.posed, parents=parents)
        drawn = put_record(self._store, keys.search_round(run, name, number), drawn, durable=True)
        problem.kept, problem.new, problem.best_by_round = kept, [], found
        problem.posed += len(drawn.parents)
        return [
            ProblemPosed(
                run_id=run, problem_id=name, proof_id=its_id, group=its_id, parents=(parent,)
            )
            for place, parent in enumerate(drawn.parents)
            for its_id in [proof_id(name, drawn.first + place)]
        ]

    def _end(
        self, name: str, problem: _Problem, kept: list[Candidate], found: list[str | None]
    ) -> None:
        end = Found(
            problem_id=name,
            proofs=problem.posed,
            best=found[-1],
            score=1.0
            if problem.solved
            else kept[0].score
            if kept
            else None,  # of several solved ones not all are kept
            solved=problem.solved is not None,
            best_by_round=tuple(found),
        )
        put_record(self._store, keys.found(self._spec.name, name), end, durable=True)

    def _candidates(self, names: list[str]) -> Iterator[Candidate]:
        """The readable ones among these proofs; one without a label lacks critiques, and may seem
        better than it is.
        """
        run = self._spec.name
        for name in names:
            label = find_record(self._store, keys.label(run, name), Label)
            if label is not None and label.outcome != "unreadable":
                judged = (
                    get_record(self._store, key, Judgement)
                    for key in self._store.list(keys.judgements(run, name))
                )
                yield candidate(name, judged)


def searches_of(store: Store, run_id: str) -> Iterator[Found]:
    """How the searches of a run's problems ended, one at a time."""
    for key in store.list(keys.searches(run_id)):
        yield get_record(store, key, Found)


def refinements_posed(store: Store, spec: RunSpec) -> int:
    """How many proofs the run's searches asked for by now."""
    first = spec.problems.proofs_per_problem
    ended: set[str] = set()
    posed = 0
    for search in searches_of(store, spec.name):
        ended.add(search.problem_id)
        posed += search.proofs - first
    prefix = keys.rounds(spec.name)
    for key in store.list(prefix):
        if keys.first_below(prefix, key) not in ended:
            posed += len(get_record(store, key, Round).parents)
    return posed
