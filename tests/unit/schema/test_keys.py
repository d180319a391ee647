"""Keys: computed from ids, and nothing a user or a message says can leave its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.schema import keys
from proofloop.schema.ids import ID_PATTERN, AnswerName
from tests.unit.schema.names import answer_names


@pytest.mark.parametrize(
    "name", ["/models/start", "../models/x", "nano-base", "runs/models", "/runs/r/models/x"]
)
def test_only_a_version_has_weights_of_its_own(name: str) -> None:
    assert keys.weights(name) == name
    assert (
        keys.weights(keys.model("models", "1-verifier", 3))
        == "runs/models/weights/1-verifier/000003"
    )


def test_everything_of_a_run_but_its_spec_lies_below_one_prefix() -> None:
    below = [
        keys.problem("r", "p"),
        keys.proof("r", "p-000"),
        keys.critique("r", "p-000", 3),
        keys.judgement("r", "p-000", -1),
        keys.meta_critique("r", "p-000", -1, 2),
        keys.raw_answer("r", "p-000", "proof", "ab"),
        keys.tokens("r", "p-000", "critique-3", "ab"),
        keys.label("r", "p-000"),
        keys.early_warning("r", "verifier"),
        keys.batch("r", "verifier", 2),
        keys.skipped_problem("r", "verifier", "p"),
        keys.step("r", "verifier", 2),
        keys.checkpoint("r", "verifier", 2),
        keys.model("r", "verifier", 2),
        keys.served("r", "verifier"),
        keys.dead_letters("r"),
        keys.holder("r", 7),
    ]
    assert below == [
        "runs/r/problems/p.json",
        "runs/r/proofs/p-000/proof.json",
        "runs/r/proofs/p-000/critiques/00003.json",
        "runs/r/proofs/p-000/judgements/self.json",
        "runs/r/proofs/p-000/meta_critiques/self/002.json",
        "runs/r/proofs/p-000/raw/proof-ab.json",
        "runs/r/proofs/p-000/tokens/critique-3-ab.json",
        "runs/r/labels/p-000.json",
        "runs/r/early_warnings/verifier.json",
        "runs/r/batches/verifier/000002.json",
        "runs/r/skipped/verifier/p.json",
        "runs/r/steps/verifier/000002.json",
        "runs/r/checkpoints/verifier/000002",
        "runs/r/models/verifier/000002",
        "runs/r/served/verifier/",
        "runs/r/dead/",
        "runs/r/holders/000000007/holder.json",
    ]
    assert (keys.run("r"), keys.run_spec("r")) == ("runs/r/", "specs/r.json")


def test_keys_of_a_proofs_parts_sort_in_order_of_their_index() -> None:
    found = [keys.critique("r", "p", index) for index in range(1024)]
    assert found == sorted(found)


IDS = st.from_regex(ID_PATTERN, fullmatch=True)


@given(IDS, IDS, answer_names)
def test_an_answers_key_is_parsed_as_it_was_made(run: str, proof: str, name: AnswerName) -> None:
    assert keys.parse_answer(keys.answer(run, proof, name)) == (run, proof, name)


@pytest.mark.parametrize(
    "key",
    [
        keys.judgement("r", "p-000", 3),
        keys.raw_answer("r", "p-000", "proof", "ab"),
        keys.tokens("r", "p-000", "critique-3", "ab"),
        keys.label("r", "p-000"),
        "runs/r/proofs/p-000/critiques/x.json",
    ],
)
def test_other_keys_are_no_answers(key: str) -> None:
    assert keys.parse_answer(key) is None


@pytest.mark.parametrize(
    "make",
    [
        keys.batch,
        keys.checkpoint,
        keys.model,
        keys.search_round,
        keys.step,
        lambda *names: keys.weights(keys.model(*names)),
    ],
)
@given(run=IDS, name=IDS, number=st.integers(0, 10**7))
def test_a_numbered_key_is_parsed_as_it_was_made(
    make: Callable[[str, str, int], str], run: str, name: str, number: int
) -> None:
    assert keys.parse_numbered(make(run, name, number)) == (run, name, number)


def test_a_file_of_a_version_is_parsed_as_the_version() -> None:
    version = keys.model("r", "verifier", 3)
    file = f"{version}/0123456789ab/model.safetensors"
    assert keys.parse_numbered(file) == keys.parse_numbered(version)
    assert keys.version_of(file) == keys.version_of(f"{version}/manifest.json") == version


@pytest.mark.parametrize("name", ["nano-base", "/models/x", "runs/r/models/x", "../000003"])
def test_other_names_are_no_numbered_keys(name: str) -> None:
    assert keys.parse_numbered(name) is None


@given(IDS, IDS)
def test_a_record_is_named_by_the_last_part_of_its_key(run: str, proof: str) -> None:
    key = keys.label(run, proof)
    assert keys.name_of(key) == keys.name_below(keys.labels(run), key)
    assert keys.first_below(keys.proofs(run), keys.proof(run, proof)) == proof
    assert f"{keys.folder_of(key)}/" == keys.labels(run)
