"""`proofloop proof`: prints one answer of a run: a proof, a critique or a meta-critique."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_store
from proofloop.errors import ConfigError
from proofloop.runs.answers import (
    critiques_of,
    find_judgement,
    meta_critiques_of,
    proofs_of,
    raw_of_proof,
)
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.ids import (
    PROOF,
    SELF,
    SELF_CRITIQUE,
    AnswerName,
    attempt_name,
    check_id,
    critique_name,
    index_name,
    meta_name,
    parse_answer_name,
    unread_name,
)
from proofloop.schema.records import (
    Critique,
    MetaCritique,
    Problem,
    Proof,
    Provenance,
    RawAnswer,
    Verdict,
)
from proofloop.store import Store, find_record
from proofloop.typeset.printable import printable

MOST_NAMES = 10_000
"""The most proof names searched for ones similar to a wrong name."""


@dataclass(frozen=True)
class Page:
    """An answer to print. `fields`: facts of one line. `texts`: the parsed texts by heading."""

    name: str
    verdict: Verdict
    provenance: Provenance
    raw: RawAnswer | None
    fields: dict[str, Any]
    texts: dict[str, str]


def proof(
    run: Annotated[str, typer.Argument(help="The run's name.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="A proof (p1-000), its critique 3 (p1-000/critique-3), meta-critique 1 of critique"
            " 3 (p1-000/meta-3-1), of its self-evaluation (p1-000/meta-self-0), or an earlier"
            " attempt (p1-000/attempt-0). Without ID: a list of proofs.",
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Print the raw answer, reasoning first, instead of its parsed parts."
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one answer of a run.

    A proof is printed with a line for each critique, a critique with its meta-critiques. The raw
    answer is printed with --raw, and always if the answer was unreadable.
    """
    data = open_store(store, must_exist=True)
    need_run(data, run)
    if name is None:
        emit(list(_rows(data, run)), as_json=as_json, title="proofs")
        return
    page = _find(data, run, name)
    print(
        json.dumps(_as_json(page, raw=raw), indent=2, ensure_ascii=False)
        if as_json
        else _as_text(page, raw=raw)
    )


def _rows(store: Store, run: str) -> Iterator[dict[str, Any]]:
    for found in proofs_of(store, run):
        label = find_label(store, run, found.id)
        yield {
            "proof": found.id,
            "outcome": label.outcome if label else None,
            "score": label.score if label else None,
            "self_score": found.verdict.score,
            "tokens": found.provenance.completion_tokens,
            "unreadable_because": found.verdict.shared_reason or None,
        }


def _names(store: Store, run: str) -> Iterator[str]:
    for key in store.list(keys.proofs(run)):
        answer = keys.parse_answer(key)
        if answer is not None and answer.name == PROOF:
            yield answer.proof_id


def _find(store: Store, run: str, name: str) -> Page:
    """Raises ConfigError if the run has no answer of this name."""
    proof_id, _, part = name.partition("/")
    answer = _answer_name(part)
    check_id(proof_id, "proof")
    is_attempt = answer.kind == "attempt"
    key = keys.answer(run, proof_id, answer if is_attempt else PROOF)
    found = find_record(store, key, Proof)
    if found is None:
        raise _unknown(store, run, name, proof_id)
    page: Page | None
    match answer.kind:
        case "proof" | "attempt":
            return _proof_page(store, found, name)
        case "critique" | "unread":
            page = _critique_page(store, found, answer)
        case "meta":
            page = _meta_page(store, found, answer.index, answer.number)
    if page is None:
        raise ConfigError(
            f"{name!r} is not in the store",
            f"`proofloop proof {run} {proof_id}` lists the parts of the proof",
        )
    return page


def _answer_name(part: str) -> AnswerName:
    """The name after the proof's id; a bare number names a critique. Raises ConfigError."""
    answer = parse_answer_name(f"critique-{part}" if part.isdecimal() else part or str(PROOF))
    if answer is None or (part and answer.kind == "proof"):
        raise ConfigError(
            f"{part!r} does not name a part of a proof",
            "write critique-3, unread-3, meta-3-1, meta-self-0 or attempt-0",
        )
    return answer


def _unknown(store: Store, run: str, name: str, proof_id: str) -> ConfigError:
    near = difflib.get_close_matches(proof_id, list(islice(_names(store, run), MOST_NAMES)), n=3)
    similar = f"did you mean {' or '.join(near)}? " if near else ""
    return ConfigError(
        f"run {run!r} has no answer {name!r}", f"{similar}`proofloop proof {run}` lists its proofs"
    )


def _proof_page(store: Store, proof: Proof, name: str) -> Page:
    problem = find_record(store, keys.problem(proof.run_id, proof.problem_id), Problem)
    label = find_label(store, proof.run_id, proof.id) if name == proof.id else None
    own = {} if proof.given else {"self-score": proof.verdict.score}
    fields: dict[str, Any] = {"problem": proof.problem_id, **own}
    if label:
        solved = ", solved" if label.solved else ""
        fields["label"] = f"{label.outcome}, score {_score(label.score)} by {label.by}{solved}"
    if proof.parents:
        fields["refines"] = ", ".join(proof.parents)
    if name == proof.id:
        fields |= _parts(store, proof)
    texts = {"Problem": problem.question if problem else "", "Solution": proof.solution}
    texts |= {} if proof.given else {"Self-evaluation": proof.self_analysis}
    return Page(name, proof.verdict, proof.provenance, raw_of_proof(store, proof), fields, texts)


def _parts(store: Store, proof: Proof) -> dict[str, str]:
    """A line for each answer about the proof: its name, and its result."""
    lines = {}
    for number, _ in enumerate(store.list(keys.attempts(proof.run_id, proof.id))):
        lines[attempt_name(number).of(proof.id)] = "an earlier attempt"
    judged = _judged(store, proof, SELF_CRITIQUE)
    if judged:
        lines[f"{proof.id}/meta-{SELF}-..."] = f"its self-evaluation: {judged}"
    for critique in critiques_of(store, proof.run_id, proof.id):
        if store.exists(keys.unread_critique(proof.run_id, proof.id, critique.index)):
            name = unread_name(critique.index).of(proof.id)
            lines[name] = "unreadable; the critique was requested again"
        parts = [_verdict(critique.verdict), _judged(store, proof, critique.index)]
        lines[critique_name(critique.index).of(proof.id)] = ", ".join(filter(None, parts))
    return lines


def _judged(store: Store, proof: Proof, index: int) -> str:
    judgement = find_judgement(store, proof.run_id, proof.id, index)
    if judgement is None or judgement.confirmed is None:
        return ""
    return "confirmed" if judgement.confirmed else "not confirmed"


def _critique_page(store: Store, proof: Proof, answer: AnswerName) -> Page | None:
    index, name = answer.index, answer.of(proof.id)
    critique = find_record(store, keys.answer(proof.run_id, proof.id, answer), Critique)
    if critique is None:
        return None
    fields: dict[str, Any] = {"proof": proof.id, "score": critique.verdict.score}
    texts = {"Critique": critique.analysis}
    if answer.kind == "critique":
        if judged := _judged(store, proof, index):
            fields["judged"] = judged
        for number, meta in meta_critiques_of(store, proof.run_id, proof.id, index).items():
            texts[f"{meta_name(index, number)}: {_verdict(meta.verdict)}"] = meta.analysis
    return Page(name, critique.verdict, critique.provenance, critique.raw, fields, texts)


def _meta_page(store: Store, proof: Proof, index: int, number: int) -> Page | None:
    meta = find_record(
        store, keys.meta_critique(proof.run_id, proof.id, index, number), MetaCritique
    )
    if meta is None:
        return None
    fields = {"proof": proof.id, "critique": index_name(index), "score": meta.verdict.score}
    name = meta_name(index, number).of(proof.id)
    return Page(
        name, meta.verdict, meta.provenance, meta.raw, fields, {"Meta-critique": meta.analysis}
    )


def _as_json(page: Page, *, raw: bool) -> dict[str, Any]:
    shown = {
        "id": page.name,
        "outcome": page.verdict.outcome,
        "reason": page.verdict.reason,
        **{name.replace(" ", "_"): value for name, value in page.fields.items()},
        "texts": page.texts,
        "provenance": page.provenance.model_dump(),
    }
    return {**shown, "raw": _whole_raw(page)} if raw else shown


def _whole_raw(page: Page) -> dict[str, Any] | None:
    """The raw answer with its text. Its record leaves out a text that equals the parsed one."""
    if page.raw is None:
        return None
    text = next(iter(page.texts.values())) if page.raw.text is None else page.raw.text
    return {**page.raw.model_dump(), "text": text}


def _as_text(page: Page, *, raw: bool) -> str:
    made = page.provenance
    served = f", served as {made.served_by}" if made.served_by else ""
    sampled = [
        f"model: {made.model_version}{served}; finish reason {made.finish_reason or 'none'}; seed"
        f" {made.seed}",
        f"tokens: {made.prompt_tokens} prompt, {made.completion_tokens} answer;"
        f" {made.engine_seconds:.1f} s",
    ]
    lines = [
        _headline(page),
        *(sampled if made.is_sampled else ()),
        *(f"{name}: {_score(value)}" for name, value in page.fields.items()),
    ]
    texts = page.texts
    if made.is_sampled and (raw or page.verdict.score is None):
        texts = {
            **({"Problem": texts["Problem"]} if "Problem" in texts and not raw else {}),
            **_raw_texts(page),
        }
    for heading, text in texts.items():
        lines += ["", f"--- {heading}", text]
    return printable("\n".join(lines))


def _headline(page: Page) -> str:
    """The answer's name, and why it has no score. The fields have the score."""
    if not page.provenance.is_sampled:
        return f"{page.name}: given with the run"
    return page.name if page.verdict.score is not None else f"{page.name}: {_verdict(page.verdict)}"


def _raw_texts(page: Page) -> dict[str, str]:
    raw = _whole_raw(page)
    if raw is None:
        return {"Raw answer": "(not stored)"}
    cut = f" ({raw['left_out']} characters are left out)" if raw["left_out"] else ""
    reasoning = {f"Reasoning{cut}": raw["reasoning"]} if raw["reasoning"] else {}
    return {**reasoning, f"Raw answer{cut}": raw["text"] or "(empty)"}


def _verdict(verdict: Verdict) -> str:
    if verdict.score is not None:
        return f"score {_score(verdict.score)}"
    return f"{verdict.outcome.replace('_', ' ')}: {verdict.reason}"


def _score(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
