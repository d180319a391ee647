"""Splits the body of a response, which arrives in pieces of any size, into events. No I/O.

The first character decides the format: `{` or `[` begins one JSON value, anything else is a stream
of server-sent events. The content type is not used: gateways change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proofloop.errors import CallRefused

DONE = b"[DONE]"
SHOWN_BYTES = 200
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SPACE = b" \t\r\n"
STREAM_BEGINS = (b"data:", b"event:", b"id:", b"retry:", b":")


class BodyReader:
    """Takes bytes and yields the payloads of the events. The size of the pieces makes no
    difference.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.start = b""
        self.events = 0
        self.is_json = False
        self._limit_bytes = limit_bytes
        self._began = False
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The events that this piece completes. Raises CallRefused for an event that is too
        long.
        """
        if len(self.start) < SHOWN_BYTES:
            self.start = (self.start + data[:SHOWN_BYTES])[:SHOWN_BYTES]
        if self._has_only_data_lines(data):
            return self._data_lines(data)
        return self._feed(data)

    def _has_only_data_lines(self, data: bytes) -> bool:
        """Whether the piece is whole lines that need no care, as most pieces of a stream are."""
        return (
            data.startswith(b"data:")
            and data.endswith(b"\n")
            and not self._pending
            and not self.is_json
            and b"\r" not in data
            and b"\nerror:" not in data
            and len(data) <= self._limit_bytes
        )

    def _data_lines(self, data: bytes) -> list[bytes]:
        self._began = True
        lines = data.split(b"\n")
        found = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        events = found if all(found) else [event for event in found if event]
        self.events += len(events)
        return events

    def _feed(self, data: bytes) -> Iterator[bytes]:
        self._pending += data
        if not self._began and not self._begin():
            return
        if not self.is_json and (b"\n" in data or b"\r" in data):
            yield from self._lines()
        if len(self._pending) > self._limit_bytes:
            raise answer_too_long(self._limit_bytes)

    def end(self) -> Iterator[bytes]:
        """The events that the end of the body completes: one JSON value, or a last line without a
        line break.
        """
        if self.is_json:
            yield bytes(self._pending)
            yield DONE
        elif self._began and (payload := self._payload(bytes(self._pending))):
            self.events += 1
            yield payload
        self._pending.clear()

    @property
    def is_foreign(self) -> bool:
        """Whether the body is neither JSON nor a stream of events, not even a broken one."""
        start = self.start.removeprefix(BYTE_ORDER_MARK).lstrip(SPACE)
        return bool(start) and not self.events and not start.startswith(STREAM_BEGINS)

    def _begin(self) -> bool:
        """Decide the format at the first character that is not white space, and drop the space."""
        text = bytes(self._pending)
        if len(text) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(text):
            return False
        text = text.removeprefix(BYTE_ORDER_MARK).lstrip(SPACE)
        if not text:
            self._pending[:] = (
                BYTE_ORDER_MARK if self._pending.startswith(BYTE_ORDER_MARK) else b" "
            )
            return False
        self._pending[:] = text
        self._began, self.is_json = True, text[:1] in (b"{", b"[")
        return True

    def _lines(self) -> Iterator[bytes]:
        """The payloads of complete lines. A line ends in a line feed, a carriage return, or
        both.
        """
        *lines, rest = bytes(self._pending).replace(b"\r", b"\n").split(b"\n")
        self._pending[:] = rest
        for line in lines:
            if len(line) > self._limit_bytes:
                raise answer_too_long(self._limit_bytes)
            if payload := self._payload(line):
                self.events += 1
                yield payload

    @staticmethod
    def _payload(line: bytes) -> bytes:
        """The payload of a line, empty for a comment. Older llama.cpp sends errors in a field
        `error:`.
        """
        if line.startswith(b"data:"):
            return line.removeprefix(b"data:").strip()
        if line.startswith(b"error:"):
            return b'{"error": ' + line.removeprefix(b"error:").strip() + b"}"
        return b""


def answer_too_long(limit_bytes: int) -> CallRefused:
    return CallRefused(
        f"the answer is longer than max_answer_bytes = {limit_bytes}",
        hint="raise max_answer_bytes, or lower max_tokens",
    )
