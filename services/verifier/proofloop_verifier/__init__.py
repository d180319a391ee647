"""The verifier: takes a proof, and stores one critique of it with a score."""

from proofloop.worker.roles import Role, adopt
from proofloop_verifier.review import review


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("verifier", {"ProofWritten": review, "ModelPublished.verifier": adopt})
