"""The shipped nano base model against its card, and how the judge of a model is measured."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from proofloop_serving.loading import load_model
from proofloop_trainer.nano import BASE_FOLDER
from proofloop_trainer.nano.by_flaw import FLAWS, by_flaw
from proofloop_trainer.nano.evaluate import measure
from proofloop_trainer.nano.pretrain import build_mark_head, build_model, loss_of, table_batches
from proofloop_trainer.nano.tokenizer import build_tokenizer

torch.set_num_threads(1)  # threads that wait for one another cost more than a small model gains


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model, head = build_model(tokenizer), build_mark_head()
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3)
    losses = []
    for batch in itertools.islice(table_batches(tokenizer, seed=0), 30):
        loss = loss_of(model, head, batch).total(step_weight=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_base_model_is_as_good_as_its_card_says():
    figures = vars(measure(BASE_FOLDER, problems=250, seed=1))
    card = dict(
        re.findall(
            r"^\| `(\w+)` \| ([\d.]+) \|", (BASE_FOLDER / "README.md").read_text(), re.MULTILINE
        )
    )
    assert card.keys() == figures.keys()
    for name, figure in figures.items():
        assert figure == pytest.approx(float(card[name]), abs=0.17), name


def test_a_judge_is_measured_on_each_kind_of_flaw():
    rows = list(by_flaw(load_model(BASE_FOLDER), problems=6))
    assert [(row.domain, row.flaw) for row in rows] == [
        (name, flaw) for name in ("nano", "nano-long") for flaw in FLAWS
    ]
    for row in rows:
        assert row.accuracy > 1 / 3 and row.faithfulness > 1 / 3  # what guessing a score gives
        if row.flaw == "sound":
            assert (row.faithfulness, row.true_upheld, row.false_caught) == (1.0, None, None)
        else:
            assert row.true_upheld > 1 / 3 and row.false_caught > 0
    of = {(row.domain, row.flaw): row for row in rows}
    # One needs no calculation.
    assert of["nano", "miscalculated"].false_caught > of["nano", "lost"].false_caught
