"""The pages on which people grade proofs and analyses."""

from __future__ import annotations

from proofloop_labeler.review.mounting import grading_pages

__all__ = ["grading_pages"]
