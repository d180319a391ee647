"""The sources of a curriculum's problems and grades: a domain with its checker, or files that
people graded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proofloop.config.curriculum_file import CurriculumSpec, Files
from proofloop.config.given_files import GradedAnalysis, GradedProof, in_split, read_graded
from proofloop.config.problem_file import SPLIT_HINT, ProblemFile
from proofloop.config.run_file.problems import Problems, Split
from proofloop.errors import ConfigError
from proofloop.method.domains import Domain, load_domain, need_checker

TRAIN: Split = "train"
VALIDATION: Split = "validation"
TEST: Split = "test"


@dataclass(frozen=True)
class Grades:
    """D_v and D_mv as people graded them."""

    proofs: tuple[GradedProof, ...]
    analyses: tuple[GradedAnalysis, ...]

    def proofs_in(self, split: Split) -> list[GradedProof]:
        return in_split(self.proofs, split)

    def analyses_in(self, split: Split) -> list[GradedAnalysis]:
        return in_split(self.analyses, split)


@dataclass(frozen=True)
class Sources:
    """The source of problems, the source of hard problems, and people's grades: None if the
    domain's checker replaces graders.
    """

    spec: CurriculumSpec
    domain: Domain
    harder: Domain | None = None
    grades: Grades | None = None

    def domains(self, iteration: int) -> list[Domain]:
        """The domains of an iteration's problems, each in turn."""
        return [self.domain, self.harder] if self.harder and iteration > 1 else [self.domain]

    def questions(
        self, count: int, split: Split = TRAIN, first: int = 0, domains: list[Domain] | None = None
    ) -> list[str]:
        """Problems `first`, `first` + 1, ... of the split, from these domains in turn."""
        sources = domains or [self.domain]
        return [
            sources[index % len(sources)].pose(index, split=split, seed=self.spec.seed).question
            for index in range(first, first + count)
        ]

    def problems(self, domain: Domain, split: Split, count: int, proofs: int) -> Problems:
        """The [problems] section of a run for this domain. A curriculum's file of problems is a
        domain too.
        """
        files = self.spec.files
        source = {"file": files.problems} if files else {"domain": domain.name}
        return Problems.model_validate(
            {**source, "split": split, "count": count, "proofs_per_problem": proofs}
        )


def open_sources(spec: CurriculumSpec) -> Sources:
    """Open the domain, or read the files. Raises ConfigError for a file that is bad or too small,
    hours before a stage would need it.
    """
    if spec.files is None:
        domain, harder = load_domain(spec.domain), load_domain(spec.harder) if spec.harder else None
        need_checker(domain)
        return Sources(spec, domain, harder)
    files = spec.files
    problems = ProblemFile(spec.base / files.problems)
    proofs = read_graded(spec.base / files.proofs, GradedProof)
    analyses = read_graded(spec.base / files.analyses, GradedAnalysis) if files.analyses else ()
    _check_problems(spec, files, problems)
    grades = Grades(proofs, analyses)
    for split in _needed_splits(spec):
        _check_grades(files, grades, split)
    return Sources(spec, problems, grades=grades)


def _needed_splits(spec: CurriculumSpec) -> Iterator[Split]:
    yield TRAIN
    yield VALIDATION
    if spec.measured:
        yield TEST


def _check_problems(spec: CurriculumSpec, files: Files, problems: ProblemFile) -> None:
    for key, wanted, split in (
        ("[labels] problems", spec.labels.problems, TRAIN),
        ("measured", spec.measured, TEST),
    ):
        if wanted > (count := problems.count(split)):
            raise ConfigError(
                f"{key} = {wanted}: {files.problems} has {count} problems in the {split} split",
                f"set {key} to {count} or less, or {SPLIT_HINT}",
            )


def _check_grades(files: Files, grades: Grades, split: Split) -> None:
    if len({row.score == 1 for row in grades.proofs_in(split)}) < 2:
        raise ConfigError(
            f"{files.proofs} needs sound and flawed proofs in the {split} split", SPLIT_HINT
        )
    if files.analyses and not grades.analyses_in(split):
        raise ConfigError(f"{files.analyses} has no row in the {split} split", SPLIT_HINT)
