"""The gate compares two versions case by case."""

from __future__ import annotations

import pytest

from proofloop.curriculum.cases import CaseFile
from proofloop.curriculum.compose import everywhere
from proofloop.curriculum.gate import compare, paired
from proofloop.errors import HintedError
from tests.unit.curriculum.works import work_on


def test_the_gate_lets_noise_pass_and_stops_a_loss():
    each = [str(number) for number in range(40)]
    assert paired("f", each[:4], [0.5, 0.5, 0.5, 0.5], [0.4, 0.6, 0.5, 0.4], z=1.96).promoted
    assert not paired("f", each, [0.9] * 40, [0.6, 0.7] * 20, z=1.96).promoted
    # One case has no noise to hide in.
    assert not paired("f", each[:1], [1.0], [0.0], z=1.96).promoted
    report = paired("f", each[:2], [0.0, 1.0], [1.0, 1.0], z=2.0)
    # differences 1 and 0: mean 0.5, deviation sqrt(0.5), standard error 0.5
    assert (report.difference, round(report.noise, 9)) == (0.5, 1.0)


def test_cases_of_one_question_are_one_case_to_the_gate():
    # of two questions one got worse in all its four cases: as sets of four that says no more than
    # two cases do
    before, after = [1.0] * 8, [0.0] * 4 + [1.0] * 4
    alike = paired("f", ["p"] * 4 + ["q"] * 4, before, after, z=1.96)
    assert (alike.difference, round(alike.noise, 9)) == (-0.5, 0.98)
    assert alike.promoted
    assert not paired("f", list("abcdefgh"), before, after, z=1.96).promoted


def test_a_gate_without_a_case_says_what_is_held_out_and_what_to_do():
    with pytest.raises(
        HintedError, match=r"meta_verifier: 0 graded proofs and 0 analyses.*\nhint: "
    ):
        compare(work_on(), "meta_verifier", "w", CaseFile(), everywhere("v"))
