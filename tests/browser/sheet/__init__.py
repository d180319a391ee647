"""The sheet: constructs of olympiad proofs, each with the picture that LaTeX draws of it.

`constructs.txt` has a name and a formula in a line; `tests.browser.latex` draws the pictures.
`near_misses.txt` has wrong settings, which the comparison must tell from the right ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, label

FOLDER = Path(__file__).parent
EM_PX = 48
"""Both sides draw an em with as many pixels, so sizes can be compared."""

FAINT, DARK = 200, 160
"""A pixel darker than FAINT belongs to the formula; one darker than DARK must have a partner."""

REACH_PX = (4, 5)
"""Down and across: how far the partner may be, a tenth of an em."""

MAX_LOST_PX = 15
"""The largest piece of ink without a partner. The slash of a congruence sign leaves 18."""

SIZE_PX, SIZE_SHARE = 6, 0.04


def constructs() -> Iterator[tuple[str, str]]:
    """The name and the formula of each construct."""
    return _lines("constructs.txt")


def near_misses() -> Iterator[tuple[str, str]]:
    """The name of a construct and a wrong setting of it, written as a formula."""
    return _lines("near_misses.txt")


def _lines(file: str) -> Iterator[tuple[str, str]]:
    for line in (FOLDER / file).read_text("utf-8").splitlines():
        name, _, latex = line.partition(" ")
        yield name, latex.strip()


@dataclass(frozen=True)
class Comparison:
    """Two pictures: their sizes, and the largest piece of ink of one that the other has not."""

    expected: tuple[int, int]
    found: tuple[int, int]
    lost: int

    @property
    def agrees(self) -> bool:
        return self.lost <= MAX_LOST_PX and all(
            abs(one - other) <= SIZE_PX + SIZE_SHARE * max(one, other)
            for one, other in zip(self.expected, self.found, strict=True)
        )


def ink(picture: Image.Image) -> Image.Image:
    """The picture in grey, cut to its ink."""
    grey = np.asarray(picture.convert("L"))
    rows, columns = np.nonzero(grey < FAINT)
    if not rows.size:
        return Image.new("L", (1, 1), 255)
    return Image.fromarray(grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])


def expected(name: str) -> Image.Image:
    """The picture that LaTeX draws of a construct."""
    return Image.open(FOLDER / f"{name}.png").convert("L")


def compare(name: str, found: Image.Image) -> Comparison:
    """Compare a picture that is cut to its ink with the expected one."""
    picture = expected(name)
    one, other = np.asarray(picture), np.asarray(found.resize(picture.size))
    return Comparison(picture.size, found.size, max(_lost(one, other), _lost(other, one)))


def _lost(one: np.ndarray, other: np.ndarray) -> int:
    down, across = REACH_PX
    near = binary_dilation(other < FAINT, np.ones((2 * down + 1, 2 * across + 1)))
    pieces, count = label((one < DARK) & ~near, np.ones((3, 3)))
    return int(np.bincount(pieces.ravel())[1:].max()) if count else 0
