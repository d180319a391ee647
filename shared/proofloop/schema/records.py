"""The records of the store, frozen, each with its origin.

A record written by a newer proofloop may have more fields; they are ignored. A record is written
once and never changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    Score = float  # type checkers know no literal floats; pydantic does, and checks them
else:
    Score = Literal[0.0, 0.5, 1.0]
Role = Literal["generator", "verifier", "meta_verifier", "labeler", "trainer"]
ModelRole = Literal["generator", "verifier", "meta_verifier"]
MODEL_ROLES: tuple[ModelRole, ...] = ("generator", "verifier", "meta_verifier")
PIPELINE_ROLES: tuple[Role, ...] = (*MODEL_ROLES, "labeler")
"""The roles of a run that proves problems."""
ALL_ROLES: Literal["all"] = "all"
"""The name of a model that supervised training makes for all roles."""


class Record(BaseModel):
    """The base of all records and messages: immutable, unknown fields ignored."""

    # A loss that is not a number must be readable.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class Problem(Record):
    """A problem to prove. `answer` is for people; no role is shown it.

    `reference`, a solution, `rubric`, a marking scheme, and `rival`, another proof, are for judges
    whose prompts ask for them.
    """

    id: str
    question: str
    answer: str | None = None
    source: str | None = None
    reference: str | None = None
    rubric: str | None = None
    rival: str | None = None

    @property
    def aids(self) -> dict[str, str | None]:
        """The aids that judges' prompts may show beside the proof."""
        return {"reference": self.reference, "rubric": self.rubric, "rival": self.rival}


class Sampling(Record):
    """The sampling of an answer."""

    temperature: float = Field(
        1.0, ge=0, le=100, description="divides the logits; where answers train, above 0"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="tokens beyond this mass are cut; where answers train, 1"
    )
    max_tokens: int = Field(4096, ge=1, description="an answer is cut off after so many tokens")


class Provenance(Record):
    """The origin and cost of an answer; costs add up from these.

    `tokens_key`: the key of its sampled tokens, if they were kept; `finish_reason` is the engine's:
    "length" is an answer that was cut off. `served_by`: the server and the model's name there, if
    there is one.
    """

    model_version: str
    prompt_digest: str
    seed: int
    sampling: Sampling
    prompt_tokens: int
    completion_tokens: int
    engine_seconds: float
    tokens_key: str = ""
    finish_reason: str = ""
    served_by: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether a model wrote the answer in this run; false for given material."""
        return bool(self.model_version)


NOT_SAMPLED = Provenance(
    model_version="",
    prompt_digest="",
    seed=0,
    sampling=Sampling(),
    prompt_tokens=0,
    completion_tokens=0,
    engine_seconds=0.0,
)
"""Of what was given with a run: no model of this run wrote it, and it costs nothing."""


class Verdict(Record):
    """A parser's verdict on an answer. Only a valid one has a score; the others have a reason.

    `share`: the points over full marks, if the prompt asks for points. `cause` is the reason
    without the details of the single answer; empty if the reason has none.
    """

    outcome: Literal["valid", "malformed", "truncated", "engine_failed"]
    score: Score | None = None
    share: float | None = None
    reason: str = ""
    cause: str = ""

    @property
    def shared_reason(self) -> str:
        return self.cause or self.reason


class Tokens(Record):
    """One answer as it was sampled: never decoded and encoded again.

    `prompt_ids` [P], `completion_ids` [C], `logprobs` [C]: natural logarithms under the sampling
    distribution. `routed_experts` [P + C - 1]: the experts that a mixture of experts sent each
    token to, layer by layer, if the engine reports them; the last token was sent to none.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    routed_experts: tuple[tuple[int, ...], ...] | None = None


MAX_RAW_CHARS = 500_000
"""Characters of an answer, and as many of its reasoning, that are kept: about 128,000 tokens
each.
"""


class RawAnswer(Record):
    """A model's answer before parsing.

    `text` is the final response, None if the record has it as `analysis`; `reasoning` is the
    thinking. A longer answer lacks its middle: `left_out` characters.
    """

    text: str | None = ""
    reasoning: str = ""
    left_out: int = 0

    @classmethod
    def of(cls, text: str, reasoning: str = "") -> RawAnswer:
        """The raw answer, cut to MAX_RAW_CHARS."""
        left_out = sum(max(0, len(each) - MAX_RAW_CHARS) for each in (text, reasoning))
        return cls(
            text=_without_middle(text), reasoning=_without_middle(reasoning), left_out=left_out
        )

    def beside(self, analysis: str) -> RawAnswer:
        """The raw answer for a record with this analysis: a text that differs by white space alone
        is not stored twice.
        """
        is_held = self.text is not None and self.text.strip() == analysis
        return self.model_copy(update={"text": None}) if is_held else self


def _without_middle(text: str) -> str:
    """The text without its middle: a solution begins the answer, its score ends it."""
    if len(text) <= MAX_RAW_CHARS:
        return text
    half = MAX_RAW_CHARS // 2
    return (
        f"{text[:half]}\n[... {len(text) - MAX_RAW_CHARS} characters are left out here"
        f" ...]\n{text[-half:]}"
    )


class Critique(Record):
    """One analysis of one proof. `index` is i of n, or -1 for the generator's own."""

    proof_id: str
    index: int
    analysis: str
    verdict: Verdict
    provenance: Provenance
    raw: RawAnswer | None = None


class Given(Record):
    """The given facts of a proof that no generator of this run wrote.

    `score`: the proof's grade; `quality`: the grade of its critique 0, which was given too if
    `is_analysis`. `by`: the grader. `origin`: the file and row, or run and proof, that it is from.
    """

    score: Score | None = None
    is_analysis: bool = False
    quality: Score | None = None
    by: str = ""
    origin: str = ""


class Proof(Record):
    """One proof with the generator's own evaluation of it.

    `group` names the proofs sampled for the same prompt. `verdict` is that of the whole answer: the
    format and the self-evaluation's score s'. `provenance` covers both parts. `verifier_version`
    will review it, the same for all its critiques; `meta_verifier_version` will judge these, or the
    version in service if it is empty. `given`: the proof was given with the run.

    `raw_key`: the key of its raw answer, which is not in this record: verifiers and meta-verifiers
    read it often, and the reasoning may be fifty times as long as the proof.
    """

    id: str
    run_id: str
    problem_id: str
    group: str
    solution: str
    self_analysis: str
    verdict: Verdict
    provenance: Provenance
    verifier_version: str
    parents: tuple[str, ...] = ()
    raw_key: str = ""
    meta_verifier_version: str = ""
    given: Given | None = None


class MetaCritique(Record):
    """One assessment of one analysis: is it right?"""

    analysis: str
    verdict: Verdict
    provenance: Provenance
    raw: RawAnswer | None = None


class Judgement(Record):
    """The labeler's view of critique `index`, without its texts.

    `confirmed`: the majority of m confirms the issues it reports; None when it reports none, or it
    or its meta-critiques could not be read. `quality` in [0, 1]: the mean of the meta-scores,
    R_meta of eq. (3) and (6); 1 for a critique without an issue, 0 for an unreadable one. None if
    R_meta is unknown: no meta-critique could be read, or none was needed since R_score is 0.
    """

    proof_id: str
    index: int
    verdict: Verdict
    confirmed: bool | None
    quality: float | None


LabelOutcome = Literal["accepted", "rejected", "undecided", "unreadable", "outranked"]
"""What the labeling rule says. Two kinds of proofs never reach the rule: unreadable ones, whose
format is wrong, and outranked ones, which cannot be among the best of their search.
"""

LabelKind = Literal[
    "accepted",
    "rejected_upheld",
    "overturned",
    "undecided",
    "unreadable",
    "graded",
    "outranked",
]
"""What self-play yields: (a) accepted, (b) rejected by an upheld critique, (c) by a critique that
was overturned. `graded`: the grade was given, or is the exact checker's; no rule decided it.
"""


LABELER = "labeler"
"""Who a label is by when no person decided it."""

SEARCH = "search"
"""Who the label of an outranked proof is by."""

NO_TRIGGER = -2
"""The trigger of a label that no message decided."""


class CritiqueRequest(Record):
    """The labeler's request for more critiques of a proof: all below index `up_to`.

    `trigger` is the index of the critique whose message led to the request: only that message
    publishes the request, however often it is delivered.
    """

    up_to: int
    trigger: int


class Label(Record):
    """The one label of a proof. `score` is None when the outcome is undecided (a person may decide)
    or unreadable.

    `critiques` carry the label; `self_quality` is R_meta of the self-evaluation (eq. 6), None if it
    is unknown; `trigger` is the index of the critique whose message decided it: only that message
    announces the label, however often it is delivered. `grade`: the number of the last grade that
    counts, None without one.
    """

    run_id: str
    proof_id: str
    problem_id: str
    group: str
    outcome: LabelOutcome
    kind: LabelKind
    score: Score | None
    self_quality: float | None
    critiques: tuple[int, ...]
    trigger: int
    solved: bool = False
    by: str = LABELER
    grade: int | None = None


class Mark(Record):
    """A person's remark on lines of a text's source; lines count from 1."""

    first: int = Field(ge=1)
    last: int = Field(ge=1)
    comment: str


class Grade(Record):
    """One act of grading. A correction is a new record, a withdrawal is one without a score.

    `critique`: the index of the graded analysis, None for a grade of the proof itself. `number`
    counts the grades of the same proof or analysis from 0. `score`: the proof's score, or the
    analysis's quality ms. `is_blind`: the person had not seen the opinions of models and other
    people. `settles`: decides between people who disagree. `form` names the form that was sent; a
    form sent twice is one grade. `at_s`: seconds since 1970.

    `checks_label`: the labeler decided the proof, and the grade only measures the label. `label`:
    the proof's label if this grade counts; None for a withdrawal and for an analysis.
    """

    run_id: str
    proof_id: str
    critique: int | None = None
    number: int = Field(ge=0)
    score: Score | None
    by: str
    at_s: float
    comment: str = ""
    marks: tuple[Mark, ...] = ()
    is_blind: bool = True
    settles: bool = False
    form: str = ""
    checks_label: bool = False
    label: Label | None = None


class Opening(Record):
    """A person saw the critiques or the label of a proof, or the judgements of a critique."""

    by: str
    at_s: float


class TrainingSample(Record):
    """One answer that the `role` sampled, with its reward.

    `group` names the samples that share a prompt: their mean is the baseline.

    `reward_parts` keeps every factor of the reward by name, which explains the number later.
    """

    key: str
    role: ModelRole
    group: str
    tokens: Tokens
    reward: float
    reward_parts: dict[str, float]
    model_version: str
    truncated: bool = False


class TrainingBatch(Record):
    """The batch of one optimization step: complete groups only. `role` is the model being trained.

    `problems` are used up by the step, also those whose groups had no signal; `mean_reward`,
    `reward_parts` and `figures` are over all their samples, with a signal or without. `grades`: by
    proof, the number of the last grade that counts for its label.
    """

    schema_version: int = 1
    run_id: str
    role: ModelRole
    step: int
    samples: tuple[TrainingSample, ...]
    problems: tuple[str, ...] = ()
    mean_reward: float = 0.0
    reward_parts: dict[str, float] = Field(default_factory=dict)
    figures: dict[str, float] = Field(default_factory=dict)
    grades: dict[str, int] = Field(default_factory=dict)


ANSWERS = "answers_"
"""The prefix of a supervised step's figures that count the answers of a role."""


class TrainingStep(Record):
    """The result of one optimization step.

    `figures` are the trainer's numbers by name, `reward_parts` the means of the reward's factors. A
    step of supervised training has the role "all" and no rewards. `grades`: as in the batch.
    """

    run_id: str
    role: ModelRole | Literal["all"]
    step: int
    version: str
    sampled_by: tuple[str, ...]
    figures: dict[str, float]
    reward_parts: dict[str, float]
    grades: dict[str, int] = Field(default_factory=dict)


def digest(text: str) -> str:
    """A short, stable name for a text: 12 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from the names of a call: a repeated call has the same seed."""
    return int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16], 16) >> 1
