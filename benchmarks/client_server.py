"""The server of `client.py`: OpenAI's streamed chat completions from memory, on one core.

The body of a request says what it gets: `chunks` pieces, `every_s` apart. `chunks = 0` holds the
stream open until GET /release; GET /open returns the number of open streams.
"""

from __future__ import annotations

import asyncio
import json
import resource
from typing import ClassVar

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def event(delta: dict[str, str], finish_reason: str | None = None, **fields: object) -> bytes:
    """One event of the stream, as vLLM writes it, in a chunk of the transfer encoding."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {
        "id": "chatcmpl-6d1f7a2b3c4d5e6f",
        "object": "chat.completion.chunk",
        "created": 1764460800,
        "model": "m",
        "choices": [choice],
    }
    data = b"data: " + json.dumps({**chunk, **fields}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


PIECE = event({"content": " because"})
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
END = event({}, "stop") + event({}, usage=USAGE) + DONE


class Client(asyncio.Protocol):
    """One connection."""

    open_streams: ClassVar[set[Client]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""

    def connection_lost(self, _: Exception | None) -> None:
        self.open_streams.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, is_complete, body = self._received.partition(b"\r\n\r\n")
        if not is_complete:
            return
        if head.startswith(b"GET "):
            self._received = b""
            self._control(head)
        elif len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self._received = b""
            self._answer(json.loads(body))

    def _control(self, head: bytes) -> None:
        text = str(len(self.open_streams)).encode()
        if head.startswith(b"GET /release"):
            for stream in list(self.open_streams):
                stream._transport.write(PIECE + END)
            self.open_streams.clear()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def _answer(self, body: dict[str, float]) -> None:
        left, every_s = int(body["chunks"]), body["every_s"]
        if left == 0:
            self.open_streams.add(self)
            self._transport.write(HEAD + PIECE)
        elif every_s == 0:
            self._transport.write(HEAD + PIECE * left + END)
        else:
            self._transport.write(HEAD)
            self._send(left, every_s)

    def _send(self, left: int, every_s: float) -> None:
        if left == 0:
            self._transport.write(END)
            return
        self._transport.write(PIECE)
        asyncio.get_running_loop().call_later(every_s, self._send, left - 1, every_s)


async def main() -> None:
    """Print the port, then serve until the process is ended."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
