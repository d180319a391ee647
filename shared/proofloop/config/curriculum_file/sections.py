"""The sections that decide on data, labels, the gate and the watch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from proofloop.config.run_file.labeling import Labeling
from proofloop.config.section import Section


class Files(Section):
    """Your own problems, and proofs and analyses graded by people (D_v, D_mv), instead of a domain.

    The files are JSON or JSONL; paths are relative to the curriculum file. Of 10 questions, 8 are
    for training, one for the gate and one for measuring; the digest of a question decides.
    """

    problems: Path = Field(
        strict=False, description="problems, in the rows of a run's problem file"
    )
    proofs: Path = Field(strict=False, description="D_v: rows of question, solution and score")
    analyses: Path | None = Field(
        None,
        strict=False,
        description="D_mv: rows of question, solution, analysis and quality; default: no graded"
        " analyses",
    )


class Data(Section):
    """The sizes of D_v and D_mv, and their sampling temperatures.

    With [files], only `proofs`, `analyses` and `validation` are used.
    """

    problems: int = Field(
        2000, ge=2, description="problems for D_v; each gets one proof for each temperature"
    )
    proofs: int = Field(2000, ge=2, description="the most proofs in D_v, half of them flawed")
    analyses: int = Field(2400, ge=2, description="the most analyses in D_mv, balanced by quality")
    temperatures: tuple[float, ...] = Field(
        (1.0, 1.25),
        min_length=1,
        strict=False,
        description="sampling temperatures of D_v's proofs, used in turn",
    )
    analysis_temperatures: tuple[float, ...] = Field(
        (1.0, 1.5),
        min_length=1,
        strict=False,
        description="sampling temperatures of D_mv's analyses, used in turn",
    )
    validation: int = Field(
        300, ge=2, description="the most validation cases on which the gate compares versions"
    )


class Labels(Section):
    """New proofs, labeled only by the verifier and the meta-verifier.

    The previous generator writes some of them, because the newest makes few mistakes to learn from.
    """

    problems: int = Field(256, ge=1, description="new problems, and as many from `harder`")
    earlier: bool = Field(True, description="also label as many proofs by the previous generator")
    proofs_per_problem: int = Field(2, ge=1, description="proofs for each problem and generator")
    rule: Labeling = Labeling(n=8, m=3, k=2)


class Gate(Section):
    """A version is promoted unless it is worse than its predecessor on the validation split by more
    than the noise.
    """

    z: float = Field(
        1.96, ge=0, description="the size of the noise, in standard errors of the paired difference"
    )


class Watch(Section):
    """Limits that stop a stage: exceeding one is a sign of reward hacking, or that there is nothing
    to learn from.
    """

    window: int = Field(5, ge=1, description="the limits hold for means over this many last steps")
    no_signal: float = Field(
        0.98,
        ge=0,
        le=1,
        description="the highest share of groups whose answers all earn the same, in the first"
        " `window` steps; 1: no limit",
    )
    failed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="the highest share of model calls without an answer, such as calls that the"
        " engine refused; it holds for gates and data sets too",
    )
    format: float = Field(0.8, ge=0, le=1, description="the lowest share of readable answers")
    shorter: float = Field(
        0.4, gt=0, le=1, description="the shortest mean answer, relative to the first steps"
    )
    longer: float = Field(
        2.5, ge=1, description="the longest mean answer, relative to the first steps"
    )
    same_score: float = Field(
        0.9, gt=0, le=1, description="the highest share of one score among a judge's answers"
    )
