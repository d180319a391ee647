"""The search of one problem: which of its proofs have labels, and how far their critiques are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from proofloop.method.search_rule import (
    FIRST_CRITIQUES,
    Candidate,
    Contender,
    best_so_far,
    certainly_kept,
    outranked,
)


@dataclass
class _Critiques:
    """The critiques of a readable proof: the scores of the written ones, by number, and the numbers
    of those that were requested, the first ones by the generator.
    """

    verifier_version: str
    scores: dict[int, float] = field(default_factory=dict)
    requested: set[int] = field(default_factory=lambda: set(range(FIRST_CRITIQUES)))

    def contender(self, name: str) -> Contender:
        in_flight = len(self.requested - self.scores.keys())
        return Contender(name, len(self.scores), in_flight, sum(self.scores.values()))


@dataclass
class ProblemSearch:
    """A search that has not ended.

    `waiting`: the proofs without a label, all of the newest round unless rounds overlap; `groups`:
    those of them that are posed, with their groups; `dead`: proofs that have no label because of a
    dead letter; `new`: the proofs with a label to compare. `pool`: the readable ones of all these;
    only a search by need fills it. `judging`: those whose judgements were requested. `newest`: how
    many proofs the newest round has. `is_changed`: the needs are to be worked out again; until then
    `open` are the proofs that need more critiques than are written, and `complete` is the number of
    those that need only others to compare with.
    """

    waiting: set[str]
    posed: int
    newest: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    new: list[str] = field(default_factory=list)
    kept: list[Candidate] = field(default_factory=list)
    best_by_round: list[str | None] = field(default_factory=list)
    solved: str | None = None
    pool: dict[str, _Critiques] = field(default_factory=dict)
    judging: set[str] = field(default_factory=set)
    is_changed: bool = True
    open: list[Contender] = field(default_factory=list)
    complete: int = 0

    def begin_round(self, names: set[str]) -> None:
        """Compare these new proofs with the kept ones from now on."""
        self.pool = {name: each for name, each in self.pool.items() if name in self.waiting}
        self.waiting |= names
        self.newest = len(names)
        self.new = []
        self.is_changed = True

    @property
    def may_end(self) -> bool:
        """Whether no label can change the result. A dead proof may get its label when the run is
        resumed.
        """
        return not self.waiting and (self.solved is not None or not self.dead)

    def may_overlap(self) -> bool:
        """Whether the next round may begin before all proofs have labels: all are posed, and no
        more of them wait than half of the newest round.
        """
        all_posed = self.waiting <= self.groups.keys()
        has_half = bool(self.new) and 2 * len(self.waiting) <= self.newest
        return not self.solved and all_posed and has_half

    def add_posed(self, name: str, group: str) -> None:
        self.groups[name] = group
        self.is_changed = True

    def close(self, name: str, *, is_compared: bool) -> bool:
        """The proof has its label, or will not get one. True if it had none until now."""
        self.is_changed = True
        self.groups.pop(name, None)
        if not is_compared:
            self.pool.pop(name, None)
        if name not in self.waiting | self.dead:
            return False
        self.waiting.discard(name)
        self.dead.discard(name)
        if is_compared:
            self.new.append(name)
        return True

    # -- critiques

    def compares(self, name: str) -> bool:
        """Whether critiques of this proof count."""
        return name in self.groups or name in self.new

    def add_written(self, name: str, verifier_version: str) -> None:
        self.pool.setdefault(name, _Critiques(verifier_version))
        self.is_changed = True

    def add_critique(self, name: str, index: int, score: float, n: int) -> None:
        self.pool[name].scores[index] = score
        self.is_changed = True
        if self.solved is None and self._contender(name).passes(n):
            self.solved = name

    def misses(self, name: str, index: int) -> bool:
        """Whether this critique of a proof in the pool is not known yet."""
        return name in self.pool and index not in self.pool[name].scores

    def awaited(self) -> Iterator[str]:
        """The posed proofs that are not written, or miss critiques that were requested."""
        for name in self.groups:
            found = self.pool.get(name)
            if found is None or found.contender(name).in_flight:
                yield name

    # -- needs

    def outranked(self, *, n: int, keep: int) -> set[str]:
        """The posed proofs without a label that the search can do without."""
        if self.solved:
            return set(self.groups) - {self.solved}
        return self.groups.keys() & outranked(self._contenders(), n=n, keep=keep)

    def to_judge(self, *, n: int, keep: int) -> set[str]:
        """The proofs whose judgements decide which critiques are shown, and are not requested
        yet.
        """
        if self.solved:
            return ({self.solved} & self.waiting) - self.judging
        unwritten = len(self.waiting - self.pool.keys())
        kept = certainly_kept(self._contenders(), n=n, keep=keep, unwritten=unwritten)
        return ({each.proof_id for each in kept} & self.waiting) - self.judging

    def to_judge_early(self, *, n: int, keep: int) -> set[str]:
        """The complete proofs that are among the best so far, and whose judgements are not
        requested yet.
        """
        if self.solved:
            return set()
        found = best_so_far(self._contenders(), n=n, keep=keep)
        return ({each.proof_id for each in found} & self.groups.keys()) - self.judging

    def begin_judging(self, name: str) -> None:
        self.judging.add(name)
        self.is_changed = True

    def find_open(self, *, n: int, keep: int) -> None:
        """Work out `open` and `complete`."""
        compared = self.groups.keys() - self.outranked(n=n, keep=keep) - self.judging
        found = [each for each in self._contenders() if each.proof_id in compared]
        self.open = [each for each in found if each.written < n]
        self.complete = len(found) - len(self.open)
        self.is_changed = False

    def request(self, name: str, n: int) -> tuple[int, str]:
        """The number of the next critique of the proof, and who writes it."""
        found = self.pool[name]
        index = next(
            index
            for index in range(n)
            if index not in found.requested and index not in found.scores
        )
        found.requested.add(index)
        self.is_changed = True
        return index, found.verifier_version

    def _contenders(self) -> list[Contender]:
        kept = [Contender(each.proof_id, each.critiques, 0, each.total) for each in self.kept]
        return kept + [self._contender(name) for name in self.pool]

    def _contender(self, name: str) -> Contender:
        return self.pool[name].contender(name)
