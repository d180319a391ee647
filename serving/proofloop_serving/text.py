"""Decodes tokens one by one. A token may be half a character: the text holds only complete
characters.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

HALF_A_CHARACTER = "\ufffd"


class TextStream:
    """Decodes one answer token by token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # from here on, tokens are decoded again with the new ones
        self._decoded = 0  # the tokens before this are in `text`
        self.text = ""

    def add(self, token: int) -> str:
        """Add a token; returns the whole text so far.

        Decodes only the last few tokens, once with and once without the new ones, since a token's
        text may depend on the token before.
        """
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._decoded])
        after = self._decode(self._ids[self._context :])
        if len(after) > len(before) and not after.endswith(HALF_A_CHARACTER):
            self.text += after[len(before) :]
            self._context = self._decoded
            self._decoded = len(self._ids)
        return self.text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class StopStrings:
    """Finds the first complete stop string in an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._stream = TextStream(tokenizer)
        self._stop = stop

    def ends(self, token: int) -> str | None:
        """Add a token; returns the stop string that comes first in the text, if any is complete."""
        seen = len(self._stream.text)
        text = self._stream.add(token)
        found = {text.find(each, max(0, seen - len(each) + 1)): each for each in self._stop}
        found.pop(-1, None)
        return found[min(found)] if found else None
