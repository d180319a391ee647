"""What a role asks of its model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proofloop.method.prompts import Prompt
from proofloop.method.prompts.reading.parsing import EMPTY
from proofloop.schema.ids import AnswerName, CallId
from proofloop.schema.records import ModelRole, Provenance, RawAnswer, Verdict
from proofloop.worker.tools import Tools

PRIORITY: Mapping[ModelRole, int] = {"meta_verifier": 0, "generator": 2, "verifier": 3}
"""When calls of several roles wait for one engine, the lowest number goes first: a judgement may
make critiques unnecessary.
"""

LATE_PRIORITY = 1
"""For judgements of critiques with score 0.5, which decide a label less often than those of 0."""

ALL_REASONING = f"{EMPTY}: all of it is reasoning"


@dataclass(frozen=True)
class ModelRequest:
    """One prompt for a role's model. Proof and `name` (unique within the proof) make its seed.

    `shown_as`: another name for the answer in `proofloop proof`, if it has one. `priority`: as in
    `GenerationRequest`; None for the role's own. `is_trained_on`: another role than `role` learns
    from the answer, so that its tokens are kept.
    """

    run_id: str
    role: ModelRole
    version: str
    prompt: Prompt
    proof_id: str
    name: AnswerName
    shown_as: AnswerName | None = None
    priority: int | None = None
    is_trained_on: bool = False

    @property
    def call_id(self) -> str:
        return str(CallId(self.run_id, self.role, self.proof_id, str(self.name)))

    @property
    def answer_name(self) -> str:
        """The name by which `proofloop proof` prints the answer."""
        return (self.shown_as or self.name).of(self.proof_id)


@dataclass(frozen=True)
class ModelReply:
    """What the engine returned. If it failed, `failure` is set and the text is empty.

    `raw` is all that the model wrote. `is_counted`: another message got this reply too and counts
    its verdict.
    """

    text: str
    finish_reason: str
    provenance: Provenance
    raw: RawAnswer
    failure: Verdict | None = None
    is_counted: bool = field(default=False, compare=False)

    def verdict(self, parsed: Verdict, request: ModelRequest, tools: Tools) -> Verdict:
        """Count and return the verdict: the failure's, or else the parser's."""
        verdict = self.failure or self._with_reasoning(parsed)
        if not self.is_counted:
            role = request.role
            tools.metrics.count_verdict(role, self.provenance.model_version, verdict.outcome)
            spec = tools.runs.spec(request.run_id)
            tools.early_warnings.add(spec, role, request.answer_name, verdict)
        return verdict

    def _with_reasoning(self, verdict: Verdict) -> Verdict:
        """Mention the reasoning of an empty answer: the server may have put all text there."""
        if verdict.reason != EMPTY or not self.raw.reasoning:
            return verdict
        reason = f"{ALL_REASONING}, {len(self.raw.reasoning)} characters"
        return verdict.model_copy(update={"reason": reason, "cause": ALL_REASONING})
