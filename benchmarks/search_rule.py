"""Simulates the searches of `search.py` in virtual time: the cost of the rules without a machine.

The search driver of a run decides, on invented answers in a real store; calls take no processor
time. `makespan_ratio_to_bound` is that of `search.py`. `unlimited_ratio_to_bound` is the same with
a slot for each call: no order of the same calls can do better. `makespan_ratio_to_unlimited`
divides by the time with unlimited slots, or by the seconds of all calls divided by the slots if
that is longer. `verifications_share` is of all n critiques of every proof. `score` is the mean
score of the problems' best proofs. `overlap_` marks the search with `overlap = true`, which is
another search: its time and critiques as ratios to this one's, and its score. The last line is
JSON, for each number of slots: medians of three seeds. `--small`: 16 slots, three smaller problems,
one seed.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from search import ANALYSES, LATENCY_S, SMALL, Size, longest, spec_of
from search_server import LONGEST

from proofloop.engine.simulated.answers import NORMAL, QUALITIES, Chances, chances, pick
from proofloop.method.label_rule import majority
from proofloop.method.search_rule import FIRST_CRITIQUES
from proofloop.runs.flow import critiques_at_once
from proofloop.runs.planned import planned
from proofloop.runs.search.driver import SearchDriver
from proofloop.runs.search.records import searches_of
from proofloop.schema import keys
from proofloop.schema.events import ProblemPosed, ProofReviewed
from proofloop.schema.records import LabelOutcome, ModelRole
from proofloop.store import LocalStore, put_record
from proofloop.worker.calls.model_request import LATE_PRIORITY, PRIORITY

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.builders import MALFORMED, critique, judgement, label, proof, valid

GOOD, NOISE, MALFORMED_SHARE, SIGMA = 0.4, 0.3, 0.05, 0.9
UNLIMITED = 65_536


@dataclass
class Call:
    proof_id: str
    role: ModelRole
    step: tuple[str, int]
    seconds: float
    then: Callable[[], None]
    began: float | None = None
    is_over: bool = False


class Engine:
    """Slots in virtual time; the unit is the median seconds of a proof."""

    def __init__(self, slots: int) -> None:
        self.now, self.busy, self.free = 0.0, 0.0, slots
        self.begun: Counter[str] = Counter()
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Call]] = []
        self._running: list[tuple[float, int, Call]] = []

    def submit(self, call: Call, priority: int) -> None:
        heapq.heappush(self._waiting, (priority, next(self._order), call))
        self._start()

    def end(self, call: Call) -> None:
        """The call has its answer, or is canceled."""
        if call.began is not None and not call.is_over:
            self.busy += self.now - call.began
            self.free += 1
        call.is_over = True

    def next(self) -> Call | None:
        """Let time pass until a call has its answer."""
        self._start()
        while self._running:
            ends, _, call = heapq.heappop(self._running)
            if not call.is_over:
                self.now = ends
                self.end(call)
                return call
        return None

    def _start(self) -> None:
        while self.free and self._waiting:
            *_, call = heapq.heappop(self._waiting)
            if not call.is_over:
                self.free -= 1
                self.begun[call.role] += 1
                call.began = self.now
                heapq.heappush(self._running, (self.now + call.seconds, next(self._order), call))


class Simulation:
    """One run: the roles' part is played here, the search driver's is real."""

    def __init__(self, size: Size, seed: int, store: LocalStore) -> None:
        self.spec = spec_of(size, seed, "http://nowhere", early=True)
        self.engine = Engine(size.slots)
        self._seed, self._store, self._n = seed, store, size.n
        self._search = SearchDriver(self.spec, store)
        self._quality: dict[str, str] = {}
        self._scores: dict[str, dict[int, float | None]] = defaultdict(dict)
        self._judged: Counter[str] = Counter()
        self._calls: dict[str, list[Call]] = defaultdict(list)
        self._closed: set[str] = set()
        self._rounds: dict[str, list[list[str]]] = defaultdict(list)
        self.seconds: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)

    def run(self) -> None:
        for event in planned(self.spec, self._store):
            self._pose([event])
        self._advance()
        while call := self.engine.next():
            spent = self.seconds[call.proof_id]
            spent[call.step] = max(spent[call.step], call.seconds)
            if call.proof_id not in self._closed:
                call.then()
            self._advance()

    def bound(self) -> float:
        """As in `search.py`."""
        chains = [
            sum(max(longest(self.seconds[name], self._n) for name in each) for each in rounds)
            for rounds in self._rounds.values()
        ]
        return max(self.work(), *chains)

    def work(self) -> float:
        return self.engine.busy / self.spec.engine.settings["max_concurrency"]

    def score(self) -> float:
        """The mean score of the best proofs of all problems."""
        ends = list(searches_of(self._store, self.spec.name))
        return sum(each.score or 0.0 for each in ends) / len(ends)

    def all_verifications(self) -> int:
        """The verifications of all n critiques of every proof."""
        readable = [name for name in self._quality if not self._is_malformed(name, "proof")]
        return sum(
            1 + self._is_malformed(name, f"critique {index}")
            for name in readable
            for index in range(self._n)
        )

    # -- the run driver

    def _advance(self) -> None:
        while True:
            needs = self._search.needs.find(critiques_at_once(self.spec, 0))
            for each in needs.labels:
                self._close(each.proof_id, "outranked")
            for event in needs.events:
                request = self._judge if isinstance(event, ProofReviewed) else self._criticize
                request(event.proof_id, event.index)
            refinements = self._search.next_round()
            self._pose(refinements)
            if not (needs.labels or needs.events or refinements):
                return

    def _pose(self, events: list[ProblemPosed]) -> None:
        for event in events:
            name, draw = event.proof_id, self._draw(event.proof_id, "proof")
            rounds = self._rounds[event.problem_id]
            if not rounds or (event.parents and event == events[0]):
                rounds.append([])
            rounds[-1].append(name)
            fresh = "1" if draw.quality < GOOD else pick(QUALITIES[:2], draw.flaw)
            self._quality[name] = max(
                [fresh, *(self._quality[each.proof_id] for each in event.parents)]
            )
            self._search.add_posed(event)
            self._call(name, "generator", ("proof", 0), partial(self._written, name))

    def _close(self, name: str, outcome: LabelOutcome, *, solved: bool = False) -> None:
        self._closed.add(name)
        for call in self._calls.pop(name, ()):
            self.engine.end(call)
        self._search.add_label(name, outcome, solved=solved)

    # -- the services

    def _written(self, name: str) -> None:
        if self._is_malformed(name, "proof"):
            return self._close(name, "unreadable")
        key = keys.proof(self.spec.name, name)
        put_record(self._store, key, proof(id=name))
        self._search.needs.add_answer(key)
        for index in range(FIRST_CRITIQUES):
            self._criticize(name, index)

    def _criticize(self, name: str, index: int) -> None:
        step = f"critique {index}"
        if not self._is_malformed(name, step):
            return self._request_critique(name, index, step)
        again = partial(self._request_critique, name, index, f"critique 2nd {index}")
        self._call(name, "verifier", ("unread", index), again)

    def _request_critique(self, name: str, index: int, step: str) -> None:
        ended = partial(self._criticized, name, index, step)
        self._call(name, "verifier", ("critique", index), ended)

    def _criticized(self, name: str, index: int, step: str) -> None:
        is_unreadable = self._is_malformed(name, step)
        score = None if is_unreadable else float(self._noisy(self._quality[name], name, step))
        self._scores[name][index] = score
        key = keys.critique(self.spec.name, name, index)
        made = critique(index, MALFORMED if score is None else valid(score))
        put_record(self._store, key, made.model_copy(update={"proof_id": name}))
        self._search.needs.add_answer(key)

    def _judge(self, name: str, index: int) -> None:
        score = self._scores[name][index]
        if score in (None, 1.0):
            return self._finish_judgement(name, index, None)
        self._metas(name, index, [], self.spec.labeling.m // 2 + 1)

    def _metas(self, name: str, index: int, votes: list[bool], up_to: int) -> None:
        """Request meta-critiques up to this number; of a tie all m."""
        step = "tie" if votes else "meta"
        late = LATE_PRIORITY if self._scores[name][index] == 0.5 else None
        ended = partial(self._assessed, name, index, votes, up_to)
        for number in range(len(votes), up_to):
            then = partial(ended, number)
            self._call(name, "meta_verifier", (step, index), then, late, f"meta {index} {number}")

    def _assessed(self, name: str, index: int, votes: list[bool], up_to: int, number: int) -> None:
        score, quality, step = self._scores[name][index], self._quality[name], f"m {index} {number}"
        deserved = "1" if score == float(quality) else "0" if quality == "1" else "0.5"
        is_read = not self._is_malformed(name, step)
        votes.append(is_read and self._noisy(deserved, name, step) != "0")
        if len(votes) < up_to:
            return
        m = self.spec.labeling.m
        if (confirmed := majority(sum(votes), len(votes), m)) is None:
            self._metas(name, index, votes, m)
        else:
            self._finish_judgement(name, index, confirmed)

    def _finish_judgement(self, name: str, index: int, confirmed: bool | None) -> None:
        run, scores = self.spec.name, self._scores[name]
        made = judgement(index, scores[index], confirmed).model_copy(update={"proof_id": name})
        put_record(self._store, keys.judgement(run, name, index), made)
        self._judged[name] += 1
        if self._judged[name] == self._n:
            put_record(self._store, keys.label(run, name), label(proof_id=name))
            self._close(name, "accepted", solved=all(score == 1.0 for score in scores.values()))

    # -- invented answers

    def _call(
        self,
        name: str,
        role: ModelRole,
        step: tuple[str, int],
        then: Callable[[], None],
        priority: int | None = None,
        answer: str = "",
    ) -> None:
        chance = self._draw(name, answer or f"{role} {step}").latency
        drawn = min(math.exp(SIGMA * NORMAL.inv_cdf(chance)), LONGEST)
        call = Call(name, role, step, drawn if role == "generator" else drawn / 2, then)
        self._calls[name].append(call)
        self.engine.submit(call, PRIORITY[role] if priority is None else priority)

    def _draw(self, name: str, answer: str) -> Chances:
        return chances(self._seed, name, answer)

    def _is_malformed(self, name: str, answer: str) -> bool:
        return self._draw(name, answer).shape < MALFORMED_SHARE

    def _noisy(self, truth: str, name: str, answer: str) -> str:
        draw = self._draw(name, answer)
        if draw.score >= NOISE:
            return truth
        return pick(tuple(each for each in QUALITIES if each != truth), draw.score / NOISE)


@contextmanager
def simulated(size: Size, seed: int) -> Iterator[Simulation]:
    """A simulated run, with its store."""
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(size, seed, LocalStore(Path(folder)))
        simulation.run()
        yield simulation


def compare(size: Size, seed: int) -> dict[str, float]:
    """With the size's slots, with unlimited ones, and with overlapping rounds."""
    with (
        simulated(size, seed) as found,
        simulated(replace(size, slots=UNLIMITED), seed) as unlimited,
        simulated(replace(size, overlap=True), seed) as overlap,
    ):
        return ratios(found, unlimited, overlap)


def ratios(found: Simulation, unlimited: Simulation, overlap: Simulation) -> dict[str, float]:
    least = max(found.work(), unlimited.engine.now)
    critiques = found.engine.begun["verifier"]
    return {
        "makespan_ratio_to_bound": found.engine.now / found.bound(),
        "unlimited_ratio_to_bound": unlimited.engine.now / unlimited.bound(),
        "makespan_ratio_to_unlimited": found.engine.now / least,
        "verifications_share": critiques / found.all_verifications(),
        "score": found.score(),
        "overlap_makespan": overlap.engine.now / found.engine.now,
        "overlap_verifications": overlap.engine.begun["verifier"] / critiques,
        "overlap_score": overlap.score(),
    }


def main() -> None:
    """Compare for each number of slots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    asked = parser.parse_args()
    sizes, seeds = [Size(slots, 1.0, ANALYSES[slots]) for slots in LATENCY_S], range(3)
    if asked.small:
        sizes, seeds = [SMALL], range(1)
    result: dict[str, dict[str, float]] = {}
    for size in sizes:
        found = [compare(size, seed) for seed in seeds]
        result[str(size.slots)] = {
            name: round(statistics.median(each[name] for each in found), 3) for name in found[0]
        }
        print(f"{size.slots} slots: {result[str(size.slots)]}", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
