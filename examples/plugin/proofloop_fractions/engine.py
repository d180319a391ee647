"""The engine `pupil` calculates by rule, and carelessly. It takes the place of a model."""

import random
import re
import time

from pydantic import Field

from proofloop.engine.base import Generation
from proofloop.engine.info import EngineInfo
from proofloop.engine.settings import EngineSettings, read_settings
from proofloop.engine.threaded import ThreadedEngine
from proofloop.errors import CallRefused
from proofloop.method.prompts import load_pack
from proofloop_fractions.domain import QUESTION, FractionChecker

PACK, CHECKER = load_pack("fractions"), FractionChecker()
FENCED = re.compile(r"^(~{4,})\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
LONGEST = 10_000


class PupilSettings(EngineSettings):
    careless: float = Field(0.2, ge=0, le=1, description="the share of wrong answers")


class Pupil(ThreadedEngine):
    def __init__(self, settings):
        super().__init__()
        self._careless = settings.careless

    def answer(self, request, cancelled):
        began = time.perf_counter()
        prompt = request.messages[-1].content
        shown = [text for _, text in FENCED.findall(prompt)]  # question, proof, analysis
        if len(prompt) > LONGEST:
            raise CallRefused(f"the prompt is longer than {LONGEST} characters")
        errs = random.Random(f"{request.seed}/{prompt}").random() < self._careless
        is_sum = shown and QUESTION.fullmatch(shown[0])  # `proofloop run` tries another question
        text = ROLES[len(shown)](errs, *shown) if is_sum else "I know sums of fractions only."
        words = text.split(" ")
        kept = words[: request.sampling.max_tokens]
        reason = "stop" if kept == words else "length"
        seconds = time.perf_counter() - began
        return Generation(
            " ".join(kept), reason, len(prompt.split()), len(kept), seconds, request.model
        )


def prove(errs, question):
    a, b, c, d = map(int, re.findall(r"\d+", question)[:4])
    terms, result = QUESTION.fullmatch(question).groups()
    proof = f"{terms} = {a * d + errs}/{b * d} + {c * b}/{b * d} = {result}"
    evaluation = PACK.evaluation("No issue was found.", 1.0)
    return f"## Solution\n{proof}\n\n## Self Evaluation\n{evaluation}"


def criticise(errs, question, proof):
    finding = CHECKER.check_proof(question, proof)
    claims = [f"Equality {each.step} {each.kind}." for each in finding.defects if not errs]
    return PACK.evaluation(" ".join(claims) or "No issue.", 1.0 if errs else finding.score)


def judge(errs, question, proof, analysis):
    quality = CHECKER.check_critique(question, proof, analysis).quality
    score = 1 - quality if errs else quality
    return f"{PACK.phrases.meta_intro}\nI checked.\n\n{PACK.phrases.meta_score}\n\\boxed{{{score}}}"


ROLES = {1: prove, 2: criticise, 3: judge}  # by the number of texts in the prompt
ENGINE = EngineInfo(
    open=lambda settings, _: Pupil(read_settings(PupilSettings, settings, "pupil")),
    settings=PupilSettings,
    needs_model_names=False,
)
