"""The problem of `proofloop prove`: a text, or the path of a file with it."""

from __future__ import annotations

import pytest

from proofloop.cli.prove import _text
from proofloop.errors import ConfigError


@pytest.mark.parametrize("text", ["证明根号二是无理数。", r"$\sqrt{2}\notin\mathbb{Q}$", "1+1=2"])
def test_a_text_without_spaces_is_a_problem(text: str) -> None:
    assert _text(text) == text


@pytest.mark.parametrize("path", ["none.txt", "größe.md", "folder/none", "none"])
def test_a_missing_file_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no file '{path}'"):
        _text(path)
