"""Demonstrations of all roles on nano problems as chat rows; and how many answers of a model can be
read, role by role.

    python examples/smollm2/demonstrations.py make
    python examples/smollm2/demonstrations.py check

Proofs and critiques are often wrong on purpose: the training by rewards has something to improve.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path

from proofloop.config.curriculum_file import load_curriculum
from proofloop.config.demonstration_file import read_answer
from proofloop.config.settings import load_settings
from proofloop.curriculum.status import manifests
from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.method.prompts import load_pack
from proofloop.schema.records import ModelRole, Sampling
from proofloop.store import open_store
from proofloop.store.model_folders import version_folder
from proofloop_serving.engine import LocalEngine
from proofloop_trainer.nano.demonstrations import Demonstration, demonstrate

HERE = Path(__file__).parent
EACH = 160
"""Demonstrations of each role."""

LONGEST = 480
"""Characters of a prompt and its answer: a CPU learns the formats from short ones."""

ASKED = 16
"""Prompts of each role that `check` asks; none of them is demonstrated."""

SAMPLING = Sampling(max_tokens=160, temperature=1.0)
ROLES: dict[str, ModelRole] = {
    "Prove": "generator",
    "Evaluate": "verifier",
    "Judge": "meta_verifier",
}
"""The role of a prompt, by its first word."""


def make(file: Path = HERE / "demonstrations.jsonl") -> None:
    """Write the chat rows."""
    with file.open("w", encoding="utf-8") as out:
        for each in itertools.chain.from_iterable(_of_each_role(EACH, seed=0).values()):
            messages = [
                {"role": "user", "content": each.prompt},
                {"role": "assistant", "content": each.answer},
            ]
            out.write(f"{json.dumps({'messages': messages})}\n")


def _of_each_role(count: int, seed: int) -> dict[ModelRole, list[Demonstration]]:
    """So many short demonstrations of each role."""
    found: dict[ModelRole, list[Demonstration]] = {role: [] for role in ROLES.values()}
    for each in demonstrate(seed):
        role = ROLES.get(each.prompt.split()[0])
        if role and len(found[role]) < count and len(each.prompt + each.answer) <= LONGEST:
            found[role].append(each)
        if all(len(of_role) == count for of_role in found.values()):
            break
    return found


def check() -> None:
    """Print the share of readable answers of the start model and of every model of all roles."""
    spec, settings = load_curriculum(HERE / "curriculum.toml"), load_settings()
    store = open_store(settings)
    versions = {"start": spec.start}
    for name, manifest in manifests(store, spec).items():
        if manifest.version and name.endswith(("cold_start", "consolidate")):
            versions[name] = manifest.version
    with tempfile.TemporaryDirectory() as cache:
        engine = LocalEngine(lambda name: version_folder(store, Path(cache), name, HERE))
        for name, version in versions.items():
            shares = _readable(engine, version)
            print(f"{name:14}", *(f"{role} {share:.2f}" for role, share in shares.items()))
        engine.close()


def _readable(engine: LocalEngine, version: str) -> dict[str, float]:
    """The share of readable answers of each role."""
    pack, shares = load_pack("nano"), {}
    for role, asked in _of_each_role(ASKED, seed=1).items():
        calls = [engine.submit(_request(version, each.prompt, n)) for n, each in enumerate(asked)]
        verdicts = [read_answer(role, call.result().text, pack) for call in calls]
        shares[role] = sum(each.outcome == "valid" for each in verdicts) / len(verdicts)
    return shares


def _request(version: str, prompt: str, seed: int) -> GenerationRequest:
    return GenerationRequest(str(seed), version, (ChatMessage("user", prompt),), SAMPLING, seed)


if __name__ == "__main__":
    if sys.argv[1:] not in (["make"], ["check"]):
        sys.exit(__doc__)
    make() if sys.argv[1] == "make" else check()
