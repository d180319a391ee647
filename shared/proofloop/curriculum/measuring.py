"""Measures every version on the test split. The figures reward, choose and stop nothing.

The exact checker measures; without one, people's grades and the last judges in service do, and the
figures are named `judged_...`. Verifiers are compared on the same proofs. Hard problems are those
of the harder domain; "hard proofs" are proofs of hard problems by the cold start and the first
iteration, as many flawed as sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean

from proofloop.config.curriculum_file import Stage
from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.curriculum.answers import Proved, checked_score, judge, prove, review
from proofloop.curriculum.cases import CaseFile, balanced, is_flawed
from proofloop.curriculum.compose import Served, everywhere
from proofloop.curriculum.data import draw_analyses, draw_proofs, label_run
from proofloop.curriculum.sources import TEST
from proofloop.curriculum.status import (
    StageManifest,
    find_figures,
    manifests,
    put_figures,
    serving_before,
)
from proofloop.curriculum.work import Countdown, Work
from proofloop.method.domains import Domain, need_checker
from proofloop.runs.figures import Clusters, Figure, evaluate_run
from proofloop.schema import keys
from proofloop.schema.records import Proof
from proofloop.store import records_below

Figures = dict[str, Figure]
Wanted = Iterator[tuple[str, Callable[[str], Figures]]]
"""What is to be measured: its name, and a function from the name of its run to its figures."""

VOTES, PROOFS = 4, 4
ROUNDS, CHAINS, REFINED = 8, 32, 48
"""Sequential refinement: rounds, chains for each problem, and problems; hard ones if there are
any.
"""

COLD_START = "0-cold_start"


def measure(work: Work, stage: Stage, served: Served) -> StageManifest:
    """The figures of every version, each kept as it is found."""
    versions = _versions(work)
    wanted = [*_long_ones(work, versions), *_short_ones(work, versions, served)]
    is_new = [find_figures(work.store, work.spec.name, name) is None for name, _ in wanted]
    countdown = Countdown(done := len(wanted) - sum(is_new))
    for name, figures in (each for each, new in zip(wanted, is_new, strict=True) if new):
        work.say(f"{stage.name}: {countdown.at(done, len(wanted))}; now {name}")
        found = figures(f"measure-{name.replace('/', '-')}")
        put_figures(work.store, work.spec.name, name, found)
        done += 1
    return StageManifest(stage=stage.name)


def _versions(work: Work) -> dict[str, str]:
    """The version of every stage by the stage's name. The start model counts as the cold
    start's.
    """
    found = manifests(work.store, work.spec)
    made = {name: each.version for name, each in found.items() if each.version}
    return {COLD_START: work.spec.start, **made}


def _long_ones(work: Work, versions: dict[str, str]) -> Wanted:
    """Refinements and labels, which only the checker measures. They come first: the time left is
    estimated by the pace.
    """
    if work.sources.grades:
        return
    domain, harder = work.sources.domain, work.sources.harder
    refined = _questions(work, harder or domain)[:REFINED]
    done = manifests(work.store, work.spec)
    iterations = range(1, work.spec.iterations + 1)
    stages = {COLD_START: 1} | {f"{number}-generator": number for number in iterations}
    for name, iteration in stages.items():
        if version := versions.get(name):
            yield f"{name}/refinement", partial(_refinement, work, version, refined)
            judges = serving_before(work.spec, done, f"{iteration}-label")
            judged: Served = {**judges, "generator": version}
            yield f"{name}/labels", partial(_labels, work, judged, domain)
            if harder:
                yield f"{name}/labels-hard", partial(_labels, work, judged, harder)


def _short_ones(work: Work, versions: dict[str, str], served: Served) -> Wanted:
    questions, proofs, analyses = _cases(work, versions)
    done = manifests(work.store, work.spec)
    for name, version in versions.items():
        if "generator" not in name:
            for suffix, cases in proofs.items():
                judged: Served = {**served, "verifier": version}
                yield f"{name}/verifier{suffix}", partial(_verifier, work, judged, cases)
            serves = done[name].serves if name in done else {}
            metas = {name: version, f"{name}-refreshed": serves.get("meta_verifier", version)}
            for stage, meta in metas.items():
                if analyses and (stage == name or meta != version):
                    yield f"{stage}/meta", partial(_meta_verifier, work, meta, analyses)
        if any(word in name for word in ("start", "generator", "consolidate")):
            for suffix, posed in questions.items():
                judged = {**served, "generator": version}
                yield f"{name}/generator{suffix}", partial(_generator, work, judged, posed)


Cases = tuple[dict[str, list[str]], dict[str, Sequence[GradedProof]], Sequence[GradedAnalysis]]
"""Problems and proofs, each by the suffix of their figures, and analyses."""


def _cases(work: Work, versions: dict[str, str]) -> Cases:
    questions = {"": _questions(work, work.sources.domain)}
    if grades := work.sources.grades:
        return questions, {"": grades.proofs_in(TEST)}, grades.analyses_in(TEST)
    first = versions[COLD_START]
    proofs = {"": _drawn(work, "proofs", questions[""], [first])}
    if work.sources.harder:
        questions["-hard"] = hard = _questions(work, work.sources.harder)
        writers = [first, versions.get("1-generator", first)]
        proofs["-hard"] = _drawn(work, "hard-proofs", hard, writers, most=len(hard))
    return questions, proofs, _analyses(work, proofs[""], first)


def _questions(work: Work, domain: Domain) -> list[str]:
    return work.sources.questions(work.spec.measured, TEST, domains=[domain])


def _drawn(
    work: Work, name: str, questions: list[str], writers: list[str], most: int | None = None
) -> Sequence[GradedProof]:
    """Proofs of these generators. `most`: of them all, as many flawed as sound."""

    def draw() -> CaseFile:
        found: list[GradedProof] = []
        for number, writer in enumerate(dict.fromkeys(writers)):
            run = f"measure-{name}-{number}"
            found += draw_proofs(work, run, questions, writer, (1.0, 1.0))
        if most is not None:
            found = balanced(found, is_flawed, most, work.rng(name))
        return CaseFile(proofs=tuple(found))

    return work.once(f"measure-{name}", draw).proofs


def _analyses(work: Work, proofs: Sequence[GradedProof], verifier: str) -> Sequence[GradedAnalysis]:
    """Analyses of the first verifier."""

    def draw() -> CaseFile:
        found = draw_analyses(work, "measure-analyses", proofs[::2], verifier, (1.0,))
        return CaseFile(analyses=tuple(found))

    return work.once("measure-analyses", draw).analyses


def _verifier(work: Work, served: Served, proofs: Sequence[GradedProof], run: str) -> Figures:
    """Accuracy of the score, by kind of proof; quality of claims; faithfulness of the right scores
    of flawed proofs.
    """
    is_checked = work.sources.grades is None
    names = ["accuracy", "accuracy_flawed", "accuracy_sound"]
    names += ["faithfulness", "quality"] if is_checked else ["judged_quality"]
    clusters = {name: Clusters() for name in names}
    for each in review(work, run, served, proofs, VOTES):
        question, is_right = each.case.question, each.score == each.case.score
        clusters["accuracy"].add(question, is_right)
        kind = "flawed" if is_flawed(each.case) else "sound"
        clusters[f"accuracy_{kind}"].add(question, is_right)
        if each.reports_issue and each.quality is not None:
            clusters["quality" if is_checked else "judged_quality"].add(question, each.quality)
        if each.reports_issue and is_checked and is_right:
            clusters["faithfulness"].add(question, each.is_faithful)
    return _figures(clusters)


def _meta_verifier(
    work: Work, version: str, analyses: Sequence[GradedAnalysis], run: str
) -> Figures:
    """Accuracy of the quality score."""
    accuracy = Clusters()
    for case, score in judge(work, run, everywhere(version), analyses, 1):
        accuracy.add(case.question, score == case.quality)
    return _figures({"accuracy": accuracy})


def _generator(work: Work, served: Served, questions: Sequence[str], run: str) -> Figures:
    """Pass@1, or the judges' mean score; the self-evaluation's error; by the checker also those of
    flawed proofs, and the share of these whose own score is the true one.
    """
    if work.sources.grades:
        clusters = {name: Clusters() for name in ("judged_score", "judged_self_error")}
    else:
        names = ("pass_at_1", "self_error", "self_accuracy_flawed", "self_error_flawed")
        clusters = {name: Clusters() for name in names}
    for each in prove(work, run, served, questions, PROOFS):
        for name, value in _values(work, each).items():
            clusters[name].add(each.question, value)
    return _figures(clusters)


def _values(work: Work, proved: Proved) -> dict[str, float]:
    """A proof's contribution to each figure. An unreadable proof has no self-evaluation."""
    own, truth = proved.own, proved.truth
    if work.sources.grades:
        values = {"judged_score": truth}
        return values if own is None else {**values, "judged_self_error": abs(own - truth)}
    values = {"pass_at_1": float(truth == 1)}
    if own is not None:
        values["self_error"] = abs(own - truth)
        if truth < 1:
            values |= {"self_error_flawed": abs(own - truth), "self_accuracy_flawed": own == truth}
    return values


def _refinement(work: Work, version: str, questions: Sequence[str], run: str) -> Figures:
    """Chains of proofs, each refining the last while its own score is below 1: Pass@1 by round, and
    the best of a problem's chains by their own scores.
    """
    pass_at_1, best = ([Clusters() for _ in range(ROUNDS)] for _ in range(2))
    rounds = {"refinement": {"iterations": ROUNDS}}
    found = prove(work, run, everywhere(version), questions, CHAINS, **rounds)
    for first in range(0, len(found), CHAINS):
        chains = [_rounds(work, each) for each in found[first : first + CHAINS]]
        for number, latest in enumerate(zip(*chains, strict=True)):
            for is_right, _ in latest:
                pass_at_1[number].add(found[first].question, is_right)
            best[number].add(found[first].question, best_of(latest))
    named = {f"pass_at_1_round_{number}": each for number, each in enumerate(pass_at_1, 1)}
    named |= {f"best_of_{CHAINS}_round_{number}": each for number, each in enumerate(best, 1)}
    return _figures(named)


def _rounds(work: Work, chain: Proved) -> list[tuple[float, float]]:
    """Whether the chain's newest readable proof is right, and its own score, after each round."""
    attempts = keys.attempts(chain.proof.run_id, chain.proof.id)
    found: list[tuple[float, float]] = []
    for proof in [*records_below(work.store, attempts, Proof), chain.proof]:
        own = proof.verdict.score
        if own is None and found:
            found.append(found[-1])
        else:
            truth = checked_score(work, chain.question, proof)
            found.append((float(truth == 1), own or 0.0))
    return found + [found[-1]] * (ROUNDS - len(found))


def best_of(latest: Sequence[tuple[float, float]]) -> float:
    """The share of right proofs among those with the highest self-score."""
    highest = max(own for _, own in latest)
    return fmean(is_right for is_right, own in latest if own == highest)


def _labels(work: Work, served: Served, domain: Domain, run: str) -> Figures:
    """Agreement of decided labels with the checker, and the share left undecided, on test
    problems.
    """
    found = evaluate_run(
        work.store, label_run(work, run, served, domain, TEST, 0), need_checker(domain)
    )
    return {"agreement": found.label_agreement, "undecided": found.label_undecided}


def _figures(clusters: dict[str, Clusters]) -> Figures:
    return {name: each.figure() for name, each in clusters.items()}
