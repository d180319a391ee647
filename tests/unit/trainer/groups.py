"""The groups that a role learns from."""

from __future__ import annotations

from collections.abc import Iterable

from proofloop.config.run_file import RunSpec
from proofloop.schema.records import Label, ModelRole
from proofloop.store import Store
from proofloop_trainer.samples import Group, groups_of, large_enough


def learned_groups(
    role: ModelRole, labels: Iterable[Label], spec: RunSpec, store: Store
) -> list[Group]:
    return large_enough(groups_of(role, labels, spec, store), role, spec)
