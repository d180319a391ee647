"""Measures models by the exact checker or by given grades, on the records of a run. The figures
never reward a model.

Intervals are 95 % normal intervals with problems as clusters, since proofs of one problem, and
critiques of one proof, are correlated. If all clusters have the same mean, the bounds follow from
Clopper and Pearson's exact one for the share of clusters that differ. A single cluster gives the
interval [0, 1].
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.method.domains import Checker, load_checker
from proofloop.runs.answers import (
    critiques_of,
    meta_critiques_of,
    proofs_and_questions,
    question_of,
)
from proofloop.runs.labels import find_label
from proofloop.runs.search.records import searches_of
from proofloop.schema import keys
from proofloop.schema.records import Critique, MetaCritique, Proof, Record, Score
from proofloop.store import Store, get_record, records_below

Z95 = 1.96
NO_SPREAD = 1e-9
"""A smaller standard error is 0, rounded."""


class Figure(Record):
    """A measured mean with its 95 % interval; value, low and high are None if there were no
    cases.
    """

    value: float | None
    low: float | None
    high: float | None
    cases: int

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "not measured"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.cases:5d}"


class Evaluation(Record):
    """The six figures of a run against the exact checker, or against the grades of given proofs.

    - pass_at_1: share of proofs that are right
    - self_eval_error: mean |s' - s| of readable proofs (s': the generator's own score, s: the true
      score)
    - verifier_accuracy: share of critiques with the right score
    - verifier_faithfulness: share of right-scored critiques of flawed proofs that name the
      checker's step and kind
    - label_agreement: share of decided labels that are right
    - label_undecided: share of readable proofs left undecided
    """

    pass_at_1: Figure
    self_eval_error: Figure
    verifier_accuracy: Figure
    verifier_faithfulness: Figure
    label_agreement: Figure
    label_undecided: Figure


class RefinementFigures(Record):
    """The gain from sequential refinement, section 3.3.2.

    - pass_at_1: share of right proofs after 1, 2, ... iterations
    - best_by_self_score: share of problems whose proof with the highest self-score is right; ties
      count by their mean
    """

    pass_at_1: tuple[Figure, ...]
    best_by_self_score: Figure


class Clusters:
    """A running mean over clustered values. It keeps only a sum and a count for each cluster."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, cluster: str, value: float) -> None:
        pair = self._sums[cluster]
        pair[0] += value
        pair[1] += 1

    def figure(self) -> Figure:
        """The mean with its cluster-robust interval."""
        if not self._sums:
            return Figure(value=None, low=None, high=None, cases=0)
        low, high = _interval(self.mean, self.error, len(self._sums))
        return Figure(value=self.mean, low=low, high=high, cases=self.cases)

    @property
    def cases(self) -> int:
        return int(sum(count for _, count in self._sums.values()))

    @property
    def mean(self) -> float:
        return sum(total for total, _ in self._sums.values()) / self.cases

    @property
    def error(self) -> float:
        """The cluster-robust standard error of the mean; 0 for one cluster."""
        mean = self.mean
        clusters = len(self._sums)
        squares = sum((total - mean * count) ** 2 for total, count in self._sums.values())
        return math.sqrt(squares * clusters / max(1, clusters - 1)) / self.cases


def _interval(mean: float, error: float, clusters: int) -> tuple[float, float]:
    if clusters == 1:
        return 0.0, 1.0
    if error < NO_SPREAD:  # as if the clusters that differ had the value 0, or the value 1
        differ = 1 - 0.025 ** (1 / clusters)
        return mean * (1 - differ), mean + (1 - mean) * differ
    return max(0.0, mean - Z95 * error), min(1.0, mean + Z95 * error)


def measuring_checker(spec: RunSpec) -> Checker | None:
    """The exact checker of the run's domain; None for given proofs that only have grades. Raises
    ConfigError if nothing can measure the run.
    """
    domain = spec.problems.checked_by
    if domain is None and not spec.problems.is_given:
        raise ConfigError(
            f"run {spec.name!r} has problems from a file, which no exact checker can measure",
            f"grade its proofs with `proofloop ui {spec.name}`",
        )
    return load_checker(domain) if domain else None


def evaluate_run(store: Store, run_id: str, checker: Checker | None) -> Evaluation:
    """Measure a run in one pass over its records, given proofs by their grades. Leaves out what the
    checker cannot check.
    """
    found: dict[str, Clusters] = {name: Clusters() for name in Evaluation.model_fields}
    for proof, question in proofs_and_questions(store, run_id):
        _measure_proof(proof, question, store, checker, found)
    return Evaluation(**{name: clusters.figure() for name, clusters in found.items()})


def refinement_figures(
    store: Store, run_id: str, checker: Checker, iterations: int
) -> RefinementFigures:
    """Measure how a run's proofs improved over the attempts of sequential refinement."""
    by_iteration = [Clusters() for _ in range(iterations)]
    # By problem: self-score, is right.
    rated: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for proof, question in proofs_and_questions(store, run_id):
        attempts = records_below(store, keys.attempts(run_id, proof.id), Proof)
        rights = [_is_right(attempt, question, checker) for attempt in (*attempts, proof)]
        for number, clusters in enumerate(by_iteration):
            clusters.add(proof.problem_id, rights[min(number, len(rights) - 1)])
        self_score = -1.0 if proof.verdict.score is None else proof.verdict.score
        rated[proof.problem_id].append((self_score, rights[-1]))
    best = Clusters()
    for problem, pairs in rated.items():
        highest = max(pairs)[0]
        best.add(problem, fmean(right for self_score, right in pairs if self_score == highest))
    return RefinementFigures(
        pass_at_1=tuple(clusters.figure() for clusters in by_iteration),
        best_by_self_score=best.figure(),
    )


def search_figures(store: Store, run_id: str, checker: Checker) -> tuple[Figure, ...]:
    """The share of problems whose best proof is right: after the first proofs, then after each
    round of a search.
    """
    ended = list(searches_of(store, run_id))
    by_round = [
        Clusters() for _ in range(max((len(found.best_by_round) for found in ended), default=0))
    ]
    for found in ended:
        question = question_of(store, run_id, found.problem_id)
        rights = [
            _is_right(get_record(store, keys.proof(run_id, name), Proof), question, checker)
            if name
            else 0.0
            for name in found.best_by_round
        ]
        for number, clusters in enumerate(by_round):
            clusters.add(found.problem_id, rights[min(number, len(rights) - 1)])
    return tuple(clusters.figure() for clusters in by_round)


def meta_verifier_accuracy(store: Store, run_id: str, checker: Checker | None) -> Figure:
    """The share of readable meta-critiques with the right score: the grade of a given analysis,
    else the checker's score.
    """
    clusters = Clusters()
    for proof, question in proofs_and_questions(store, run_id):
        for critique in critiques_of(store, run_id, proof.id):
            for meta in meta_critiques_of(store, run_id, proof.id, critique.index).values():
                is_right = _is_right_meta(proof, question, critique, meta, checker)
                if is_right is not None:
                    clusters.add(proof.problem_id, float(is_right))
    return clusters.figure()


def _is_right_meta(
    proof: Proof, question: str, critique: Critique, meta: MetaCritique, checker: Checker | None
) -> bool | None:
    """Whether the meta-score is right; None for an unreadable one, and without a checker or
    grade.
    """
    if meta.verdict.score is None:
        return None
    if proof.given and proof.given.is_analysis and proof.given.quality is not None:
        return meta.verdict.score == proof.given.quality
    if checker is None:
        return None
    return checker.check_meta_critique(
        question, proof.solution, critique.analysis, meta.verdict.score
    )


def _is_right(proof: Proof, question: str, checker: Checker) -> float:
    if proof.verdict.score is None:
        return 0.0
    finding = checker.check_proof(question, proof.solution)
    return float(finding is not None and finding.score == 1.0)


def _truth(proof: Proof, question: str, checker: Checker | None) -> Score | None:
    """The grade of a given proof, else the checker's; None without both."""
    if proof.given and proof.given.score is not None:
        return proof.given.score
    finding = checker.check_proof(question, proof.solution) if checker else None
    return finding.score if finding else None


def _measure_proof(
    proof: Proof, question: str, store: Store, checker: Checker | None, found: dict[str, Clusters]
) -> None:
    cluster = question if proof.given else proof.problem_id  # each given proof has an id of its own
    truth = _truth(proof, question, checker)
    if truth is None or (proof.given and proof.given.is_analysis):
        return
    if proof.given is None:
        found["pass_at_1"].add(cluster, float(proof.verdict.score is not None and truth == 1.0))
        if proof.verdict.score is None:
            return
        found["self_eval_error"].add(cluster, abs(proof.verdict.score - truth))
    for critique in critiques_of(store, proof.run_id, proof.id):
        right = critique.verdict.score == truth
        found["verifier_accuracy"].add(cluster, float(right))
        if right and truth < 1.0 and checker is not None:
            claims = checker.check_critique(question, proof.solution, critique.analysis)
            if claims is not None:
                found["verifier_faithfulness"].add(cluster, float(claims.faithful))
    label = find_label(store, proof.run_id, proof.id)
    if label is not None and label.kind not in ("graded", "outranked"):
        found["label_undecided"].add(cluster, float(label.outcome == "undecided"))
        if label.score is not None:
            found["label_agreement"].add(cluster, float(label.score == truth))
