"""Measures what the engine `openai` costs beside bare aiohttp: requests, chunks, waiting messages.

The server runs in its own process, each measurement in another. Three parts, of which the first two
also run with bare aiohttp, in turn; medians of three rounds. `requests`: small answers without
latency, 64 at once. `chunks`: 64 streams with a chunk every 20 ms. `streams`: 4,096 messages wait
in threads, as in a worker, while the server holds their streams open; they start when the server
has them all, and finish when all have their reply. `idle_cpu_share` is the CPU of the process while
nothing comes. The last line is JSON. `--small`: one round, shorter; under a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from proofloop.config.run_file import parse_runspec
from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.method.prompts import Prompt
from proofloop.runs.create import create_run
from proofloop.schema.ids import critique_name
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore
from proofloop.worker.calls.model_call import ModelCall
from proofloop.worker.calls.model_request import ModelRequest
from proofloop.worker.tools import Tools

AT_ONCE = 64
STREAMS = 4096
EVERY_S = 0.02
IDLE_S = 4.0
START_LIMIT_S = 120.0
PROMPT = "Prove that the sum of two even numbers is even. " * 20

Figures = dict[str, float]


# -- the engine


def engine_of(url: str, at_once: int, **body: float) -> OpenAIEngine:
    settings = {"base_url": url, "max_concurrency": at_once, "extra_body": {**body}}
    return OpenAIEngine(OpenAISettings.model_validate(settings))


def ask_engine(url: str, count: int, chunks: int, every_s: float) -> None:
    """Ask so many times, `AT_ONCE` at a time."""
    engine = engine_of(url, AT_ONCE, chunks=chunks, every_s=every_s)
    messages = (ChatMessage("user", PROMPT),)
    sampling = Sampling(max_tokens=1000)
    calls = [
        engine.submit(GenerationRequest(f"verifier:{seed}", "m", messages, sampling, seed))
        for seed in range(count)
    ]
    assert all(call.result(600).completion_tokens == 3 for call in calls)
    engine.close()


# -- bare aiohttp


def ask_aiohttp(url: str, count: int, chunks: int, every_s: float) -> None:
    """The same requests without an engine: the body is ready, the answer is not read."""
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "chunks": chunks,
            "every_s": every_s,
        }
    ).encode()
    asyncio.run(_ask_aiohttp(f"{url}/chat/completions", body, count))


async def _ask_aiohttp(url: str, body: bytes, count: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                async with session.post(url, data=body) as response:
                    async for _ in response.content.iter_any():
                        pass

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


# -- measurements, each in a process of its own


Ask = Callable[[str, int, int, float], None]
CLIENTS: dict[str, Ask] = {"ours": ask_engine, "aiohttp": ask_aiohttp}


def measure_requests(url: str, ask: Ask, count: int) -> Figures:
    ask(url, AT_ONCE, 3, 0.0)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    ask(url, count, 3, 0.0)
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return {"requests_per_second": count / seconds, "cpu_ms_a_request": 1000 * cpu_s / count}


def measure_chunks(url: str, ask: Ask, chunks: int) -> Figures:
    ask(url, AT_ONCE, 1, EVERY_S)
    began_cpu_s = time.process_time()
    ask(url, AT_ONCE, 1, EVERY_S)
    without_s = time.process_time() - began_cpu_s
    began_cpu_s = time.process_time()
    ask(url, AT_ONCE, chunks, EVERY_S)
    cpu_s = time.process_time() - began_cpu_s - without_s
    return {"cpu_us_a_chunk": 1e6 * cpu_s / (AT_ONCE * (chunks - 1))}


def measure_streams(url: str, streams: int) -> Figures:
    """As many messages as streams: each waits for its call in a thread."""
    replies: list[str] = []
    with waiting_tools(url, streams) as tools:
        memory_kb, began_s = resident_kb(), time.perf_counter()
        threads = [
            threading.Thread(target=lambda number: replies.append(ask(tools, number)), args=(each,))
            for each in range(streams)
        ]
        for thread in threads:
            thread.start()
        wait_until_open(url, streams)
        start_s, memory_kb = time.perf_counter() - began_s, resident_kb() - memory_kb
        cpu_s = time.process_time()
        time.sleep(IDLE_S)
        cpu_s, released_s = time.process_time() - cpu_s, time.perf_counter()
        get(url, "release")
        for thread in threads:
            thread.join()
        finish_s = time.perf_counter() - released_s
    return {
        "streams": streams,
        "answered": replies.count(" because because"),
        "start_s": start_s,
        "finish_s": finish_s,
        "memory_kb_a_waiting_call": memory_kb / streams,
        "idle_cpu_share": cpu_s / IDLE_S,
    }


@contextmanager
def waiting_tools(url: str, streams: int) -> Iterator[Tools]:
    """A run whose verifier's calls the server holds open."""
    engine = engine_of(url, streams, chunks=0, every_s=0.0)
    fields = {
        "name": "client",
        "prompts": "nano",
        "problems": {"domain": "nano", "count": 1},
        "engine": {"kind": "simulated"},  # replaced by the engine above
    }
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        create_run(store, parse_runspec(fields, "the benchmark"), resume=False)
        try:
            yield Tools(store, lambda *_: engine)
        finally:
            engine.close()


def ask(tools: Tools, number: int) -> str:
    """The text of a verifier's reply. An error ends only this thread, and `answered` shows it."""
    prompt = Prompt(text=PROMPT, digest="0" * 16)
    request = ModelRequest("client", "verifier", "m", prompt, f"p1-{number:04}", critique_name(0))
    return ModelCall(request, tools).reply().text


def wait_until_open(url: str, streams: int) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while (seen := int(get(url, "open"))) < streams:
        assert time.monotonic() < deadline_s, f"{seen} of {streams} streams are open"
        time.sleep(0.1)


def get(url: str, page: str) -> str:
    with urllib.request.urlopen(url.replace("/v1", f"/{page}"), timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


# -- the rounds


@contextmanager
def served() -> Iterator[str]:
    """The address of a new server in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("client_server.py"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def measured(part: str, client: str, size: int) -> Figures:
    """The figures of one measurement in a new process, with a new server."""
    with served() as url:
        command = [sys.executable, __file__, "--part", part, client, url, str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{part}, {client}: {figures}", file=sys.stderr)
    return figures


def run_part(part: str, client: str, url: str, size: int) -> Figures:
    if part == "streams":
        return measure_streams(url, size)
    measure = {"requests": measure_requests, "chunks": measure_chunks}[part]
    return measure(url, CLIENTS[client], size)


def compare(part: str, rounds: int, size: int) -> Figures:
    """Both clients in turn; the medians."""
    found: dict[str, list[Figures]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client in CLIENTS:
            found[client].append(measured(part, client, size))
    medians = {}
    for client, figures in found.items():
        suffix = "" if client == "ours" else f"_{client}"
        for name in figures[0]:
            medians[name + suffix] = statistics.median(each[name] for each in figures)
    return medians


def main() -> None:
    """Measure all parts, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        part, client, url, size = asked.part
        print(json.dumps(run_part(part, client, url, int(size))))
        return
    rounds, requests, chunks = (1, 3000, 100) if asked.small else (3, 20_000, 400)
    figures = compare("requests", rounds, requests)
    figures["requests_ratio_to_aiohttp"] = (
        figures["requests_per_second"] / figures["requests_per_second_aiohttp"]
    )
    figures |= compare("chunks", rounds, chunks)
    figures |= measured("streams", "ours", STREAMS)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
