"""A run whose verifier has two endpoints, one of which goes away in the middle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.report.data import read_report
from proofloop.report.page import render
from proofloop.runs.answers import critiques_of
from proofloop.runs.create import create_run
from proofloop.runs.labels import labels_of
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from tests.builders import answer, evaluation, runspec, visible
from tests.scripted_openai import Exchange, Script, ScriptedServer, chunk, refuses, sends

PROVES = sends(chunk({"content": answer()}) + chunk({}, "stop"))
REVIEWS = sends(chunk({"content": evaluation("1")}) + chunk({}, "stop"))
PROOFS, N, HEALTHY = 8, 4, 6


def goes_away_after(count: int, script: Script) -> Script:
    answered = Counter[str]()

    def limited(exchange: Exchange) -> None:
        answered["asked"] += exchange.body["max_tokens"] > 1
        (script if answered["asked"] <= count else refuses(503, "gone"))(exchange)

    return limited


def test_the_other_endpoint_takes_over_and_no_answer_is_lost_or_paid_twice(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    generator = ScriptedServer(PROVES)
    first, second = ScriptedServer(goes_away_after(HEALTHY, REVIEWS)), ScriptedServer(REVIEWS)
    with generator, first, second:
        endpoints = [{"base_url": server.base_url} for server in (first, second)]
        own = {"settings": {"endpoints": endpoints, "max_attempts": 1}}
        engine = {"kind": "openai", "settings": {"base_url": generator.base_url}, "verifier": own}
        problems = {"domain": "nano", "count": PROOFS, "proofs_per_problem": 1}
        spec = runspec(engine=engine, problems=problems, labeling={"n": N, "stop_early": False})
        engines = Engines(store, tmp_path / "cache")
        create_run(store, spec, resume=False)
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            pipeline.run()
        engines.close()
    labels = list(labels_of(store, spec.name))
    critiques = [
        critique for label in labels for critique in critiques_of(store, spec.name, label.proof_id)
    ]
    by_server = Counter(
        critique.provenance.served_by for critique in critiques if critique.index >= 0
    )
    names = [f"m-1 at {server.base_url.split('/')[2]}" for server in (first, second)]
    assert (len(labels), {label.outcome for label in labels}) == (PROOFS, {"accepted"})
    assert by_server == {names[0]: HEALTHY, names[1]: PROOFS * N - HEALTHY}
    assert (
        len([each for each in second.received if each.body["max_tokens"] > 1])
        == PROOFS * N - HEALTHY
    )
    page = visible(render(read_report(store, spec.name)))
    assert f"{HEALTHY} by {names[0]}" in page and f"{PROOFS * N - HEALTHY} by {names[1]}" in page
