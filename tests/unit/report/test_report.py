"""The report of a run and its costs: what is told, what is left out, and that no text of a model
becomes markup.
"""

from __future__ import annotations

import builtins
import re
import tomllib
from base64 import b64encode
from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.errors import ConfigError
from proofloop.report import read_report, write_report
from proofloop.report.axes import smooth, spread, thin, ticks
from proofloop.report.clipping import clip
from proofloop.report.data import Windows, read_summary
from proofloop.report.line_charts import WIDTH, Series, line_chart, short
from proofloop.report.numbers import count, duration, money, share, version
from proofloop.report.runfile import run_file
from proofloop.report.samples import MAX_SAMPLES
from proofloop.report.verdict import changes, verdict
from proofloop.runs.costs import Spent, costs
from proofloop.runs.model_registry import put_in_service
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Judgement,
    Label,
    MetaCritique,
    Problem,
    Proof,
    Provenance,
    RawAnswer,
    Sampling,
    TrainingStep,
    Verdict,
)
from proofloop.store import LocalStore, Store, put_record
from tests.builders import visible

QUESTION = "Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0."
RIGHT, SLIP = "a 7 + 3 = 0\nb 0 * 4 = 0", "a 7 + 3 = 1\nb 1 * 4 = 4"
EVALUATION = (
    "Here is my evaluation of the solution:\n{}\n\n"
    "Based on my evaluation, the final overall score should be:\n\\boxed{{{}}}"
)
WRITTEN = date(2026, 11, 22)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def begin(store: Store, **fields: Any) -> RunSpec:
    spec = parse_runspec(
        {
            "name": "tried",
            "prompts": "nano",
            "problems": {"domain": "nano", "count": 4, "proofs_per_problem": 2},
            **fields,
        },
        "a test",
    )
    store.put_if_absent(keys.run_spec(spec.name), spec.model_dump_json().encode())
    return spec


def called(
    model: str = "base", prompt: int = 10, completion: int = 20, seconds: float = 0.5
) -> Provenance:
    return Provenance(
        model_version=model,
        prompt_digest="d",
        seed=1,
        sampling=Sampling(),
        prompt_tokens=prompt,
        completion_tokens=completion,
        engine_seconds=seconds,
    )


def scored(score: float | None) -> Verdict:
    return (
        Verdict(outcome="malformed", reason="no score")
        if score is None
        else Verdict(outcome="valid", score=score)
    )


def write_proof(
    store: Store,
    proof_id: str = "p1-000",
    *,
    solution: str = RIGHT,
    question: str = QUESTION,
    self_analysis: str = EVALUATION.format("No issue was found.", 1),
    own: float | None = 1.0,
    model: str = "base",
    outcome: str = "",
) -> Proof:
    problem_id = proof_id.rsplit("-", 1)[0]
    put_record(store, keys.problem("tried", problem_id), Problem(id=problem_id, question=question))
    proof = Proof(
        id=proof_id,
        run_id="tried",
        problem_id=problem_id,
        group=problem_id,
        solution=solution,
        self_analysis=self_analysis,
        verdict=Verdict(outcome=outcome, reason="the engine is gone") if outcome else scored(own),
        provenance=called(model),
        verifier_version="base",
    )
    return put_record(store, keys.proof("tried", proof_id), proof)


def criticise(
    store: Store, proof: Proof, index: int, score: float, body: str, metas: Sequence[float] = ()
) -> None:
    text = EVALUATION.format(body, f"{score:g}")
    critique = Critique(
        proof_id=proof.id,
        index=index,
        analysis=text,
        verdict=scored(score),
        provenance=called(prompt=100, completion=40),
    )
    put_record(store, keys.critique("tried", proof.id, index), critique)
    confirmed = sum(metas) > len(metas) / 2 if metas else None
    judgement = Judgement(
        proof_id=proof.id, index=index, verdict=scored(score), confirmed=confirmed, quality=1.0
    )
    put_record(store, keys.judgement("tried", proof.id, index), judgement)
    for number, meta in enumerate(metas):
        called_for = called(prompt=200, completion=8)
        record = MetaCritique(analysis="meta says so", verdict=scored(meta), provenance=called_for)
        put_record(store, keys.meta_critique("tried", proof.id, index, number), record)


def give_label(
    store: Store,
    proof: Proof,
    kind: str,
    score: float | None,
    *,
    carrying: tuple[int, ...] = (),
    solved: bool = False,
) -> None:
    label = Label(
        run_id="tried",
        proof_id=proof.id,
        problem_id=proof.problem_id,
        group=proof.group,
        outcome={"overturned": "accepted", "rejected_upheld": "rejected"}.get(kind, kind),
        kind=kind,
        score=score,
        self_quality=1.0,
        critiques=carrying,
        trigger=0,
        solved=solved,
    )
    put_record(store, keys.label("tried", proof.id), label)


def rejected_proof(store: Store, proof_id: str = "p1-000") -> Proof:
    proof = write_proof(store, proof_id, solution=SLIP)
    criticise(store, proof, 0, 0.0, "Step a is miscalculated.", metas=(1.0, 1.0))
    criticise(store, proof, 1, 0.0, "Step b is missing: 1 * 4 = 4.", metas=(0.0, 0.0, 1.0))
    give_label(store, proof, "rejected_upheld", 0.0, carrying=(0,))
    return proof


def page_of(store: Store, tmp_path: Path, summary: dict[str, Any] | None = None) -> str:
    file = tmp_path / "out" / "report.html"
    write_report(read_report(store, "tried", summary, written=WRITTEN), file)
    return file.read_text("utf-8")


def measured(value: float | None, half: float = 0.02, cases: int = 100) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "cases": 0}
    return {"value": value, "low": value - half, "high": value + half, "cases": cases}


# Costs


def test_costs_add_up_by_role(store: Store) -> None:
    begin(
        store,
        prices={
            "per_million_prompt_tokens": 1.0,
            "per_million_completion_tokens": 10.0,
            "per_engine_hour": 3600.0,
        },
    )
    rejected_proof(store)
    found = costs(store, "tried")
    assert found.by_role["generator"] == Spent(1, 10, 20, 0.5, pytest.approx(10e-6 + 200e-6 + 0.5))
    assert found.by_role["verifier"] == Spent(2, 200, 80, 1.0, pytest.approx(200e-6 + 800e-6 + 1.0))
    assert found.by_role["meta_verifier"] == Spent(
        5, 1000, 40, 2.5, pytest.approx(1000e-6 + 400e-6 + 2.5)
    )
    assert found.total.calls == 8
    assert found.priced


def test_costs_share_everything_among_the_solved_problems(store: Store) -> None:
    begin(store)
    for proof_id, kind, score, solved in (
        ("p1-000", "accepted", 1.0, True),
        ("p1-001", "accepted", 1.0, True),
        ("p2-000", "overturned", 1.0, False),
        ("p3-000", "undecided", None, False),
    ):
        give_label(store, write_proof(store, proof_id), kind, score, solved=solved)
    write_proof(store, "p4-000")
    found = costs(store, "tried")
    assert (found.problems, found.solved_problems, found.accepted_problems) == (4, 1, 2)
    assert (found.proofs, found.labeled_proofs, found.priced) == (5, 4, False)
    assert found.per_problem == Spent(1.25, 12.5, 25, 0.625)
    assert found.per_solved_problem == Spent(5, 50, 100, 2.5)
    assert [type(each.calls) for each in (found.per_problem, found.per_solved_problem)] == [
        float,
        int,
    ]
    assert found.per_accepted_problem == Spent(2.5, 25, 50, 1.25)


def test_costs_of_an_empty_run_have_no_mean(store: Store) -> None:
    begin(store)
    found = costs(store, "tried")
    assert (found.total, found.per_problem, found.per_solved_problem) == (Spent(), None, None)


def test_costs_name_a_run_that_is_not_there(store: Store) -> None:
    with pytest.raises(ConfigError, match="there is no run 'lost'"):
        costs(store, "lost")


def test_attempts_before_the_proof_cost_as_well(store: Store) -> None:
    begin(store)
    proof = write_proof(store)
    put_record(store, keys.attempt("tried", proof.id, 0), proof)
    assert costs(store, "tried").by_role["generator"].calls == 2


def test_costs_read_no_tokens(store: Store) -> None:
    begin(store)
    proof = write_proof(store)
    store.put_if_absent(keys.tokens("tried", proof.id, "proof", "abc"), b"not json")
    assert costs(store, "tried").total.calls == 1


# What the page holds


def test_report_is_one_file_that_loads_nothing(store: Store, tmp_path: Path) -> None:
    begin(store)
    rejected_proof(store)
    page = page_of(store, tmp_path)
    assert page.startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)=(?!["'](?:#|data:))""", page)
    assert not re.search(r"@import|url\((?!#)|<script", page)


def test_report_with_formulas_has_scripts_and_fonts_for_them(store: Store, tmp_path: Path) -> None:
    begin(store)
    write_proof(store, solution="Let $x < y$. **So** it is.")
    page = page_of(store, tmp_path)
    assert '<code class="formula">$x &lt; y$</code>' in page
    assert "<strong>So</strong>" in page
    assert page.count("<script>") == 2 and page.count("font/woff2;base64") == 20
    assert not re.search(r"""(?:src|href)=(?!["'](?:#|data:))""", page.partition("<script>")[0])
    digests = [
        b64encode(sha256(script.encode()).digest()).decode()
        for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    policy = page.partition("Content-Security-Policy")[2].partition(">")[0]
    assert all(f"'sha256-{digest}'" in policy for digest in digests)


def test_report_shows_texts_of_models_as_text(store: Store, tmp_path: Path) -> None:
    attack = (
        "</pre></article><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} &"
        " \x00\x1b \u0085"
    )
    begin(store)
    proof = write_proof(store, solution=attack)
    criticise(store, proof, 0, 0.0, attack, metas=(1.0,))
    give_label(store, proof, "rejected_upheld", 0.0)
    page = page_of(store, tmp_path)
    assert "<script" not in page and "<img" not in page
    assert (
        visible(page).count(
            "</pre></article><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} &"
        )
        == 2
    )
    assert not re.search("[\x00\x1b\x85]", page)


def test_report_puts_the_exact_checker_beside_the_loop(store: Store, tmp_path: Path) -> None:
    begin(store)
    rejected_proof(store)
    seen = visible(page_of(store, tmp_path))
    assert "Exact checker, not used in training: true score 0 step a miscalculated" in seen
    assert (
        "Exact checker, not used in training: faithful; it claims step a miscalculated. Quality 1"
        in seen
    )
    assert "not faithful; it claims step b missing (1 * 4 = 4). Quality 0" in seen


def test_report_says_what_the_meta_verifier_made_of_a_critique(
    store: Store, tmp_path: Path
) -> None:
    begin(store)
    rejected_proof(store)
    seen = visible(page_of(store, tmp_path))
    assert "critique 0 confirmed , carries the label" in seen
    assert "critique 1 overturned" in seen
    assert "meta says so" in seen


def test_report_of_real_problems_has_no_checker_and_keeps_long_proofs(
    store: Store, tmp_path: Path
) -> None:
    rows = tmp_path / "problems.json"
    rows.write_text('[{"id": "p1", "question": "Prove it."}]', "utf-8")
    begin(store, problems={"file": str(rows)}, base=str(tmp_path))
    proof = write_proof(store, solution="Let $x<y$.\n" * 2000)
    give_label(store, proof, "accepted", 1.0)
    seen = visible(page_of(store, tmp_path))
    assert seen.count("Let $x<y$ .") == 2000
    assert "xact checker" not in seen


def test_report_stays_below_a_megabyte_with_the_longest_texts(store: Store, tmp_path: Path) -> None:
    begin(store)
    long = "<&∀" * 15_000
    for number in range(MAX_SAMPLES * 2):
        proof = write_proof(
            store, f"p{number}-000", solution=long, question=long, self_analysis=long
        )
        for index in range(8):
            criticise(store, proof, index, 0.0, long, metas=(1.0, 1.0, 1.0))
        give_label(
            store,
            proof,
            ("accepted", "rejected_upheld", "overturned", "undecided")[number % 4],
            1.0,
        )
    page = page_of(store, tmp_path)
    assert len(page.encode()) < 1_000_000
    assert page.count("more characters are in the store") > MAX_SAMPLES


def test_report_of_a_run_that_has_just_begun(store: Store, tmp_path: Path) -> None:
    begin(store)
    seen = visible(page_of(store, tmp_path))
    assert "No proof is written yet." in seen
    assert "No proof has a label yet." in seen


def test_report_of_proofs_without_labels(store: Store, tmp_path: Path) -> None:
    begin(store)
    write_proof(store)
    seen = visible(page_of(store, tmp_path))
    assert "No label yet: 1 of 8 proofs are written." in seen
    assert "no label yet self-score 1" in seen


def test_report_works_without_the_problem_file(store: Store, tmp_path: Path) -> None:
    begin(store, problems={"file": "gone.json"}, base=str(tmp_path))
    give_label(store, write_proof(store), "accepted", 1.0)
    data = read_report(store, "tried")
    assert (data.planned, data.kinds["accepted"], data.windows[0].first) == (None, 1, 1)


def test_report_says_how_many_proofs_the_engine_never_answered(
    store: Store, tmp_path: Path
) -> None:
    begin(store)
    give_label(store, write_proof(store, outcome="engine_failed"), "unreadable", None)
    seen = visible(page_of(store, tmp_path))
    assert "The engine failed to answer for 1 of 1 proofs" in seen
    assert "Answer: engine failed the engine is gone" in seen


def test_report_shows_what_a_model_wrote_where_it_cannot_be_read(
    store: Store, tmp_path: Path
) -> None:
    begin(store)
    key = keys.raw_answer("tried", "p1-000", "proof", "ab")
    put_record(store, key, RawAnswer(text="<script>alert(1)</script> I give up.", reasoning="Hm."))
    unreadable = write_proof(store, "p2-000", outcome="malformed").model_copy(
        update={"id": "p1-000", "raw_key": key}
    )
    put_record(store, keys.proof("tried", "p1-000"), unreadable)
    give_label(store, unreadable, "unreadable", None)
    page = page_of(store, tmp_path)
    assert '<details class="critique"><summary>Raw answer</summary>' in page
    assert "<script>alert(1)" not in page
    seen = visible(page)
    assert "<script>alert(1)</script> I give up." in seen
    assert "Unreadable and failed answers" in seen
    assert "the engine is gone generator 2 2 p1-000" in seen


def test_report_draws_the_learning_curves(store: Store, tmp_path: Path) -> None:
    training = {"verifier": {"steps": 20}, "generator": {"steps": 20}}
    begin(store, training=training, labeling={"stop_early": False})
    for role in ("verifier", "generator"):
        for number in range(1, 21):
            step = TrainingStep(
                run_id="tried",
                role=role,
                step=number,
                version=keys.model("tried", role, number),
                sampled_by=("base",),
                figures={"mean_reward": number / 20, "kl": float("nan"), "clip_share": 0.0},
                reward_parts={"format": 1.0, "brand_new": 0.5},
            )
            put_record(store, keys.step("tried", role, number), step)
    page = page_of(store, tmp_path)
    drawings = [
        ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ]
    titles = [drawing.findtext("title") for drawing in drawings]
    assert titles == [
        "Mean reward by training step",
        "Reward parts of the verifier by training step",
        "Reward parts of the generator by training step",
        "Clip share by training step",
    ]
    assert (
        drawings[0].findtext("desc")
        == "generator: 0.05 at step 1, 1.00 at step 20; verifier: 0.05 at step 1, 1.00 at step 20"
    )
    assert "brand_new" in visible(page)


def test_report_tells_which_version_served_and_why(store: Store, tmp_path: Path) -> None:
    spec = begin(store, models={"generator": "base"})
    name = keys.model("tried", "generator", 3)
    put_in_service(store, spec.name, "generator", name)
    write_proof(store, "p1-000")
    write_proof(store, "p2-000", model=name)
    seen = visible(page_of(store, tmp_path))
    assert "generator 2 versions, now step 3" in seen
    assert "step 3 published by the trainer; 1 call from problem" in seen


def test_report_counts_answers_under_a_name_of_the_servers_own(
    store: Store, tmp_path: Path
) -> None:
    begin(store, models={"generator": "big"})
    write_proof(store, model="big-2026-11")
    seen = visible(page_of(store, tmp_path))
    assert (
        "big named in the run file; no call yet big-2026-11 reported by the server; 1 call" in seen
    )
    assert "by big-2026-11" in seen


def test_samples_show_every_kind_and_both_ends_of_the_run(store: Store) -> None:
    begin(store, models={"generator": "base"})
    versions = [keys.model("tried", "generator", step) for step in (1, 2)]
    for model in versions:
        put_in_service(store, "tried", "generator", model)
    for model in ("base", *versions):
        for kind, score in (
            ("accepted", 1.0),
            ("rejected_upheld", 0.0),
            ("overturned", 1.0),
            ("undecided", None),
            ("unreadable", None),
        ):
            for number in range(30):
                proof = write_proof(store, f"p{model[-1]}{kind}-{number:03d}", model=model)
                give_label(store, proof, kind, score)
    samples = read_report(store, "tried").samples
    assert len(samples) == MAX_SAMPLES
    assert {sample.label.kind for sample in samples if sample.label} == {
        "accepted", "rejected_upheld", "overturned", "undecided", "unreadable",
    }  # fmt: skip
    assert {sample.version for sample in samples} == {"base", versions[-1]}
    assert samples == read_report(store, "tried").samples


# The verdict


def test_verdict_says_what_rose_and_what_fell(store: Store) -> None:
    begin(store)
    before = {
        "pass_at_1": measured(0.52),
        "verifier_accuracy": measured(0.9),
        "label_undecided": measured(0.1),
    }
    after = {
        "pass_at_1": measured(0.81),
        "verifier_accuracy": measured(0.89),
        "label_undecided": measured(0.3),
    }
    data = read_report(store, "tried", {"seconds": 1.0, "before": before, "after": after})
    assert verdict(data).replace("\u00a0", " ") == (
        "Pass@1 rose from 52 % to 81 %, the verifier's accuracy fell from 90 % to 89 % (their 95 %"
        " intervals overlap) "
        "and the share of undecided labels rose from 10 % to 30 %."
    )


def test_verdict_leaves_out_what_was_not_measured(store: Store) -> None:
    begin(store)
    figures = {"pass_at_1": measured(None), "verifier_accuracy": measured(0.5)}
    data = read_report(store, "tried", {"seconds": 1.0, "before": figures, "after": figures})
    assert verdict(data).replace("\u00a0", " ") == "The verifier's accuracy stayed at 50 %."


def test_verdict_of_a_run_without_a_summary_counts_its_labels(store: Store) -> None:
    begin(store)
    give_label(store, write_proof(store, "p1-000"), "accepted", 1.0)
    rejected_proof(store, "p2-000")
    assert verdict(read_report(store, "tried")).replace("\u00a0", " ") == (
        "1 of 2 problems have a proof labeled 1, and 50 % of all labeled proofs have label 1, "
        "with 2 of 8 proofs labeled so far."
    )


def test_a_figure_is_better_or_worse_only_when_its_intervals_do_not_overlap() -> None:
    names = ("pass_at_1", "self_eval_error", "verifier_accuracy", "label_agreement")
    before = {name: measured(0.5) for name in names}
    after = dict(zip(names, map(measured, (0.6, 0.6, 0.51, None)), strict=True))
    summary = read_summary({"before": before, "after": after})
    assert [change.judgement for change in changes(summary)] == [
        "better",
        "worse",
        "unclear",
        "unclear",
    ]


def test_summary_stands_at_the_top_of_the_page(store: Store, tmp_path: Path) -> None:
    begin(store)
    summary = {
        "seconds": 432.3,
        "before": {"pass_at_1": measured(0.52)},
        "after": {"pass_at_1": measured(0.81)},
    }
    seen = visible(page_of(store, tmp_path, summary))
    assert "duration 7 min 12 s" in seen
    assert "52 % 50 to 54 % 100 cases" in seen


def test_a_proof_that_is_still_refined_costs_its_attempts_and_is_no_proof_yet(
    store: LocalStore,
) -> None:
    begin(store)
    give_label(store, write_proof(store, "p1-000"), "accepted", 1.0)
    attempt = write_proof(store, "p2-000", own=0.0, model="newer")
    for number, given in enumerate((scored(0.0), Verdict(outcome="engine_failed", reason="gone"))):
        record = attempt.model_copy(update={"verdict": given})
        put_record(store, keys.attempt("tried", "p2-000", number), record)
    store.path(keys.proof("tried", "p2-000")).unlink()
    data = read_report(store, "tried")
    assert data.costs.by_role["generator"] == Spent(3, 30, 60, 1.5)
    assert (
        data.costs.problems,
        data.costs.proofs,
        data.costs.labeled_proofs,
        data.failed_proofs,
    ) == (2, 1, 1, 0)
    assert {line.version: line.calls for line in data.versions["generator"]}["newer"] == 2
    assert [sample.proof_id for sample in data.samples] == ["p1-000"]


# The parts


def test_windows_double_when_there_would_be_too_many(store: Store) -> None:
    windows = Windows()
    begin(store)
    give_label(store, write_proof(store), "accepted", 1.0)
    from proofloop.runs.costs import bills

    (bill,) = bills(store, "tried")
    for number in range(1, 1001):
        windows.add(number, bill)
    read = windows.read()
    assert (read[0].first, read[0].last, len(read)) == (1, 32, 32)
    assert windows.totals["accepted"] == 1000


def test_run_file_begins_the_same_run(store: Store, tmp_path: Path) -> None:
    spec = begin(
        store,
        engine={
            "kind": "triton",
            "settings": {"chat_template": 'a/"quoted"\n', "extra": {"a b": [1, {"c": True}]}},
        },
        models={"generator": "g", "verifier": "v", "meta_verifier": "m"},
        training={"generator": {"steps": 2, "settings": {"clip_low": 0.1}}},
        base=str(tmp_path),
    )
    assert (
        parse_runspec({**tomllib.loads(run_file(spec)), "base": str(tmp_path)}, "the report")
        == spec
    )


def test_run_file_withholds_secrets(store: Store) -> None:
    spec = begin(
        store,
        engine={
            "kind": "openai",
            "settings": {
                "extra": {"token": "s3cret"},
                "headers": {"X": "s3cret"},
                "tokens": 7,
            },
        },
        models={"generator": "g", "verifier": "v", "meta_verifier": "m"},
    )
    assert "s3cret" not in run_file(spec)
    assert "tokens = 7" in run_file(spec)


def test_clip_counts_bytes_as_they_stand_in_html() -> None:
    assert (clip("<<<<", 9).shown, clip("<<<<", 9).left_out) == ("<<", 2)
    assert clip("∀x", 4).left_out == 0
    assert clip("a\x00\ud800b", 10).shown == "a\ufffd?b"
    assert (clip("a\u202eb", 13).shown, clip("a\u202eb", 12).left_out) == ("a⟨U+202E⟩", 2)


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert ticks(0.31, 0.88, 4) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 5, 4, whole=True) == [1, 2, 3, 4, 5]
    assert ticks(0.5, 0.5, 4)[0] < 0.5 < ticks(0.5, 0.5, 4)[-1]


def test_names_at_line_ends_are_kept_apart() -> None:
    assert spread([50, 52, 10], 13, 0, 100) == [50, 63, 10]
    assert spread([99, 98], 13, 0, 100) == [100, 87]


def test_a_long_name_at_a_lines_end_takes_room_from_the_line() -> None:
    def right(name: str) -> float:
        series = [Series(name, "verifier", ((1, 0.5), (2, 0.6)))]
        return line_chart("chart", "Chart", "meaning", series, short).right

    assert right("predicted score") < right("score") < WIDTH


def test_long_curves_are_thinned_and_smoothed() -> None:
    points = tuple((float(x), float(x % 2)) for x in range(1000))
    assert len(thin(points)) <= 120
    assert max(y for _, y in smooth(points)) < 0.6
    assert smooth(points[:5]) == points[:5]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (share(0.524), "52 %"),
        (share(0.004), "0.4 %"),
        (share(1.0), "100 %"),
        (count(1234), "1,234"),
        (count(12.34), "12.3"),
        (count(1.5e6), "1.50 million"),
        (money(0.0000448), "0.000045"),
        (money(0.42), "0.42"),
        (money(1234.5), "1,234.50"),
        (duration(0.25), "0.2 s"),
        (duration(432), "7 min 12 s"),
        (duration(7500), "2 h 5 min"),
        (version("runs/a/models/verifier/000012"), "step 12"),
        (version("nano-base"), "nano-base"),
    ],
)
def test_numbers_are_written_for_readers(shown: str, expected: str) -> None:
    assert shown.replace("\u00a0", " ") == expected


def test_report_without_jinja_says_what_to_install(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store)
    data = read_report(store, "tried")
    real = builtins.__import__

    def without_jinja(name: str, *rest: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_jinja)
    with pytest.raises(ConfigError, match="shared\\[report\\]"):
        write_report(data, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
