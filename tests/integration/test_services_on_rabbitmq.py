"""Services as real processes on a real broker and a real S3 store: killed, cut off, asked to stop;
nothing is lost.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from pika import BlockingConnection, URLParameters

from proofloop.bus import open_bus, open_dead_letters
from proofloop.bus.task_message import FAILURES
from proofloop.bus.topology import Topology
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.errors import HintedError, Interrupted
from proofloop.method.critique_window import first_critiques
from proofloop.pipeline.services import ServicesPipeline
from proofloop.runs.budget import TimeTaken
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.runs.planned import planned
from proofloop.runs.progress import RunProgress
from proofloop.runs.search.records import searches_of
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled, encode
from proofloop.schema.records import PIPELINE_ROLES, Label
from proofloop.store import Store, get_record, open_store, put_record
from proofloop.store.local import LocalStore
from proofloop.store.model_folders import publish_folder
from tests.builders import answer, evaluation, label, model_folder, runspec
from tests.integration.installation import Installation
from tests.integration.run_files import simulated_run
from tests.integration.servers import idle_consumer, publish, taken_from
from tests.scripted_openai import Exchange, ScriptedServer
from tests.waiting import wait_until

RUN = simulated_run(
    "chaos",
    count=25,
    proofs_per_problem=4,
    settings="latency_s = 0.1, failure_share = 0.02",
    flow="max_waiting_proofs = 24",
)

FIRST_CRITIQUES = first_critiques(n=4, k=2)


def test_a_service_asked_to_stop_gives_its_messages_back_uncounted(
    installation: Installation,
) -> None:
    slow = RUN.replace(
        "latency_s = 0.1, failure_share = 0.02", "latency_s = 3600, latency_sigma = 0"
    )
    run = installation.folder / "slow.toml"
    run.write_text(slow.replace("chaos", "slow").replace("count = 25", "count = 2"))
    posing = installation.call("run", str(run))
    for _ in range(2):
        assert wait_until(lambda: _ready(installation, "generator") == 8, 60), installation.log()
        installation.start("generator")
        assert installation.wait_ready("generator")["concurrency"] == 16
        assert wait_until(lambda: _ready(installation, "generator") == 0, 60)
        time.sleep(0.5)
        installation.services["generator"].send_signal(signal.SIGTERM)
        assert installation.services["generator"].wait(60) == 0, installation.log()
    assert wait_until(lambda: _ready(installation, "generator") == 8, 60)
    posing.send_signal(signal.SIGINT)
    assert posing.wait(60) == 130
    assert [sum(counts) for counts in _counted(installation, "generator")] == [0] * 8


def test_a_service_with_time_to_drain_finishes_what_runs_and_begins_nothing_new(
    installation: Installation,
) -> None:
    run, call_log = installation.folder / "drain.toml", installation.folder / "call_log"
    calls = f'latency_s = 5, latency_sigma = 0, call_log = "{call_log}"'
    text = RUN.replace("latency_s = 0.1, failure_share = 0.02", calls)
    run.write_text(text.replace("chaos", "drain").replace("count = 25", "count = 6"))
    installation.environment["PROOFLOOP_DRAIN_S"] = "30"
    posing = installation.call("run", str(run))
    installation.start("generator")  # 16 of 24 at once
    installation.wait_ready("generator")
    assert wait_until(lambda: _began(call_log) == 16, 60), installation.letters.depths()
    installation.services["generator"].send_signal(signal.SIGTERM)
    assert installation.services["generator"].wait(60) == 0, installation.log()
    assert _ready(installation, "generator") == 8
    assert _ready(installation, "verifier") == 16 * FIRST_CRITIQUES
    posing.send_signal(signal.SIGINT)
    assert posing.wait(60) == 130
    assert "the services finish what was posed" in installation.log()
    assert "calls are cancelled" not in installation.log()


def test_what_a_service_cannot_finish_within_its_drain_another_finishes_once(
    installation: Installation,
) -> None:
    run, call_log = installation.folder / "handed.toml", installation.folder / "call_log"
    text = RUN.replace(
        "latency_s = 0.1, failure_share = 0.02", f'latency_s = 4, call_log = "{call_log}"'
    )
    run.write_text(text.replace("chaos", "handed").replace("count = 25", "count = 6"))
    installation.environment["PROOFLOOP_DRAIN_S"] = "3"  # some calls are shorter, some longer
    posing = installation.call("run", str(run))
    installation.start("generator")  # 16 of 24 at once
    installation.wait_ready("generator")
    assert wait_until(lambda: _began(call_log) >= 16 and _ready(installation, "generator") <= 8, 60)
    installation.services["generator"].send_signal(signal.SIGTERM)
    assert installation.services["generator"].wait(60) == 0, installation.log()
    finished = _ready(installation, "verifier") // FIRST_CRITIQUES
    left = _ready(installation, "generator")
    assert 0 < finished < 24 and left == 24 - finished, installation.letters.depths()
    asked_by_first = _began(call_log)
    assert asked_by_first > finished, "nothing was cut off"
    installation.start("generator")
    installation.wait_ready("generator")
    requests = 24 * FIRST_CRITIQUES
    assert wait_until(lambda: _ready(installation, "verifier") >= requests, 60), installation.log()
    installation.services["generator"].send_signal(signal.SIGTERM)
    assert installation.services["generator"].wait(60) == 0, installation.log()
    assert (_ready(installation, "verifier"), _ready(installation, "generator")) == (requests, 0)
    # Each once more, and nothing that was finished.
    assert _began(call_log) == asked_by_first + left
    posing.send_signal(signal.SIGINT)
    assert posing.wait(60) == 130


def test_a_search_goes_on_where_the_process_that_posed_it_was_killed(
    installation: Installation,
) -> None:
    text = RUN.replace(
        "latency_s = 0.1, failure_share = 0.02", "latency_s = 0.05, verifier_noise = 0.3"
    )
    text = text.replace("count = 25\nproofs_per_problem = 4", "count = 4\nproofs_per_problem = 2")
    run = installation.folder / "searched.toml"
    run.write_text(
        text.replace("chaos", "searched") + "[search]\nrounds = 2\nkeep = 2\nanalyses = 2\n"
    )
    for role in PIPELINE_ROLES:
        installation.start(role)
    posing, store = installation.call("run", str(run)), open_store(load_settings())
    assert wait_until(lambda: any(store.list(keys.rounds("searched"))), 60), installation.log()
    posing.kill()
    assert installation.call("run", str(run), "--resume").wait(120) == 0, installation.log()
    found = list(searches_of(store, "searched"))
    labels = [get_record(store, key, Label) for key in store.list(keys.labels("searched"))]
    assert len(found) == 4 and max(len(each.best_by_round) for each in found) > 1
    assert sum(each.proofs for each in found) == len(labels)
    for each in found:
        assert each.solved == any(
            label.solved for label in labels if label.problem_id == each.problem_id
        )
    assert not list(installation.letters.letters())


def test_letters_of_before_give_up_no_proof_of_a_run_that_is_taken_up(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.QUIET_S", 0.5)
    slow = {"kind": "simulated", "settings": {"latency_s": 1.5, "latency_sigma": 0}}
    store, spec = open_store(load_settings()), runspec("again", engine=slow)
    create_run(store, spec, resume=False)
    posed = list(planned(spec, store))
    others = posed[0].model_copy(update={"run_id": "others"})
    with services_pipeline(store, spec) as pipeline:
        bury(installation, "generator", *posed, *posed, others)
        for role in PIPELINE_ROLES:
            installation.start(role)
        assert pipeline.run().labeled == len(posed)
    assert [letter.body for letter in installation.letters.letters()] == [encode(others)]


def test_a_run_whose_messages_were_purged_tells_so(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.QUIET_S", 0.5)
    monkeypatch.setattr("proofloop.pipeline.services.LOST_S", 2.0)
    store, spec = open_store(load_settings()), runspec("purged")
    create_run(store, spec, resume=False)
    stopping, seen = threading.Event(), list[RunProgress]()
    with (
        structlog.testing.capture_logs() as logs,
        ThreadPoolExecutor(1) as pool,
        services_pipeline(store, spec, stopping) as pipeline,
    ):
        running = pool.submit(pipeline.run, seen.append)
        assert wait_until(lambda: _ready(installation, "generator") == 4, 60)
        time.sleep(4)
        assert "messages_lost" not in [each["event"] for each in logs]
        _purge(installation, "generator")
        assert wait_until(lambda: "messages_lost" in [each["event"] for each in logs], 60)
        stopping.set()
        with pytest.raises(Interrupted):
            running.result(60)
    lost = next(each for each in logs if each["event"] == "messages_lost")
    assert lost["open_proofs"] == 4 and "--resume" in lost["hint"]


@pytest.mark.parametrize("end", ["version", "death"])
def test_problems_wait_for_a_step_under_way_unless_it_died(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.TRAINER_S", 0.5)
    problems = {"domain": "nano", "count": 3, "proofs_per_problem": 1}
    spec = runspec(
        "step", problems=problems, training={"problems": 1, "ahead": 1, "generator": {"steps": 2}}
    )
    store = open_store(load_settings())
    create_run(store, spec, resume=False)
    labels = [label(run_id="step", proof_id=event.proof_id) for event in planned(spec, store)]
    for each in labels:
        put_record(store, keys.label("step", each.proof_id), each)
    store.put_if_absent(keys.batch("step", "generator", 0), b"{}")
    seen: list[RunProgress] = []
    with (
        ThreadPoolExecutor(1) as pool,
        services_pipeline(store, spec) as pipeline,
        idle_consumer(
            installation.environment["PROOFLOOP_BROKER"],
            topology(installation).queue("trainer").name,
        ),
    ):
        running = pool.submit(pipeline.run, seen.append)
        assert wait_until(lambda: bool(seen) and seen[-1].labeled == 1, 60)
        time.sleep(2)
        assert seen[-1].labeled == 1
        if end == "version":
            publish_folder(store, model_folder(tmp_path / "m"), keys.model("step", "generator", 1))
        else:
            bury(installation, "trainer", ProofLabeled.of(labels[0]))
        assert running.result(60).labeled == 3


def test_problems_wait_for_a_trainer_that_is_not_there(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.TRAINER_S", 0.5)
    monkeypatch.setattr("proofloop.pipeline.services.STARTING_S", 0.0)
    problems = {"domain": "nano", "count": 3, "proofs_per_problem": 1}
    spec = runspec(
        "alone", problems=problems, training={"problems": 1, "ahead": 1, "generator": {"steps": 2}}
    )
    store, seen = open_store(load_settings()), list[RunProgress]()
    create_run(store, spec, resume=False)
    for event in planned(spec, store):
        known = label(run_id="alone", proof_id=event.proof_id)
        put_record(store, keys.label("alone", event.proof_id), known)
    stopping = threading.Event()
    with (
        structlog.testing.capture_logs() as logs,
        ThreadPoolExecutor(1) as pool,
        services_pipeline(store, spec, stopping) as pipeline,
    ):
        running = pool.submit(pipeline.run, seen.append)
        assert wait_until(lambda: bool(seen) and seen[-1].labeled == 1, 60)
        time.sleep(3)
        assert seen[-1].labeled == 1
        stopping.set()
        with pytest.raises(Interrupted):
            running.result(60)
    [named] = [each for each in logs if each["event"] == "roles_without_workers"]
    assert "proofloop serve trainer" in named["hint"]


@pytest.mark.parametrize("end", ["version", "death"])
def test_a_training_run_ends_with_its_last_step_or_with_the_trainer_s_failure(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.QUIET_S", 0.5)
    problems = {"domain": "nano", "count": 1, "proofs_per_problem": 1}
    spec = runspec("last", problems=problems, training={"problems": 1, "generator": {"steps": 3}})
    store = open_store(load_settings())
    create_run(store, spec, resume=False)
    (event,) = planned(spec, store)
    known = label(run_id="last", proof_id=event.proof_id)
    put_record(store, keys.label("last", event.proof_id), known)
    with ThreadPoolExecutor(1) as pool, services_pipeline(store, spec) as pipeline:
        running = pool.submit(pipeline.run)
        time.sleep(3)
        assert not running.done()
        if end == "version":
            publish_folder(store, model_folder(tmp_path / "m"), keys.model("last", "generator", 1))
            assert running.result(60).steps == {"generator": 1}
        else:
            bury(installation, "trainer", ProofLabeled.of(known))
            with pytest.raises(HintedError, match="all proofs are labeled, but the trainer failed"):
                running.result(60)


def test_stored_labels_are_skipped_in_view_and_the_time_counts_without_a_budget(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.pipeline.services.POLL_S", 0.0)
    store, spec = open_store(load_settings()), runspec("stored")
    create_run(store, spec, resume=False)
    posed = list(planned(spec, store))
    for event in posed:
        put_record(
            store,
            keys.label("stored", event.proof_id),
            label(run_id="stored", proof_id=event.proof_id),
        )
    seen: list[RunProgress] = []
    with services_pipeline(store, spec) as pipeline:
        pipeline.run(seen.append)
    assert [each.labeled for each in seen] == [1, 2, 3, 4, 4]
    (time_taken,) = store.list(keys.times("stored"))
    assert get_record(store, time_taken, TimeTaken).seconds > 0


def test_the_last_count_of_a_run_has_the_cost_of_all_its_calls(installation: Installation) -> None:
    """Each service writes its counts every few seconds: a short run has ended before."""
    run = installation.folder / "priced.toml"
    text = RUN.replace("chaos", "priced").replace("count = 25", "count = 1")
    text = text.replace("latency_s = 0.1, failure_share = 0.02", "")
    run.write_text(text + "[prices]\nper_million_completion_tokens = 1000.0\n")
    for role in PIPELINE_ROLES:
        installation.start(role)
    assert installation.call("run", str(run)).wait(90) == 0, installation.log()
    [total] = [
        row
        for row in json.loads(_output(installation, "runs", "cost", "priced", "--json"))
        if row["of"] == "total"
    ]
    [*_, last] = [line for line in installation.log().splitlines() if line.startswith("priced: ")]
    assert f"cost so far {total['money']:,.2f}; took" in last


def test_a_run_tells_the_reason_of_its_dead_letters(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here its store is not the services'."""
    monkeypatch.setattr("proofloop.pipeline.services.QUIET_S", 0.5)
    store, spec = LocalStore(tmp_path / "other"), runspec("elsewhere")
    create_run(store, spec, resume=False)
    installation.start("generator")
    with (
        structlog.testing.capture_logs() as logs,
        services_pipeline(store, spec) as pipeline,
        pytest.raises(HintedError, match="dead letter"),
    ):
        pipeline.run()
    [letter] = [each for each in logs if each["event"] == "dead_letter"]
    assert letter["reason"].endswith(
        "specs/elsewhere.json; set the same store for `proofloop run` and all services"
    )


@contextmanager
def services_pipeline(
    store: Store, spec: RunSpec, stopping: threading.Event | None = None
) -> Iterator[ServicesPipeline]:
    """What `proofloop run` does once the run is in the store."""
    settings, stopping = load_settings(), stopping or threading.Event()
    bus = open_bus(settings, roles=[*PIPELINE_ROLES, "trainer"])
    try:
        letters = open_dead_letters(settings)
        with ServicesPipeline(store, bus, letters, spec, stopping=stopping) as pipeline:
            yield pipeline
    finally:
        stopping.set()
        bus.close(grace_s=5)


def topology(installation: Installation) -> Topology:
    return Topology(installation.environment["PROOFLOOP_NAMESPACE"])


def bury(installation: Installation, role: str, *events: Event) -> None:
    """Put messages among the dead letters of a role."""
    queue = topology(installation).dead_queue(role).name
    publish(installation.environment["PROOFLOOP_BROKER"], queue, *map(encode, events))


def _purge(installation: Installation, role: str) -> None:
    url = URLParameters(installation.environment["PROOFLOOP_BROKER"])
    with BlockingConnection(url) as connection:
        connection.channel().queue_purge(topology(installation).queue(role).name)


def test_what_is_no_event_is_dead_and_can_be_looked_at_replayed_and_dropped(
    installation: Installation,
) -> None:
    installation.start("verifier")
    installation.wait_ready("verifier")
    bodies = [b"not json", b'{"event":"ProofRefuted","run_id":"r"}', b"x" * 5_000_000]
    missing = (
        b'{"event":"ProofWritten","run_id":"none","proof_id":"p","index":0,'
        b'"verifier_version":"v","colour":"red"}'
    )
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("verifier").name
    publish(installation.environment["PROOFLOOP_BROKER"], queue, *bodies, missing)
    assert wait_until(lambda: len(list(installation.letters.letters())) == 4, 60), (
        installation.log()
    )
    listed = json.loads(_output(installation, "dead", "list", "--json"))
    assert 300 <= _output(installation, "dead", "list").count("x") < 400
    assert sorted((letter["queue"], letter["deliveries"]) for letter in listed) == [
        ("verifier", 1)
    ] * 3 + [("verifier", 4)]
    reasons = " | ".join(letter["reason"] for letter in listed)
    for part in ("no event", "unknown event 'ProofRefuted'", "5000000 bytes", "the store lacks"):
        assert part in reasons.replace("is not an event", "no event")
    assert max(len(letter["body"]) for letter in listed) == 64 * 1024
    assert (
        _output(installation, "dead", "replay", "--run", "none") == "1 messages delivered again\n"
    )
    assert wait_until(lambda: len(list(installation.letters.letters())) == 4, 60)
    assert _output(installation, "dead", "drop") == "4 dead letters dropped\n"
    assert list(installation.letters.letters()) == []


def test_roles_without_workers_are_named_until_they_are_there(installation: Installation) -> None:
    run = installation.folder / "alone.toml"
    run.write_text(RUN.replace("chaos", "alone").replace("count = 25", "count = 1"))
    posing = installation.call("run", str(run))
    assert wait_until(lambda: _named_absent(installation) == [[*PIPELINE_ROLES]], 30), (
        installation.log()
    )
    findings = {
        finding["what"]: finding
        for finding in json.loads(_output(installation, "doctor", "--json"))
    }
    assert (findings["workers"]["state"], findings["workers"]["found"]) == (
        "warning",
        "generator 0, verifier 0, meta_verifier 0, labeler 0, trainer 0",
    )
    findings = {
        finding["what"]: finding
        for finding in json.loads(_output(installation, "doctor", str(run), "--json"))
    }
    assert findings["workers of the run"]["hint"].startswith(
        "start them: proofloop serve generator; "
    )
    for role in PIPELINE_ROLES:
        installation.start(role)
    assert posing.wait(90) == 0, installation.log()
    findings = {
        finding["what"]: finding
        for finding in json.loads(_output(installation, "doctor", "--json"))
    }
    assert findings["workers"]["state"] == "ok"


def _named_absent(installation: Installation) -> list[list[str]]:
    """The roles that a run named as without workers, each time it did."""
    lines = (installation.folder / "log.txt").read_text().splitlines()
    return [json.loads(line)["roles"] for line in lines if "roles_without_workers" in line]


def test_doctor_names_broker_and_store(installation: Installation) -> None:
    findings = {
        finding["what"]: finding
        for finding in json.loads(_output(installation, "doctor", "--json"))
    }
    assert findings["broker"]["state"] == findings["store"]["state"] == "ok"
    assert "s3://" in findings["store"]["found"]
    assert installation.log() == ""  # no queue is there yet, which is no reason to warn


def test_a_broker_that_refuses_the_password_is_named_without_it(installation: Installation) -> None:
    installation.environment["PROOFLOOP_BROKER"] = installation.environment[
        "PROOFLOOP_BROKER"
    ].replace("guest@", "wrong-word@")
    assert installation.call("serve", "labeler").wait(60) == 2
    assert "refuses this user" in installation.log()
    assert "wrong-word" not in installation.log()


def _output(installation: Installation, *words: str) -> str:
    process = installation.call(*words)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, installation.log()
    return output


def _ready(installation: Installation, role: str) -> int:
    """The messages in a role's queue; 0 if there is no queue yet."""
    return sum(depth.ready for depth in installation.letters.depths() if depth.role == role)


def _began(call_log: Path) -> int:
    """Calls that were begun, by the engines' own account."""
    return sum(page.read_text().count("began") for page in call_log.glob("*"))


def _counted(installation: Installation, role: str) -> list[tuple[int, int]]:
    """How often every message ready in a role's queue failed, and how often its worker died."""
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue(role).name
    messages = taken_from(installation.environment["PROOFLOOP_BROKER"], queue)
    headers = [properties.headers or {} for properties, _ in messages]
    return [(each.get(FAILURES, 0), each.get("x-delivery-count", 0)) for each in headers]


def test_a_budget_ends_a_run_on_services_and_more_of_it_completes_the_run(
    installation: Installation,
) -> None:
    call_log, run = installation.folder / "call_log", installation.folder / "thrifty.toml"
    text = RUN.replace(
        "latency_s = 0.1, failure_share = 0.02", f'latency_s = 1.5, call_log = "{call_log}"'
    )
    text = text.replace("chaos", "thrifty").replace("count = 25", "count = 6")
    run.write_text(text + "[budget]\ntokens = 20_000\n")
    for role in PIPELINE_ROLES:
        installation.start(role)
    assert installation.call("run", str(run)).wait(240) == 4, installation.log()
    assert wait_until(lambda: all(_ready(installation, role) == 0 for role in PIPELINE_ROLES), 60)
    store, began = open_store(load_settings()), _began(call_log)
    assert sum(1 for _ in store.list(keys.labels("thrifty"))) < 24
    time.sleep(3)
    assert _began(call_log) == began, "calls begin though the budget is used up"
    assert installation.call("run", str(run), "--resume").wait(240) == 4, installation.log()
    run.write_text(text + "[budget]\ntokens = 10_000_000\n")
    assert installation.call("run", str(run), "--resume").wait(240) == 0, installation.log()
    spent = costs(store, "thrifty").total
    assert sum(1 for _ in store.list(keys.labels("thrifty"))) == 24
    # Stopped early: critiques that no label needs.
    assert spent.calls <= _began(call_log) <= spent.calls + 24
    assert not list(installation.letters.letters())


def test_services_follow_a_run_whose_server_moved(installation: Installation) -> None:
    with ScriptedServer() as gone:
        old = gone.base_url  # nothing answers there any more
    text = RUN.replace('name = "chaos"', 'name = "moved"\nprompts = "math"')
    text = text.replace("count = 25\nproofs_per_problem = 4", "count = 3\nproofs_per_problem = 2")
    text = text.replace('kind = "simulated"', 'kind = "openai"')
    reached = (
        'settings = { base_url = "%s", max_attempts = 1, first_wait_s = 0.1, longest_wait_s = 0.5 }'
    )
    text = text.replace("settings = { latency_s = 0.1, failure_share = 0.02 }", reached)
    run, store = installation.folder / "moved.toml", open_store(load_settings())
    run.write_text(text % old)
    for role in PIPELINE_ROLES:
        installation.start(role)
    posing = installation.call("run", str(run))
    assert wait_until(lambda: any(depth.later for depth in installation.letters.depths()), 120), (
        installation.log()
    )
    posing.send_signal(signal.SIGINT)
    assert posing.wait(60) == 130
    with ScriptedServer(lambda exchange: _written(exchange).finish()) as server:
        run.write_text(text % server.base_url)
        assert installation.call("run", str(run), "--resume").wait(240) == 0, installation.log()
    assert sum(1 for _ in store.list(keys.labels("moved"))) == 6


def _written(exchange: Exchange) -> Exchange:
    exchange.begin()
    asks_for_a_proof = "Self Evaluation" in exchange.body["messages"][0]["content"]
    exchange.say(answer() if asks_for_a_proof else evaluation())
    return exchange
