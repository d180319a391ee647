"""The pages on which people grade proofs and analyses."""

from __future__ import annotations

from proofloop_labeler.review.server import serve

__all__ = ["serve"]
