"""`proofloop plan`'s arithmetic, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.runs.planning.capacity import (
    LABELER_S,
    Habits,
    Load,
    RoleCalls,
    observed,
    plan,
    proofs_per_problem,
    values_snippet,
    work_of_a_proof,
)
from proofloop.runs.search.records import SearchResult
from proofloop.schema import keys
from proofloop.schema.records import PIPELINE_ROLES, MetaCritique
from proofloop.store import LocalStore, put_record
from tests.builders import MALFORMED, PROOF, PROVENANCE, RUN, critique, label, proof, runspec, valid

SLOTS = dict(zip(PIPELINE_ROLES, (32, 64, 64, 2), strict=True))
LOAD = Load(problems_per_hour=90, busy=0.8, backlog_rounds=2, gpu_hour=3.0, concurrency=SLOTS)
# 720 proofs an hour: one in 5 s.
SPEC = runspec(
    problems={"domain": "nano", "count": 2, "proofs_per_problem": 8},
    labeling={"n": 16, "m": 5, "k": 3},
)
OURS = RoleCalls(
    prompt_tokens=1000, answer_tokens=6000, call_seconds=120, tokens_per_second=3200, gpus=8
)
SERVED = dict.fromkeys(("generator", "verifier", "meta_verifier"), OURS)


def with_rule(**labeling: Any) -> RunSpec:
    return runspec(labeling=labeling)


def test_without_early_stop_every_budget_is_used_up_at_once() -> None:
    work = work_of_a_proof(Habits(attempts=2), with_rule(n=16, m=5, k=3, stop_early=False))
    assert {role: (one.messages, one.waits, one.calls) for role, one in work.items()} == {
        "generator": (2, 2, 2),
        "verifier": (16, 16, 16),
        # Half of 16 critiques and of the proof's own report an issue.
        "meta_verifier": (
            17,
            8.5,
            42.5,
        ),
        "labeler": (17, 17, 0),
    }


@pytest.mark.parametrize(("assessed", "rounds"), [(1.0, 2.0), (0.6, 1.0), (0.8, 1.5)])
def test_with_early_stop_a_judge_asks_for_a_majority_first(assessed: float, rounds: float) -> None:
    """Of 5 judgements first 3, then the other 2 unless they agree: in the mean 5, 3 or 4."""
    work = work_of_a_proof(
        Habits(attempts=1, judged=1.0, assessed=assessed), with_rule(n=16, m=5, k=3)
    )
    assert work["meta_verifier"].waits == pytest.approx(17 * rounds)
    assert work["meta_verifier"].calls == pytest.approx(17 * 5 * assessed)


def test_unreadable_proofs_and_stopped_critiques_cost_nothing_further() -> None:
    work = work_of_a_proof(
        Habits(attempts=1, readable=0.5, critiqued=0.25, judged=0.0), with_rule(n=16, m=5, k=3)
    )
    assert [work[role].messages for role in PIPELINE_ROLES] == [1, 8, 2.5, 3]
    assert [work[role].calls for role in PIPELINE_ROLES] == [1, 2, 0, 0]


@pytest.mark.parametrize(("stop_early", "judged"), [(True, 16), (False, 17)])
def test_a_search_by_need_judges_no_critique_of_the_generator(
    stop_early: bool, judged: int
) -> None:
    spec = runspec(
        labeling={"n": 16, "m": 5, "k": 3, "stop_early": stop_early}, search={"rounds": 1}
    )
    work = work_of_a_proof(Habits(attempts=1, judged=1.0), spec)
    assert work["meta_verifier"].messages == judged


def test_pods_replicas_and_gpus_follow_from_the_load() -> None:
    """The verifier: 720 * 16 / 3600 = 3.2 calls a second * 120 s = 384 at once; * 6000 = 19,200
    tokens a second.

    Replicas: 19,200 / (3200 * 0.8) = 7.5, so 8, which are then 75 % busy; 384 / 64 = 6 pods, 6 /
    0.75 = 8 at most.
    """
    generator, verifier, meta, labeler = plan(SPEC, Habits(attempts=1), SERVED, LOAD)
    assert (verifier.calls_per_hour, verifier.at_once) == (11_520, pytest.approx(384))
    assert (verifier.pods, verifier.max_pods, verifier.value) == (6, 8, 128)
    assert (verifier.replicas, verifier.busy, verifier.gpus) == (8, pytest.approx(0.75), 64)
    assert verifier.cost_per_hour == 192.0
    # one proof in 5 s: 24 at once, 1200 tokens a second
    assert (generator.at_once, generator.pods, generator.replicas) == (pytest.approx(24), 1, 1)
    # 8.5 analyses of a proof are judged by 5 calls in 2 rounds: 0.2 * 17 * 120 messages, 0.2 * 42.5
    # * 6000 tokens
    assert (meta.at_once, meta.replicas) == (pytest.approx(408), 20)
    assert labeler.at_once == pytest.approx(0.2 * 17 * LABELER_S)
    assert (labeler.replicas, labeler.gpus, labeler.cost_per_hour) == (0, 0, 0.0)


def test_hosted_models_need_no_gpus_and_cost_tokens() -> None:
    spec = SPEC.model_copy(
        update={"prices": runspec(prices={"per_million_completion_tokens": 2.0}).prices}
    )
    hosted = replace(OURS, tokens_per_second=None)
    _, verifier, _, _ = plan(spec, Habits(attempts=1), dict.fromkeys(SERVED, hosted), LOAD)
    assert (verifier.replicas, verifier.gpus, verifier.pods, verifier.max_pods) == (0, 0, 6, 8)
    assert verifier.cost_per_hour == pytest.approx(11_520 * 6000 / 1e6 * 2.0)


def test_a_tiny_load_still_needs_one_of_each() -> None:
    rows = plan(SPEC, Habits(attempts=1), SERVED, replace(LOAD, problems_per_hour=0.01))
    assert [row.pods for row in rows] == [1, 1, 1, 1]
    assert [row.replicas for row in rows] == [1, 1, 1, 0]


def test_a_replica_of_two_nodes_is_a_leader_worker_set() -> None:
    rows = plan(SPEC, Habits(attempts=1), dict.fromkeys(SERVED, replace(OURS, gpus=16)), LOAD)
    serving = "serving: { kind: LeaderWorkerSet, groupSize: 2, replicas: 8, gpus: 8 }"
    assert serving in values_snippet(rows, LOAD)


ASSESSMENT = MetaCritique(analysis="", verdict=valid(1.0), provenance=PROVENANCE)


def test_a_run_shows_what_of_its_budgets_was_used(tmp_path: Path) -> None:
    """Two proofs: one unreadable, one with 3 of 4 critiques, of which one was judged by 2 of 3, and
    its own by 3.
    """
    store = LocalStore(tmp_path)
    create_run(store, runspec(), resume=False)
    put_record(store, keys.proof(RUN, PROOF), proof())
    put_record(store, keys.proof(RUN, "p1-001"), proof(MALFORMED, id="p1-001"))
    # No label yet: it says nothing.
    put_record(store, keys.proof(RUN, "p2-000"), proof(id="p2-000"))
    for index in range(3):
        put_record(store, keys.critique(RUN, PROOF, index), critique(index, valid(0.0)))
    for index, size in ((0, 2), (-1, 3)):
        for number in range(size):
            put_record(store, keys.meta_critique(RUN, PROOF, index, number), ASSESSMENT)
    put_record(store, keys.label(RUN, PROOF), label())
    put_record(
        store, keys.label(RUN, "p1-001"), label(None, proof_id="p1-001", outcome="unreadable")
    )
    seen = observed(store, RUN)
    assert seen.habits == Habits(
        attempts=1.0, readable=0.5, critiqued=0.75, judged=0.5, assessed=5 / 6
    )
    mean = seen.calls["verifier"]
    assert (mean.prompt_tokens, mean.completion_tokens, mean.engine_seconds) == (10, 20, 0.5)


def test_a_search_that_ended_early_shows_how_many_proofs_it_takes(tmp_path: Path) -> None:
    """Of 2 first proofs and 12 that two rounds may write, the two searches wrote 2 + 2 and 2 + 6: a
    third.
    """
    store, spec = LocalStore(tmp_path), runspec(search={"rounds": 2, "keep": 4, "analyses": 2})
    create_run(store, spec, resume=False)
    put_record(store, keys.proof(RUN, PROOF), proof())
    put_record(store, keys.label(RUN, PROOF), label())
    for name, proofs in (("p1", 4), ("p2", 8)):
        end = SearchResult(
            problem_id=name, proofs=proofs, best=None, score=None, solved=False, best_by_round=()
        )
        put_record(store, keys.search_result(RUN, name), end)
    habits = observed(store, RUN).habits
    assert (
        habits.searched,
        proofs_per_problem(spec, habits),
        proofs_per_problem(spec, Habits(1)),
    ) == (1 / 3, 6, 14)


def test_a_run_without_a_label_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    create_run(store, runspec(), resume=False)
    with pytest.raises(ConfigError, match="none of its proofs has a label yet"):
        observed(store, RUN)
