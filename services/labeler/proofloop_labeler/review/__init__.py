"""The page on which people grade what the labeler could not decide."""

from __future__ import annotations

from proofloop_labeler.review.server import serve

__all__ = ["serve"]
