"""Every version on problems of the test split, by the exact checker: nothing here rewards, chooses or stops anything.

Verifiers are compared on the same proofs. Hard problems are those of the harder domain; "hard proofs" are the cold
start's and the first iteration's on them, as many flawed as sound. Without a harder domain there are neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proofloop.curriculum import Stage, StageManifest, find_figures, manifests, put_figures
from proofloop.domains import Domain
from proofloop.measure import Clusters, Figure, evaluate_run
from proofloop.prompts.parsing import ParsedProof, parse_evaluation, parse_meta_critique, parse_proof
from proofloop.records import ModelRole
from proofloop_trainer.curriculum.cases import (
    GradedProof,
    balanced,
    draw_analyses,
    draw_proofs,
    grade_analyses,
    grade_proofs,
)
from proofloop_trainer.curriculum.labelling import walk
from proofloop_trainer.curriculum.work import TEST, Work

Figures = dict[str, Figure]
VOTES, PROOFS = 4, 4
ROUNDS, THREADS, REFINED = 8, 32, 48
"""Sequential refinement: rounds, chains a problem, and on how many problems, hard ones where there are any."""


def measure(work: Work, stage: Stage, served: dict[ModelRole, str]) -> StageManifest:
    """The figures of every version that a stage made, each kept as it is found."""
    versions = {name: made.version for name, made in manifests(work.store, work.spec).items() if made.version}
    first = versions.get("0-cold_start", work.spec.start)
    if "0-cold_start" not in versions:
        versions = {"0-cold_start": work.spec.start, **versions}
    ordinary = work.questions(work.spec.measured, TEST)
    hard = work.questions(work.spec.measured, TEST, domains=[work.harder]) if work.harder else []
    proofs = _proofs(work, ordinary, first)
    hard_proofs = _hard_proofs(work, hard, (first, versions.get("1-generator", first)))
    for name, version in versions.items():
        if _is_verifier(name):
            _keep(work, f"{name}/verifier", lambda v=version: verifier_figures(work, v, proofs))
            if hard:
                _keep(work, f"{name}/verifier-hard", lambda v=version: verifier_figures(work, v, hard_proofs))
            _keep(work, f"{name}/meta", lambda v=version: meta_figures(work, v, proofs, first))
        if _is_generator(name):
            _keep(work, f"{name}/generator", lambda v=version: generator_figures(work, v, ordinary))
            if hard:
                _keep(work, f"{name}/generator-hard", lambda v=version: generator_figures(work, v, hard))
    refined = (hard or ordinary)[:REFINED]
    for name in ("0-cold_start", "1-generator", "2-generator"):
        if name in versions:
            _keep(work, f"{name}/refinement", lambda v=versions[name]: refinement_figures(work, v, refined))
            judged = {**served, "generator": versions[name]}
            _keep(work, f"{name}/labels", lambda j=judged, n=name: label_figures(work, j, n, work.domain))
            if work.harder:
                _keep(work, f"{name}/labels-hard", lambda j=judged, n=name: label_figures(work, j, n, work.harder))
    return StageManifest(stage=stage.name)


def _is_verifier(name: str) -> bool:
    return "generator" not in name


def _is_generator(name: str) -> bool:
    return any(word in name for word in ("start", "generator", "consolidate"))


def _keep(work: Work, name: str, found: Callable[[], Figures]) -> None:
    work.check_stopping()
    if find_figures(work.store, work.spec.name, name) is None:
        work.say(f"measuring {name}")
        put_figures(work.store, work.spec.name, name, found())


def _proofs(work: Work, questions: Sequence[str], version: str) -> list[GradedProof]:
    drawn = draw_proofs(questions, work.asker("generator", version, "measure"), work.pack, (1.0, 1.0))
    return grade_proofs(drawn, work.domain)


def _hard_proofs(work: Work, questions: Sequence[str], versions: Sequence[str]) -> list[GradedProof]:
    found = [proof for version in dict.fromkeys(versions) for proof in _proofs(work, questions, version)]
    return balanced(found, lambda proof: proof.score < 1, len(questions), work.rng("hard proofs"))


def verifier_figures(work: Work, version: str, proofs: Sequence[GradedProof]) -> Figures:
    """Accuracy of the score, by kind of proof; faithfulness of the right scores of flawed proofs; quality of claims."""
    prompts = [work.pack.verify(proof.question, proof.solution).text for proof in proofs]
    answers = work.asker("verifier", version, "measure").ask(prompts, VOTES)
    found = {name: Clusters() for name in ("accuracy", "accuracy_flawed", "accuracy_sound", "faithfulness", "quality")}
    for proof, group in zip(proofs, answers, strict=True):
        for answer in group:
            parsed = parse_evaluation(answer.text, answer.finish_reason)
            right = parsed.verdict.score == proof.score
            found["accuracy"].add(proof.question, right)
            found["accuracy_flawed" if proof.score < 1 else "accuracy_sound"].add(proof.question, right)
            if parsed.verdict.score in (0.0, 0.5):
                finding = work.domain.check_critique(proof.question, proof.solution, parsed.text)
                found["quality"].add(proof.question, finding.quality)
                if right and proof.score < 1:
                    found["faithfulness"].add(proof.question, finding.faithful)
            elif right and proof.score < 1:
                found["faithfulness"].add(proof.question, 0.0)
    return _figures(found)


def meta_figures(work: Work, version: str, proofs: Sequence[GradedProof], verifier: str) -> Figures:
    """Accuracy of the quality score, on analyses of the first verifier."""
    asker = work.asker("verifier", verifier, "measure-meta")
    cases = grade_analyses(draw_analyses(proofs[::2], asker, work.pack, (1.0,)), work.domain)
    prompts = [work.pack.judge(case.question, case.solution, case.analysis).text for case in cases]
    answers = work.asker("meta_verifier", version, "measure").ask(prompts)
    found = {"accuracy": Clusters()}
    for case, (answer,) in zip(cases, answers, strict=True):
        score = parse_meta_critique(answer.text, answer.finish_reason).verdict.score
        found["accuracy"].add(case.question, score == case.quality)
    return _figures(found)


def generator_figures(work: Work, version: str, questions: Sequence[str]) -> Figures:
    """Pass@1, the self-evaluation's error, and the share of flawed proofs whose own score is the true one."""
    answers = work.asker("generator", version, "measure").ask([work.pack.prove(q).text for q in questions], PROOFS)
    found = {name: Clusters() for name in ("pass_at_1", "self_error", "self_accuracy_flawed", "self_error_flawed")}
    for question, group in zip(questions, answers, strict=True):
        for answer in group:
            proof = parse_proof(answer.text, answer.finish_reason)
            truth = _truth(work, question, proof)
            found["pass_at_1"].add(question, truth == 1)
            if proof.verdict.score is None:
                continue
            found["self_error"].add(question, abs(proof.verdict.score - truth))
            if truth < 1:
                found["self_error_flawed"].add(question, abs(proof.verdict.score - truth))
                found["self_accuracy_flawed"].add(question, proof.verdict.score == truth)
    return _figures(found)


def refinement_figures(work: Work, version: str, questions: Sequence[str]) -> Figures:
    """Chains of proofs, each refining the last while its own score is below 1: Pass@1 by round, and the best of 32."""
    chains = [(question, thread) for question in questions for thread in range(THREADS)]
    latest = dict[tuple[str, int], ParsedProof]()
    found = dict[str, Clusters]()
    for number in range(1, ROUNDS + 1):
        open_chains = [chain for chain in chains if chain not in latest or latest[chain].verdict.score != 1.0]
        prompts = [_prompt(work, chain[0], latest.get(chain)) for chain in open_chains]
        round_asker = work.asker("generator", version, "refinement", number)
        for chain, (answer,) in zip(open_chains, round_asker.ask(prompts), strict=True):
            proof = parse_proof(answer.text, answer.finish_reason)
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
                if (latest[chain].verdict.score or 0.0) == highest:  # ties are broken by lot: their mean is expected
                    best.add(question, right[chain])
    return _figures(found)


def label_figures(work: Work, served: dict[ModelRole, str], name: str, domain: Domain) -> Figures:
    """Agreement of decided labels with the checker, and the share left undecided, on a walk over test problems."""
    run = f"{work.spec.name}-{name}-labels-{domain.name}"
    walk(work, run, served, work.spec.labels, domain.name, TEST, 0)
    evaluation = evaluate_run(work.store, run, domain)
    return {"agreement": evaluation.label_agreement, "undecided": evaluation.label_undecided}


def _prompt(work: Work, question: str, before: ParsedProof | None) -> str:
    if before is None or before.verdict.score is None:
        return work.pack.prove(question).text
    return work.pack.refine(question, [(before.solution, [before.self_analysis])]).text


def _truth(work: Work, question: str, proof: ParsedProof) -> float:
    return work.domain.check_proof(question, proof.solution).score if proof.verdict.score is not None else 0.0


def _figures(found: dict[str, Clusters]) -> Figures:
    return {name: clusters.figure() for name, clusters in found.items()}
