"""The page on which people grade undecided proofs."""

from __future__ import annotations

from proofloop_labeler.review.server import serve

__all__ = ["serve"]
