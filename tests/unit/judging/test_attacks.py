"""Attacks: each is made by rule, keeps a known grade, and those on the parser never succeed."""

from __future__ import annotations

import pytest

from proofloop.judging.attacks.figures import attack_figures, parser_figures
from proofloop.judging.attacks.kinds import ATTACKS, OTHER_PROBLEM, UNCHANGED, attacked
from proofloop.method.domains.nano import (
    NanoChecker,
    parse_question,
    render_proof,
    render_question,
    true_lines,
)
from proofloop.method.prompts import Reading, load_pack
from proofloop.schema.given import GivenCase, PeoplesGrade
from tests.unit.judging.rows import judged

PROOF = (
    "Let n be odd, so n = 2k + 1 for some integer k.\n\n"
    "Then n^2 = 4k^2 + 4k + 1 for every such k.\n\n"
    "Hence n^2 is 1 more than a multiple of 4."
)


def case(number: int, score: float, text: str = PROOF, question: str = "") -> GivenCase:
    graded = PeoplesGrade(share=score, score=score, problem=f"P{number}")
    return GivenCase(question=question or f"Q{number}", solution=text, graded=graded)


CASES = [case(number, float(number % 2)) for number in range(6)]


def texts(kind: str) -> list[str]:
    found = [each for each in attacked(CASES, 2) if each.graded and each.graded.attack == kind]
    return [each.solution or "" for each in found]


def test_every_kind_is_made_from_given_proofs() -> None:
    kinds = [each.graded.attack for each in attacked(CASES, 2) if each.graded]
    expected = [UNCHANGED, *(attack.name for attack in ATTACKS), OTHER_PROBLEM]
    assert kinds == [kind for kind in expected for _ in range(2)]


def test_no_attack_leaves_a_right_proof() -> None:
    assert {each.graded.score for each in attacked(CASES, 9) if each.graded} == {0.0}


def test_additions_keep_the_wrong_proof() -> None:
    for attack in ATTACKS:
        if not attack.of_right:
            assert all(text.startswith(PROOF) and text != PROOF for text in texts(attack.name))


def test_spoiled_proofs_differ_from_right_ones() -> None:
    for attack in ATTACKS:
        if attack.of_right:
            assert all(text and text != PROOF for text in texts(attack.name))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("swapped quantifier", PROOF.replace("for every", "for some")),
        ("altered number", PROOF.replace("of 4", "of 7")),
        ("deleted step", PROOF.replace("Then n^2 = 4k^2 + 4k + 1 for every such k.\n\n", "")),
        ("answer only", "Hence n^2 is 1 more than a multiple of 4.\nThis is what was to be shown."),
    ],
)
def test_how_a_proof_is_spoiled(kind: str, expected: str) -> None:
    assert texts(kind)[0] == expected


def test_a_proof_of_one_line_is_no_answer_alone() -> None:
    line = "Let n = 2k + 1. Then n^2 = 4(k^2 + k) + 1."
    found = attacked([case(0, 0.0), case(1, 1.0, line)], 2)
    assert "answer only" not in {each.graded.attack for each in found if each.graded}


def test_another_problem_s_proof_is_taken() -> None:
    right = [case(number, 1.0, f"Proof {number}.") for number in range(2)]
    found = [each for each in attacked(right, 9) if each.graded]
    swapped = [
        each.solution for each in found if each.graded and each.graded.attack == OTHER_PROBLEM
    ]
    assert swapped == ["Proof 1.", "Proof 0."]


def test_an_exact_checker_grades_the_results() -> None:
    chain = parse_question("Modulo 10, start at 2. a + 3. b * 4. c + 1. Show that the result is 1.")
    proof = render_proof(true_lines(chain))
    cases = [case(0, 1.0, proof, render_question(chain))]
    grades = {
        each.graded.attack: each.graded.score
        for each in attacked(cases, 1, NanoChecker())
        if each.graded
    }
    assert grades["deleted step"] == 0.5
    assert grades["altered number"] == 0.0


@pytest.mark.parametrize("reading", ["strict", "lenient"])
@pytest.mark.parametrize("name", ["math", "math-json"])
def test_attacks_on_the_parser_never_succeed(name: str, reading: Reading) -> None:
    found = list(parser_figures(list(attacked(CASES, 9)), load_pack(name), reading))
    assert [each.attack for each in found] == [each.name for each in ATTACKS if each.on_parser]
    assert {(each.escaped, each.misread) for each in found} == {(0, 0)}


def test_success_is_counted_by_kind_and_way() -> None:
    rows = [
        judged(0.0, [1.0, 1.0], attack="instruction"),
        judged(0.0, [0.0, 0.0], attack="instruction", problem="R"),
        judged(0.0, [0.0, 1.0], attack="none"),
    ]
    found = {each.attack: each for each in attack_figures(rows, n=2, k=1, has_meta=True)}
    assert found["instruction"].succeeds["verifier"].value == 0.5
    assert found["instruction"].critiques.value == 0.5
    assert found["none"].succeeds["meta_verified"].value == 0.0
