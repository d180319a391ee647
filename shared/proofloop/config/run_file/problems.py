"""[problems] of a run file: what a run works on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from proofloop.config.section import Section
from proofloop.schema.records import ModelRole

DRAWN = 32
"""The default number of problems drawn from a domain or a split."""

Split = Literal["train", "validation", "test"]

SOURCES = ("domain", "file", "given_proofs", "given_analyses", "material")


class Problems(Section):
    """Problems to prove (`domain` or `file`), or proofs or analyses to judge. Give exactly one of
    `domain`, `file`, `given_proofs` and `given_analyses`.
    """

    domain: str | None = Field(None, description="the domain that poses the problems")
    file: Path | None = Field(
        None,
        strict=False,
        description="a JSON, JSONL, CSV, TSV or Parquet file, relative to the run file",
    )
    given_proofs: Path | None = Field(
        None,
        strict=False,
        description="a file of proofs to verify: rows of `question` and `solution`; with a `score`"
        " (0, 0.5 or 1) this is the proof's label",
    )
    given_analyses: Path | None = Field(
        None,
        strict=False,
        description="a file of analyses to judge: rows of `question`, `solution` and `analysis`;"
        " `quality` (0, 0.5 or 1) is the right score of the analysis",
    )
    material: bool = Field(
        False, description="the cases lie in the store; set by curricula, not in a run file"
    )
    has_proofs: bool = Field(
        False,
        description="all cases of the material are proofs to verify; set by `proofloop judge`, not"
        " in a run file",
    )
    checker: str | None = Field(
        None,
        description="the domain whose exact checker grades proofs, for `[labeling] by"
        ' = "checker"`; default: `domain`',
    )
    split: Split | None = Field(
        None,
        description="the part of the problems to draw from; default: `train` of a domain, and the"
        " whole of a file",
    )
    count: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="the number of problems; default: 32 of a domain or a split, else all of the"
        " file. Without a split these are the first of the file. Of given proofs or analyses: the"
        " first rows (of the split), default: all",
    )
    proofs_per_problem: int = Field(
        8, ge=1, le=4096, description="proofs of each problem; they are one group in training"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Problems:
        if len(self.sources) > 1:
            raise ValueError(f"give exactly one of {_and(self.sources)}")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the problems by key; empty in a run without problems."""
        return tuple(name for name in SOURCES if getattr(self, name))

    @property
    def is_given(self) -> bool:
        """Whether the run's cases are stored with it, and its proofs or analyses may be given."""
        return bool(self.material or self.given_file)

    @property
    def given_file(self) -> Path | None:
        """The file of given proofs or analyses."""
        return self.given_proofs or self.given_analyses

    @property
    def first_role(self) -> ModelRole:
        """The role at which cases enter the pipeline; of material, the first that may be needed."""
        if self.given_proofs or self.has_proofs:
            return "verifier"
        return "meta_verifier" if self.given_analyses else "generator"

    @property
    def origin(self) -> str:
        """The source of the problems, for tables: a domain, a file, or "material"."""
        return str(self.domain or self.file or self.given_file or "".join(self.sources) or "none")

    @property
    def first_proofs(self) -> int:
        """Proofs of each problem before any search; a given proof is the only one."""
        return 1 if self.given_file or self.has_proofs else self.proofs_per_problem

    @property
    def checked_by(self) -> str | None:
        """The domain whose checker can grade the proofs."""
        return self.checker or self.domain

    @property
    def drawn(self) -> int:
        """The number of problems to draw from a domain or a split."""
        return DRAWN if self.count is None else self.count


def _and(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
