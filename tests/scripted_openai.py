"""A small real HTTP server that speaks OpenAI's stream and does exactly what a test tells it,
misdeeds included.

A script is a function that gets the exchange and plays one response. The first request plays the
first script, and so on; the last script is played for all requests after it.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Exchange(BaseHTTPRequestHandler):
    """One request and the means to answer it, badly or well."""

    protocol_version = "HTTP/1.1"
    server: Listener

    def do_POST(self) -> None:
        self.body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.server.owner.next_script(self)
        try:
            script(self)
        except ConnectionError:
            self.server.owner.client_left.set()
            self.close_connection = True

    def do_GET(self) -> None:
        """The list of models, if the test gives one."""
        models = self.server.owner.models
        if models is None or self.path != "/v1/models":
            return self.refuse(404, {"detail": "Not Found"})
        self.refuse(
            200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
        )

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def refuse(self, status: int, body: object = "", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body_of_bytes(self, data: bytes, content_type: str) -> None:
        """A body without a length, which the end of the connection ends."""
        self.send_response(200)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)

    def begin(self, **headers: str) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def raw(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def event(self, **chunk: object) -> None:
        self.raw(f"data: {json.dumps(chunk)}\n\n")

    def say(self, text: str, **choice: object) -> None:
        self.event(choices=[{"index": 0, "delta": {"content": text}, **choice}])

    def finish(
        self, reason: str = "stop", prompt_tokens: int = 7, completion_tokens: int = 3
    ) -> None:
        self.event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
        self.event(
            choices=[],
            usage={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        )
        self.end()

    def end(self) -> None:
        self.raw("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """Break the connection in the middle of the body."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def stall_until_client_leaves(self, longest_s: float = 120.0) -> None:
        readable, _, _ = select.select([self.connection], [], [], longest_s)
        self.close_connection = True
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            self.server.owner.client_left.set()


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    owner: ScriptedServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is part of the tests."""


Script = Callable[[Exchange], None]


@dataclass(frozen=True)
class Received:
    """A request as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]
    at_s: float = field(default_factory=time.monotonic)


class ScriptedServer:
    """Use as a context manager; `base_url` is for the engine. `models` is what GET /v1/models
    answers; None: 404.
    """

    def __init__(self, *scripts: Script, models: list[str] | None = None) -> None:
        self.scripts, self.models = scripts, models
        self.received: list[Received] = []
        self.client_left = threading.Event()
        self._lock = threading.Lock()
        self._listener = Listener(("127.0.0.1", 0), Exchange)
        self._listener.owner = self
        self.base_url = f"http://127.0.0.1:{self._listener.server_address[1]}/v1"
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def next_script(self, exchange: Exchange) -> Script:
        with self._lock:
            self.received.append(
                Received(exchange.body, {k.lower(): v for k, v in exchange.headers.items()})
            )
            return self.scripts[min(len(self.received), len(self.scripts)) - 1]

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()


def answers(text: str = "It holds.", **finish: Any) -> Script:
    """Say the text word by word and finish."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        for word in re.findall(r"\s*\S+", text):
            exchange.say(word)
        exchange.finish(**finish)

    return script


def cuts(text: str) -> Script:
    """Say the text, then break the connection."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say(text)
        exchange.hang_up()

    return script


def refuses(status: int, body: object = "", **headers: str) -> Script:
    """Answer with an error status."""
    return lambda exchange: exchange.refuse(status, body, **headers)


def sends(data: bytes, content_type: str = "text/event-stream") -> Script:
    """Answer 200 with exactly these bytes, then end the connection."""
    return lambda exchange: exchange.body_of_bytes(data, content_type)


def sends_raw(data: bytes) -> Script:
    """Send exactly these bytes, status line and headers included, then end the connection."""

    def script(exchange: Exchange) -> None:
        exchange.close_connection = True
        exchange.wfile.write(data)
        exchange.wfile.flush()
        exchange.connection.shutdown(socket.SHUT_WR)

    return script


def chunk(delta: object, finish_reason: str | None = None, **fields: object) -> bytes:
    """An event of a stream, with the delta as it is."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return f"data: {json.dumps({'choices': choices, **fields})}\n\n".encode()


def depending_on(prompt_part: str, bad: Script, good: Script) -> Script:
    """The bad script for prompts that hold the part, the good one for all others."""

    def script(exchange: Exchange) -> None:
        prompt = "".join(message["content"] for message in exchange.body["messages"])
        (bad if prompt_part in prompt else good)(exchange)

    return script
