"""What a past run costs by the prices of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.config.run_file import load_prices
from proofloop.errors import ConfigError
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.store import LocalStore, put_record
from tests.builders import PROOF, RUN, critique, proof, runspec, valid


def test_a_past_run_is_counted_by_other_prices(tmp_path: Path) -> None:
    store, file = LocalStore(tmp_path / "store"), tmp_path / "prices.toml"
    create_run(store, runspec(), resume=False)
    put_record(store, keys.proof(RUN, PROOF), proof())  # 10 tokens of a prompt, 20 of an answer
    assert costs(store, RUN).priced is False
    file.write_text(
        "[prices]\nper_million_prompt_tokens = 1e5\nper_million_completion_tokens = 1e6\n"
    )
    found = costs(store, RUN, load_prices(file))
    assert (found.total.money, found.priced) == (pytest.approx(1 + 20), True)


def test_a_role_with_prices_of_its_own_is_counted_by_them(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    prices = {
        "per_million_completion_tokens": 1e6,
        "verifier": {"per_million_completion_tokens": 5e6},
    }
    create_run(store, runspec(prices=prices), resume=False)
    put_record(store, keys.proof(RUN, PROOF), proof())
    put_record(store, keys.critique(RUN, PROOF, 0), critique(0, valid(1.0)))
    found = costs(store, RUN).by_role
    assert (found["generator"].money, found["verifier"].money) == (
        pytest.approx(20),
        pytest.approx(100),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[flow]\nverifier = 4\n", "has no .prices."),
        ("[prices]\nper_engine_hour = 0\n", "no price above 0"),
        ("[prices]\nper_million_tokens = 3\n", "unknown key .prices. per_million_tokens"),
        ("[prices]\nper_engine_hour = -1\n", "per_engine_hour = -1"),
        ("[prices.verifier]\nper_engine_hour = -1\n", ".prices.verifier. per_engine_hour = -1"),
        ("prices = 3\n", "prices = 3"),
        ("[prices", "is not TOML"),
    ],
)
def test_a_file_of_prices_is_checked(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_prices(file)
