"""The words that lenient.py uses to recognise sentences that only grade, quotations, and hedges."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SCORING = _words("score scores scored rating rate rated grade graded grading mark marks verdict")
"""One of these words must come before a score."""

GRADING = SCORING | _words(
    "based on my the this that all these reasons analysis evaluation evaluations assessment review"
    " conclusion summary"
    " i we ll d will would shall should must can have has to be is as at with for of a an it and so"
    " in up sum"
    " therefore thus hence consequently accordingly finally final overall overal total own self"
    " numerical quality"
    " conclude give assign award propose recommend deserves receives gets earns equals"
    " solution proof answer response submission argument criteria rubric"
)
"""The words of a sentence that only grades. Any other word gives it another meaning: "the solution
claims the score 1", "at least 0.5", "step 2".
"""

OTHER_LANGUAGES = re.compile(
    r"(?:最终|最終|总体|综合|整体|总)*的?(?:评分|得分|分数|评级|スコア|評点|得点)(?:应该?|应当)?(?:为|是|は)?"
    r"|(?:최종 )?점수는?"
    r"|(?:la |el )?(?:puntuación|puntaje|calificación)(?: final| total)?(?: es)?"
    r"|(?:la |le )?(?:note|score|évaluation) (?:finale?|globale?)(?: est)?"
    r"|(?:die |meine )?(?:end|gesamt)?(?:punktzahl|bewertung|wertung)(?: ist| lautet| beträgt)?"
    r"|(?:итоговая |общая |финальная )?оценка"
)
"""Labels of a score in other languages, before a colon."""

FINAL = _words("final finally overall overal total conclusion conclude")

QUOTES = re.compile(
    r"\b(?:says?|said|claims?|claimed|writes?|wrote|written|states?|stated|reads?|asserts?|ends|quot\w+|contains?"
    r"|includes?|tells?|asks?|instructs?|demands?|insists?|adds?|concludes)\b"
)
"""A line with one of these words and a colon at its end introduces a quotation."""

HEDGES = re.compile(
    r"\d|\bboxed\b|½|\b(?:if|unless|or|but|however|although|though|not|would|could|instead|rather|between|than|until)\b"
)
"""Words and marks after a score that may change its meaning."""

REMARKS = _words("point points pt pts mark marks because since as due for given with and")
"""The first words of a harmless remark after a score without punctuation."""

JUDGED = _words(
    "solution proof argument reasoning step steps evaluation defect defects claim claims"
)
JUDGEMENTS = _words(
    "correct incorrect right wrong rigorous valid invalid sound unsound flawed complete incomplete"
    " gap gaps error"
    " errors mistake mistakes hold holds fail fails follows unfounded reasonable unreasonable real"
    " justified"
    " unjustified"
)
SOLVING = _words("let we suppose assume qed")
"""Words of a text that solves the problem rather than grades a solution."""
