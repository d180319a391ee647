"""A curriculum on services: the controller drives every stage on RabbitMQ and S3, and a killed
verifier and a killed trainer cost no stage.
"""

from __future__ import annotations

import pytest

from proofloop.api.files import read_curriculum
from proofloop.config.settings import load_settings
from proofloop.curriculum.status import manifests
from proofloop.runs.model_registry import last_served
from proofloop.schema import keys
from proofloop.schema.records import TrainingBatch
from proofloop.store import get_record, open_store
from tests.integration.installation import Installation
from tests.waiting import wait_until

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

ROLES = ("generator", "verifier", "meta_verifier", "labeler", "trainer")
PATIENCE_S = 900
CURRICULUM = """
name = "served"
iterations = 1
measured = 0
[sampling]
generator = { max_tokens = 64 }
verifier = { max_tokens = 64 }
meta_verifier = { max_tokens = 64 }
[cold_start]
steps = 2
batch = 4
[data]
problems = 16
proofs = 12
analyses = 12
validation = 8
[verifier]
steps = 2
groups = 3
samples = 4
[meta_verifier]
steps = 1
groups = 2
samples = 4
[enhanced]
steps = 2
groups = 4
samples = 4
meta_groups = 1
refresh = 1
refresh_steps = 1
[generator]
steps = 1
groups = 2
samples = 4
critiques = 2
metas = 1
[labels]
problems = 3
proofs_per_problem = 1
rule = { n = 2, m = 1, k = 1 }
[consolidate]
prompts = 4
samples = 2
keep = 0.0
"""


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
def test_every_stage_runs_on_services_of_which_some_are_killed(installation: Installation) -> None:
    file, store = installation.folder / "served.toml", open_store(load_settings())
    file.write_text(CURRICULUM)
    spec = read_curriculum(file)
    for role in ROLES:
        installation.start(role, concurrency=1 if role == "trainer" else 16)
    controller = installation.call("iterate", str(file))
    first = keys.step("served-1-verifier", "verifier", 1)
    assert wait_until(lambda: store.exists(first) or controller.poll(), PATIENCE_S)
    for role in ("verifier", "trainer"):
        installation.kill(role)
        installation.start(role, concurrency=1 if role == "trainer" else 16)
    assert controller.wait(PATIENCE_S) == 0, installation.log()
    done = manifests(store, spec)
    assert list(done) == [stage.name for stage in spec.stages]
    assert last_served(store, "served", "generator") in {
        manifest.serves.get("generator") for manifest in done.values()
    }
    for step in range(2):
        batch = get_record(store, keys.batch("served-1-verifier", "verifier", step), TrainingBatch)
        cases = [f"c{number:06d}-000" for number in range(3 * step, 3 * step + 3)]
        assert sorted({sample.group for sample in batch.samples}) == cases
