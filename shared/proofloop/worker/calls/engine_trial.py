"""Tests whether an engine takes a role's calls: with a call as short as the shortest of the run,
which is ended once it has begun.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import LARGEST_SEED, ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError
from proofloop.method.prompts import PromptPack
from proofloop.schema.records import ModelRole, Sampling

REFUSED_WITHIN_S = 2.0
"""A server that refuses a call says so before it begins to answer. One that has said nothing by
then has taken it.
"""


ANSWERED_WITHIN_S = 30.0
"""The longest that one token is waited for, to see whether an engine answers a role at all."""


def check_taken(
    engine: Engine, spec: RunSpec, pack: PromptPack, role: ModelRole, version: str
) -> Generation | None:
    """Begin a call with the role's own prompt and sampling. Raises EngineError: CallRefused if the
    engine takes no call. Returns the answer if the server is that quick.
    """
    request = _request(pack, role, version, spec.sampling_of(role), LARGEST_SEED)
    try:
        call = engine.submit(request)
        with suppress(TimeoutError):
            return call.result(REFUSED_WITHIN_S)
        call.cancel()
    except CallRefused as error:
        raise CallRefused(
            f"{error.problem} (requested with {_sampling(spec, role)})", hint=error.hint
        ) from error
    return None


def is_answered(
    engine: Engine,
    spec: RunSpec,
    pack: PromptPack,
    role: ModelRole,
    version: str,
    must_stop: Callable[[], bool],
) -> bool:
    """Whether the engine answers one token to the role's shortest prompt."""
    request = one_token_request(spec, pack, role, version)
    deadline_s = time.monotonic() + ANSWERED_WITHIN_S
    try:
        call = engine.submit(request)
        while time.monotonic() < deadline_s and not must_stop():
            with suppress(TimeoutError):
                return call.result(1.0).finish_reason != "cancelled"
        call.cancel()
    except EngineError:
        pass
    return False


def one_token_request(
    spec: RunSpec, pack: PromptPack, role: ModelRole, version: str
) -> GenerationRequest:
    """A request for one token with the role's own prompt and sampling."""
    one_token = spec.sampling_of(role).model_copy(update={"max_tokens": 1})
    return _request(pack, role, version, one_token, seed=0)


def _request(
    pack: PromptPack, role: ModelRole, version: str, sampling: Sampling, seed: int
) -> GenerationRequest:
    prompt = pack.ask(role, "Prove that 1 = 1.", "Trivial.", "Sound.")
    return GenerationRequest(
        id=f"{role}:check:{uuid.uuid4().hex[:8]}",
        model=version,
        messages=(ChatMessage("user", prompt.text),),
        sampling=sampling,
        seed=seed,
        schema=prompt.schema,
    )


def _sampling(spec: RunSpec, role: ModelRole) -> str:
    return f"[sampling.{role}] " + ", ".join(
        f"{key} = {value}" for key, value in spec.sampling_of(role)
    )
