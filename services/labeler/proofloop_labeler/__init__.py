"""The labeler: judged critiques come in, one label a proof goes to the store."""

from proofloop.worker.roles import Role
from proofloop_labeler.label import label


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("labeler", {"ReviewJudged": label})
