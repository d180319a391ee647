"""When an alert fires and when it does not, by Prometheus' own tool on made-up series of an hour or
two.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest

from proofloop.worker.metrics import SECONDS
from tests.helm.test_monitoring import rules
from tests.integration.prometheus import promtool

VERIFIER = 'namespace="maths",pod="p",role="verifier"'
IN_WORK = f"proofloop_messages_in_work{{{VERIFIER}}}"
DONE = f'proofloop_messages_total{{{VERIFIER},outcome="acked"}}'
DEAD = f"proofloop_dead_letters_total{{{VERIFIER}}}"
UP = f"proofloop_broker_connected{{{VERIFIER}}}"
AWAY = f'proofloop_engine_failures_total{{{VERIFIER},reason="away"}}'
REFUSED = f'proofloop_engine_failures_total{{{VERIFIER},reason="refused"}}'


def queue(figure: str, name: str = "proofloop.verifier", vhost: str = "/") -> str:
    return f'rabbitmq_queue_{figure}{{namespace="brokers",pod="b",vhost="{vhost}",queue="{name}"}}'


READY = queue("messages_ready")
CONSUMERS = queue("consumers")
GIVEN_UP = queue("messages", "proofloop.verifier.dead")
ELSEWHERE = queue("consumers", vhost="other")


def waited(below_an_hour: str, below_two: str) -> list[tuple[str, str]]:
    ends = {"3600": below_an_hour, "7200": below_two, "+Inf": below_two}
    bucket = f'proofloop_queue_wait_seconds_bucket{{{VERIFIER},event="ProofWritten"'
    return [(f'{bucket},le="{end}"}}', values) for end, values in ends.items()]


def verdicts(outcome: str, values: str, version: str = "v2") -> tuple[str, str]:
    return (
        f'proofloop_verdicts_total{{{VERIFIER},model_version="{version}",outcome="{outcome}"}}',
        values,
    )


def labels(outcome: str, values: str) -> tuple[str, str]:
    return (
        f'proofloop_labels_total{{namespace="maths",pod="p",outcome="{outcome}",kind="k"}}',
        values,
    )


@pytest.mark.parametrize(
    ("alert", "minutes", "series", "fires"),
    [
        ("ProofloopQueueWaits", 40, waited("0x40", "0+60x40"), True),
        ("ProofloopQueueWaits", 40, waited("0+60x40", "0+60x40"), False),
        # The first call may take two hours.
        (
            "ProofloopStuck",
            100,
            [(IN_WORK, "3x100"), (DONE, "0x100")],
            False,
        ),
        ("ProofloopStuck", 130, [(IN_WORK, "3x130"), (DONE, "0x130")], True),
        # One came after 100 minutes.
        (
            "ProofloopStuck",
            200,
            [(IN_WORK, "3x200"), (DONE, "0x100 1x100")],
            False,
        ),
        # It was idle in between.
        (
            "ProofloopStuck",
            200,
            [(IN_WORK, "3x100 0 3x98"), (DONE, "0x200")],
            False,
        ),
        ("ProofloopDeadLetters", 10, [(DEAD, "0x5 1x5")], True),
        ("ProofloopDeadLetters", 10, [(DEAD, "7x10")], False),  # of a time before
        ("ProofloopDeadLettersWait", 12, [(GIVEN_UP, "0x5 2x7"), (DEAD, "0x12")], True),
        # Its workers died of them and are gone.
        (
            "ProofloopDeadLettersWait",
            12,
            [(GIVEN_UP, "0x5 2x7")],
            True,
        ),
        # The alert above.
        (
            "ProofloopDeadLettersWait",
            50,
            [(GIVEN_UP, "0x5 2x45"), (DEAD, "0x5 2x45")],
            False,
        ),
        # Nobody replays them.
        (
            "ProofloopDeadLettersWait",
            90,
            [(GIVEN_UP, "0x5 2x85"), (DEAD, "0x5 2x85")],
            True,
        ),
        # Somebody did.
        (
            "ProofloopDeadLettersWait",
            90,
            [(GIVEN_UP, "2x30 0x60"), (DEAD, "0x90")],
            False,
        ),
        ("ProofloopRoleWithoutWorkers", 12, [(READY, "4x12"), (CONSUMERS, "0x12")], True),
        (
            "ProofloopRoleWithoutWorkers",
            12,
            [(READY, "4x12"), (CONSUMERS, "0x12"), (ELSEWHERE, "3x12")],
            True,
        ),
        # It slept, its pod starts.
        (
            "ProofloopRoleWithoutWorkers",
            12,
            [(READY, "0x6 4x6"), (CONSUMERS, "0x12")],
            False,
        ),
        # It sleeps.
        (
            "ProofloopRoleWithoutWorkers",
            60,
            [(READY, "0x60"), (CONSUMERS, "0x60")],
            False,
        ),
        # That is ProofloopQueueWaits.
        (
            "ProofloopRoleWithoutWorkers",
            60,
            [(READY, "4x60"), (CONSUMERS, "1x60")],
            False,
        ),
        (
            "ProofloopRoleWithoutWorkers",
            60,
            [(queue("messages_ready", "proofloop.verifier.dead"), "4x60")],
            False,
        ),
        ("ProofloopBrokerUnavailable", 4, [(UP, "0x10")], False),
        ("ProofloopBrokerUnavailable", 6, [(UP, "0x10")], True),
        ("ProofloopEngineUnavailable", 20, [(AWAY, "0+1x20")], True),
        # Of single calls the verdicts tell.
        (
            "ProofloopEngineUnavailable",
            20,
            [(REFUSED, "0+1x20")],
            False,
        ),
        (
            "ProofloopAnswersUnreadable",
            90,
            [verdicts("valid", "0+9x90"), verdicts("truncated", "0+2x90")],
            True,
        ),
        (
            "ProofloopAnswersUnreadable",
            90,
            [verdicts("valid", "0+9x90"), verdicts("truncated", "0x90")],
            False,
        ),
        (
            # a bad version is seen beside a good one that answers most
            "ProofloopAnswersUnreadable",
            90,
            [
                verdicts("valid", "0+99x90", "v1"),
                verdicts("valid", "0+1x90"),
                verdicts("malformed", "0+1x90"),
            ],
            True,
        ),
        (
            "ProofloopManyUndecided",
            420,
            [labels("rejected", "0+1x420"), labels("undecided", "0+1x420")],
            True,
        ),
        (
            "ProofloopManyUndecided",
            420,
            [labels("rejected", "0+9x420"), labels("undecided", "0+1x420")],
            False,
        ),
    ],
)
def test_an_alert_fires_when_it_should_and_only_then(
    alert: str, minutes: int, series: list[tuple[str, str]], fires: bool, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(
        json.dumps({"groups": [{"name": "proofloop", "rules": rules()}]})
    )
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "alert_rule_test": [{"alertname": alert, "eval_time": f"{minutes}m", "exp_alerts": []}],
    }
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yaml").write_text(json.dumps(whole))
    assert fired(tmp_path, alert) is fires


def fired(folder: Path, alert: str) -> bool:
    """The case expects no alert: promtool fails by naming the one that it got."""
    done = subprocess.run(
        [promtool(), "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 or f'alertname="{alert}"' in said, said
    return done.returncode != 0


def test_a_wait_that_no_bucket_can_show_is_no_threshold() -> None:
    """Above the last bucket a quantile stays at its end: such an alert would never fire."""
    with pytest.raises(helm_python.HelmError, match="queueWaitSeconds"):
        rules(
            {"monitoring": {"alerts": True, "thresholds": {"queueWaitSeconds": int(SECONDS[-1])}}}
        )


def test_every_alert_is_tried() -> None:
    """Of every rule there is a case above in which it fires."""
    (marks,) = [
        one
        for one in test_an_alert_fires_when_it_should_and_only_then.pytestmark
        if one.name == "parametrize"
    ]
    cases: list[Any] = [getattr(case, "values", case) for case in marks.args[1]]
    assert {case[0] for case in cases if case[3]} == {rule["alert"] for rule in rules()}
