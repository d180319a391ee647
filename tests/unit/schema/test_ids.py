"""Ids and names of answers: what is parsed is what was made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.schema.ids import (
    ID_PATTERN,
    SELF_CRITIQUE,
    AnswerName,
    CallId,
    check_id,
    index_name,
    meta_name,
    parse_answer_name,
    parse_call_id,
    parse_index,
    problem_of,
    proof_id,
    proof_name,
)
from tests.unit.schema.names import answer_names, indices

IDS = st.from_regex(ID_PATTERN, fullmatch=True)


@pytest.mark.parametrize("name", ["a", "imo-2025.1", "A_b", "0", "x" * 100])
def test_plain_names_are_ids(name: str) -> None:
    assert check_id(name, "name") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-a", "_a", "a b", "é", "a\n", "x" * 101, "a\0", "../a"]
)
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^run name .* cannot be part of a key\nhint: use 1 to 100 letters"
    ):
        check_id(name, "run name")


@given(st.text(max_size=120))
def test_an_id_is_one_part_of_a_key(name: str) -> None:
    try:
        check_id(name, "name")
    except ConfigError:
        return
    parts = keys.label(name, name).split("/")
    assert parts == ["runs", name, "labels", f"{name}.json"]
    assert not {"", ".", ".."} & set(parts)


@given(IDS, st.integers(0, 10**6))
def test_a_proofs_id_names_its_problem(problem: str, number: int) -> None:
    assert problem_of(proof_id(problem, number)) == problem


@given(answer_names | st.builds(proof_name, indices))
def test_the_name_of_an_answer_is_parsed_as_it_was_made(name: AnswerName) -> None:
    assert parse_answer_name(str(name)) == name


@given(st.just(SELF_CRITIQUE) | indices, st.integers(1, 6))
def test_an_index_is_parsed_as_it_was_made(index: int, digits: int) -> None:
    assert parse_index(index_name(index, digits)) == index


@given(IDS, IDS, IDS, st.text())
def test_the_id_of_a_call_is_parsed_as_it_was_made(
    run: str, role: str, proof: str, name: str
) -> None:
    call = CallId(run, role, proof, name)
    assert parse_call_id(str(call)) == call


@pytest.mark.parametrize("name", ["", "critique", "critique-self", "meta-3", "meta--1-0", "x-1"])
def test_other_names_are_no_answers(name: str) -> None:
    assert parse_answer_name(name) is None


def test_answers_are_named_as_people_type_them() -> None:
    assert [meta_name(3, 1).of("p1-000"), proof_name(0).of("p1-000")] == [
        "p1-000/meta-3-1",
        "p1-000",
    ]
    assert str(meta_name(SELF_CRITIQUE, 0)) == "meta-self-0"
