"""Drives the searches of section 3.3.3: one a problem, from its first proofs through rounds of
refinements of the best ones.

The run driver also advances the searches; the services know nothing of them. A round is stored
before its proofs are posed, so a resumed run poses the same ones.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from proofloop.config.run_file import RunSpec
from proofloop.method.search_rule import Candidate, best, candidate, refinements
from proofloop.runs.search.needs import SearchNeeds
from proofloop.runs.search.problem import ProblemSearch
from proofloop.runs.search.records import SearchResult, SearchRound
from proofloop.schema import keys
from proofloop.schema.events import ParentProof, ProblemPosed
from proofloop.schema.ids import problem_of, proof_id
from proofloop.schema.records import Judgement, Label, LabelOutcome, derive_seed
from proofloop.store import Store, find_record, put_record, records_below

NOT_COMPARED: tuple[LabelOutcome, ...] = ("unreadable", "outranked")
"""The labels of proofs that are no candidates."""


@dataclass(frozen=True)
class Outlook:
    """The number of searches, of ended ones, and of proofs that they will write in all.

    `expected` takes the mean of the ended searches for each open one, and `most` while none has
    ended.
    """

    searches: int
    ended: int
    expected: int
    most: int


class SearchDriver:
    """Advances the searches of a run, in one thread. Without [search] it asks for nothing."""

    def __init__(self, spec: RunSpec, store: Store) -> None:
        self._spec = spec
        self._store = store
        self._searches: dict[str, ProblemSearch] = {}
        self.needs = SearchNeeds(spec, store, self._searches)
        self._due: deque[str] = deque()
        """Problems whose newest round is complete."""
        self._ended = 0
        self._proofs_of_ended = 0

    def add_posed(self, event: ProblemPosed) -> None:
        """A proof is being posed; the first proof of a problem begins its search."""
        if not self._spec.search.rounds:
            return
        if not event.parents and event.problem_id not in self._searches:
            count = self._spec.problems.proofs_per_problem
            names = {proof_id(event.problem_id, number) for number in range(count)}
            self._searches[event.problem_id] = ProblemSearch(names, posed=count, newest=count)
        if self._spec.searches_by_need:
            self.needs.add_posed(event)

    def add_label(self, name: str, outcome: LabelOutcome, *, solved: bool) -> None:
        """A proof has its label. Safe to call twice."""
        search = self._searches.get(problem_of(name))
        if search is None:
            return
        if solved and search.solved is None:
            search.solved = name
        self._close(name, is_compared=outcome not in NOT_COMPARED)

    def add_dead(self, name: str) -> None:
        """A proof has no label because of a dead letter."""
        search = self._searches.get(problem_of(name))
        if search and name in search.waiting:
            self._close(name, is_compared=False)
            search.dead.add(name)

    def _close(self, name: str, *, is_compared: bool) -> None:
        problem_id = problem_of(name)
        search = self._searches.get(problem_id)
        if not search or not search.close(name, is_compared=is_compared) or search.waiting:
            return
        if problem_id not in self._due:
            self._due.append(problem_id)

    @property
    def num_complete(self) -> int:
        """The number of proofs that wait only for other proofs of their problem."""
        return sum(search.complete for search in self._searches.values())

    # -- rounds

    def is_wanted(self, event: ProblemPosed) -> bool:
        """Whether a refinement is still to be posed.

        Once its problem is solved it is not, unless it was written or labeled before.
        """
        search = self._searches.get(event.problem_id)
        if search is None or not search.solved or not event.parents:
            return True
        before = keys.proof, keys.label
        if any(self._store.exists(key(event.run_id, event.proof_id)) for key in before):
            return True
        search.posed -= 1
        self._close(event.proof_id, is_compared=False)
        return False

    def next_round(self) -> list[ProblemPosed]:
        """The next round of a problem whose last round is complete, or nearly so if rounds overlap;
        empty if there is none.

        After an error of the store it may be called again.
        """
        if not self._due and self.needs.is_idle:
            self._due.extend(self._to_overlap())
        while self._due:
            problem_id = self._due[0]
            search = self._searches[problem_id]
            events = self._round(problem_id, search)
            self._due.popleft()
            if events:
                search.begin_round({event.proof_id for event in events})
                return events
            if search.may_end:
                self._ended += 1
                self._proofs_of_ended += search.posed
                del self._searches[problem_id]
        return []

    def _to_overlap(self) -> list[str]:
        """The problem whose next round may begin early: of several the one that is furthest
        behind.
        """
        found = [
            problem_id
            for problem_id, search in self._searches.items()
            if search.may_overlap() and len(search.best_by_round) < self._spec.search.rounds
        ]
        return sorted(found, key=lambda each: len(self._searches[each].best_by_round))[:1]

    def _round(self, problem_id: str, search: ProblemSearch) -> list[ProblemPosed]:
        """The proofs of the next round; empty if there is none, or none before all proofs have
        labels.
        """
        settings = self._spec.search
        number = len(search.best_by_round)
        key = keys.search_round(self._spec.name, problem_id, number)
        kept = best([*search.kept, *self._candidates(search.new)], settings.keep)
        leader = search.solved or (kept[0].proof_id if kept else None)
        best_by_round = [*search.best_by_round, leader]
        rng = random.Random(
            derive_seed(self._spec.seed, self._spec.seeds_of, problem_id, "round", number)
        )
        parents = refinements(kept, settings.analyses, rng)
        # A round that overlapped the one that solved the problem was begun all the same.
        is_solved = search.solved and not self._store.exists(key)
        if is_solved or number == settings.rounds or not parents:
            search.newest = 0  # nothing overlaps what has no next round yet
            if search.may_end:
                self._end(problem_id, search, kept, best_by_round)
            return []
        drawn = put_record(
            self._store, key, SearchRound(first=search.posed, parents=parents), durable=True
        )
        search.kept = kept
        search.best_by_round = best_by_round
        search.posed += len(drawn.parents)
        return [
            self._refinement(problem_id, drawn.first + place, parent)
            for place, parent in enumerate(drawn.parents)
        ]

    def _refinement(self, problem_id: str, number: int, parent: ParentProof) -> ProblemPosed:
        name = proof_id(problem_id, number)
        return ProblemPosed(
            run_id=self._spec.name,
            problem_id=problem_id,
            proof_id=name,
            group=name,
            parents=(parent,),
        )

    def _end(
        self,
        problem_id: str,
        search: ProblemSearch,
        kept: list[Candidate],
        best_by_round: list[str | None],
    ) -> None:
        score = kept[0].score if kept else None
        end = SearchResult(
            problem_id=problem_id,
            proofs=search.posed,
            best=best_by_round[-1],
            score=1.0 if search.solved else score,  # the solved proof may not be among the kept
            solved=search.solved is not None,
            best_by_round=tuple(best_by_round),
        )
        put_record(self._store, keys.search_result(self._spec.name, problem_id), end, durable=True)

    def _candidates(self, names: list[str]) -> Iterator[Candidate]:
        """The candidates among these proofs.

        A proof without a label lacks critiques and may seem better than it is, so it is left out.
        """
        run = self._spec.name
        for name in names:
            label = find_record(self._store, keys.label(run, name), Label)
            if label is not None and label.outcome not in NOT_COMPARED:
                judgements = records_below(self._store, keys.judgements(run, name), Judgement)
                yield candidate(name, list(judgements))

    def outlook(self, planned: int) -> Outlook:
        """The progress of the searches, with this many planned proofs; unposed problems count
        too.
        """
        first = self._spec.problems.proofs_per_problem
        posed = self._proofs_of_ended + sum(each.posed for each in self._searches.values())
        num_unposed = max(0, planned - posed) // first
        unposed = ProblemSearch(set(), posed=first)
        going_on = [*self._searches.values(), *[unposed] * num_unposed]
        mean = self._proofs_of_ended / self._ended if self._ended else float("inf")
        most = expected = 0.0
        for search in going_on:
            limit = self._most_proofs(search)
            most += limit
            expected += min(limit, max(search.posed, mean))
        return Outlook(
            searches=self._ended + len(going_on),
            ended=self._ended,
            expected=round(self._proofs_of_ended + expected),
            most=self._proofs_of_ended + round(most),
        )

    def _most_proofs(self, search: ProblemSearch) -> int:
        if search.solved:
            return search.posed
        rounds_left = self._spec.search.rounds - len(search.best_by_round)
        return self._spec.most_proofs_after(search.posed, rounds_left)
