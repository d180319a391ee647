"""The nano domain's exact checker: what a proof is worth, and whether a critique holds up."""

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.errors import ConfigError
from proofloop.method.domains import load_domain
from proofloop.method.domains.base import CritiqueFinding, Defect, ProofFinding
from proofloop.method.domains.nano import (
    FLAW_KINDS,
    Chain,
    NanoDomain,
    calculate,
    check_critique,
    check_proof,
    draw_chain,
    omission,
    parse_proof,
    parse_question,
    render_analysis,
    render_proof,
    render_question,
    score_of,
    true_lines,
)

DOMAIN = NanoDomain()
QUESTION = "Modulo 10, start at 7. a + 3. b * 4. c - 5. d + 9. Show that the result is 4."
PROOF = "a 7 + 3 = 0\nb 0 * 4 = 0\nc 0 - 5 = 5\nd 5 + 9 = 4"
CHAINS = st.integers(0, 2**32).map(lambda seed: draw_chain(random.Random(seed), 2, 8))


def check(proof: str) -> ProofFinding:
    return check_proof(QUESTION, proof)


def test_a_complete_and_correct_proof_scores_one():
    assert check(PROOF) == ProofFinding(1.0, ())


def test_long_chains_are_of_the_same_domain():
    question = NanoDomain("nano-long").pose(0, split="test", seed=0).question
    chain = parse_question(question)
    assert len(chain.steps) in (7, 8)
    assert check_proof(question, render_proof(true_lines(chain))) == ProofFinding(1.0, ())
    with pytest.raises(ConfigError, match=r"nano-huge") as caught:
        load_domain("nano-huge")
    assert "nano, nano-long" in caught.value.hint


def test_blank_space_changes_nothing():
    assert check("\r\n  a 7  +3=0 \n\nb 0 * 4 = 0\t\nc 0-5 = 5\nd 5 + 9 = 4\n\n") == ProofFinding(
        1.0, ()
    )


def test_one_omitted_step_scores_a_half_and_two_score_zero():
    a, b, c, d = PROOF.splitlines()
    assert check("\n".join([a, c, d])) == ProofFinding(
        0.5, (Defect("b", "missing", "0 * 4 = 0, then c 0"),)
    )
    assert check("\n".join([a, b, c])) == ProofFinding(0.5, (Defect("d", "missing", "5 + 9 = 4"),))
    first, last = Defect("a", "missing", "7 + 3 = 0, then b 0"), Defect("d", "missing", "5 + 9 = 4")
    assert check("\n".join([b, c])) == ProofFinding(0.0, (first, last))


def test_omitted_steps_in_a_row_show_lines_that_follow_one_another():
    a, _, _, d = PROOF.splitlines()
    omitted = (Defect("b", "missing", "1 * 4 = 4"), Defect("c", "missing", "4 - 5 = 9"))
    assert check(a.replace("= 0", "= 1")).defects[1:3] == omitted
    lost = (omitted[0], Defect("c", "missing", "4 - 5 = 9, then d 5"), Defect("d", "miscopied"))
    assert check(f"{a[:-1]}1\n{d}").defects[1:] == lost


def test_a_wrong_result_carried_on_consistently_is_one_defect():
    assert check("a 7 + 3 = 1\nb 1 * 4 = 4\nc 4 - 5 = 9\nd 9 + 9 = 8") == ProofFinding(
        0.0, (Defect("a", "miscalculated"),)
    )


@pytest.mark.parametrize("line", ["b 1 * 4 = 4", "b 0 + 4 = 4", "b 0 * 5 = 0"])
def test_a_wrong_value_operator_or_operand_is_miscopied(line):
    a, _, _, _ = PROOF.splitlines()
    finding = check(f"{a}\n{line}")
    assert finding.score == 0.0
    assert finding.defects[0] == Defect("b", "miscopied")


def test_a_line_may_be_miscopied_and_miscalculated():
    assert check(PROOF.replace("d 5 + 9 = 4", "d 6 + 9 = 4")).defects == (
        Defect("d", "miscopied"),
        Defect("d", "miscalculated"),
    )


@pytest.mark.parametrize(
    "proof",
    [
        PROOF + "\nd 5 + 9 = 4",
        PROOF + "\ne 4 + 1 = 5",
        "b 0 * 4 = 0\n" + PROOF,
        PROOF + "\nQED",
        PROOF.replace("a 7", "a ７"),
        PROOF.replace("\n", " "),
        "",
    ],
)
def test_duplicate_extra_disordered_and_unreadable_lines_score_zero_and_say_why(proof):
    finding = check(proof)
    assert finding.score == 0.0
    assert finding.defects


def test_a_megabyte_of_anything_is_refused_at_once():
    began = time.perf_counter()
    for text in (
        "a" * 10**6,
        "a 1 + 1 = 2\n" * 10**5,
        "\n" * 10**6,
        " " * 10**6,
        "Step a is missing: 1 + 1 = 2.\n" * 10**5,
    ):
        assert check(text).score == 0.0
        assert not check_critique(QUESTION, text, text).faithful
    assert time.perf_counter() - began < 1.0


def test_a_foreign_question_has_no_exact_checker():
    for question in (
        "Prove that 2 is even.",
        QUESTION.replace("result is 4", "result is 5"),
        "x" * 10**6,
    ):
        with pytest.raises(LookupError):
            check_proof(question, PROOF)


GAP = PROOF.replace("c 0 - 5 = 5\n", "")
WRONG = PROOF.replace("c 0 - 5 = 5\nd 5 + 9 = 4", "c 0 - 5 = 6\nd 6 + 9 = 5")


@pytest.mark.parametrize(
    ("proof", "analysis", "quality", "faithful"),
    [
        (WRONG, "Step c is miscalculated.", 1.0, True),
        (WRONG, "Step c is miscopied.", 0.0, False),
        (WRONG, "Step c is miscalculated.\nStep d is miscopied.", 0.5, False),
        (WRONG, "No issue was found.", 1.0, False),
        (PROOF, "No issue was found.", 1.0, True),
        (PROOF, "Step a is missing: 7 + 3 = 0.", 0.0, False),
        (GAP, "Step c is missing: 0 - 5 = 5, then d 5.", 1.0, True),
        (GAP, " Step c  is missing: 0-5=5,  then d 5.\n", 1.0, True),
        (GAP, "Step c is missing: 0 - 5 = 5.", 0.0, False),
        (GAP, "Step c is missing: 0 - 5 = 5, then d 6.", 0.0, False),
        (GAP, "Step c is missing: 0 - 5 = 6, then d 5.", 0.0, False),
        (GAP, "Step c is missing: 1 - 5 = 6, then d 5.", 0.0, False),
        (GAP, "Step c is missing.", 0.5, False),
        (GAP, "Step c is missing: 0 - 5 = 5, then d 5.\nStep d is miscopied.", 0.5, False),
        (PROOF, "All good!", 0.5, False),
        (WRONG, "Step c is miscalculated.\nNo issue was found.", 0.5, False),
    ],
)
def test_a_critique_is_as_good_as_its_claims(proof, analysis, quality, faithful):
    finding = check_critique(QUESTION, proof, analysis)
    assert (finding.quality, finding.faithful) == (quality, faithful)


def test_a_score_that_does_not_follow_from_the_defects_halves_the_quality():
    frame = (
        "Here is my evaluation of the solution:\nStep c is miscalculated.\n\n"
        "Based on my evaluation, the final overall score should be:\n\\boxed{%s}"
    )
    claims = (Defect("c", "miscalculated"),)
    assert check_critique(QUESTION, WRONG, frame % "0") == CritiqueFinding(claims, 1.0, True)
    assert check_critique(QUESTION, WRONG, frame % "1") == CritiqueFinding(claims, 0.5, True)


def test_posing_is_repeatable_and_the_splits_share_no_problem():
    posed = {
        split: [DOMAIN.pose(index, split=split, seed=0) for index in range(300)]
        for split in ("train", "validation", "test")
    }
    again = [DOMAIN.pose(index, split="test", seed=0) for index in range(300)]
    ids = {split: {problem.id for problem in problems} for split, problems in posed.items()}
    assert again == posed["test"]
    assert (
        not ids["train"] & ids["test"]
        and not ids["train"] & ids["validation"]
        and not ids["test"] & ids["validation"]
    )
    assert len(ids["train"]) > 290


def test_an_unknown_split_names_the_way_out():
    with pytest.raises(ConfigError, match="train, validation, test"):
        DOMAIN.pose(0, split="dev", seed=0)


@given(CHAINS)
def test_questions_and_proofs_read_back_as_written(chain: Chain):
    assert parse_question(render_question(chain)) == chain
    assert parse_proof(render_proof(true_lines(chain))) == true_lines(chain)


@given(CHAINS, st.data())
def test_one_inserted_flaw_is_found_where_it_is(chain: Chain, data: st.DataObject):
    lines = list(true_lines(chain))
    place = data.draw(st.integers(0, len(lines) - 1))
    kind = data.draw(st.sampled_from(FLAW_KINDS))
    shift = data.draw(st.integers(1, 9))
    line = lines.pop(place)
    if kind == "miscalculated":
        lines.insert(place, replace(line, result=(line.result + shift) % 10))
    elif kind == "miscopied":
        wrong = (line.operand + shift) % 10
        lines.insert(
            place, replace(line, operand=wrong, result=calculate(line.value, line.operator, wrong))
        )
    defects = check_proof(render_question(chain), render_proof(lines)).defects
    after = (lines[place].label, lines[place].value) if place < len(lines) else None
    assert defects[0] == (omission(line, after) if kind == "missing" else Defect(line.label, kind))
    assert check_critique(
        render_question(chain), render_proof(lines), render_analysis(defects[:1])
    ).faithful


@given(CHAINS, st.text(max_size=200), st.text(max_size=200))
def test_any_text_gets_a_finding_whose_score_follows_from_its_defects(
    chain: Chain, proof: str, analysis: str
):
    finding = check_proof(render_question(chain), proof)
    assert finding.score == score_of(finding.defects)
    assert check_critique(render_question(chain), proof, analysis).quality in (0.0, 0.5, 1.0)
