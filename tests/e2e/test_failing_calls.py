"""A whole run against a real HTTP server that always fails one call in a hundred, each in a
different way.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proofloop.runs.answers import verdicts_of
from proofloop.schema import keys
from proofloop.schema.records import Label
from proofloop.store import LocalStore, get_record
from tests.builders import answer, evaluation, meta_evaluation
from tests.scripted_openai import Exchange, Script, ScriptedServer, chunk, refuses, sends

PROOFS, N, M, ATTEMPTS = 96, 16, 5, 3
FAILING_SHARE = 100
"""One call in so many fails, whenever it is asked."""

LONG = {"error": {"message": "the prompt is too long", "type": "BadRequestError", "code": 400}}
FAILURES: dict[str, Script] = {
    "500": refuses(500, "out of order"),
    "503": refuses(503, "busy"),
    "429": refuses(429, "slow down"),
    "403": refuses(403, "flagged by moderation"),
    "404": refuses(404, {"detail": "Not Found"}),
    "400": refuses(400, "too long"),
    "an error of code 400 after 200": sends(f"data: {json.dumps(LONG)}\n\n".encode()),
    "an error with a word as its code": sends(
        b'data: {"error": {"message": "no", "code": "internal_failure"}}\n\n'
    ),
    "a cut stream": sends(chunk({"content": "## Solution"})),
    "no finish reason": sends(chunk({"content": "Done."}) + b"data: [DONE]\n\n"),
    "a web page": sends(b"<html>sign in</html>", "text/html"),
}
RUN_FILE = """
name = "failing"
[problems]
file = "problems.json"
proofs_per_problem = 4
[engine]
kind = "openai"
[engine.settings]
base_url = "{base_url}"
max_attempts = {attempts}
first_wait_s = 0.05
longest_wait_s = 1.0
longest_busy_s = 1.5
max_concurrency = {concurrency}
[models]
generator = "m"
verifier = "m"
meta_verifier = "m"
[labeling]
n = {n}
m = {m}
k = 4
stop_early = false
"""


class FailingServer:
    """Counts what it was asked and what it answered, by prompt and seed. `latency_s` passes before
    each answer.
    """

    def __init__(self, latency_s: float = 0.0) -> None:
        self._latency_s, self._lock = latency_s, threading.Lock()
        self.asked, self.answered = Counter[str](), Counter[str]()
        self.failures: dict[str, str] = {}
        self.server = ScriptedServer(self._respond, models=["m"])

    def _respond(self, exchange: Exchange) -> None:
        prompt, seed = exchange.body["messages"][0]["content"], exchange.body["seed"]
        call = hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()
        lot = int(call[:8], 16)
        # Probes, and the check before the run.
        is_check = exchange.body["max_tokens"] == 1 or seed == 2**63 - 1
        name = list(FAILURES)[lot // FAILING_SHARE % len(FAILURES)]
        if not is_check:
            with self._lock:
                self.asked[call] += 1
                if lot % FAILING_SHARE == 0:
                    self.failures[call] = name
        if not is_check and lot % FAILING_SHARE == 0:
            return FAILURES[name](exchange)
        time.sleep(self._latency_s)
        message = {"role": "assistant", "content": said(prompt, lot)}
        usage = {"prompt_tokens": 100, "completion_tokens": 50}
        exchange.refuse(
            200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        )
        if not is_check:
            with self._lock:
                self.answered[call] += 1

    @property
    def paid_again(self) -> int:
        return sum(count - 1 for count in self.answered.values())

    def most_attempts(self) -> int:
        """Of calls that fail otherwise than by a busy server, which is asked as long as it has
        other calls.
        """
        return max(
            self.asked[call] for call, name in self.failures.items() if name not in ("429", "503")
        )


def said(prompt: str, lot: int) -> str:
    """One critique in eight reports an issue."""
    if 'rate the "solution evaluation"' in prompt:
        return meta_evaluation()
    if "## Self Evaluation" in prompt:
        return answer(f"Proof {lot}.")
    return evaluation("0" if lot % 8 == 0 else "1")


def start(folder: Path, base_url: str, concurrency: int, *options: str) -> subprocess.Popen[str]:
    """`proofloop run` in a separate process."""
    problems = [
        {"question": f"Prove that {number} < {number + 1}."} for number in range(PROOFS // 4)
    ]
    (folder / "problems.json").write_text(json.dumps(problems))
    fields = {
        "base_url": base_url,
        "attempts": ATTEMPTS,
        "concurrency": concurrency,
        "n": N,
        "m": M,
    }
    (folder / "run.toml").write_text(RUN_FILE.format(**fields))
    command = [
        sys.executable,
        "-c",
        "from proofloop.cli import main; main()",
        "run",
        str(folder / "run.toml"),
    ]
    return subprocess.Popen(
        [*command, "--store", str(folder / "store"), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], within_s: float) -> str:
    printed, _ = process.communicate(timeout=within_s)
    assert process.returncode == 0, printed
    return printed


def check_complete(store: LocalStore, server: FailingServer) -> None:
    """Every proof has its outcome, and every failing call is recorded as failed."""
    labels = [get_record(store, key, Label) for key in store.list(keys.labels("failing"))]
    assert len(labels) == PROOFS
    outcomes = Counter(each.verdict.outcome for each in verdicts_of(store, "failing"))
    assert outcomes["engine_failed"] == len(server.failures) > 0
    assert set(outcomes) == {"valid", "engine_failed"}
    assert outcomes["valid"] == len(server.answered)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_with_calls_that_always_fail_completes_and_pays_no_answer_twice(
    tmp_path: Path,
) -> None:
    server = FailingServer()
    with server.server:
        printed = finish(start(tmp_path, server.server.base_url, 32), 280)
    check_complete(LocalStore(tmp_path / "store"), server)
    assert server.paid_again == 0
    assert server.most_attempts() <= ATTEMPTS
    assert "failed: the server answered with status" in printed


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_is_killed_pays_almost_nothing_again(tmp_path: Path) -> None:
    server, store = FailingServer(latency_s=0.2), LocalStore(tmp_path / "store")
    with server.server:
        first = start(tmp_path, server.server.base_url, 16)
        metas = wait_for(
            lambda: sum("/meta_critiques/" in key for key in store.list("runs/failing/proofs/")),
            200,
            120,
        )
        first.send_signal(signal.SIGKILL)
        answered = set(server.answered)
        first.communicate()
        finish(start(tmp_path, server.server.base_url, 32, "--resume"), 200)
    check_complete(store, server)
    assert metas >= 200 and 0 < len(answered) < len(server.answered)
    assert sum(server.asked[call] > 1 for call in answered) <= 0.005 * len(server.answered)
    assert server.most_attempts() <= 2 * ATTEMPTS  # as many in each process


def wait_for(count: Callable[[], int], wanted: int, limit_s: float) -> int:
    deadline_s = time.monotonic() + limit_s
    while (found := count()) < wanted and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return found
