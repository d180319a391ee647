"""`proofloop iterate`: the stages one after the other, each once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from proofloop.curriculum import CurriculumSpec, StageKind, StageManifest, finish, freeze, manifests, serving_before
from proofloop.domains import load_domain
from proofloop.engine.pool import Engines
from proofloop.prompts import load_pack
from proofloop.settings import load_settings
from proofloop.store import Store
from proofloop_trainer.curriculum import measuring, stages
from proofloop_trainer.curriculum.work import Work

STAGES: dict[StageKind, Callable[..., StageManifest]] = {
    "cold_start": stages.cold_start,
    "verifier": stages.verifier,
    "meta_verifier": stages.meta_verifier,
    "enhanced": stages.enhanced,
    "generator": stages.generator,
    "label": stages.label,
    "consolidate": stages.consolidate,
    "measure": measuring.measure,
}


def iterate(
    spec: CurriculumSpec, store: Store, engines: Engines, stopping: threading.Event, say: Callable[[str], None]
) -> dict[str, StageManifest]:
    """Do every stage that has no manifest yet; the manifests of all. Raises Interrupted when asked to stop."""
    freeze(store, spec)
    work = Work(
        spec,
        store,
        engines,
        load_domain(spec.domain),
        load_domain(spec.harder) if spec.harder else None,
        load_pack(spec.prompts, spec.base),
        Path(load_settings().cache),
        stopping,
        say,
    )
    done = manifests(store, spec)
    for number, stage in enumerate(spec.stages, start=1):
        if stage.name in done:
            continue
        work.check_stopping()
        say(f"stage {number}/{len(spec.stages)}: {stage.name}")
        began, cpu_began = time.monotonic(), time.process_time()
        manifest = STAGES[stage.kind](work, stage, serving_before(spec, done, stage))
        taken = manifest.model_copy(
            update={"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu_began}
        )
        done[stage.name] = finish(store, spec, taken)
        for report in manifest.gates:
            say(
                f"{stage.name}: {report.figure} {report.before:.3f} -> {report.after:.3f}, "
                f"{'promoted' if report.promoted else 'not promoted'}"
            )
    return done
