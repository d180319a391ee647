"""Makes the answers of the simulated engine: the format of the role, with a planted quality. No
state, no clock.

The role is the part of the request's id before the first colon:
`verifier:<proof id>:<index>:<attempt>`. A simulated proof states its quality ("Simulated proof 8f3a
of quality 0.5."). The verifier reads it from its prompt, with noise; the meta-verifier compares it
with the quality that the analysis claims. A proof without a statement gets a quality by hash.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

from pydantic import Field

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.settings import EngineSettings, MayChange
from proofloop.engine.simulated.formats import MALFORMED, Parts, evaluation, meta_evaluation, proof
from proofloop.errors import EngineError
from proofloop.method.scales import points_of
from proofloop.schema.records import MODEL_ROLES, Tokens

T = TypeVar("T")

QUALITIES = ("0", "0.5", "1")
PROOF = re.compile(r"Simulated proof [0-9a-f]+ of quality (0\.5|0|1)\.")
CLAIM = re.compile(r"Simulated analysis claims quality (0\.5|0|1)\.")
POINTS = re.compile(r"\bfrom 0 to (\d{1,3}) points\b")
NORMAL = NormalDist()
CHARACTERS_PER_TOKEN = 4
VOCABULARY = 32_000


class SimulatedSettings(EngineSettings):
    """Invented answers, for rehearsals and tests. Shares are probabilities; times and lengths are
    lognormal.
    """

    seed: int = Field(0, description="the same seed gives the same answers")
    latency_s: MayChange[float] = Field(
        0.0, ge=0, le=86400, description="the median time of a call; 0: it answers at once"
    )
    latency_sigma: MayChange[float] = Field(0.6, ge=0, le=3, description="the spread of the times")
    tokens: int = Field(
        800, ge=1, description="the median length of an answer, at most its `max_tokens`"
    )
    tokens_sigma: float = Field(0.5, ge=0, le=3, description="the spread of the lengths")
    good_share: float = Field(
        0.4, ge=0, le=1, description="proofs of quality 1; the others have 0 or 0.5"
    )
    half_share: float = Field(
        0.5, ge=0, le=1, description="of the other proofs, those of quality 0.5"
    )
    verifier_noise: float = Field(
        0.1, ge=0, le=1, description="scores of any role that differ from the hidden quality"
    )
    malformed_share: float = Field(0.0, ge=0, le=1, description="answers in the wrong format")
    truncated_share: float = Field(0.0, ge=0, le=1, description="answers that are cut off")
    failure_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="attempts that fail with a temporary error; checks of a model fail only with 1",
    )
    crash_share: float = Field(
        0.0, ge=0, le=1, description="attempts that kill the process, exit code 137"
    )
    max_concurrency: MayChange[int] = Field(256, ge=1, le=65536, description="calls in flight")
    call_log: MayChange[str] = Field(
        "", description="a folder in which each process logs the begin and end of its calls"
    )
    want_tokens: bool = Field(False, description="invent token ids and log-probabilities too")


class Chances(NamedTuple):
    """Independent uniform numbers in (0, 1), one for every decision."""

    quality: float
    score: float
    flaw: float
    shape: float
    cut: float
    tokens: float
    latency: float
    name: float


def pick(options: tuple[T, ...], chance: float) -> T:
    """One of the options, all equally likely; `chance` in [0, 1)."""
    return options[int(chance * len(options))]


def chances(*names: object) -> Chances:
    """The same names give the same numbers, in any process and any order."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=64).digest()
    return Chances(*[((number >> 12) + 0.5) / 2.0**52 for number in struct.unpack("<8Q", digest)])


def answer(settings: SimulatedSettings, request: GenerationRequest) -> Generation:
    """The answer to this request. Raises EngineError for a failed attempt; may kill the process."""
    _fail_sometimes(settings, request)
    role = request.id.partition(":")[0]
    draw = chances(settings.seed, request.seed, role)
    parts = _parts(settings, request, role, draw)
    text, is_cut = _spoil(settings, parts, request.schema, draw)
    num_tokens = request.sampling.max_tokens if is_cut else _num_tokens(settings, request, draw)
    return Generation(
        text=text,
        finish_reason="length" if is_cut else "stop",
        prompt_tokens=_num_prompt_tokens(request),
        completion_tokens=num_tokens,
        engine_seconds=latency_s(settings, request),
        model_version=request.model,
        tokens=_made_up_tokens(request, num_tokens) if settings.want_tokens else None,
    )


def cancelled(settings: SimulatedSettings, request: GenerationRequest, share: float) -> Generation:
    """The partial answer after `share` in [0, 1] of its latency."""
    role = request.id.partition(":")[0]
    text = _whole(
        _parts(settings, request, role, chances(settings.seed, request.seed, role)), request.schema
    )
    return Generation(
        text=text[: int(share * len(text))],
        finish_reason="cancelled",
        prompt_tokens=_num_prompt_tokens(request),
        completion_tokens=int(share * settings.tokens),
        engine_seconds=share * latency_s(settings, request),
        model_version=request.model,
    )


def latency_s(settings: SimulatedSettings, request: GenerationRequest) -> float:
    if not settings.latency_s:
        return 0.0
    chance = chances(settings.seed, request.seed, "latency").latency
    return settings.latency_s * math.exp(settings.latency_sigma * NORMAL.inv_cdf(chance))


def _fail_sometimes(settings: SimulatedSettings, request: GenerationRequest) -> None:
    """Fail by the attempt's id, not by its seed: the next attempt of the call may succeed.

    A check's id is always the same, so it fails only where every attempt does: a share below 1
    must not keep a run from starting.
    """
    failing, crashing = settings.failure_share, settings.crash_share
    if _is_check(request):
        failing, crashing = math.floor(failing), math.floor(crashing)
    if not failing and not crashing:
        return
    draw = chances(settings.seed, request.seed, request.id, "attempt")
    if draw.quality < crashing:
        os._exit(137)
    if draw.score < failing:
        raise EngineError(f"simulated failure of {request.id}", retryable=True)


def _is_check(request: GenerationRequest) -> bool:
    """Whether the call only tests the model: its id is ROLE:check:NAME."""
    return request.id.split(":", 2)[1:2] == ["check"]


def _parts(
    settings: SimulatedSettings, request: GenerationRequest, role: str, draw: Chances
) -> Parts:
    prompt = "\n".join([message.content for message in request.messages])
    if role == "generator":
        return _proof(settings, prompt, draw)
    if role == "verifier":
        score = _noisy(settings, _deserved_score(prompt), draw)
        return replace(_evaluation(score), score=_points(score, prompt, draw))
    if role == "meta_verifier":
        return _assessment(_noisy(settings, _deserved_rating(prompt), draw))
    hint = f"begin it with one of {', '.join(f'{name}:' for name in MODEL_ROLES)}"
    raise EngineError(
        f'the simulated engine knows no role in request id "{request.id}"; {hint}', retryable=False
    )


def _proof(settings: SimulatedSettings, prompt: str, draw: Chances) -> Parts:
    """A new proof has a random quality. A refined proof is at least as good as its best parent."""
    flawed = "0.5" if draw.flaw >= 1 - settings.half_share else "0"
    fresh = "1" if draw.quality < settings.good_share else flawed
    quality = max([fresh, *PROOF.findall(prompt)])
    name = f"{int(draw.name * 2**32):08x}"
    solution = (
        f"Simulated proof {name} of quality {quality}.\n\nStep 1. Let $n$ be given.\nStep 2. Hence"
        " the claim."
    )
    return proof(solution, _evaluation(_noisy(settings, quality, draw)))


@lru_cache
def _evaluation(score: str) -> Parts:
    findings = {
        "0": "Step 2 does not follow: the argument is circular. A fatal gap.",
        "0.5": "Step 1 leaves out the case $n = 0$. A minor omission.",
        "1": "Every step follows and no case is missing.",
    }
    return evaluation(f"Simulated analysis claims quality {score}.\n{findings[score]}", score)


@lru_cache
def _assessment(rating: str) -> Parts:
    findings = {
        "0": "The defects that the evaluation claims are not there.",
        "0.5": "Some of what it claims is there, but the score does not follow from it.",
        "1": "What it claims is reasonable.",
    }
    return meta_evaluation(findings[rating], rating)


def _hidden_quality(prompt: str) -> str:
    """The quality that the last proof in the prompt states; without a statement, a hash of the
    prompt.
    """
    said = PROOF.findall(prompt)
    return said[-1] if said else pick(QUALITIES, chances(prompt).quality)


def _deserved_score(prompt: str) -> str:
    """The quality of the proof; of two that a prompt compares, 1 if the first is better, 0 if the
    second is.
    """
    said = PROOF.findall(prompt)
    if len(said) != 2:
        return _hidden_quality(prompt)
    first, second = map(float, said)
    return QUALITIES[1 + (first > second) - (first < second)]


def _points(score: str, prompt: str, draw: Chances) -> str:
    """The score, or points that count as it if the prompt asks for points."""
    full_marks = int(asked[1]) if (asked := POINTS.search(prompt)) else 1
    least = points_of(float(score), full_marks)
    if score != "0" or full_marks == 1:
        return f"{least:g}"
    return str(int(draw.flaw * points_of(0.5, full_marks)))


def _deserved_rating(prompt: str) -> str:
    """The meta rubric: 0 if the proof has no defects, 0.5 if the score does not follow, else 1."""
    claims = CLAIM.findall(prompt)
    if not claims:
        return pick(QUALITIES, chances(prompt).score)
    claim, quality = claims[-1], _hidden_quality(prompt)
    if claim in ("1", quality):
        return "1"
    return "0" if quality == "1" else "0.5"


def _noisy(settings: SimulatedSettings, truth: str, draw: Chances) -> str:
    if draw.score >= settings.verifier_noise:
        return truth
    others = tuple(quality for quality in QUALITIES if quality != truth)
    return pick(others, draw.score / settings.verifier_noise)


def _whole(parts: Parts, schema: Mapping[str, Any] | None) -> str:
    return parts.as_json(schema) if schema else parts.whole()


def _spoil(
    settings: SimulatedSettings, parts: Parts, schema: Mapping[str, Any] | None, draw: Chances
) -> tuple[str, bool]:
    """The text, malformed or cut off with the settings' probabilities, and whether it is cut
    off.
    """
    if draw.cut < settings.truncated_share:
        text = _whole(parts, schema)
        return text[: int(draw.cut / settings.truncated_share * len(text))], True
    if draw.shape < settings.malformed_share:
        return pick(MALFORMED, draw.shape / settings.malformed_share)(parts), False
    return _whole(parts, schema), False


def _num_tokens(settings: SimulatedSettings, request: GenerationRequest, draw: Chances) -> int:
    drawn = settings.tokens * math.exp(settings.tokens_sigma * NORMAL.inv_cdf(draw.tokens))
    return min(request.sampling.max_tokens, max(1, round(drawn)))


def _num_prompt_tokens(request: GenerationRequest) -> int:
    return sum(len(message.content) for message in request.messages) // CHARACTERS_PER_TOKEN + 1


def _made_up_tokens(request: GenerationRequest, num_tokens: int) -> Tokens:
    source = random.Random(request.seed)
    return Tokens(
        prompt_ids=tuple(range(_num_prompt_tokens(request))),
        completion_ids=tuple(source.choices(range(VOCABULARY), k=num_tokens)),
        logprobs=tuple(-source.expovariate(1.0) for _ in range(num_tokens)),
    )
