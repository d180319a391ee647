"""The texts of chosen answers, as demonstrations with the prompts of another pack."""

from __future__ import annotations

from proofloop.config.demonstration_file import Demonstration, Turn, read_answer
from proofloop.method.prompts import PromptPack
from proofloop.runs.answers import question_of
from proofloop.schema import keys
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import Critique, MetaCritique, Proof, RawAnswer
from proofloop.store import Store, get_record
from proofloop_trainer.fine_tuning.best_answers import BestAnswer


def demonstration_of(answer: BestAnswer, pack: PromptPack, store: Store) -> Demonstration | None:
    """The answer's text with the prompt of `pack`; None for an answer that the pack cannot read,
    that was not kept whole, or that refines another proof.
    """
    found = keys.parse_answer(answer.key)
    assert found is not None
    proof = get_record(store, keys.proof(answer.run_id, found.proof_id), Proof)
    question = question_of(store, answer.run_id, proof.problem_id)
    if answer.role == "generator":
        prompt, text = pack.prove(question), _proof_text(answer, proof, store)
    elif answer.role == "verifier":
        critique = get_record(store, answer.key, Critique)
        prompt = pack.verify(question, proof.solution)
        text = _whole(critique.raw, critique.analysis)
    else:
        meta = get_record(store, answer.key, MetaCritique)
        analysis = _analysis(proof, found.name.index, store)
        prompt = pack.judge(question, proof.solution, analysis)
        text = _whole(meta.raw, meta.analysis)
    if text is None or read_answer(answer.role, text, pack).outcome != "valid":
        return None
    turn = Turn(role="user", content=prompt.text)
    return Demonstration(prompt=(turn,), answer=text, origin=answer.key)


def _proof_text(answer: BestAnswer, proof: Proof, store: Store) -> str | None:
    prompts = get_record(store, keys.prompts(answer.run_id), PromptPack)
    is_refined = answer.prompt_digest != prompts.digest("proof_generation")
    if is_refined or not proof.raw_key:
        return None
    return _whole(get_record(store, proof.raw_key, RawAnswer), "")


def _analysis(proof: Proof, index: int, store: Store) -> str:
    if index == SELF_CRITIQUE:
        return proof.self_analysis
    return get_record(store, keys.critique(proof.run_id, proof.id, index), Critique).analysis


def _whole(raw: RawAnswer | None, held: str) -> str | None:
    """The text of an answer, None if its middle is missing. `held`: the record's copy of it."""
    if raw is None or raw.left_out:
        return None
    return (held if raw.text is None else raw.text) or None
