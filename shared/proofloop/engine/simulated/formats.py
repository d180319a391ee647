"""The three answer formats in parts, and malformed answers like those of real models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proofloop.method.prompts.phrases import (
    EVALUATION_INTRO,
    EVALUATION_SCORE,
    META_INTRO,
    META_SCORE,
    SELF_HEADING,
    SOLUTION_HEADING,
)

# one string, shared by all answers to save memory
LONG_GARBAGE = "and therefore, by symmetry, " * 4_000


@dataclass(frozen=True)
class Parts:
    """A well-formed answer in parts: a malformed one changes or drops a part."""

    solution: str
    opening: str
    analysis: str
    anchor: str
    score: str

    def whole(self) -> str:
        return f"{self.unscored()}\n\n{self.anchor}\n\\boxed{{{self.score}}}"

    def unscored(self) -> str:
        before = (
            f"{SOLUTION_HEADING}\n\n{self.solution}\n\n{SELF_HEADING}\n\n" if self.solution else ""
        )
        return f"{before}{self.opening}\n{self.analysis}"

    def as_json(self, schema: Mapping[str, Any]) -> str:
        """The answer as a JSON object with the schema's fields: perhaps a solution, an analysis, a
        score.
        """
        texts = [self.solution, self.analysis] if self.solution else [self.analysis]
        return json.dumps(dict(zip(schema["properties"], [*texts, float(self.score)], strict=True)))


def proof(solution: str, evaluation: Parts) -> Parts:
    return replace(evaluation, solution=solution)


def evaluation(analysis: str, score: str) -> Parts:
    return Parts("", EVALUATION_INTRO, analysis, EVALUATION_SCORE, score)


def meta_evaluation(analysis: str, score: str) -> Parts:
    return Parts("", META_INTRO, analysis, META_SCORE, score)


# Shapes of real answers. None has a score that the parser accepts: `malformed_share` is exact.
MALFORMED: tuple[Callable[[Parts], str], ...] = (
    lambda parts: parts.unscored(),
    lambda parts: replace(parts, score="0.7").whole(),
    lambda parts: replace(parts, score=r"\text{correct}").whole(),
    lambda parts: f"{parts.unscored()}\n\n\\boxed{{{parts.score}}}\n\n{parts.anchor}",
    lambda parts: f"{parts.unscored()}\n\n## Self Evaluation\n\nLet me evaluate this once more.",
    lambda parts: f"{parts.unscored()}\n\n```python\nfor n in range(1, 100):\n    assert",
    lambda parts: f"{parts.unscored()}\n\nI would give this solution full marks.",
    lambda parts: "",
    lambda parts: "\n \n",
    lambda parts: LONG_GARBAGE,
)
