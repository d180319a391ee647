"""The contract of a domain: posing is deterministic, splits are disjoint, and its checker judges
any text.
"""

from __future__ import annotations

from typing import get_args

import pytest

from proofloop.config.problem_file import CONTROL, MAX_QUESTION_CHARS
from proofloop.method.domains import Checker, Domain, load_domain
from proofloop.method.domains.base import SPLIT_BUCKETS
from proofloop.method.prompts import load_pack
from proofloop.schema.ids import check_id
from proofloop.schema.records import Problem, Score

POSED = 50
"""Problems that these tests draw from each split."""

ELSEWHERE = "Name the capital of France."
ODD_TEXTS = ("", " ", "{}", "\\boxed{1}", "∑ √2 ½ 中", "1/0", "x = " * 5_000, "9" * 5_000, "\x00\n")
SCORES = get_args(Score)


class DomainContract:
    """Override `domain` with a fixture that returns your domain, which must be installed."""

    @pytest.fixture
    def domain(self) -> Domain:
        raise NotImplementedError("override `domain` with your domain")

    @pytest.fixture
    def checker(self, domain: Domain) -> Checker:
        if domain.checker is None:
            pytest.skip("the domain has no exact checker")
        return domain.checker

    @pytest.fixture
    def problem(self, domain: Domain) -> Problem:
        return domain.pose(0, split="test", seed=0)

    def test_it_is_installed_under_its_name(self, domain: Domain) -> None:
        assert type(load_domain(domain.name)) is type(domain)

    def test_its_prompt_pack_is_installed(self, domain: Domain, problem: Problem) -> None:
        assert problem.question in load_pack(domain.prompt_pack).prove(problem.question).text

    @pytest.mark.parametrize("split", SPLIT_BUCKETS)
    def test_the_same_problem_is_posed_again(self, domain: Domain, split: str) -> None:
        for index in range(POSED):
            posed = domain.pose(index, split=split, seed=3)
            assert posed == domain.pose(index, split=split, seed=3)

    def test_no_question_is_in_two_splits(self, domain: Domain) -> None:
        posed = {
            split: {
                domain.pose(index, split=split, seed=seed).question
                for index in range(POSED)
                for seed in range(2)
            }
            for split in SPLIT_BUCKETS
        }
        assert len(set.union(*posed.values())) == sum(map(len, posed.values()))

    def test_an_id_names_one_question(self, domain: Domain) -> None:
        questions: dict[str, str] = {}
        for split in SPLIT_BUCKETS:
            for index in range(POSED):
                problem = domain.pose(index, split=split, seed=0)
                check_id(problem.id, "the id of a problem")
                assert questions.setdefault(problem.id, problem.question) == problem.question

    def test_a_question_is_readable_text(self, problem: Problem) -> None:
        assert problem.question.strip() == problem.question != ""
        assert len(problem.question) <= MAX_QUESTION_CHARS
        assert not CONTROL.search(problem.question)

    def test_a_sample_is_a_flawed_proof_with_a_sound_critique(
        self, domain: Domain, checker: Checker, problem: Problem
    ) -> None:
        sample = domain.sample(problem.question)
        assert sample.score < 1
        proof = checker.check_proof(problem.question, sample.proof)
        assert proof is None or proof.score == sample.score
        critique = checker.check_critique(problem.question, sample.proof, sample.analysis)
        assert critique is None or critique.quality == 1

    @pytest.mark.parametrize("text", ODD_TEXTS)
    def test_any_text_gets_a_finding(
        self, checker: Checker, problem: Problem, domain: Domain, text: str
    ) -> None:
        """A model may write anything: a check returns a finding, and raises no error."""
        proof = checker.check_proof(problem.question, text)
        if proof is not None:
            assert proof.score in SCORES
            assert bool(proof.defects) == (proof.score < 1)
        good = domain.sample(problem.question).proof
        for solution in (text, good):
            critique = checker.check_critique(problem.question, solution, text)
            assert critique is None or critique.quality in SCORES

    def test_the_same_text_gets_the_same_finding(
        self, domain: Domain, checker: Checker, problem: Problem
    ) -> None:
        sample = domain.sample(problem.question)
        question, proof, analysis = problem.question, sample.proof, sample.analysis
        assert checker.check_proof(question, proof) == checker.check_proof(question, proof)
        assert checker.check_critique(question, proof, analysis) == checker.check_critique(
            question, proof, analysis
        )

    def test_a_question_from_elsewhere_has_no_finding(self, checker: Checker) -> None:
        assert checker.check_proof(ELSEWHERE, "Paris.") is None
        assert checker.check_critique(ELSEWHERE, "Paris.", "It is right.") is None
