"""Keys: computed from ids, and nothing a user or a message says can leave its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.errors import ConfigError
from proofloop.schema import keys


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
        keys.passed_over("r", "verifier", "p"),
        keys.step("r", "verifier", 2),
        keys.checkpoint("r", "verifier", 2),
        keys.model("r", "verifier", 2),
        keys.served("r", "verifier"),
        keys.dead_letters("r"),
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
        "runs/r/passed_over/verifier/p.json",
        "runs/r/steps/verifier/000002.json",
        "runs/r/checkpoints/verifier/000002",
        "runs/r/models/verifier/000002",
        "runs/r/served/verifier/",
        "runs/r/dead/",
    ]
    assert (keys.run("r"), keys.run_spec("r")) == ("runs/r/", "specs/r.json")


def test_keys_of_a_proofs_parts_sort_in_order_of_their_index() -> None:
    found = [keys.critique("r", "p", index) for index in range(1024)]
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["a", "imo-2025.1", "A_b", "0", "x" * 100])
def test_plain_names_are_ids(name: str) -> None:
    assert keys.check_id(name, "name") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-a", "_a", "a b", "é", "a\n", "x" * 101, "a\0", "../a"]
)
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^run name .* cannot be part of a key\nhint: use 1 to 100 letters"
    ):
        keys.check_id(name, "run name")


@given(st.text(max_size=120))
def test_an_id_is_one_part_of_a_key(name: str) -> None:
    try:
        keys.check_id(name, "name")
    except ConfigError:
        return
    parts = keys.label(name, name).split("/")
    assert parts == ["runs", name, "labels", f"{name}.json"]
    assert not {"", ".", ".."} & set(parts)
