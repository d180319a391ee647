"""Labeled proofs become rewarded samples: what is in a group, what is left out, and what each
earned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proofloop.method.prompts import Reader
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import (
    Label,
    ModelRole,
    Provenance,
    Tokens,
    TrainingBatch,
    TrainingSample,
    Verdict,
)
from proofloop.store import LocalStore, put_record
from proofloop.worker.tools import Tools
from proofloop_trainer.figures import failed_share, figures_of
from proofloop_trainer.samples import Group, RewardedAnswer, choose_groups, groups_of
from proofloop_trainer.train import RunInTraining
from tests.builders import (
    MALFORMED,
    PROVENANCE,
    RUN,
    CountingEngine,
    critique,
    judgement,
    label,
    proof,
    publish_versions,
    put_grade,
    runspec,
    undecided_label,
    valid,
)
from tests.unit.trainer.groups import learned_groups

TRUNCATED = Verdict(outcome="truncated", reason="cut off")
ENDLESS = Reader().evaluation("<think>and so on", "stop").verdict
FAILED = Verdict(outcome="engine_failed", reason="away")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def sampled(store: LocalStore, proof_id: str, name: str, verdict: Verdict) -> Provenance:
    """A provenance whose tokens lie in the store; what is TRUNCATED ran into the token limit."""
    key = keys.tokens(RUN, proof_id, name, "d")
    put_record(store, key, tokens_of(proof_id, name))
    reason = "length" if verdict == TRUNCATED else "stop"
    return PROVENANCE.model_copy(update={"tokens_key": key, "finish_reason": reason})


def tokens_of(proof_id: str, name: str) -> Tokens:
    return Tokens(
        prompt_ids=(1, 2), completion_ids=(len(name), len(proof_id)), logprobs=(-0.5, -1.0)
    )


def add_proof(
    store: LocalStore, number: int, verdict: Verdict, *, kept: bool = True, **fields: Any
) -> Label:
    """A proof with this verdict and a label with these fields."""
    proof_id = f"p1-{number:03d}"
    provenance = sampled(store, proof_id, "proof", verdict) if kept else PROVENANCE
    put_record(store, keys.proof(RUN, proof_id), proof(verdict, id=proof_id, provenance=provenance))
    return label(**{"proof_id": proof_id, **fields})


def add_critique(
    store: LocalStore,
    index: int,
    verdict: Verdict,
    *,
    quality: float | None = 1.0,
    kept: bool = True,
) -> None:
    """Critique `index` of proof p1-000, and the judgement of it unless `quality` is None."""
    provenance = sampled(store, "p1-000", f"critique-{index}", verdict) if kept else PROVENANCE
    written = critique(index, verdict).model_copy(update={"provenance": provenance})
    put_record(store, keys.critique(RUN, "p1-000", index), written)
    if quality is not None:
        put_record(
            store,
            keys.judgement(RUN, "p1-000", index),
            judgement(index, verdict.score, quality=quality),
        )


def test_a_grade_that_comes_while_its_problem_waits_for_a_step_is_trained_on(
    store: LocalStore,
) -> None:
    spec = runspec(
        problems={"domain": "nano", "count": 1, "proofs_per_problem": 1},
        training={"problems": 1, "ahead": 1.0, "verifier": {"steps": 1}},
        labeling={"stop_early": False},
    )
    create_run(store, spec, resume=False)
    add_proof(store, 0, valid(1.0))
    for index, score in enumerate((0.0, 0.5)):
        add_critique(store, index, valid(score))
    open_label = undecided_label(proof_id="p1-000")
    put_record(store, keys.label(RUN, "p1-000"), open_label)
    run = RunInTraining(RUN, Tools(store, lambda *_: CountingEngine()))
    run.add(open_label)
    (learning,) = run.roles
    put_grade(store, 0.0)
    put_grade(store, 0.5, number=1)
    batch = learning.next_batch()
    assert batch is not None
    assert [sample.reward for sample in batch.samples] == [0.5, 1.0]
    assert batch.grades == {"p1-000": 1}


def test_a_trainer_follows_another_one_that_was_first(store: LocalStore, tmp_path: Path) -> None:
    spec = runspec(
        problems={"domain": "nano", "count": 1, "proofs_per_problem": 1},
        training={"problems": 1, "ahead": 1.0, "verifier": {"steps": 2}},
        labeling={"stop_early": False},
    )
    create_run(store, spec, resume=False)
    own = add_proof(store, 0, valid(1.0), score=0.0)
    for index, score in enumerate((0.0, 0.5)):
        add_critique(store, index, valid(score))
    run = RunInTraining(RUN, Tools(store, lambda *_: CountingEngine()))
    run.add(own)
    (learning,) = run.roles
    sample = TrainingSample(
        key="k",
        role="verifier",
        group="p9",
        tokens=tokens_of("p9-000", "critique-0"),
        reward=1.0,
        reward_parts={},
        model_version="m-1",
    )
    others = TrainingBatch(run_id=RUN, role="verifier", step=0, samples=(sample,), problems=("p9",))
    put_record(store, keys.batch(RUN, "verifier", 0), others)
    assert learning.next_batch() == others
    publish_versions(store, tmp_path / "model", keys.model(RUN, "verifier", 1))
    learning._learner = stale = OpenLearner()  # type: ignore[assignment]
    learning.take_step(others)
    assert stale.is_closed and learning._learner is None
    batch = learning.next_batch()
    assert batch is not None and (batch.step, batch.problems) == (1, (own.group,))


class OpenLearner:
    """A model in training that lacks the other trainer's step."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def unreadable(**fields: Any) -> dict[str, Any]:
    return {
        "score": None,
        "outcome": "unreadable",
        "kind": "unreadable",
        "self_quality": 0.0,
        **fields,
    }


def undecided() -> dict[str, Any]:
    return {"score": None, "outcome": "undecided", "kind": "undecided"}


# -- the generator: the proofs of one problem
# --------------------------------------------------------------------------


def test_a_proof_earns_what_the_label_and_its_own_evaluation_give(store: LocalStore) -> None:
    labels = [
        add_proof(store, 0, valid(1.0)),
        add_proof(store, 1, valid(1.0), score=0.5, self_quality=0.5),
    ]
    (group,) = learned_groups("generator", labels, runspec(), store)
    honest, boasting = group.answers
    assert honest.sample(store) == TrainingSample(
        key=keys.proof(RUN, "p1-000"),
        role="generator",
        group="p1",
        tokens=tokens_of("p1-000", "proof"),
        reward=1.0,
        reward_parts={"format": 1.0, "proof": 1.0, "self_score": 1.0, "self_meta": 1.0},
        model_version="m-1",
    )
    assert boasting.reward == pytest.approx(0.76 * 0.5 + 0.24 * 0.5 * 0.5)
    assert boasting.reward_parts == {
        "format": 1.0,
        "proof": 0.5,
        "self_score": 0.5,
        "self_meta": 0.5,
    }
    assert not group.is_flawed


def test_an_undecided_proof_is_left_out_and_an_unreadable_one_earns_nothing(
    store: LocalStore,
) -> None:
    labels = [
        add_proof(store, 0, valid(1.0)),
        add_proof(store, 1, valid(0.0), **undecided()),
        add_proof(store, 2, MALFORMED, **unreadable()),
    ]
    (group,) = learned_groups("generator", labels, runspec(), store)
    assert [(sample.key, sample.reward) for sample in group.answers] == [
        (keys.proof(RUN, "p1-000"), 1.0),
        (keys.proof(RUN, "p1-002"), 0.0),
    ]
    assert group.answers[1].reward_parts == {"format": 0.0}


def test_a_proof_that_the_engine_failed_to_write_is_left_out(store: LocalStore) -> None:
    labels = [
        add_proof(store, 0, valid(1.0)),
        add_proof(store, 1, FAILED, kept=False, **unreadable()),
        add_proof(store, 2, valid(0.0), score=0.0),
    ]
    (group,) = learned_groups("generator", labels, runspec(), store)
    assert [sample.key for sample in group.answers] == [
        keys.proof(RUN, "p1-000"),
        keys.proof(RUN, "p1-002"),
    ]


def test_failed_calls_are_counted_also_where_no_answer_is_left(store: LocalStore) -> None:
    labels = [add_proof(store, 0, valid(1.0))]
    for index in range(3):
        add_critique(store, index, FAILED, quality=0.0, kept=False)
    assert learned_groups("verifier", labels, runspec(), store) == []
    assert failed_share(groups_of("verifier", labels, runspec(), store)) == {"failed": 1.0}
    add_critique(store, 3, valid(1.0))
    assert failed_share(groups_of("verifier", labels, runspec(), store)) == {"failed": 0.75}
    assert failed_share([]) == {}


def test_only_an_answer_that_was_cut_off_is_marked_as_truncated(store: LocalStore) -> None:
    labels = [
        add_proof(store, 0, TRUNCATED, **unreadable()),
        add_proof(store, 1, MALFORMED, **unreadable()),
        add_proof(store, 2, valid(1.0)),
        # It ended by itself, in the midst of its thinking.
        add_proof(store, 3, ENDLESS, **unreadable()),
    ]
    (group,) = learned_groups("generator", labels, runspec(), store)
    samples = [answer.sample(store) for answer in group.answers]
    found = [(sample.truncated, sample.reward) for sample in samples]
    assert found == [(True, 0.0), (False, 0.0), (False, 1.0), (False, 0.0)]


@pytest.mark.parametrize(
    ("reward", "total", "parts"),
    [
        (
            {"alpha": 0.5, "beta": 0.25},
            0.5 * 0.5 + 0.25 * 0.5 * 0.5,
            {"proof", "self_score", "self_meta", "format"},
        ),
        ({"preset": "weighted"}, 0.6 * 0.5 + 0.3 * 0.5 + 0.1, {"proof", "self_score", "format"}),
    ],
)
def test_preset_and_weights_are_the_run_s(
    store: LocalStore, reward: dict[str, Any], total: float, parts: set[str]
) -> None:
    labels = [add_proof(store, n, valid(1.0), score=0.5, self_quality=0.5) for n in range(2)]
    (group,) = learned_groups("generator", labels, runspec(reward=reward), store)
    assert [sample.reward for sample in group.answers] == pytest.approx([total, total])
    assert set(group.answers[0].reward_parts) == parts


def test_one_proof_alone_is_no_group(store: LocalStore) -> None:
    labels = [add_proof(store, 0, valid(1.0)), add_proof(store, 1, valid(1.0), **undecided())]
    assert learned_groups("generator", labels, runspec(), store) == []


# -- the verifier: the critiques of one proof
# --------------------------------------------------------------------------


def critique_rewards(store: LocalStore, labels: list[Label], **spec: Any) -> list[list[float]]:
    groups = learned_groups("verifier", labels, runspec(**spec), store)
    return [[sample.reward for sample in group.answers] for group in groups]


def test_a_critique_earns_by_its_score_and_by_what_the_meta_verifier_made_of_it(
    store: LocalStore,
) -> None:
    labels = [
        add_proof(store, 0, valid(1.0), score=0.5, outcome="rejected", kind="rejected_upheld")
    ]
    for index, (score, quality) in enumerate([(0.5, 1.0), (0.0, 0.5), (1.0, 1.0), (0.5, 0.0)]):
        add_critique(store, index, valid(score), quality=quality)
    (group,) = learned_groups("verifier", labels, runspec(), store)
    assert [sample.reward for sample in group.answers] == [1.0, 0.25, 0.5, 0.0]
    assert group.answers[1].reward_parts == {
        "format": 1.0,
        "score": 0.5,
        "meta": 0.5,
        "predicted_score": 0.0,
    }
    assert {sample.group for sample in group.answers} == {"p1-000"}
    assert [sample.key for sample in group.answers] == [
        keys.critique(RUN, "p1-000", index) for index in range(4)
    ]
    assert group.is_flawed
    assert critique_rewards(store, labels, reward={"meta": False}) == [[1.0, 0.5, 0.5, 1.0]]


def test_a_critique_that_broke_the_format_earns_nothing_and_stays(store: LocalStore) -> None:
    labels = [add_proof(store, 0, valid(1.0))]
    for index, verdict in enumerate([valid(1.0), MALFORMED, TRUNCATED]):
        add_critique(store, index, verdict, quality=0.0 if verdict.score is None else 1.0)
    (group,) = learned_groups("verifier", labels, runspec(), store)
    samples = [answer.sample(store) for answer in group.answers]
    assert [(sample.reward, sample.truncated) for sample in samples] == [
        (1.0, False),
        (0.0, False),
        (0.0, True),
    ]
    assert not group.is_flawed


def test_critiques_that_were_never_written_or_judged_or_failed_are_left_out(
    store: LocalStore,
) -> None:
    labels = [add_proof(store, 0, valid(1.0), score=0.0)]
    add_critique(store, 0, valid(0.0))
    add_critique(store, 1, valid(0.0), quality=None)
    add_critique(store, 2, FAILED, quality=0.0, kept=False)
    add_critique(store, 3, valid(1.0))
    assert critique_rewards(store, labels) == [[1.0, 0.0]]
    # A single sample is not a group.
    assert critique_rewards(store, labels, labeling={"n": 3}) == []


def test_a_critique_of_unknown_quality_trains_only_where_the_reward_ignores_it(
    store: LocalStore,
) -> None:
    labels = [add_proof(store, 0, valid(1.0), score=0.0)]
    add_critique(store, 0, valid(0.0))
    add_critique(store, 1, valid(1.0))
    add_critique(store, 2, valid(0.0), quality=None)
    put_record(store, keys.judgement(RUN, "p1-000", 2), judgement(2, 0.0, quality=None))
    assert critique_rewards(store, labels) == [[1.0, 0.0]]
    assert critique_rewards(store, labels, reward={"meta": False}) == [[1.0, 0.0, 1.0]]


def test_a_proof_of_unknown_self_quality_trains_only_where_it_does_not_count(
    store: LocalStore,
) -> None:
    labels = [add_proof(store, 0, valid(1.0)), add_proof(store, 1, valid(1.0), self_quality=None)]
    (group,) = groups_of("generator", labels, runspec(), store)
    assert [answer.key for answer in group.answers] == [keys.proof(RUN, "p1-000")]
    weighted = runspec(reward={"preset": "weighted"})
    (group,) = learned_groups("generator", labels, weighted, store)
    assert [answer.reward for answer in group.answers] == pytest.approx([1.0, 1.0])


def test_no_critique_of_an_undecided_or_unreadable_proof_trains(store: LocalStore) -> None:
    for index in range(4):
        add_critique(store, index, valid(1.0 if index else 0.0))
    labels = [add_proof(store, 0, valid(1.0))]
    assert len(critique_rewards(store, labels)) == 1
    for fields in (undecided(), unreadable()):
        assert critique_rewards(store, [labels[0].model_copy(update=fields)]) == []


def test_a_proof_without_critiques_does_not_hide_another_s(store: LocalStore) -> None:
    labels = [add_proof(store, 1, valid(1.0)), add_proof(store, 0, valid(1.0))]
    add_critique(store, 0, valid(1.0))
    add_critique(store, 1, valid(0.5))
    assert critique_rewards(store, labels) == [[1.0, 0.5]]


# -- which groups a step sees
# ------------------------------------------------------------------------------------------


def group(name: str, rewards: tuple[float, ...] = (0.0, 1.0)) -> Group:
    """A group with these rewards; a name that begins with "f" is about a flawed proof."""
    answers = tuple(
        RewardedAnswer(f"{name}/{number}", "verifier", name, reward, {}, PROVENANCE)
        for number, reward in enumerate(rewards)
    )
    return Group(answers, is_flawed=name.startswith("f"))


def chosen(names: str, most: int) -> str:
    """`f` and `s` are groups of flawed and sound proofs with a signal."""
    groups = [group(f"{kind}{number}") for number, kind in enumerate(names)]
    return "".join(sorted(group.answers[0].group[0] for group in choose_groups(groups, most)))


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        ("fsfsfsfs", 4, "ffss"),
        ("sssssfff", 4, "ffss"),
        ("ffffffss", 2, "fs"),
        ("sssssssf", 4, "fsss"),  # too few flawed: more sound ones
        ("fffffffs", 4, "fffs"),  # too few sound: more flawed ones
        ("fffff", 3, "fff"),
        ("sssss", 3, "sss"),
        ("fs", 8, "fs"),
        ("fffsss", 3, "fss"),
        ("s", 1, "s"),
        ("f", 1, "f"),
        ("fs", 1, "s"),
        ("", 4, ""),
    ],
)
def test_half_of_the_groups_are_flawed_where_both_kinds_suffice(
    names: str, most: int, expected: str
) -> None:
    assert chosen(names, most) == expected


def test_never_more_groups_than_asked_for_and_as_many_as_there_are() -> None:
    for flawed in range(5):
        for sound in range(5):
            for most in range(1, 9):
                assert len(chosen("f" * flawed + "s" * sound, most)) == min(most, flawed + sound)


def test_groups_without_a_signal_are_not_chosen() -> None:
    silent, nearly = group("s0", (0.5, 0.5)), group("f1", (0.3, 0.3 + 1e-9))
    loud = group("f2", (0.3, 0.31))
    assert (silent.has_signal, nearly.has_signal, loud.has_signal) == (False, False, True)
    assert choose_groups([silent, nearly, loud], 8) == [loud]


def test_the_first_groups_are_taken() -> None:
    groups = [group(name) for name in ("f0", "f1", "s0", "s1", "f2", "s2")]
    assert choose_groups(groups, 2) == [groups[0], groups[2]]


def test_chosen_groups_keep_their_order() -> None:
    groups = [group(name) for name in ("s0", "f0", "s1", "f1")]
    assert choose_groups(groups, 3) == groups[:3]


# -- the figures of a step's answers
# -----------------------------------------------------------------------------------


def judged(role: ModelRole, *scores: float | None, reward: float = 1.0, tokens: int = 20) -> Group:
    """A group of a judge's answers that give these scores; None is an unreadable answer."""
    provenance = PROVENANCE.model_copy(update={"completion_tokens": tokens})
    parts = [
        {"format": 0.0} if score is None else {"format": 1.0, "predicted_score": score}
        for score in scores
    ]
    return Group(
        tuple(
            RewardedAnswer(f"{role}/{place}", role, role, reward, of, provenance)
            for place, of in enumerate(parts)
        )
    )


def test_the_figures_tell_readable_answers_lengths_and_shares_of_scores() -> None:
    groups = [judged("verifier", 1.0, 1.0, tokens=10), judged("verifier", None, 0.5, tokens=30)]
    assert figures_of(groups) == {
        "readable": 0.75,
        "groups": 2.0,
        "groups_without_signal": 2.0,
        "mean_length": 20.0,
        "always-0.5 verifier": 1 / 3,
        "always-1 verifier": 2 / 3,
    }


def test_judges_that_learn_together_have_figures_of_their_own() -> None:
    found = figures_of([judged("verifier", 1.0, None), judged("meta_verifier", 0.0, 0.5)])
    assert found["readable"] == 0.75
    assert found["readable verifier"] == 0.5
    assert found["readable meta-verifier"] == 1.0
    assert found["always-1 verifier"] == 1.0
    assert found["always-0 meta-verifier"] == found["always-0.5 meta-verifier"] == 0.5


def test_a_step_without_answers_has_no_figures() -> None:
    assert figures_of([]) == {}
