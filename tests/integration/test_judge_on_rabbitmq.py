"""`proofloop judge` on services: killed with SIGKILL and run again, it pays each call once."""

from __future__ import annotations

import json

from proofloop.config.settings import load_settings
from proofloop.runs.costs import costs
from proofloop.schema import keys
from proofloop.store import open_store
from tests.integration.installation import Installation
from tests.waiting import wait_until

PROOFS, CRITIQUES, NAME = 40, 4, "mine-on-graded"
RUN = """
[engine]
kind = "simulated"
settings = { latency_s = 0.2, verifier_noise = 0.0 }
[flow]
max_waiting_proofs = 16
[models]
verifier = "rehearsal"
meta_verifier = "rehearsal"
[labeling]
n = 4
m = 0
k = 1
"""


def test_judging_survives_a_killed_command_and_a_killed_verifier(
    installation: Installation,
) -> None:
    rows = [
        {
            "problem": f"Prove {number // 2}.",
            "proof": f"Simulated proof {number:x} of quality {number % 2}.",
            "points": 7 * (number % 2),
        }
        for number in range(PROOFS)
    ]
    data, run = installation.folder / "graded.jsonl", installation.folder / "mine.toml"
    data.write_text("\n".join(map(json.dumps, rows)))
    run.write_text(RUN)
    found = installation.folder / "rows.jsonl"
    command = ("judge", str(data), "--using", str(run), "--rows", str(found))
    store = open_store(load_settings())
    for role in ("verifier", "meta_verifier", "labeler"):
        installation.start(role)
    begun = installation.call(*command)
    labels = keys.labels(NAME)
    assert wait_until(lambda: len(list(store.list(labels))) >= 5, 180), installation.log()
    begun.kill()
    installation.kill("verifier")
    installation.start("verifier")
    assert installation.call(*command).wait(240) == 0, installation.log()
    judged = [json.loads(line) for line in found.read_text().splitlines()]
    assert [row["truth"] for row in judged] == [0.0, 1.0] * (PROOFS // 2)
    assert all(row["score"] == row["truth"] for row in judged)
    assert costs(store, NAME).by_role["verifier"].calls == PROOFS * CRITIQUES
    assert not list(installation.letters.letters())
