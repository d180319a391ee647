"""The titles and meanings of a report's figures, label kinds and reward parts."""

from __future__ import annotations

from dataclasses import dataclass

from proofloop.schema.records import LabelKind


@dataclass(frozen=True)
class FigureTexts:
    """A measured figure: its name in records, its title in tables, its name as a sentence's
    subject, its meaning.
    """

    name: str
    title: str
    subject: str
    meaning: str
    lower_is_better: bool = False
    is_share: bool = True


FIGURES = (
    FigureTexts(
        "pass_at_1",
        "Pass@1",
        "Pass@1",
        "share of proofs that are complete and right by the exact checker",
    ),
    FigureTexts(
        "self_eval_error",
        "Self-evaluation error",
        "the self-evaluation's error",
        "mean distance between a proof's self-score and its true score, from 0 to 1",
        lower_is_better=True,
        is_share=False,
    ),
    FigureTexts(
        "verifier_accuracy",
        "Verifier accuracy",
        "the verifier's accuracy",
        "share of critiques that give a proof its true score",
    ),
    FigureTexts(
        "verifier_faithfulness",
        "Verifier faithfulness",
        "the verifier's faithfulness",
        "share of right-scored critiques of flawed proofs that name the true step and kind of flaw",
    ),
    FigureTexts(
        "label_agreement",
        "Label agreement",
        "label agreement",
        "share of labels that equal the true score",
    ),
    FigureTexts(
        "label_undecided",
        "Labels undecided",
        "the share of undecided labels",
        "share of proofs that the labeling rule could not decide",
        lower_is_better=True,
    ),
)
HEADLINE = ("pass_at_1", "verifier_accuracy")
"""The figures that the verdict always names; it names others only if they became clearly worse."""

KIND_TITLES: dict[LabelKind, str] = {
    "accepted": "accepted",
    "rejected_upheld": "rejected, upheld",
    "overturned": "overturned",
    "undecided": "undecided",
    "unreadable": "unreadable",
    "graded": "graded",
    "outranked": "outranked",
}
KIND_MEANINGS: dict[LabelKind, str] = {
    "accepted": "no critique found an issue: label 1",
    "rejected_upheld": (
        "enough critiques found an issue and the meta-verifier confirmed them: label 0 or 0.5"
    ),
    "overturned": "critiques found issues, but the meta-verifier confirmed none of them: label 1",
    "undecided": "the critiques contradict each other: no label until a person decides",
    "unreadable": "the answer does not have the required format and was not reviewed",
    "graded": "the grade was given with the proof or analysis, or is the exact checker's",
    "outranked": "better proofs of its problem made its missing critiques unnecessary: no label",
}
PART_TITLES = {
    "format": "format",
    "score": "score",
    "meta": "quality",
    "proof": "proof score",
    "self_score": "self-score",
    "self_meta": "self-quality",
    "predicted_score": "predicted score",
}
