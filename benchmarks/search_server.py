"""The server of `search.py`: OpenAI's chat completions with the simulated engine's answers.

The model's name is the role. At most `slots` calls run at once, for as long as their latency: a
judge's is half of a generator's. GET /work returns the seconds of all calls, also of canceled ones,
and the begun calls by role.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter

from aiohttp import web

from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.simulated.answers import SimulatedSettings, answer, latency_s
from proofloop.schema.records import Sampling

LONGEST = 12
"""The longest latency, in medians of a proof's."""


class Server:
    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._busy_s = 0.0
        self._begun: Counter[str] = Counter()

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        role, asked = body["model"], request_of(body)
        async with self._slots:
            self._begun[role] += 1
            began_s = time.monotonic()
            try:
                await asyncio.sleep(self._latency_s(role, asked))
            finally:
                self._busy_s += time.monotonic() - began_s
        return web.json_response(completion(answer(self._settings, asked)))

    async def work(self, _: web.Request) -> web.Response:
        return web.json_response({"busy_s": self._busy_s, "begun": self._begun})

    def _latency_s(self, role: str, asked: GenerationRequest) -> float:
        drawn = min(latency_s(self._settings, asked), LONGEST * self._settings.latency_s)
        return drawn if role == "generator" else drawn / 2


def request_of(body: dict[str, object]) -> GenerationRequest:
    messages = body["messages"]
    assert isinstance(messages, list)
    return GenerationRequest(
        id=f"{body['model']}:",
        model=str(body["model"]),
        messages=tuple(ChatMessage(each["role"], each["content"]) for each in messages),
        sampling=Sampling(),
        seed=int(str(body["seed"])),
    )


def completion(made: Generation) -> dict[str, object]:
    message = {"role": "assistant", "content": made.text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": made.finish_reason}],
        "usage": {"prompt_tokens": made.prompt_tokens, "completion_tokens": made.completion_tokens},
    }


async def serve(settings: SimulatedSettings) -> None:
    """Print the port, then serve until the process is ended."""
    server, app = Server(settings), web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_get("/work", server.work)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", help="the settings of the simulated engine as JSON")
    asyncio.run(serve(SimulatedSettings.model_validate(json.loads(parser.parse_args().settings))))
