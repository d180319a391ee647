"""The labeler: takes judged critiques, and stores one label for each proof."""

from proofloop.worker.roles import Role
from proofloop_labeler.label import label


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("labeler", {"ReviewJudged": label})
