"""The labeling and improvement of proofs: [labeling], [refinement] and [search] of a run file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from proofloop.config.section import Section
from proofloop.schema.validation import HINT


class Labeling(Section):
    """The automatic label of section 2.3."""

    n: int = Field(8, ge=1, le=1024, description="critiques for each proof")
    m: int = Field(
        3,
        ge=0,
        le=255,
        description="meta-critiques for each critique that reports an issue; 0: critiques are not"
        " judged, and the label is the score that most of them give",
    )
    given_m: int | None = Field(
        None, ge=1, le=255, description="meta-critiques of a given analysis; default: m"
    )
    self_m: int | None = Field(
        None,
        ge=0,
        le=255,
        description="meta-critiques of the generator's own analysis; 0: its quality is 1; default:"
        " m",
    )
    by: Literal["rule", "checker"] = Field(
        "rule",
        description="`checker`: the domain's exact checker grades the proofs and no critiques are"
        " requested; for measuring only",
    )
    rule: Literal["quorum", "majority", "mean", "minimum", "unanimous"] | None = Field(
        None,
        description="how n critiques make the label. `quorum`: k confirmed critiques reject;"
        " `majority`: the most frequent score; `mean`: accepted from a mean of `accept_at` on;"
        " `minimum`: the lowest score; `unanimous`: accepted if all n give 1. Default: `quorum`,"
        " and `majority` with m = 0",
    )
    accept_at: float = Field(
        1.0, gt=0, le=1, description='the mean score from which `rule = "mean"` accepts'
    )
    k: int = Field(2, ge=1, description="confirmed critiques for a label below 1; at most n")
    confirm_at: Literal[0.5, 1.0] = Field(  # type: ignore[valid-type]  # as records.Score
        0.5, description="the lowest meta-score that confirms an issue"
    )
    stop_early: bool = Field(
        True,
        description="request no critiques that can no longer change a proof's label or its search",
    )
    retry_unreadable: bool = Field(
        True,
        description="request an unreadable critique once more, unless a verifier trains",
    )

    @model_validator(mode="after")
    def _quorum_fits(self) -> Labeling:
        if self.k > self.n:
            raise ValueError(
                f"k = {self.k} is more than n = {self.n}: no label can reach its quorum"
                f"{HINT}lower k to {self.n} or less, or raise n to {self.k} or more"
            )
        return self

    @model_validator(mode="after")
    def _quorum_is_judged(self) -> Labeling:
        if self.rule == "quorum" and not self.m:
            raise ValueError(
                'rule = "quorum" and m = 0 do not go together: no critique would be confirmed'
                f"{HINT}set m to 1 or more, or another rule"
            )
        return self

    @property
    def rule_in_force(self) -> str:
        """The rule that makes the labels."""
        return self.rule or ("quorum" if self.m else "majority")

    @property
    def metas_of_given(self) -> int:
        """Meta-critiques of a given analysis."""
        return self.m if self.given_m is None else self.given_m

    @property
    def most_metas(self) -> int:
        """The most meta-critiques of one critique."""
        return max(self.m, self.metas_of_given, self.metas_of_self)

    @property
    def metas_of_self(self) -> int:
        """Meta-critiques of the generator's own analysis."""
        return self.m if self.self_m is None else self.self_m


class Refinement(Section):
    """Sequential refinement, section 3.3.2: the generator rewrites a proof until it scores its own
    proof 1. Each prompt has the previous attempt and its evaluation.
    """

    iterations: int = Field(1, ge=1, le=64, description="the most attempts at a proof")


class Search(Section):
    """Search over the proofs of a problem, section 3.3.3. It ends with a proof that passes all n
    critiques, or after the last round.
    """

    rounds: int = Field(
        0, ge=0, le=64, description="the most rounds after the first proofs; 0: no search"
    )
    keep: int = Field(
        64, ge=1, le=1024, description="a round refines this many proofs, by highest mean score"
    )
    analyses: int = Field(
        8,
        ge=1,
        le=1024,
        description="refinements of each kept proof, each with another of its critiques",
    )
    overlap: bool = Field(
        False,
        description="while slots are idle, begin the next round as soon as half of the newest one"
        " has labels; needs stop_early. Not the paper's search, and not repeatable",
    )
