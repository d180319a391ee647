"""Text from tokens as they come: a token may be half a character, so a text is only what can no longer change."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

HALF_A_CHARACTER = "\ufffd"


class TextStream:
    """The text of one answer, token by token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said, self._shown = 0, 0
        self.text = ""

    def add(self, token: int) -> str:
        """Take a token; the whole text so far.

        Decodes the last few tokens only, once with and once without the new ones: what a token says may depend on its
        neighbour.
        """
        self._ids.append(token)
        before = self._decode(self._ids[self._said : self._shown])
        after = self._decode(self._ids[self._said :])
        if len(after) > len(before) and not after.endswith(HALF_A_CHARACTER):
            self.text += after[len(before) :]
            self._said, self._shown = self._shown, len(self._ids)
        return self.text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class StopStrings:
    """Says when one of some strings is complete in an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._stream, self._stop = TextStream(tokenizer), stop

    def ends(self, token: int) -> str | None:
        """Take a token; the stop string that stands first in the text, if any does."""
        seen = len(self._stream.text)
        text = self._stream.add(token)
        found = {text.find(each, max(0, seen - len(each) + 1)): each for each in self._stop}
        found.pop(-1, None)
        return found[min(found)] if found else None
