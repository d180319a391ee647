"""What services say of themselves, asked over HTTP while the broker goes and comes; and what they
never say.
"""

from __future__ import annotations

import re
import subprocess
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proofloop.config.settings import load_settings
from proofloop.method.critique_window import first_critiques
from proofloop.schema import keys
from proofloop.schema.records import PIPELINE_ROLES, CritiqueRequest, Label, Proof
from proofloop.store import Store, get_record, open_store
from tests.integration.installation import PROOFLOOP, Installation
from tests.integration.run_files import simulated_run
from tests.integration.servers import S3, Broker, free_ports
from tests.waiting import wait_until

RUN = simulated_run("counted", count=3, proofs_per_problem=2, settings="latency_s = 0.02")
PROOFS, CRITIQUES = 6, 24
PROBE_S = 5.0  # as the chart's timeoutSeconds

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(port: int) -> Samples:
    """Every sample by name and labels."""
    found: Samples = defaultdict(dict)
    for family in text_string_to_metric_families(
        httpx.get(f"http://127.0.0.1:{port}/metrics").text
    ):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def probe(port: int, page: str) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{port}/{page}", timeout=PROBE_S)
    return answer.status_code, answer.json().get("reason", "")


@pytest.mark.slow
def test_metrics_are_what_was_handled_and_health_is_what_is(
    installation: Installation, broker: Broker, s3: S3
) -> None:
    ports = dict(zip(PIPELINE_ROLES, free_ports(len(PIPELINE_ROLES)), strict=True))
    for role, port in ports.items():
        installation.start(role, "--metrics-port", str(port))
    for role in ports:
        installation.wait_ready(role)
    assert wait_until(
        lambda: all(probe(port, "readyz") == (200, "") for port in ports.values()), 60
    )
    run = installation.folder / "counted.toml"
    run.write_text(RUN)
    assert installation.call("run", str(run)).wait(100) == 0, installation.log()
    check_counts({role: scrape(port) for role, port in ports.items()})
    if broker.kill and broker.start:
        broker.kill()
        port = ports["verifier"]
        assert wait_until(lambda: probe(port, "readyz")[0] == 503, 60)
        assert probe(port, "readyz") == (
            503,
            "the worker does not consume: the broker is unavailable",
        )
        assert probe(port, "healthz") == (200, "")
        assert scrape(port)["proofloop_broker_connected"] == {(("role", "verifier"),): 0.0}
        broker.start()
        assert wait_until(lambda: probe(port, "readyz") == (200, ""), 60), probe(port, "readyz")
        assert scrape(port)["proofloop_broker_connected"] == {(("role", "verifier"),): 1.0}
    log = (installation.folder / "log.txt").read_text()
    assert s3.secret_key not in log and "guest:" not in log


def check_counts(seen: dict[str, Samples]) -> None:
    store = open_store(load_settings())
    proofs = [get_record(store, keys.proof("counted", label.proof_id), Proof) for label in labels()]
    generator, verifier, labeler = seen["generator"], seen["verifier"], seen["labeler"]
    version = (("model_version", "rehearsal"), ("role", "generator"))
    assert counted_by(generator, "proofloop_messages_total") == {
        (("outcome", "acked"), ("role", "generator")): PROOFS
    }
    assert generator["proofloop_engine_calls_total"] == {version: PROOFS}
    assert generator["proofloop_completion_tokens_total"] == {
        version: sum(proof.provenance.completion_tokens for proof in proofs)
    }
    assert generator["proofloop_engine_seconds_sum"][version] == pytest.approx(
        sum(proof.provenance.engine_seconds for proof in proofs)
    )
    assert sum(generator["proofloop_verdicts_total"].values()) == PROOFS
    assert generator["proofloop_model_info"] == {version: 1.0}
    readable = [proof for proof in proofs if proof.verdict.outcome == "valid"]
    requested = sum(critiques_requested(store, proof) for proof in readable)
    about = (("event", "ProofWritten"), ("role", "verifier"))
    acked = {(("outcome", "acked"), ("role", "verifier")): requested}
    assert counted_by(verifier, "proofloop_messages_total") == acked
    assert verifier["proofloop_dead_letters_total"] == {(("role", "verifier"),): 0.0}
    assert verifier["proofloop_queue_wait_seconds_count"] == {about: requested}
    assert 0 <= verifier["proofloop_queue_wait_seconds_sum"][about] < 60 * CRITIQUES
    assert verifier["proofloop_messages_in_work"] == {(("role", "verifier"),): 0.0}
    counted: dict[tuple[tuple[str, str], ...], float] = defaultdict(float)
    for label in labels():
        counted[("kind", label.kind), ("outcome", label.outcome)] += 1
    assert counted_by(labeler, "proofloop_labels_total") == counted
    assert "process_resident_memory_bytes" in labeler


def critiques_requested(store: Store, proof: Proof) -> int:
    """By the generator at first, and by the labeler after that."""
    stored = list(store.list(keys.critique_requests(proof.run_id, proof.id)))
    if not stored:
        return first_critiques(n=4, k=2)
    return get_record(store, stored[-1], CritiqueRequest).up_to


def counted_by(samples: Samples, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """What a counter counted: without the series that stand at 0 from the beginning."""
    return {labels: value for labels, value in samples[name].items() if value}


def labels() -> list[Label]:
    store = open_store(load_settings())
    return [get_record(store, key, Label) for key in store.list(keys.labels("counted"))]


def test_a_port_that_is_taken_is_named(installation: Installation) -> None:
    (port,) = free_ports(1)
    installation.start("labeler", "--metrics-port", str(port))
    installation.wait_ready("labeler")
    assert installation.call("serve", "verifier", "--metrics-port", str(port)).wait(20) == 2
    assert f"--metrics-port {port}" in installation.log()


SECRETS = {
    "BROKER": "amqp://user:Secret-broker@{host}/%2F",
    "BROKER_API": "http://user:Secret-api@{host}",
    "S3_SECRET_KEY": "Secret-s3",
    "OPENAI_API_KEY": "Secret-openai",
}
"""Every one of them holds the word that must not be seen."""

ENGINE = (
    '[engine]\nkind = "openai"\nsettings = {{ base_url = "http://{host}/v1", max_attempts = 1 }}\n'
)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"S3_ENDPOINT": "http://{host}"},
        {"S3_ENDPOINT": "http://user:Secret-endpoint@host/"},
        {"BROKER": "amqp://user:Secret-broker@host:port"},
        {"BROKER_API": "user:Secret-api"},
        {"OPENAI_API_KEY": "Secret\nopenai"},
    ],
    ids=lambda wrong: "/".join(wrong) or "nobody-answers",
)
def test_no_secret_is_shown_when_servers_are_wrong(wrong: dict[str, str], tmp_path: Path) -> None:
    (port,) = free_ports(1)
    host = f"127.0.0.1:{port}"
    run = tmp_path / "run.toml"
    run.write_text(re.sub(r"\[engine\]\n.*\n.*\n", ENGINE.format(host=host), RUN))
    settings = {**SECRETS, "S3_ACCESS_KEY": "user", **wrong}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {
        f"PROOFLOOP_{name}": value.format(host=host) for name, value in settings.items()
    }
    for shown in shown_by(
        (["doctor", str(run)], ["run", str(run)], ["serve", "verifier"]), environment, tmp_path
    ):
        assert shown and "Secret" not in shown


def test_no_secret_is_shown_by_servers_that_refuse(
    installation: Installation, broker: Broker, s3: S3
) -> None:
    """The right addresses with wrong words, and a management API that is not told who asks."""
    right = installation.environment
    wrong_store = {**right, "PROOFLOOP_S3_SECRET_KEY": "Secret-s3"}
    wrong_broker = {
        **right,
        "PROOFLOOP_BROKER": right["PROOFLOOP_BROKER"].replace("guest@", "Secret-broker@"),
    }
    wrong_api = {**right, "PROOFLOOP_BROKER_API": broker.api.replace("guest@", "Secret-api@")}
    for environment in (wrong_store, wrong_broker, wrong_api):
        installation.environment = environment
        installation.call("-v", "serve", "labeler").wait(40)
        installation.call("-v", "doctor").wait(40)
    log = (installation.folder / "log.txt").read_text()
    assert log.count("error: ") >= 3
    assert "Secret" not in log and "guest:" not in log and s3.secret_key not in log


def shown_by(commands: Iterable[list[str]], environment: dict[str, str], folder: Path) -> list[str]:
    """What these commands print until each has ended or has said something and had two more
    seconds, side by side.
    """
    pairs = []
    for words in commands:
        file = folder / f"shown-{uuid.uuid4().hex}"
        with open(file, "wb") as output:
            command = [PROOFLOOP, "-v", *words]
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=output, stderr=output
            )
        pairs.append((process, file))
    assert wait_until(
        lambda: all(process.poll() is not None or file.stat().st_size for process, file in pairs),
        60,
    ), "a command says nothing"
    if any(process.poll() is None for process, _ in pairs):
        time.sleep(2)
    for process, _ in pairs:
        process.kill()
        process.wait()
    return [file.read_text() for _, file in pairs]
