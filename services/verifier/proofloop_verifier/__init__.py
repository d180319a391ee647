"""The verifier: a proof comes in, one critique of it with a score goes to the store."""

from proofloop.worker.roles import Role, adopt
from proofloop_verifier.review import review


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("verifier", {"ProofWritten": review, "ModelPublished.verifier": adopt})
