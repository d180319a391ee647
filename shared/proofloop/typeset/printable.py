"""Shows control characters and invisible characters, which can hide or reorder a text."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"[^\t\n\x20-\x7e\xa0-\U0010ffff]")


def printable(text: str) -> str:
    """Replace control characters. Write invisible characters as code points, because they can
    reorder the visible text.
    """
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).encode("utf-8", "replace").decode()
    invisible = {
        ord(each): f"⟨U+{ord(each):04X}⟩"
        for each in set(text)
        if unicodedata.category(each) == "Cf"
    }
    return text.translate(invisible) if invisible else text
