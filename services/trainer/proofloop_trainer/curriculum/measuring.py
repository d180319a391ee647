"""Every version on problems of the test split, by the exact checker: nothing here rewards, chooses
or stops anything.

Judges are measured by people's grades where the files have them, otherwise by the last judges in
service.

Verifiers are compared on the same proofs. Hard problems are those of the harder domain; "hard
proofs" are the cold start's and the first iteration's on them, as many flawed as sound. Without a
harder domain there are neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean

from proofloop.config.curriculum_file import Stage
from proofloop.config.given_files import GradedAnalysis, GradedProof, in_split
from proofloop.curriculum.status import (
    StageManifest,
    find_figures,
    manifests,
    put_figures,
    serving_before,
)
from proofloop.method.domains import Domain, need_checker, need_critique_finding, need_proof_finding
from proofloop.method.prompts.reading.parsing import ParsedEvaluation, ParsedProof
from proofloop.runs.figures import Clusters, Figure, evaluate_run
from proofloop.schema.records import ModelRole
from proofloop_trainer.curriculum.asking import Count
from proofloop_trainer.curriculum.cases import (
    CaseFile,
    balanced,
    draw_analyses,
    draw_proofs,
    grade_analyses,
    grade_proofs,
)
from proofloop_trainer.curriculum.labeling import label_run
from proofloop_trainer.curriculum.rollouts import Judges, answered
from proofloop_trainer.curriculum.work import TEST, Work

Figures = dict[str, Figure]
Reviewed = tuple[GradedProof, ParsedEvaluation]
Served = dict[ModelRole, str]
Wanted = Iterator[tuple[str, Callable[[], Figures]]]
"""What is to be measured, by the name that it is kept under."""

VOTES, PROOFS = 4, 4
ROUNDS, THREADS, REFINED = 8, 32, 48
"""Sequential refinement: rounds, chains a problem, and on how many problems, hard ones where there
are any.
"""


def measure(work: Work, stage: Stage, served: Served) -> StageManifest:
    """The figures of every version that a stage made, each kept as it is found."""
    wanted = list((_by_grades if work.grades else _by_checker)(work, served))
    waiting = [each for each in wanted if find_figures(work.store, work.spec.name, each[0]) is None]
    count = Count(len(wanted), len(wanted) - len(waiting))
    for done, (name, figures) in enumerate(waiting, start=len(wanted) - len(waiting)):
        work.check_stopping()
        work.say(f"{stage.name}: {count.at(done)}; now {name}")
        put_figures(work.store, work.spec.name, name, figures())
        work.kept.clear()
    return StageManifest(stage=stage.name)


def _versions(work: Work) -> dict[str, str]:
    """What every stage made, by the stage's name; the model that all began with is the cold
    start's.
    """
    made = {
        name: manifest.version
        for name, manifest in manifests(work.store, work.spec).items()
        if manifest.version
    }
    return {"0-cold_start": work.spec.start, **made}


def _by_checker(work: Work, _: Served) -> Wanted:
    versions, done = _versions(work), manifests(work.store, work.spec)
    metas = {
        name: each.serves["meta_verifier"]
        for name, each in done.items()
        if "meta_verifier" in each.serves
    }
    first = versions["0-cold_start"]
    ordinary = work.questions(work.spec.measured, TEST)
    hard = work.questions(work.spec.measured, TEST, domains=[work.harder]) if work.harder else []
    proofs = _once(work, "proofs", lambda: _proofs(work, ordinary, first))
    writers = (first, versions.get("1-generator", first))
    hard_proofs = _once(work, "hard-proofs", lambda: _hard_proofs(work, hard, writers))
    # What takes longest comes first: the time left is guessed by the pace.
    refined = (hard or ordinary)[:REFINED]
    iterations = {"0-cold_start": 1} | {
        f"{number}-generator": number for number in range(1, work.spec.iterations + 1)
    }
    for name, iteration in iterations.items():
        if name in versions:
            yield f"{name}/refinement", partial(refinement_figures, work, versions[name], refined)
            judges = serving_before(work.spec, done, f"{iteration}-label")
            judged: Served = {**judges, "generator": versions[name]}
            yield f"{name}/labels", partial(label_figures, work, judged, name, work.domain)
            if work.harder:
                yield f"{name}/labels-hard", partial(label_figures, work, judged, name, work.harder)
    for name, version in versions.items():
        if _is_verifier(name):
            yield f"{name}/verifier", partial(verifier_figures, work, version, proofs)
            if hard:
                yield f"{name}/verifier-hard", partial(verifier_figures, work, version, hard_proofs)
            yield f"{name}/meta", partial(meta_figures, work, version, proofs, first)
            if (refreshed := metas.get(name, version)) != version:
                yield (
                    f"{name}-refreshed/meta",
                    partial(meta_figures, work, refreshed, proofs, first),
                )
        if _is_generator(name):
            yield f"{name}/generator", partial(generator_figures, work, version, ordinary)
            if hard:
                yield f"{name}/generator-hard", partial(generator_figures, work, version, hard)


def _by_grades(work: Work, served: Served) -> Wanted:
    assert work.grades is not None
    proofs, analyses = in_split(work.grades.proofs, TEST), in_split(work.grades.analyses, TEST)
    questions, judges = work.questions(work.spec.measured, TEST), work.judges(served, "measure")
    for name, version in _versions(work).items():
        if _is_verifier(name):
            yield (
                f"{name}/verifier",
                partial(graded_verifier_figures, work, version, proofs, judges),
            )
            if analyses:
                yield f"{name}/meta", partial(_meta_accuracy, work, version, analyses)
        if _is_generator(name):
            yield (
                f"{name}/generator",
                partial(judged_generator_figures, work, version, questions, judges),
            )


def _is_verifier(name: str) -> bool:
    return "generator" not in name


def _is_generator(name: str) -> bool:
    return any(word in name for word in ("start", "generator", "consolidate"))


def _once(work: Work, name: str, draw: Callable[[], list[GradedProof]]) -> Sequence[GradedProof]:
    return work.cases(f"measure-{name}", lambda: CaseFile(proofs=tuple(draw()))).proofs


def _proofs(work: Work, questions: Sequence[str], version: str) -> list[GradedProof]:
    drawn = draw_proofs(
        questions, work.asker("generator", version, "measure"), work.pack, (1.0, 1.0)
    )
    return grade_proofs(drawn, work.domain)


def _hard_proofs(
    work: Work, questions: Sequence[str], versions: Sequence[str]
) -> list[GradedProof]:
    found = [
        proof for version in dict.fromkeys(versions) for proof in _proofs(work, questions, version)
    ]
    return balanced(found, lambda proof: proof.score < 1, len(questions), work.rng("hard proofs"))


def verifier_figures(work: Work, version: str, proofs: Sequence[GradedProof]) -> Figures:
    """Accuracy of the score, by kind of proof; faithfulness of the right scores of flawed proofs;
    quality of claims.
    """
    read = _critiques(work, version, proofs)
    found = _accuracies(read) | {name: Clusters() for name in ("faithfulness", "quality")}
    for proof, each in _claiming(read):
        finding = need_critique_finding(work.domain, proof.question, proof.solution, each.text)
        found["quality"].add(proof.question, finding.quality)
        if proof.score == each.verdict.score:
            found["faithfulness"].add(proof.question, finding.faithful)
    return _figures(found)


def graded_verifier_figures(
    work: Work, version: str, proofs: Sequence[GradedProof], judges: Judges
) -> Figures:
    """Accuracy of the score, by kind of proof; R_meta of the critiques that report an issue."""
    read = _critiques(work, version, proofs)
    found = _accuracies(read) | {"judged_quality": Clusters()}
    claims = [(proof.question, proof.solution, each.text) for proof, each in _claiming(read)]
    for (question, _, _), quality in zip(claims, judges.qualities(claims), strict=True):
        found["judged_quality"].add(question, quality or 0.0)
    return _figures(found)


def _critiques(work: Work, version: str, proofs: Sequence[GradedProof]) -> list[Reviewed]:
    prompts = [work.pack.verify(proof.question, proof.solution).text for proof in proofs]
    return answered(
        proofs,
        work.asker("verifier", version, "measure").ask(prompts, VOTES),
        work.pack.reader().evaluation,
    )


def _accuracies(read: Sequence[Reviewed]) -> dict[str, Clusters]:
    found = {name: Clusters() for name in ("accuracy", "accuracy_flawed", "accuracy_sound")}
    for proof, each in read:
        for name in ("accuracy", "accuracy_flawed" if proof.score < 1 else "accuracy_sound"):
            found[name].add(proof.question, each.verdict.score == proof.score)
    return found


def _claiming(read: Sequence[Reviewed]) -> list[Reviewed]:
    """The critiques that report an issue."""
    return [(proof, each) for proof, each in read if each.verdict.score in (0.0, 0.5)]


def meta_figures(work: Work, version: str, proofs: Sequence[GradedProof], verifier: str) -> Figures:
    """Accuracy of the quality score, on analyses of the first verifier."""
    asker = work.asker("verifier", verifier, "measure-meta")
    return _meta_accuracy(
        work,
        version,
        grade_analyses(draw_analyses(proofs[::2], asker, work.pack, (1.0,)), work.domain),
    )


def _meta_accuracy(work: Work, version: str, cases: Sequence[GradedAnalysis]) -> Figures:
    prompts = [work.pack.judge(case.question, case.solution, case.analysis).text for case in cases]
    answers, found = work.asker("meta_verifier", version, "measure").ask(prompts), Clusters()
    for case, each in answered(cases, answers, work.pack.reader().meta_critique):
        found.add(case.question, each.verdict.score == case.quality)
    return _figures({"accuracy": found})


def generator_figures(work: Work, version: str, questions: Sequence[str]) -> Figures:
    """Pass@1, the self-evaluation's error, and the share of flawed proofs whose own score is the
    true one.
    """
    found = {
        name: Clusters()
        for name in ("pass_at_1", "self_error", "self_accuracy_flawed", "self_error_flawed")
    }
    for question, proof in _written(work, version, questions):
        truth = _truth(work, question, proof)
        found["pass_at_1"].add(question, truth == 1)
        if proof.verdict.score is None:
            continue
        found["self_error"].add(question, abs(proof.verdict.score - truth))
        if truth < 1:
            found["self_error_flawed"].add(question, abs(proof.verdict.score - truth))
            found["self_accuracy_flawed"].add(question, proof.verdict.score == truth)
    return _figures(found)


def judged_generator_figures(
    work: Work, version: str, questions: Sequence[str], judges: Judges
) -> Figures:
    """The mean score that the judges give its proofs, and how far its own scores are from
    theirs.
    """
    proofs = _written(work, version, questions)
    scores = judges.scores(
        [
            (question, each.solution) if each.verdict.score is not None else None
            for question, each in proofs
        ]
    )
    found = {name: Clusters() for name in ("judged_score", "judged_self_error")}
    for (question, each), score in zip(proofs, scores, strict=True):
        found["judged_score"].add(question, score)
        if each.verdict.score is not None:
            found["judged_self_error"].add(question, abs(each.verdict.score - score))
    return _figures(found)


def _written(work: Work, version: str, questions: Sequence[str]) -> list[tuple[str, ParsedProof]]:
    prompts = [work.pack.prove(question).text for question in questions]
    return answered(
        questions,
        work.asker("generator", version, "measure").ask(prompts, PROOFS),
        work.pack.reader().proof,
    )


def refinement_figures(work: Work, version: str, questions: Sequence[str]) -> Figures:
    """Chains of proofs, each refining the last while its own score is below 1: Pass@1 by round, and
    the best of 32.
    """
    chains = [(question, thread) for question in questions for thread in range(THREADS)]
    latest = dict[tuple[str, int], ParsedProof]()
    found = dict[str, Clusters]()
    for number in range(1, ROUNDS + 1):
        open_chains = [
            chain for chain in chains if chain not in latest or latest[chain].verdict.score != 1.0
        ]
        prompts = [_prompt(work, chain[0], latest.get(chain)) for chain in open_chains]
        round_asker = work.asker("generator", version, "refinement", number)
        for chain, (answer,) in zip(open_chains, round_asker.ask(prompts), strict=True):
            proof = work.pack.reader().proof(answer.text, answer.finish_reason)
            if proof.verdict.score is not None or chain not in latest:
                latest[chain] = proof
        right = {chain: _truth(work, chain[0], proof) == 1 for chain, proof in latest.items()}
        found[f"pass_at_1_round_{number}"] = clusters = Clusters()
        found[f"best_of_{THREADS}_round_{number}"] = best = Clusters()
        for question in questions:
            threads = [(question, thread) for thread in range(THREADS)]
            highest = max(latest[chain].verdict.score or 0.0 for chain in threads)
            for chain in threads:
                clusters.add(question, right[chain])
            tied = [
                right[chain] for chain in threads if (latest[chain].verdict.score or 0.0) == highest
            ]
            best.add(question, fmean(tied))  # ties are broken by lot: their mean is expected
    return _figures(found)


def label_figures(work: Work, served: Served, name: str, domain: Domain) -> Figures:
    """Agreement of decided labels with the checker, and the share left undecided, on a run over
    test problems.
    """
    run = f"{work.spec.name}-{name}-labels-{domain.name}"
    label_run(work, run, served, work.spec.labels, domain, TEST, 0)
    evaluation = evaluate_run(work.store, run, need_checker(domain))
    return {"agreement": evaluation.label_agreement, "undecided": evaluation.label_undecided}


def _prompt(work: Work, question: str, before: ParsedProof | None) -> str:
    if before is None or before.verdict.score is None:
        return work.pack.prove(question).text
    return work.pack.refine(question, [(before.solution, [before.self_analysis])]).text


def _truth(work: Work, question: str, proof: ParsedProof) -> float:
    return (
        need_proof_finding(work.domain, question, proof.solution).score
        if proof.verdict.score is not None
        else 0.0
    )


def _figures(found: dict[str, Clusters]) -> Figures:
    return {name: clusters.figure() for name, clusters in found.items()}
