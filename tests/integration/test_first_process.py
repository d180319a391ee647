"""A service as the first process of its container, where SIGTERM does nothing unless it is asked
for.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.fleet import PROOFLOOP
from tests.integration.processes import free_ports, in_container, says, until


@pytest.mark.parametrize("words", [("serve", "verifier"), ("ui",)])
def test_a_service_that_still_waits_for_its_broker_ends_when_it_is_asked_to(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    [port] = free_ports(1)
    log = tmp_path / "log"
    places = {"PROOFLOOP_BROKER": f"amqp://u:p@127.0.0.1:{port}/", "PROOFLOOP_STORE": str(tmp_path)}
    with in_container([PROOFLOOP, *words], {**os.environ, **places}, log) as process:
        until(lambda: says(log, "Connection refused"), log)
        os.kill(process, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{process}").exists(), log)
