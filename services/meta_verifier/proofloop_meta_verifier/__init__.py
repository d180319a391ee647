"""The meta-verifier: takes a critique, and stores the judgement whether its issues are real."""

from proofloop.worker.roles import Role, adopt
from proofloop_meta_verifier.judge import judge


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("meta_verifier", {"ProofReviewed": judge, "ModelPublished.meta_verifier": adopt})
