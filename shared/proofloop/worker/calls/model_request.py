"""The request of a role to its model, and the reply."""

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
    """One prompt for a role's model. The proof and `name`, which is unique within the proof, give
    its seed.

    `shown_as`: another name of the answer in `proofloop proof`. `priority`: as in
    `GenerationRequest`; by default the role's own. `is_trained_on`: another role also learns from
    the answer, so its tokens are kept.
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
    """The engine's reply. If the call failed, `failure` is set and the text is empty. `raw` is all
    text of the model. `is_counted`: another message with the same reply counts its verdict.
    """

    text: str
    finish_reason: str
    provenance: Provenance
    raw: RawAnswer
    failure: Verdict | None = None
    is_counted: bool = field(default=False, compare=False)

    def verdict(self, parsed: Verdict, request: ModelRequest, tools: Tools) -> Verdict:
        """Count and return the verdict: of the failure, else of the parser."""
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
